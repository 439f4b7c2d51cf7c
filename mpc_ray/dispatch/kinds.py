"""Kinds of jobs as the plan has them: a model and about a size; and what a run of one costs before any was measured."""

from __future__ import annotations

from mpc_ray.planner.jobs import Group, Variant

# A batch's first guess, until batches were measured: MiniLM's, of which the ratios count (docs/benchmarks.md).
ROUNDS = 137.0
BYTES_A_TOKEN = 1.0e6
WORK_S_A_TOKEN = 0.015
RTT_S, BANDWIDTH = 1e-3, 1e8


def group_of(model: str, tokens: int) -> Group:
    """Jobs of one model and about one size: ``tokens`` (texts × length) up to the next power of two."""
    size = 1 << max(0, tokens - 1).bit_length()
    variant = Variant("fewest bytes", ROUNDS, BYTES_A_TOKEN * size)
    return Group(f"{model[:64]}/{size}", model[:64], WORK_S_A_TOKEN * size, (variant,))
