"""Checkpoints: their format, the folders and object stores that hold them, and their verification."""
