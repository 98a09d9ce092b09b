"""What is on the wire: events in, scores and examples out, and the names of both."""
