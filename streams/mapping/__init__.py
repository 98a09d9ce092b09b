"""Other systems' records: their bytes by codecs, their fields by `[mapping]`, to our own events."""
