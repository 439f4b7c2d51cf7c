"""Search the planner's settings on Ray Tune: what `mpc-ray plan tune` runs. `mpc_ray.planner.tuning` has the sweep."""

from __future__ import annotations

from mpc_ray.tune.runs import Progress
from mpc_ray.tune.sweep import Outcome, tune

__all__ = ["Outcome", "Progress", "tune"]
