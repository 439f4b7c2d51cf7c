"""Solvers: one file each, all with the signature of `mpc_ray.planner.Solver`."""
