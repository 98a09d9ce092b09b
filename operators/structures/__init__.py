"""Data structures of the operators: the index, the table over it, and what is found by deadline, recency or owner."""
