"""Generalised assignment: the default solver against OR-Tools CP-SAT and the controls, in one table.

    python benchmarks/gap.py --seconds 10 --seeds 3
    python benchmarks/gap.py --problems d:20x200,e:40x400 --files d05100 --solvers annealing,cp-sat --json gap.json

Problems are generated anew (types a to e of the literature; --instance gives others), so none of them is one that
the settings were tuned on; files are in the OR-Library's format. Each solver gets the same seconds and two threads
(CP-SAT: two workers) on each problem and seed, one after the other, in turn. Compilation and imports are not in the
time.

The gap is (cost - bound) / bound with the best bound that any of the solvers proved. "opt" counts the seeds that
ended with a proof.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mpc_ray.bench.machine import machine
from mpc_ray.planner.assignment import SOLVERS, Answer, Assignment, generate, read, solve, warm

PROBLEMS = (
    "a:5x100,a:20x200,b:10x100,b:20x200,c:5x100,c:10x100,c:20x200,c:40x400,"
    "d:5x100,d:10x100,d:20x200,d:40x400,d:80x1600,e:5x100,e:10x100,e:20x200,e:40x400,e:80x1600"
)


def named(word: str, instance: int) -> tuple[str, Assignment]:
    """``d:20x200`` as a generated problem."""
    kind, _, size = word.partition(":")
    agents, _, jobs = size.partition("x")
    return word, generate(kind, int(agents), int(jobs), instance)


def measured(problem: Assignment, solver: str, seconds: float, seed: int) -> Answer:
    """One solver's answer, checked."""
    answer = solve(problem, seconds=seconds, seed=seed, solver=solver)
    if answer.agents is not None:
        assert problem.violations(np.array(answer.agents)) == []
    return answer


def row(name: str, problem: Assignment, solvers: list[str], seconds: float, seeds: int) -> dict[str, Any]:
    """All answers to one problem."""
    answers = {solver: [] for solver in solvers}
    for seed in range(seeds):
        for solver in solvers:
            answers[solver].append(measured(problem, solver, seconds, seed))
    bounds = [a.bound for of in answers.values() for a in of if a.bound is not None]
    bound = max(bounds) if bounds else None
    said: dict[str, Any] = {"problem": name, "agents": problem.agents, "jobs": problem.jobs, "bound": bound}
    for solver, of in answers.items():
        costs = [np.inf if a.cost is None else a.cost for a in of]
        middle = statistics.median(costs)
        found = np.isfinite(middle)
        said[solver] = {
            "costs": [None if np.isinf(c) else c for c in costs],
            "median": middle if found else None,
            "gap": (middle / bound - 1) if bound and found else None,
            "worst_gap": (max(costs) / bound - 1) if bound and np.isfinite(max(costs)) else None,
            "optimal": sum(a.status == "optimal" for a in of),
            "seconds": statistics.median(a.seconds for a in of),
            "last_better_s": statistics.median(a.trace[-1][0] if a.trace else np.nan for a in of),
        }
    return said


def line(said: dict[str, Any], solvers: list[str]) -> str:
    """One row of the table: gap in per cent, seeds with proof."""
    cells = []
    for solver in solvers:
        of = said[solver]
        gap = "none" if of["gap"] is None else f"{100 * of['gap']:.3f}"
        cells.append(f"{gap:>8}{'*' * (of['optimal'] > 0)}".ljust(max(len(solver), 9) + 1))
    bound = "-" if said["bound"] is None else f"{said['bound']:g}"
    return f"{said['problem']:12} {bound:>8} " + " ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", default=PROBLEMS, help="types and sizes, such as d:20x200; empty: none")
    parser.add_argument("--files", default="", help="files in the OR-Library's format, commas between")
    parser.add_argument("--instance", type=int, default=2026, help="seed of the generated problems")
    parser.add_argument("--solvers", default="annealing,cp-sat,descent,potts-sb,prices-greedy")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    args = parser.parse_args()
    solvers = args.solvers.split(",")
    if not set(solvers) <= set(SOLVERS):
        sys.exit(f"solvers are {', '.join(SOLVERS)}")
    problems = [named(word, args.instance) for word in args.problems.split(",") if word]
    problems += [(Path(file).name, read(Path(file))) for file in args.files.split(",") if file]
    warm()
    about = machine()
    head = f"{'problem':12} {'bound':>8} " + " ".join(f"{s:>8}".ljust(max(len(s), 9) + 1) for s in solvers)
    print(
        f"gap to the best bound in %, median of {args.seeds} seeds, {args.seconds:g} s; *: proved optimal\n{head}"
    )
    rows = []
    for name, problem in problems:
        rows.append(row(name, problem, solvers, args.seconds, args.seeds))
        print(line(rows[-1], solvers), flush=True)
    print(f"machine: {json.dumps(about)}")
    if args.json:
        said = {
            "machine": about,
            "seconds": args.seconds,
            "seeds": args.seeds,
            "instance": args.instance,
            "rows": rows,
        }
        Path(args.json).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
