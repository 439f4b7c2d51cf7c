"""The client's side of a job: texts to shares, answers to vectors. The embedding table is looked up here.

A text is padded to a bucket. Padding rows are copies of its first row, so their values pass through every window as
the first row's do; as keys they are masked by shares of -B, and the pooling weights, shares too, leave them out. The
parties see the bucket and the batch, not the length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mpc_ray.channel.link import Message
from mpc_ray.errors import MpcError, RangeExceeded
from mpc_ray.models.clear import float_input
from mpc_ray.models.export import Export
from mpc_ray.models.fold import centred
from mpc_ray.models.plan import BUCKET_LOG, HIDDEN_SCALE, MASK_DEPTH, POOL_SCALE, SCORE_SCALE
from mpc_ray.models.pooling import pooling_sum
from mpc_ray.models.weights import Array, BertModel
from mpc_ray.sharing.deal import Secret, deal
from mpc_ray.sharing.fixed import decode, encode


def load_messages(export: Export, name: str, job: bytes) -> list[Message]:
    """One message for each party: the public record, and its shares of all weights."""
    tables = {f"public/{k}": v for k, v in export.tables.items()}
    header: dict[str, Any] = {"cmd": "load", "model": name, "job": job.hex(), "record": export.record}
    return [Message({**header, **p.header}, {**tables, **p.tensors}) for p in deal(export.secrets)]


def embedding_secrets(
    model: BertModel, export: Export, rows: Sequence[Sequence[int]], length: int
) -> dict[str, Secret]:
    """Token ids of a batch, each at most ``length`` long → what is shared: rows, mask, pooling weights."""
    assert export.plan.embedding_norm is not None
    given = float_input(model, rows, length)
    assert given.pooling is not None
    scale = export.plan.embedding_norm.centre_scale
    mask = np.where(given.real.numpy(), 0.0, -(MASK_DEPTH + 2.0**BUCKET_LOG))
    weights = np.apply_along_axis(_whole_weights, -1, given.pooling.numpy())
    return {
        "x": Secret(encode(given.x, scale, name="embedded text"), scale),
        "mask": Secret(encode(mask, SCORE_SCALE, name="mask"), SCORE_SCALE),
        "pooling": Secret(torch.from_numpy(weights), POOL_SCALE),
    }


def hidden_secrets(x: Array, export: Export | None = None) -> dict[str, Secret]:
    """Embedded input x (b, n, h), no padding → what is shared. With an embedding norm in ``export``, x is before it."""
    norm = export.plan.embedding_norm if export is not None else None
    if norm is None:
        return {"x": Secret(encode(x, HIDDEN_SCALE, name="embedded input"), HIDDEN_SCALE)}
    return {"x": Secret(encode(centred(x), norm.centre_scale, name="embedded input"), norm.centre_scale)}


def run_messages(
    secrets: Mapping[str, Secret],
    name: str,
    job: bytes,
    attempt: int,
    output: str,
    range_check: bool = True,
    trace: bool = False,
) -> list[Message]:
    """One job's message for each party; the shares are fresh at every call.

    ``trace`` asks for every layer's rows too (``traced``): for the model's owner alone, and refused unless the
    parties were started in shadow mode.
    """
    header: dict[str, Any] = {
        "cmd": "run",
        "model": name,
        "job": job.hex(),
        "attempt": attempt,
        "output": output,
        "range_check": range_check,
        "trace": trace,
    }
    return [Message({**header, **p.header}, p.tensors) for p in deal(secrets)]


def result(answers: Sequence[Message]) -> Array:
    """The output, float64, from the three answers. Raises RangeExceeded naming layer and function if a check struck."""
    if struck := outside(answers):
        raise RangeExceeded(
            f"the input left the calibrated range in {', '.join(struck)}",
            remedy="calibrate with texts like this one (mpc-ray … --calibrate FILE), or see docs/protocols.md, Ranges",
        )
    return decode(_sum(answers, "output"), int(_agreed(answers, "scale")))


def embeddings(model: BertModel, rows: Sequence[Sequence[int]], answers: Sequence[Message]) -> Array:
    """``result`` of an embedding job on the token ids ``rows``: what the model calls their embeddings.

    The parties pool with weights that add up to 1; what a pooling's weights add up to otherwise is put back here.
    """
    out = result(answers)
    if model.normalize:
        return out
    return out * np.array([pooling_sum(model.pooling, len(row)) for row in rows])[:, None]


def outside(answers: Sequence[Message]) -> list[str]:
    """The places, "layer/function", whose range check struck; empty when all values stayed in their windows."""
    struck = []
    for i, (label, bits) in enumerate(_agreed(answers, "checks")):
        if (_sum(answers, f"check {i}") & ((1 << int(bits)) - 1)).any():
            struck.append(str(label).split(" (")[0])
    return list(dict.fromkeys(struck))


def traced(answers: Sequence[Message]) -> dict[str, Array]:
    """The normalised rows (b, n, h) at each place that a traced job went through, float64, in order."""
    return {
        str(place): decode(_sum(answers, f"trace {i}"), int(scale))
        for i, (place, scale) in enumerate(_agreed(answers, "trace"))
    }


def _agreed(answers: Sequence[Message], key: str) -> Any:
    """What the three headers say alike. Raises MpcError if one says something else."""
    headers: list[dict[str, Any]] = [a.header for a in answers]
    if any(h[key] != headers[0][key] for h in headers):
        raise MpcError(f"the parties disagree on the answer's {key}", remedy="use one version everywhere")
    return headers[0][key]


def _sum(answers: Sequence[Message], name: str) -> torch.Tensor:
    first, second, third = (torch.from_numpy(a.tensors[name]) for a in answers)
    return first + second + third


def _whole_weights(p: Array) -> np.ndarray:
    """Weights as integers at POOL_SCALE whose sum is exact: the largest remainders are rounded up."""
    exact = np.ldexp(p, POOL_SCALE)
    whole = np.floor(exact).astype(np.int64)
    missing = round(float(exact.sum())) - int(whole.sum())
    whole[np.argsort(-(exact - whole), kind="stable")[:missing]] += 1
    return whole
