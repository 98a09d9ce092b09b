"""What is computed. Read `processor.py` first: it is the fold."""
