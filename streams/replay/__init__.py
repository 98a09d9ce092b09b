"""A log file through the fold: scores, summary and report."""
