"""``mpc-ray bench predict``: schedules measured on this machine, and what they take over given links."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mpc_ray.bench.encoder import EncoderJob
from mpc_ray.bench.machine import machine
from mpc_ray.bench.shapes import Shape
from mpc_ray.bench.workload import Progress, Workload, weights_of, workload
from mpc_ray.config import Config
from mpc_ray.cost.links import Link, Prediction, predict
from mpc_ray.cost.schedule import Schedule, Step, step_of
from mpc_ray.cost.tables import VARIANTS, cached_file, fastest, read, write
from mpc_ray.errors import MpcError
from mpc_ray.session import Session

RUNS = 3


def watched(job: EncoderJob, session: Session, runs: int, progress: Progress) -> Schedule:
    """The schedule of a job, from ``runs`` passes after one to warm up: for every round the median.

    The parties must be processes of their own. Raises MpcError if two passes had different rounds.
    """
    before = job.more
    job.more = {**before, "watch": True}
    try:
        passes = job.passes(runs, progress)
    finally:
        job.more = before
    found = [[[step_of(step) for step in party] for party in run] for run in passes.steps[1:]]
    if len({tuple(len(party) for party in run) for run in found}) != 1:
        raise MpcError("two passes of one input differ in rounds", remedy="report this as a defect")
    work, config = job.work, session.config
    batch, seq, _ = work.x.shape
    steps = tuple(
        tuple(_typical([run[me][i] for run in found]) for i in range(len(found[0][me]))) for me in range(3)
    )
    made = machine(config.device)
    return Schedule(
        config.protocol,
        config.variant,
        work.shape.name,
        seq,
        batch,
        work.weights,
        made["cores"],
        passes.reports[-1].rounds,
        steps,
        made,
    )


def _typical(steps: Sequence[Step]) -> Step:
    first = steps[0]
    if any((one.sent, one.awaits) != (first.sent, first.awaits) for one in steps):
        raise MpcError("two passes of one input differ in bytes", remedy="report this as a defect")
    compute, meanwhile, transport = (
        statistics.median(getattr(one, name) for one in steps)
        for name in ("compute", "meanwhile", "transport")
    )
    return replace(first, compute=compute, meanwhile=meanwhile, transport=transport)


def schedules(
    shape: Shape,
    *,
    config: Config,
    seq: int,
    batch: int = 1,
    weights: str | None = None,
    refresh: bool = False,
    runs: int = RUNS,
    progress: Progress = lambda what, part: None,
    debug: bool = False,
) -> list[Schedule]:
    """Of every variant of ``config.protocol``: those kept on this machine, measured where there is none, or anew.

    A measurement starts three parties as processes here and takes a few passes. Raises what ``bench encoder`` does.
    """
    kind = weights_of(shape, weights)
    found: list[Schedule] = []
    work: Workload | None = None
    for variant in VARIANTS.get(config.protocol, ("bytes",)):
        path = cached_file(config.protocol, variant, shape.name, seq, batch, kind)
        schedule = None if refresh else read(path)
        if schedule is None:
            here = config.model_copy(update={"variant": variant, "launcher": "processes", "tls": True})
            with Session(config=here, progress=progress, debug=debug) as session:
                work = work or workload(shape, seq, batch, kind, progress)
                progress("sharing the model", 0.0)
                schedule = watched(EncoderJob(session, work), session, runs, progress)
            write(path, schedule)
        found.append(schedule)
    return found


def predictions(found: Sequence[Schedule], link: Link, cores: int | None) -> dict[str, Any]:
    """The JSON object of ``bench predict``: each variant's prediction, and which is done first."""
    first = found[0]
    best = fastest(list(found), link, cores)
    return {
        "shape": first.shape,
        "seq": first.seq,
        "batch": first.batch,
        "weights": first.weights,
        "protocol": first.protocol,
        "rtt_ms": link.rtt_s * 1e3,
        "mbit": None if link.bits_per_s is None else link.bits_per_s / 1e6,
        "cores": cores,
        "chosen": best.variant,
        "variants": {one.variant: prediction_json(predict(one, link, cores)) for one in found},
        "measured_on": dict(first.made),
    }


def prediction_json(found: Prediction) -> dict[str, Any]:
    """Seconds, rounds and bytes of one prediction."""
    by_function = sorted(found.by_function.items(), key=lambda item: -item[1])
    return {
        "seconds": found.seconds,
        "rounds": found.rounds,
        "bytes_sent": list(found.bytes_sent),
        "seconds_by_function": dict(by_function),
    }
