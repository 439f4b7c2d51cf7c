"""Jobs over triples: each solver against batch-aware earliest completion, repair after a death, and jobs that come one
by one, in three tables.

    python benchmarks/schedule.py --seeds 5 --json schedule.json
    python benchmarks/schedule.py --sizes 200x30 --seconds 0.2 --parts plans

Workloads are generated (`planner.jobs.generate`; --first gives other seeds). `plans`: how many per cent lower F is than
the yardstick's, median and least over seeds and families, for each size and deadline; `random` is the control, random
starts with the same descent. A plan that is worse than the yardstick in makespan, mean, p95 or late jobs, one that
breaks a hard limit, and the longest overrun of the deadline are counted. `repair`: a triple of a plan dies; F after
20 ms over that of plans made anew in 20 ms, 200 ms and a second; jobs moved beyond the orphans. `online`: discrete
events, loads 0.5 to 3, a triple dies halfway; the planner over earliest completion. `exact`: makespan alone, CP-SAT's
bound.

With --cpu the clock counts processor time, with one thread: ratios of a busy machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

from mpc_ray.bench.machine import machine
from mpc_ray.planner.jobs import Recipe, Schedule, Weights, Workload, generate, plan_jobs, warm
from mpc_ray.planner.jobs.arrays import compile_workload
from mpc_ray.planner.jobs.clock import Clock
from mpc_ray.planner.jobs.emulate import Change, emulate
from mpc_ray.planner.jobs.live import Live
from mpc_ray.planner.jobs.policies import Earliest

SIZES = "16x16,200x30,1000x100"
SECONDS = "0.01,0.2,1"
SOLVERS = "portfolio,greedy,descent,annealing,tempering,bifurcation,random"
FAMILIES = (("mixed", 30), ("mixed", 6), ("cross", 30), ("cross", 6))
PARTS = ("plans", "repair", "online", "exact")


def broken(workload: Workload, schedule: Schedule) -> int:
    """Hard limits that a plan breaks, from the workload itself."""
    jobs = {job.name: job for job in workload.jobs}
    triples = {triple.name: triple for triple in workload.triples}
    models = {group.name: (group.model, group.memory_gb) for group in workload.groups}
    found = 0
    for name, place in schedule.placement.items():
        job, (model, memory) = jobs[name], models[jobs[name].group]
        for worker in triples[place].workers:
            found += job.regions is not None and worker.region not in job.regions
            found += worker.region in job.forbidden_regions or worker.memory_gb < memory
            found += worker.models is not None and model not in worker.models
    return found + sum(len(batch.jobs) > workload.batch for batch in schedule.batches)


def plans(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each size and deadline."""
    rows = []
    for size in args.sizes.split(","):
        jobs, triples = (int(side) for side in size.split("x"))
        for seconds in (float(word) for word in args.seconds.split(",")):
            row: dict[str, Any] = {"size": size, "seconds": seconds}
            for solver in args.solvers.split(","):
                gains, worse, limits, over = [], 0, 0, 0.0
                for family, groups in FAMILIES:
                    for seed in range(args.first, args.first + args.seeds):
                        workload = generate(Recipe(jobs, triples, seed, family, groups))
                        began = time.perf_counter()
                        found = plan_jobs(
                            workload, deadline_s=seconds, seed=seed, solver=solver, threads=args.threads
                        )
                        over = max(over, time.perf_counter() - began - seconds)
                        gains.append(100 * (1 - found.measures.energy / found.yardstick.energy))
                        worse += not found.guarded
                        limits += broken(workload, found)
                row[solver] = {
                    "median": statistics.median(gains), "least": min(gains), "worse": worse, "limits": limits,
                    "over_ms": 1e3 * over, "plans": len(gains),
                }  # fmt: skip
            rows.append(row)
    return rows


def repair(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The busiest triple of a second's plan dies."""
    rows = []
    for family, groups in FAMILIES:
        for seed in range(args.first, args.first + args.seeds):
            workload = generate(Recipe(200, 30, seed, family, groups))
            before = plan_jobs(workload, deadline_s=1.0, seed=seed, threads=args.threads).placement
            dead, orphans = Counter(sorted(before.values())).most_common(1)[0]
            left = replace(workload, triples=tuple(t for t in workload.triples if t.name != dead))
            after = plan_jobs(
                left, deadline_s=0.02, seed=seed, previous=before, most_moves=5, threads=args.threads
            )
            row = {"family": f"{family}:{groups}", "seed": seed, "orphans": orphans, "moved": after.moved}
            row |= {"limits": broken(left, after), "ms": 1e3 * after.seconds}
            for name, seconds in (("cold_20ms", 0.02), ("cold_200ms", 0.2), ("cold_1s", 1.0)):
                cold = plan_jobs(left, deadline_s=seconds, seed=seed + 1, threads=args.threads)
                row[name] = after.measures.energy / cold.measures.energy
            rows.append(row)
    return rows


def online(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Jobs come one by one, and a triple dies when half have come."""
    rows = []
    for family, groups in FAMILIES:
        for load in (0.5, 1.0, 2.0, 3.0):
            for seed in range(args.first, args.first + args.seeds):
                compiled = compile_workload(generate(Recipe(200, 30, seed, family, groups, load=load)))
                half = statistics.median((compiled.data.arrived + compiled.now_s).tolist())
                changes = (Change(half, seed % 30, inf),)
                mine = emulate(compiled, changes, lambda w, c=changes, s=seed: Live(w, c, s))  # type: ignore[misc]
                theirs = emulate(compiled, changes, Earliest)
                row = {"family": f"{family}:{groups}", "load": load, "seed": seed}
                row |= {
                    name: getattr(mine, name) / getattr(theirs, name)
                    for name in ("makespan_s", "p95_s", "mean_s", "tail_s")
                }
                rows.append(row | {"late": mine.late - theirs.late})
    return rows


def exact(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Makespan alone, CP-SAT for ten seconds beside the portfolio's one."""
    from mpc_ray.planner.jobs.exact import prove
    from mpc_ray.planner.jobs.search import Search

    rows = []
    for size in args.sizes.split(","):
        jobs, triples = (int(side) for side in size.split("x"))
        for seed in range(args.first, args.first + args.seeds):
            recipe = Recipe(jobs, triples, seed, weights=Weights(1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
            workload = generate(recipe)
            found = plan_jobs(workload, deadline_s=1.0, seed=seed, threads=args.threads)
            proof = prove(Search(compile_workload(workload), Clock(None)), seconds=10.0, workers=2, seed=seed)
            rows.append(
                {"size": size, "seed": seed, "portfolio_s": found.measures.makespan_s,
                 "earliest_s": found.yardstick.makespan_s,
                 "cp_sat_s": proof.makespan_s, "bound_s": proof.bound_s, "proved": proof.proved}
            )  # fmt: skip
    return rows


def show(part: str, rows: list[dict[str, Any]]) -> None:
    """A table in Markdown."""
    print(f"\n## {part}\n")
    if part == "plans":
        solvers = [name for name in rows[0] if name not in ("size", "seconds")]
        print("| size | seconds |", " | ".join(solvers), "|\n|---|---|" + "---|" * len(solvers))
        for row in rows:
            cells = [
                f"{row[s]['median']:.1f} ({row[s]['least']:.1f})"
                + (f" worse {row[s]['worse']}" if row[s]["worse"] else "")
                + (f" LIMITS {row[s]['limits']}" if row[s]["limits"] else "")
                for s in solvers
            ]
            print(f"| {row['size']} | {row['seconds']:g} |", " | ".join(cells), "|")
        print(f"\nlongest overrun {max(row[s]['over_ms'] for row in rows for s in solvers):.1f} ms")
        return
    names = list(rows[0])
    print("|", " | ".join(names), "|\n|" + "---|" * len(names))
    for row in rows:
        print("|", " | ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()), "|")
    for name in names:
        values = [row[name] for row in rows if isinstance(row[name], int | float)]
        if len(values) == len(rows) and name not in ("seed", "load"):
            print(
                f"{name}: median {statistics.median(values):.3f}, least {min(values):.3f}, most {max(values):.3f}"
            )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default=SIZES, help="jobs x triples")
    parser.add_argument("--seconds", default=SECONDS)
    parser.add_argument("--solvers", default=SOLVERS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=100, help="first seed of workloads")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--cpu", action="store_true", help="processor time instead of the wall's, one thread")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    if args.cpu:
        args.threads = 1
        Clock.__init__.__defaults__ = (None, time.process_time)  # type: ignore[misc]
    warm()
    work = {"plans": plans, "repair": repair, "online": online, "exact": exact}
    said: dict[str, Any] = {"machine": machine(), "arguments": {k: str(v) for k, v in vars(args).items()}}
    for part in args.parts.split(","):
        said[part] = work[part](args)
        show(part, said[part])
    if args.json:
        args.json.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
