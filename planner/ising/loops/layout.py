"""Sizes that loops and callers share."""

LANES = 32  # copies side by side
TABLE = 1 << 16  # logarithms that a sweep reads from
