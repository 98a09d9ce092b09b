"""What numba lacks and what bits rest on: compilation, references, lanes, prefetch, numerics, hashing, memory."""
