"""What the solvers of workloads run with; `mpc-ray plan tune` searches these ranges."""

from __future__ import annotations

from dataclasses import dataclass

from mpc_ray.planner.settings import ranged


@dataclass(frozen=True)
class JobSettings:
    """Settings of the native walks, of bifurcation's starts, and of the sizes at which the portfolio changes.

    Temperatures are in F/n: the yardstick's energy over the number of jobs.
    """

    hot: float = ranged(6.0, 0.3, 30.0, "first temperature of annealing, hottest of tempering, in F/n")
    cold: float = ranged(0.017, 0.002, 0.3, "last and coldest temperature, in F/n")
    near: int = ranged(12, 3, 60, "how many of a job's quickest triples are proposed to it")
    swaps: float = ranged(0.2, 0.0, 0.5, "share of moves that swap two jobs")
    groups: float = ranged(0.05, 0.0, 0.3, "share of moves that take a job's whole group from its queue")
    recuts: float = ranged(0.1, 0.0, 0.3, "share of moves that cut or order a queue otherwise")
    mates: float = ranged(0.3, 0.0, 0.8, "share of moves that send a job to where another of its group is")
    deep: float = ranged(0.3, 0.02, 0.6, "how far below the makespan m stands at first (a share)")
    shallow: float = ranged(0.02, 0.001, 0.2, "how far below the makespan m stands at the end (a share)")
    slices: int = ranged(30, 4, 100, "walks of a run, between which m and z are renewed")
    kick: float = ranged(0.02, 0.002, 0.2, "share of the jobs that a stuck descent moves at random")
    ladder: int = ranged(8, 2, 40, "temperatures of tempering")
    starts: float = ranged(0.3, 0.05, 0.8, "share of its time in which bifurcation looks for starts")
    small: int = ranged(50, 0, 200, "jobs up to which a workload is small: it has bifurcation's starts too")
    large: int = ranged(
        500, 100, 5000, "jobs from which on a workload is large: a previous plan is mended by descent"
    )
