"""Benchmarks: one encoder pass, single functions, kernels. Everything measured in the run that reports it."""
