"""CPU time of a pass, by kernel: what each costs whatever else runs on the machine.

    python benchmarks/cpu_time.py --shape 2x768x12x3072 [--public-weights] [--json]

Three parties in threads of one process, TLS on. Seconds are CPU time of threads, not wall time, so that other load on
the machine hardly changes them; all three parties together. A kernel's do not contain those of another that it calls.
``python and torch`` is what no kernel claims: torch's element-wise operations, and Python's own time between rounds.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
import types
from collections import Counter
from collections.abc import Callable
from typing import Any

from mpc_ray.bench.encoder import EncoderJob
from mpc_ray.bench.machine import machine
from mpc_ray.bench.shapes import shape_of
from mpc_ray.bench.workload import workload
from mpc_ray.channel.tls import TlsStream
from mpc_ray.config import Config
from mpc_ray.correlation import stream
from mpc_ray.execute import Executor
from mpc_ray.kernels import dpf, elementwise, histogram, lookup, packing, ring, subset
from mpc_ray.protocols.semi_honest.range_check import RangeChecks
from mpc_ray.session import Session

KERNELS = (ring, dpf, lookup, elementwise, histogram, packing, subset)
REST = "python and torch"


class Clock:
    """CPU seconds and calls by name, in all threads; of a call within another the inner one's count once."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.running = False
        self._lock = threading.Lock()
        self._own = threading.local()

    def around(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The same function, its time counted while ``running``."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            if not self.running:
                return function(*args, **kwargs)
            inner: list[float] = self._own.__dict__.setdefault("inner", [])
            inner.append(0.0)
            begin = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.thread_time() - begin
                own = spent - inner.pop()
                if inner:
                    inner[-1] += spent
                with self._lock:
                    self.seconds[name] += own
                    self.calls[name] += 1

        return counted


def install(clock: Clock) -> None:
    """Put the clock around every kernel, wherever it was imported to, and around TLS, the PRF and the range checks."""
    replaced: dict[Any, Callable[..., Any]] = {stream.expand: clock.around(stream.expand, "PRF: expand")}
    for module in KERNELS:
        for name, function in vars(module).items():
            own = isinstance(function, types.FunctionType) and function.__module__ == module.__name__
            if own and not name.startswith("_") and not name.endswith("_reference"):
                replaced[function] = clock.around(function, f"{module.__name__.rsplit('.', 1)[-1]}.{name}")
    for module in [m for name, m in sys.modules.items() if name.split(".")[0] == "mpc_ray"]:
        for name, value in list(vars(module).items()):
            if isinstance(value, types.FunctionType) and value in replaced:
                setattr(module, name, replaced[value])
    for owner, name, said in (
        (TlsStream, "send", "TLS: encrypt and write"),
        (TlsStream, "receive", "TLS: read and decrypt"),
        (RangeChecks, "_fold", "range checks"),
        (Executor, "_run", REST),
    ):
        setattr(owner, name, clock.around(getattr(owner, name), said))


def measure(shape: str, seq: int, batch: int, runs: int, public: bool) -> dict[str, Any]:
    """The JSON object; seconds and calls are of one pass."""
    clock = Clock()
    install(clock)

    def quiet(what: str, part: float) -> None:
        del what, part

    with Session(config=Config(launcher="threads", timeout_s=600.0)) as session:
        work = workload(shape_of(shape), seq, batch, "random", quiet, "public" if public else "secret")
        job = EncoderJob(session, work)
        job.passes(1, quiet)
        clock.running = True
        begin = time.process_time()
        job.passes(runs - 1, quiet)
        whole = (time.process_time() - begin) / runs
        clock.running = False
    by_kernel = {name: seconds / runs for name, seconds in clock.seconds.most_common()}
    return {
        "shape": shape,
        "seq": seq,
        "batch": batch,
        "runs": runs,
        "public_weights": public,
        "cpu_seconds": whole,
        "cpu_seconds_by_kernel": by_kernel,
        "calls_by_kernel": {name: clock.calls[name] / runs for name in by_kernel},
        "machine": machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shape", default="minilm", help="bert-tiny, minilm, bert-base, or LAYERSxHIDDENxHEADSxFFN"
    )
    parser.add_argument("--seq", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1, help="sequences in a pass")
    parser.add_argument("--runs", type=int, default=2, help="passes counted, after two to warm up")
    parser.add_argument("--public-weights", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.runs < 1:
        parser.error("--runs: at least 1")
    found = measure(given.shape, given.seq, given.batch, given.runs, given.public_weights)
    if given.json:
        print(json.dumps(found))
        return
    total = sum(found["cpu_seconds_by_kernel"].values())
    what = f"{given.shape}, {given.batch} x {given.seq} tokens"
    print(f"{what}: {found['cpu_seconds']:.3f} s of CPU a pass, three parties together")
    for name, seconds in found["cpu_seconds_by_kernel"].items():
        calls = found["calls_by_kernel"][name]
        print(f"{1000 * seconds:9.1f} ms {100 * seconds / total:5.1f} % {calls:8.0f} calls  {name}")


if __name__ == "__main__":
    main()
