"""The compiled loops, in a folder of their own: a change elsewhere does not make numba compile them again."""
