"""What malicious_3pc's proofs cost: core seconds a party for a million products, gates or truncations, and matrices.

Three parties in threads compute and prove one thing at a time; a party's proofs run in a thread of their own, whose CPU
time is what is shown: one proof as prover, one as A, one as chair. Prints a table, and JSON with --json.

    python benchmarks/proofs.py [--repeat 3] [--json]
    python benchmarks/proofs.py --shape minilm --shape bert-base [--seq 128] [--json]

With --shape, a whole encoder instead, under aby3 and under malicious_3pc, a process a party: CPU seconds of the proofs'
thread (never wall time: a busy machine lengthens that), a party and in sum, and how much higher each party's
memory rises than aby3's: claims, proofs, and the weights' pieces that are kept for them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch

from mpc_ray.bench.machine import machine
from mpc_ray.channel.local import local_channels
from mpc_ray.correlation.prf import Correlation
from mpc_ray.kernels.warm import warm, warm_proofs
from mpc_ray.protocols.aby3 import bits, product, truncate
from mpc_ray.protocols.aby3.place import Place
from mpc_ray.protocols.malicious.background import Background
from mpc_ray.protocols.malicious.copies import Copies
from mpc_ray.protocols.runtime import Protocol, Runtime
from mpc_ray.sharing.replicated import Shared

MILLION = 1 << 20
JOB = bytes(16)
Body = Callable[[Runtime], Protocol[Any]]


def shared(*shape: int) -> list[Shared]:
    """Random shares of random values."""
    pieces = [torch.randint(-(2**62), 2**62, shape) for _ in range(3)]
    return [Shared(pieces[i], pieces[(i + 1) % 3], 0) for i in range(3)]


def small(*shape: int) -> list[Shared]:
    """Shares of values of 40 bits."""
    first, second = (torch.randint(-(2**62), 2**62, shape) for _ in range(2))
    value = torch.randint(-(2**40), 2**40, shape)
    pieces = [first, second, value - first - second]
    return [Shared(pieces[i], pieces[(i + 1) % 3], 0) for i in range(3)]


def multiply(x: list[Shared], y: list[Shared]) -> Body:
    return lambda r: product.multiply(Place(r, "bench", "product"), x[r.me], y[r.me])


def matmul(x: list[Shared], y: list[Shared]) -> Body:
    return lambda r: product.matmul(Place(r, "bench", "matrix"), x[r.me], y[r.me])


def truncated(x: list[Shared]) -> Body:
    return lambda r: truncate.truncate(Place(r, "bench", "truncate"), x[r.me], 16)


def gates(x: list[Shared], y: list[Shared]) -> Body:
    halves = [[bits.Bits(one.own, one.next) for one in side] for side in (x, y)]
    return lambda r: bits.and_(Place(r, "bench", "and"), halves[0][r.me], halves[1][r.me])


def cases() -> list[tuple[str, float, Body]]:
    """(what, millions of it, the program)."""
    words = 1 << 18
    found = [
        ("products", 1.0, multiply(shared(MILLION), shared(MILLION))),
        ("truncations", 1.0, truncated(small(MILLION))),
        ("AND gates", 64 * words / MILLION, gates(shared(words), shared(words))),
    ]
    shapes = [(768, 768), (768, 3072), (3072, 768), (384, 384), (384, 1536), (1536, 384)]
    for k, n in shapes:
        found.append((f"matrix 128×{k}×{n}", 0.0, matmul(shared(128, k), shared(k, n))))
    found.append(("QKᵀ, 12 heads", 0.0, matmul(shared(12, 128, 64), shared(12, 64, 128))))
    found.append(("PV, 12 heads", 0.0, matmul(shared(12, 128, 128), shared(12, 128, 64))))
    return found


def once(body: Body) -> dict[str, float]:
    """Core seconds of the proofs of each party (the mean of three), chunks, and bytes of all messages of all proofs."""
    channels = local_channels(600.0)
    seeds = [os.urandom(32) for _ in range(3)]
    seconds, sizes, errors = [0.0] * 3, [0] * 3, []
    chunks = [0] * 3

    def party(me: int) -> None:
        try:
            own = {i: seeds[i] for i in (me, (me + 1) % 3)}
            runtime = Runtime(channels[me], Correlation(me, own, os.urandom(32)))
            runtime.begin(JOB, 0)
            background = Background(runtime, JOB, 0, Copies(me))
            runtime.run(background.alongside(body(runtime)))
            seconds[me], chunks[me] = background.clock.seconds, background.chunks
            split = channels[me].meter.snapshot()["split"]
            sizes[me] = sum(entry["bytes"] for entry in split if entry["label"].startswith("proof/"))
        except BaseException as error:  # noqa: BLE001 - shown by the caller
            errors.append(error)
            channels[me].fail(error)

    threads = [threading.Thread(target=party, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return {"seconds": sum(seconds) / 3, "bytes": sum(sizes), "chunks": chunks[0]}


def encoder(shape: str, seq: int, runs: int) -> dict[str, Any]:
    """What verification costs an encoder: core seconds, and MB of memory of each party above aby3's."""
    found = {}
    for protocol in ("aby3", "malicious_3pc"):
        words = ["encoder", "--shape", shape, "--seq", seq, "--weights", "random", "--runs", runs, "--json"]
        words += ["--protocol", protocol, "--launcher", "processes"]
        command = [sys.executable, "-P", "-m", "mpc_ray.cli.main", "bench", *map(str, words)]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        lines = [line for line in answer.stdout.splitlines() if line.startswith("{")]
        if answer.returncode or not lines:
            sys.exit(f"proofs: mpc-ray ended with code {answer.returncode}: {answer.stdout[-500:]}")
        found[protocol] = json.loads(lines[-1])
    plain, proved = found["aby3"], found["malicious_3pc"]
    seconds = proved["compute_seconds_by_function"]["proofs"]  # of all three
    memory = [(b - a) / 1e6 for a, b in zip(plain["peak_rss_bytes"], proved["peak_rss_bytes"], strict=True)]
    sent = [max(run["bytes_sent"]) for run in (plain, proved)]
    return {
        "what": f"{shape}, {seq} tokens",
        "verify_seconds_sum": seconds,
        "verify_seconds_a_party": seconds / 3,
        "memory_mb": memory,
        "byte_ratio": sent[1] / sent[0],
        "seconds": [run["seconds_min"] for run in (plain, proved)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="cost of malicious_3pc's proofs")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument(
        "--shape", action="append", default=[], help="an encoder; may be given more than once"
    )
    parser.add_argument("--seq", type=int, default=128)
    arguments = parser.parse_args()
    encoders = [encoder(shape, arguments.seq, arguments.repeat) for shape in arguments.shape]
    if encoders and arguments.json:
        print(json.dumps({"machine": machine(), "rows": encoders}))
        return
    for row in encoders:
        memory = " ".join(f"{m:.0f}" for m in row["memory_mb"])
        print(
            f"{row['what']}: verification {row['verify_seconds_a_party']:.2f} core s a party, "
            f"{row['verify_seconds_sum']:.2f} in all"
        )
        print(f"  memory above aby3's {memory} MB a party; bytes {row['byte_ratio']:.4f} times aby3's")
        print(f"  seconds {row['seconds'][1]:.2f}, aby3 {row['seconds'][0]:.2f} (wall)")
    if encoders:
        return
    torch.set_num_threads(1)
    warm()
    warm_proofs()
    rows = []
    for name, millions, body in cases():
        if arguments.only not in name:
            continue
        runs = [once(body) for _ in range(arguments.repeat)]
        best = min(runs, key=lambda run: run["seconds"])
        per = best["seconds"] / millions if millions else None
        rows.append({"what": name, **best, "millions": millions, "seconds_a_million": per})
        if not arguments.json:
            rate = f"{per:8.4f} s a million" if per else ""
            print(
                f"{name:22} {best['seconds']:8.4f} s a party  {best['chunks']:3} chunks {best['bytes']:8} B  {rate}",
                flush=True,
            )
    if arguments.json:
        print(json.dumps({"machine": machine(), "rows": rows}))


if __name__ == "__main__":
    main()
