"""``mpc-ray bench ops``: single functions and matrix products over three parties. Clock and counts as ``encoder``'s."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from mpc_ray.bench.cases import Case, case_of
from mpc_ray.bench.encoder import Passes, check_setup, setup_json
from mpc_ray.bench.machine import machine
from mpc_ray.bench.workload import Progress
from mpc_ray.channel import Message
from mpc_ray.config import Config
from mpc_ray.models.record import to_record
from mpc_ray.session import Session
from mpc_ray.sharing.parcel import deal

EXECUTORS = {
    "semi_honest_3pc": "mpc_ray.bench.ops_party:OpsExecutor",
    "aby3": "mpc_ray.bench.ops_aby3:Aby3OpsExecutor",
    "malicious_3pc": "mpc_ray.bench.ops_aby3:MaliciousOpsExecutor",
}


def measure_ops(
    wanted: Sequence[tuple[str, str | None]],
    *,
    config: Config,
    runs: int = 3,
    progress: Progress = lambda what, part: None,
    debug: bool = False,
) -> Iterator[dict[str, Any]]:
    """Functions of ``cases.OPS`` at a size (None: their own), one by one in one session: a JSON object for each.

    ``rounds`` are those between the parties. Raises InputError for a function or size that there is not, and what
    Session raises.
    """
    check_setup(config, runs)
    executor = EXECUTORS[config.protocol]
    cases = [case_of(name, size) for name, size in wanted]
    load = machine()["load"]
    with Session(config=config, progress=progress, debug=debug, executor=executor) as session:
        for case in cases:
            passes = _passes(session, case, runs, progress)
            yield {
                "op": case.op,
                "size": "x".join(map(str, case.size)),
                **setup_json(config),
                **passes.costs(),
                **passes.error(case.expected),
                "machine": {**machine(config.device), "load": load},
            }


def _passes(session: Session, case: Case, runs: int, progress: Progress) -> Passes:
    passes = Passes()
    record, tables = to_record(case.plan)
    public = {f"public/{name}": table for name, table in tables.items()}
    sharing = 0.0

    def messages(job: bytes, attempt: int) -> list[Message]:
        nonlocal sharing
        started = time.perf_counter()
        header: dict[str, Any] = {
            "cmd": "run",
            "op": case.program,
            "axis": case.axis,
            "smallest": case.smallest,
            "record": record,
            "job": job.hex(),
            "attempt": attempt,
            "range_check": session.config.range_check,
        }
        parcels = deal(case.secrets)
        sharing = time.perf_counter() - started
        return [Message({**header, **p.header}, {**public, **p.tensors}) for p in parcels]

    for i in range(runs + 1):
        progress(f"{case.op}, run {i} of {runs}" if i else f"{case.op}, first run", 0.0)
        started = time.perf_counter()
        answers = session.run(messages)
        passes.add(answers, 1, case.size[0], time.perf_counter() - started, sharing)
    return passes
