"""Questions over HTTP: a worker's answers from live state."""
