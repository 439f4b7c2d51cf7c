"""Every function and an encoder under each protocol, in one run on one machine: rounds, bytes, seconds, errors.

    python benchmarks/protocols.py --shape minilm --runs 3

Prints the table of docs/protocols.md (Markdown) to stderr and one JSON object to stdout. Bytes are those of the party
that sends most, in MB; rounds of a function are those between the parties, range checks included. Protocols take turns,
because times on a busy machine drift: quote ratios.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROTOCOLS = ("semi_honest_3pc", "aby3", "malicious_3pc")
FUNCTIONS = (
    "matmul", "truncate", "lookup", "gelu", "silu", "tanh", "sigmoid", "relu", "negative", "maximum", "argmax",
    "reciprocal", "rsqrt", "layer_norm", "softmax",
)  # fmt: skip


def bench(*words):
    """The JSON object that ``mpc-ray bench`` prints."""
    command = [sys.executable, "-P", "-m", "mpc_ray.cli.main", "bench", *map(str, words), "--json"]
    print("$ mpc-ray bench " + " ".join(map(str, words)), file=sys.stderr)
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, cwd=HERE)
    lines = [line for line in answer.stdout.splitlines() if line.startswith("{")]
    if answer.returncode or not lines:
        sys.exit(f"protocols: mpc-ray ended with code {answer.returncode}: {answer.stdout[-500:]}")
    return json.loads(lines[-1])


def cells(run):
    """Rounds, MB, seconds, mean error of one measurement."""
    return (
        f"{run['rounds']:,} · {max(run['bytes_sent']) / 1e6:.3g} · {run['seconds_median']:.3g} · "
        f"{run['mean_abs_error']:.1e}"
    )


def table(rows):
    """Markdown of ``rows``: {name: {protocol: run}}."""
    lines = ["| | " + " | ".join(PROTOCOLS) + " |", "|---" * (1 + len(PROTOCOLS)) + "|"]
    for name, runs in rows.items():
        lines.append(
            "| " + " | ".join([name, *(cells(runs[p]) if p in runs else "–" for p in PROTOCOLS)]) + " |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", action="append", help="an encoder; may be given more than once")
    parser.add_argument("--seq", type=int, default=128)
    parser.add_argument("--runs", type=int, default=3, help="measured passes of each")
    parser.add_argument("--function", action="append", choices=[*FUNCTIONS, "none"], help="default: all")
    parser.add_argument("--launcher", default="ray", choices=("ray", "processes", "threads"))
    a = parser.parse_args()
    if min(a.seq, a.runs) < 1:
        parser.error("--seq and --runs are at least 1")
    chosen = [name for name in a.function or FUNCTIONS if name != "none"]
    rows = {}
    for name in chosen:
        found = {p: bench("ops", "--op", name, "--protocol", p, "--runs", a.runs, "--launcher", a.launcher)
                 for p in PROTOCOLS}  # fmt: skip
        rows[f"{name} {found[PROTOCOLS[0]]['size']}"] = found
    for shape in a.shape or ["minilm"]:
        what = ["encoder", "--shape", shape, "--seq", a.seq, "--batch", 1, "--weights", "random"]
        rows[f"{shape}, {a.seq} tokens"] = {
            p: bench(*what, "--runs", a.runs, "--launcher", a.launcher, "--protocol", p) for p in PROTOCOLS
        }
    print("\nrounds · MB of the largest party · seconds · mean error\n\n" + table(rows), file=sys.stderr)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
