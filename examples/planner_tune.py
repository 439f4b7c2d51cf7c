"""Tune the planner from Python: search settings for your own kind of problem, then solve with what was found.

    .venv/bin/python examples/planner_tune.py --folder tuning

Stop it whenever you like, with Ctrl-C or worse: the same command goes on from the folder. The sweep here is small,
and counts moves instead of seconds, so the same seed gives the same answer; configs/planner/sweep.yaml shows a real
one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mpc_ray.errors import MpcError
from mpc_ray.planner.assignment import generate, solve
from mpc_ray.planner.settings import section
from mpc_ray.planner.tuning import parse
from mpc_ray.tune import tune

SWEEP = {
    "trials": 6,
    "rungs": [2, 4],
    "held_out_seeds": 2,
    "targets": {
        "gap": {
            "moves": 20_000,
            "settings": {"hot": {"log": True}, "proposals": {"low": 50, "high": 1000, "log": True}},
            "train": [{"family": "d", "size": "8x64", "count": 4, "first_seed": 1}],
            "held_out": [{"family": "d", "size": "9x72", "count": 2, "first_seed": 100}],
        }
    },
}


def show(stage: str, done: int, total: int, remark: str) -> None:
    """One line for each step."""
    print(f"{stage}: {done} of {total} {remark}", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("planner-tune"), help="where results are kept")
    parser.add_argument("--write", type=Path, default=Path("planner-settings.yaml"), help="the settings file")
    args = parser.parse_args()
    try:
        (outcome,) = tune(parse(SWEEP), args.folder, args.write, progress=show)
    except MpcError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    gain, spread = 100 * outcome.verdict.improvement, 100 * outcome.verdict.spread
    print(f"best of {outcome.trials} trials: {outcome.best}")
    print(f"held out: {gain:+.3f} % better than the defaults, spread {spread:.3f} %")
    print(f"written to {args.write}" if outcome.written else "not written: the defaults are as good")
    settings = section("gap", args.write if outcome.written else None)
    answer = solve(generate("d", 9, 72, seed=7), moves=20_000, settings=settings)
    print(f"a new problem with these settings: cost {answer.cost:g}, bound {answer.bound:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
