"""Log files: reading and writing them, making them from tables or from nothing."""
