"""Approximations of non-linear functions on windows: fits, tables, ranges, errors. Floats only, no shares."""
