"""The jobs of one run: a parcel of shares from each client, put together by texts, and their answers taken apart.

A run may hold jobs of several clients. All are of one model, length and output; each has seeds of its own and any
number of texts. A parcel is judged by its header, before memory is taken and before a message to a peer is sent: a
party needs nobody else to find that it does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpc_ray.channel.packed import JSON, MAX_TENSORS, Message
from mpc_ray.errors import InputError
from mpc_ray.models.answers import COPY
from mpc_ray.models.bert import Program
from mpc_ray.models.plan import HIDDEN_SCALE, POOL_SCALE, SCORE_SCALE, EncoderPlan
from mpc_ray.sharing.deal import receive
from mpc_ray.sharing.parcel import bounded, seeds_of
from mpc_ray.sharing.replicated import Shared, concatenate

__all__ = ["COPY", "answers", "apart", "check_parcel", "join", "parts", "take"]

LABELS = 8  # of range checks: at most so many a layer, and as many for all that is no layer
REQUIRED = {"embedding": {"x", "mask", "pooling"}, "hidden": {"x"}}


def join(header: Mapping[str, Any], parcels: Sequence[Message]) -> Message:
    """One party's parcels of several jobs as one run. ``header``: cmd, model, job, attempt, output, range_check.

    Of a parcel's header only ``shares`` and ``seeds`` are taken, so that no client can set anything for another.
    """
    batch: list[JSON] = [{k: p.header[k] for k in ("shares", "seeds") if k in p.header} for p in parcels]
    tensors = {f"{i}/{name}": value for i, p in enumerate(parcels) for name, value in p.tensors.items()}
    return Message({**header, "batch": batch}, tensors)


def apart(message: Message) -> list[Message]:
    """The parcels of a run: the inverse of ``join``; a run without ``batch`` is one parcel.

    Raises InputError for no job, too many, or tensors that are no job's.
    """
    batch = message.header.get("batch")
    if batch is None:
        return [message]
    if not isinstance(batch, list) or not batch or not all(isinstance(part, dict) for part in batch):
        raise InputError("a run's batch is no list of parcels", remedy="use one version everywhere")
    parcels = [Message(part, {}) for part in batch if isinstance(part, dict)]
    for key, value in message.tensors.items():
        place, _, name = key.partition("/")
        if not name or not place.isdecimal() or int(place) >= len(parcels):
            raise InputError(f"tensor {key[:40]!r} is no job's", remedy="use one version everywhere")
        parcels[int(place)].tensors[name] = value
    return parcels


def answers(message: Message) -> list[Message]:
    """One party's answer to a run of several jobs → one answer for each, as if it had run alone; each holds its own
    rows and its own range checks. What the run cost is everybody's, and not in them but for the rounds."""
    header: Mapping[str, Any] = message.header
    found = []
    for i, job in enumerate(header["jobs"]):
        names = ["output", *(f"check {k}" for k in range(len(job["checks"])))]
        if header.get("copies"):
            names += [name + COPY for name in names]
        tensors = {name: message.tensors[f"{i}/{name}"] for name in names}
        head = {"ok": True, "scale": header["scale"], "checks": job["checks"], "rounds": header["rounds"]}
        if header.get("copies"):
            head["copies"] = True
        found.append(Message(head, tensors))
    return found


def check_parcel(
    me: int, plan: EncoderPlan, program: Program, parcel: Message, whole: bool = False
) -> tuple[int, int]:
    """(texts, padded length) of party ``me``'s parcel. Raises InputError for what does not fit the model or the party.

    ``whole``: exactly what the output needs, with a mask for an embedding, is there: parcels of several clients must be
    alike, at all three parties. Takes no memory; a parcel that passes here fails no run later.
    """
    bounded(parcel.header)
    seeds_of(me, parcel.header)
    shares: Mapping[str, Any] = dict(parcel.header["shares"])  # type: ignore[arg-type]
    found = {name: (tuple(public["shape"]), int(public["scale"])) for name, public in shares.items()}
    size = _check_shapes(plan, program, found)
    if whole and found.keys() != REQUIRED[program.output]:
        raise InputError(
            f"a job for {program.output} with shares of {', '.join(sorted(found))[:80]}",
            remedy=f"share {', '.join(sorted(REQUIRED[program.output]))}",
        )
    if whole and not parcel.tensors.keys() <= found.keys():
        raise InputError("a job with tensors that are no shares", remedy="use one version everywhere")
    for name, (shape, _) in found.items() if me else ():  # party 0 expands all it needs
        array = parcel.tensors.get(name)
        if array is None or array.dtype != np.int64 or array.shape != shape:
            what = "missing" if array is None else f"{array.dtype} {array.shape}"
            raise InputError(
                f"shares of {name} are {what}, not int64 {shape}", remedy="client and party differ in version"
            )
    return size


def _check_shapes(
    plan: EncoderPlan, program: Program, found: Mapping[str, tuple[tuple[int, ...], int]]
) -> tuple[int, int]:
    """(texts, padded length), from {name: (shape, scale)}."""
    if program.output not in REQUIRED:
        raise InputError(f"unknown output {program.output[:40]!r}", remedy="one of: embedding, hidden")
    shape, _ = found.get("x", (None, 0))
    if shape is None or len(shape) != 3 or shape[2] != plan.hidden or 0 in shape:
        raise InputError(
            f"embedded rows have shape {shape}, not (batch, length, {plan.hidden})", remedy="share them anew"
        )
    b, n, _ = shape
    if n not in plan.reciprocals:
        raise InputError(
            f"no plan for a padded length of {n}", remedy=f"pad to one of {sorted(plan.reciprocals)}"
        )
    norm = plan.embedding_norm if program.embedding_norm else None
    wanted = {
        "x": (shape, norm.centre_scale if norm is not None else HIDDEN_SCALE),
        "mask": ((b, n), SCORE_SCALE),
        "pooling": ((b, 1, n), POOL_SCALE),
    }
    if program.output == "embedding" and "pooling" not in found:
        raise InputError("an embedding needs the client's shares of pooling weights", remedy="share them too")
    for name, (has, scale) in found.items():
        if wanted.get(name) != (has, scale):
            raise InputError(
                f"{name[:40]}: shape {has} at scale {scale} does not fit", remedy="share it anew"
            )
    return b, n


def take(
    me: int, plan: EncoderPlan, program: Program, message: Message, max_bytes: int
) -> tuple[dict[str, Shared], tuple[int, ...]]:
    """This party's shares of all jobs of a run, one after the other along the texts; and each job's number of texts.

    ``max_bytes`` bounds one summand of all jobs together; twice that is held for a moment. Raises InputError, before
    memory is taken for any of them, where a parcel does not fit the model, or the others.
    """
    parcels = apart(message)
    if 2 * len(parcels) * (1 + LABELS * (len(plan.layers) + 1)) > MAX_TENSORS:
        raise InputError(f"{len(parcels)} jobs are too many for one run", remedy="run fewer at once")
    whole = "batch" in message.header
    sizes = [check_parcel(me, plan, program, parcel, whole) for parcel in parcels]
    if len({length for _, length in sizes}) > 1:
        raise InputError("the jobs of one run differ in length", remedy="run one length at a time")
    total = sum(_nbytes(parcel) for parcel in parcels)
    if total > max_bytes:
        raise InputError(
            f"shares of {total} bytes, at most {max_bytes} are taken", remedy="send less at once"
        )
    held = [receive(me, parcel.header, parcel.tensors, max_bytes) for parcel in parcels]
    joined = {name: concatenate([inputs[name] for inputs in held]) for name in held[0]}
    return joined, tuple(texts for texts, _ in sizes)


def _nbytes(parcel: Message) -> int:
    shares: Mapping[str, Any] = dict(parcel.header["shares"])  # type: ignore[arg-type]
    return sum(8 * math.prod(public["shape"]) for public in shares.values())


def parts(
    several: bool, texts: Sequence[int], output: np.ndarray, checks: Sequence[np.ndarray], suffix: str = ""
) -> dict[str, np.ndarray]:
    """The tensors of an answer: ``output`` (all texts, …), each of ``checks`` (jobs, sums), cut by jobs.

    ``suffix`` of their names: "" or COPY, for the second piece where both are answered.
    """
    tensors, end = {}, 0
    for job, count in enumerate(texts):
        start, end = end, end + count
        prefix = f"{job}/" if several else ""
        tensors[f"{prefix}output{suffix}"] = output[start:end]
        for k, sums in enumerate(checks):
            tensors[f"{prefix}check {k}{suffix}"] = sums[job]
    return tensors
