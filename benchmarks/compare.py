"""The peer and mpc-ray in turn, in one run, on one machine: times, bytes, rounds, errors, and their ratios.

    python benchmarks/compare.py --shape minilm --runs 3

The peer is spu_encoder.py (SecretFlow SPU 0.9.5, ABY3, three processes over loopback) in an environment of its own,
.venv-peer, which is made when it is missing (a few minutes of downloads: it brings its own jax). Both work on
the same random weights and the same input, weights and input secret; both clocks start at shared input and stop at
shared output.
``--protocol aby3`` runs mpc-ray under the peer's own protocol, ``malicious_3pc`` under one that proves it.
They take turns, because times on a busy machine drift: quote ratios, with this run's JSON beside them.

The peer's process starts anew for each of its runs, so its time is that of a first pass. mpc-ray's ``seconds`` are the
median of passes after one to warm up; ``first`` compares first passes with first passes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEER = ("spu==0.9.5", "flax")
SHAPES = {"bert-tiny": (2, 128, 2, 512), "minilm": (6, 384, 12, 1536), "bert-base": (12, 768, 12, 3072)}


def peer_python(folder):
    """The peer's interpreter, installed first where there is none yet."""
    python = folder / "bin" / "python"
    done = folder / ".installed"
    if not done.exists():
        print(f"setting up {folder} with {' '.join(PEER)} (once)", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEER], check=True, stdout=sys.stderr)
        done.touch()
    return python


def last_json(command, environ=None):
    """Run a command; its last line of output that is a JSON object."""
    print("$ " + " ".join(map(str, command)), file=sys.stderr)
    answer = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, text=True, check=False, env=environ, cwd=HERE
    )
    lines = [line for line in answer.stdout.splitlines() if line.startswith("{")]
    if answer.returncode or not lines:
        sys.exit(f"compare: {command[0]} ended with code {answer.returncode}: {answer.stdout[-500:]}")
    return json.loads(lines[-1])


def run_peer(python, shape, seq):
    sizes = dict(zip(("layers", "hidden", "heads", "ffn"), SHAPES[shape], strict=True))
    flags = [word for name, value in sizes.items() for word in (f"--{name}", value)]
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return last_json([python, HERE / "spu_encoder.py", *flags, "--seq", seq], environ)


def run_ours(shape, seq, passes, launcher, protocol):
    program = [sys.executable, "-P", "-m", "mpc_ray.cli.main", "bench", "encoder"]
    what = ["--shape", shape, "--seq", seq, "--batch", 1, "--weights", "random", "--runs", passes]
    return last_json(
        [*program, *what, "--launcher", launcher, "--protocol", protocol, "--tls", "--range-check", "--json"]
    )


def comparison(peer, ours):
    """What the runs say, as medians over the turns, and peer / ours. Memory: the largest party."""

    def median(runs, get):
        return statistics.median(get(run) for run in runs)

    rows = {
        "seconds": (median(peer, lambda r: r["seconds"]), median(ours, lambda r: r["seconds_median"])),
        "seconds, first pass": (
            median(peer, lambda r: r["seconds"]),
            median(ours, lambda r: r["first_seconds"]),
        ),
        "bytes sent by one party": (
            median(peer, lambda r: r["party0_bytes_sent"]),
            median(ours, lambda r: max(r["bytes_sent"])),
        ),
        "rounds (peer: sends of one party)": (
            median(peer, lambda r: r["party0_send_actions"]),
            median(ours, lambda r: r["rounds"]),
        ),
        "peak memory of one party": (
            median(peer, lambda r: max(r["peak_rss_bytes"])),
            median(ours, lambda r: max(r["peak_rss_bytes"])),
        ),
        "mean error": (
            median(peer, lambda r: r["mean_abs_error"]),
            median(ours, lambda r: r["mean_abs_error"]),
        ),
        "largest error": (
            median(peer, lambda r: r["max_abs_error"]),
            median(ours, lambda r: r["max_abs_error"]),
        ),
    }
    return {name: {"peer": a, "ours": b, "ratio": a / b} for name, (a, b) in rows.items()}


def show(shape, seq, protocol, rows):
    print(
        f"\n{shape}, {seq} tokens, batch 1, {protocol}, same random weights; ratio is peer / ours",
        file=sys.stderr,
    )
    for name, row in rows.items():
        print(f"  {name:36} {row['peer']:>14.6g} {row['ours']:>14.6g} {row['ratio']:>9.2f}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="minilm")
    parser.add_argument("--seq", type=int, default=128)
    parser.add_argument("--runs", type=int, default=3, help="turns: the peer once, mpc-ray once")
    parser.add_argument("--passes", type=int, default=3, help="measured passes in each of mpc-ray's turns")
    parser.add_argument("--launcher", default="ray", choices=("ray", "processes"))
    parser.add_argument(
        "--protocol", default="semi_honest_3pc", choices=("semi_honest_3pc", "aby3", "malicious_3pc")
    )
    parser.add_argument("--peer-venv", type=Path, default=HERE.parent / ".venv-peer")
    a = parser.parse_args()
    if min(a.seq, a.runs, a.passes) < 1:
        parser.error("--seq, --runs and --passes are at least 1")
    python = peer_python(a.peer_venv.absolute())
    peer, ours = [], []
    for turn in range(a.runs):
        print(f"turn {turn + 1} of {a.runs}", file=sys.stderr)
        peer.append(run_peer(python, a.shape, a.seq))
        ours.append(run_ours(a.shape, a.seq, a.passes, a.launcher, a.protocol))
    rows = comparison(peer, ours)
    show(a.shape, a.seq, a.protocol, rows)
    machine = ours[-1]["machine"]
    print(json.dumps({"shape": a.shape, "seq": a.seq, "protocol": a.protocol, "turns": a.runs, "machine": machine,
                      "comparison": rows, "peer": peer, "ours": ours}))  # fmt: skip


if __name__ == "__main__":
    main()
