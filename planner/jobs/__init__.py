"""Jobs over triples: `plan_jobs` says which triple runs which job, in which batch and turn.

    from mpc_ray.planner import plan
    from mpc_ray.planner.jobs import Recipe, generate, warm

    warm()                                          # once a process: loads the compiled loops
    schedule = plan(generate(Recipe(jobs=200, triples=30)), deadline_s=0.2)
    schedule.placement["j0"], schedule.measures, schedule.yardstick

Importing this needs numpy and nothing compiled.
"""

from __future__ import annotations

from mpc_ray.planner.jobs.cost import Fit, Measurement, fit, predicted_s
from mpc_ray.planner.jobs.generate import Recipe, generate
from mpc_ray.planner.jobs.schedule import Batch, Point, Schedule
from mpc_ray.planner.jobs.solve import plan_jobs
from mpc_ray.planner.jobs.timetable import Measures
from mpc_ray.planner.jobs.warm import ready, warm
from mpc_ray.planner.jobs.workload import (
    Calibration,
    Group,
    Job,
    Link,
    Triple,
    Variant,
    Weights,
    Worker,
    Workload,
)

__all__ = [
    "Batch",
    "Calibration",
    "Fit",
    "Group",
    "Job",
    "Link",
    "Measurement",
    "Measures",
    "Point",
    "Recipe",
    "Schedule",
    "Triple",
    "Variant",
    "Weights",
    "Worker",
    "Workload",
    "fit",
    "generate",
    "plan_jobs",
    "predicted_s",
    "ready",
    "warm",
]
