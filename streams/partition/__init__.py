"""A partition: the one path of records through the fold, and what belongs to it."""
