"""Load or compile every loop before a clock runs.

Loading from the cache on disk takes about half a second, numba's own import included; compiling, once a machine and
version, about half a minute.
"""

from __future__ import annotations

import threading

_lock = threading.Lock()
_ready = threading.Event()


def ready() -> bool:
    """Whether the loops are loaded in this process."""
    return _ready.is_set()


def warm() -> None:
    """Run every solver once on a tiny workload; the second time it returns at once."""
    with _lock:
        if _ready.is_set():
            return
        from mpc_ray.planner.jobs.arrays import compile_workload
        from mpc_ray.planner.jobs.clock import Clock, Lane
        from mpc_ray.planner.jobs.generate import Recipe, generate
        from mpc_ray.planner.jobs.native import Walking
        from mpc_ray.planner.jobs.portfolio import SOLVERS
        from mpc_ray.planner.jobs.search import Search

        compiled = compile_workload(generate(Recipe(jobs=6, triples=3)))
        for solver in SOLVERS.values():
            solver(Search(compiled, Clock(None)), Lane(Clock(None), 1, moves=60), Walking())
        _ready.set()
