"""Comparison under aby3, by words of gates and by Yao's sharing: rounds, bytes and seconds over emulated links.

    python benchmarks/yao.py --count 192 1920 19200 --rtt-ms 0 10 50 --mbit 1000

[x < 0] of shared numbers, as shared 0 or 1, three parties in threads of one process. A frame arrives half a round trip,
and its bytes over the bandwidth, after it was sent. Prints a table (Markdown) to stderr and one JSON object to stdout:
for each way its rounds, the largest party's bytes and the fastest of ``--runs``, and which one ``choice.choose`` takes.
"""

import argparse
import json
import os
import sys
import threading
import time

import torch

from mpc_ray.bench.machine import machine
from mpc_ray.channel.local import local_channels
from mpc_ray.correlation.prf import Correlation
from mpc_ray.cost.links import Link
from mpc_ray.protocols.aby3 import yao
from mpc_ray.protocols.aby3.choice import break_even_rtt_s, choose
from mpc_ray.protocols.aby3.compare import negative
from mpc_ray.protocols.aby3.place import Place
from mpc_ray.protocols.runtime import Runtime
from mpc_ray.sharing.replicated import Shared, reconstruct

WAYS = {"boolean": negative, "yao": yao.negative}


class Far:
    """A channel whose frames arrive late."""

    def __init__(self, channel, link, sent):
        self._channel, self._link, self._sent = channel, link, sent

    def __getattr__(self, name):
        return getattr(self._channel, name)

    def send(self, peer, step, clock, parts):
        size = sum(part.nbytes for part in parts)
        wire = 0 if self._link.bits_per_s is None else 8 * size / self._link.bits_per_s
        self._sent[self.me, peer, step] = time.monotonic() + self._link.rtt_s / 2 + wire
        self._channel.send(peer, step, clock, parts)

    def receive(self, peer, step, into):
        clock = self._channel.receive(peer, step, into)
        time.sleep(max(0.0, self._sent[peer, self.me, step] - time.monotonic()))
        return clock


def once(way, pieces, link):
    """Seconds, rounds, bytes of the largest party, and the result."""
    sent = {}
    channels = [Far(c, link, sent) for c in local_channels()]
    seeds = [os.urandom(32) for _ in range(3)]
    results = [None] * 3
    parties = [
        Runtime(channels[i], Correlation(i, {j: seeds[j] for j in (i, (i + 1) % 3)}, os.urandom(32)))
        for i in range(3)
    ]

    def party(i):
        parties[i].begin(bytes(16), 0)
        x = Shared(pieces[i], pieces[(i + 1) % 3], 0)
        results[i] = parties[i].run(WAYS[way](Place(parties[i], "bench", way), x))

    threads = [threading.Thread(target=party, args=(i,)) for i in range(3)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    meters = [c.meter for c in channels]
    return seconds, max(m.rounds for m in meters), max(m.bytes_sent for m in meters), reconstruct(results)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, nargs="+", default=[192, 1920, 19200], help="numbers compared")
    parser.add_argument("--rtt-ms", type=float, nargs="+", default=[0, 10, 50], help="round trips")
    parser.add_argument("--mbit", type=float, default=None, help="bandwidth; without it there is no limit")
    parser.add_argument("--runs", type=int, default=3)
    a = parser.parse_args()
    if min(*a.count, a.runs, 1) < 1:
        parser.error("--count and --runs are at least 1")
    torch.set_num_threads(1)
    bits = None if a.mbit is None else a.mbit * 1e6
    rows = []
    for count in a.count:
        x = torch.randint(-(2**62), 2**62, (count,))
        pieces = [torch.randint(-(2**62), 2**62, (count,)) for _ in range(2)]
        pieces.append(x - pieces[0] - pieces[1])
        for way in WAYS:
            once(way, pieces, Link())  # compiled kernels
        for rtt in a.rtt_ms:
            link = Link(rtt / 1e3, bits)
            found = {way: [once(way, pieces, link) for _ in range(a.runs)] for way in WAYS}
            for runs in found.values():
                assert all(torch.equal(result, (x < 0).to(torch.int64)) for *_, result in runs)
            row = {"count": count, "rtt_ms": rtt, "chosen": choose(count, link)}
            for way, runs in found.items():
                seconds, rounds, nbytes, _ = min(runs, key=lambda run: run[0])
                row[way] = {"seconds": seconds, "rounds": rounds, "bytes": nbytes}
            rows.append(row | {"break_even_rtt_ms": 1e3 * break_even_rtt_s(count, bits)})
    print(
        "| numbers | round trip, ms | by gates: rounds · kB · s | Yao: rounds · kB · s | chosen |",
        file=sys.stderr,
    )
    print("|---|---|---|---|---|", file=sys.stderr)
    for row in rows:
        ways = [
            f"{w['rounds']} · {w['bytes'] / 1e3:,.1f} · {w['seconds']:.3f}" for w in (row[n] for n in WAYS)
        ]
        print(
            f"| {row['count']:,} | {row['rtt_ms']:g} | {' | '.join(ways)} | {row['chosen']} |",
            file=sys.stderr,
        )
    print(json.dumps({"mbit": a.mbit, "rows": rows, "machine": machine()}))


if __name__ == "__main__":
    main()
