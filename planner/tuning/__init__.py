"""What tuning is about, without what runs it: the sweep, what settings are worth, and when they are written down.

`mpc_ray.tune` runs it on Ray Tune.
"""

from __future__ import annotations

from mpc_ray.planner.tuning.sweep import Knob, ProblemSpec, Sweep, Target, parse, read
from mpc_ray.planner.tuning.targets import TARGETS, log_value, problem
from mpc_ray.planner.tuning.verdict import Verdict, judge, loss

__all__ = [
    "TARGETS",
    "Knob",
    "ProblemSpec",
    "Sweep",
    "Target",
    "Verdict",
    "judge",
    "log_value",
    "loss",
    "parse",
    "problem",
    "read",
]
