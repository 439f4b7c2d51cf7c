"""Fixed-point numbers in Z_2^64 and how they are shared."""
