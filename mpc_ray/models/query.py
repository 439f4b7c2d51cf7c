"""The client's side of a job: texts to shares, answers to vectors. The embedding table is looked up here.

A text is padded to a bucket. Padding rows are copies of its first row, so their values pass through every window as the first row's
do; as keys they are masked by shares of -B, and the pooling weights, shares too, leave them out. The parties see
the bucket and the batch, not the length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mpc_ray.channel.link import Message
from mpc_ray.errors import MpcError, RangeExceeded
from mpc_ray.models.bert_float import embedding_sum
from mpc_ray.models.export import Export
from mpc_ray.models.fold import centred
from mpc_ray.models.plan import HIDDEN_SCALE, MASK_DEPTH, POOL_SCALE, SCORE_SCALE, BUCKET_LOG
from mpc_ray.models.pooling import pooling_vector
from mpc_ray.models.weights import Array, BertModel
from mpc_ray.sharing.deal import Secret, deal
from mpc_ray.sharing.fixed import decode, encode


def load_messages(export: Export, name: str, job: bytes) -> list[Message]:
    """One message for each party: the public record, and its shares of all weights."""
    tables = {f"public/{k}": v for k, v in export.tables.items()}
    header = {"cmd": "load", "model": name, "job": job.hex(), "record": export.record}
    return [Message({**header, **p.header}, {**tables, **p.tensors}) for p in deal(export.secrets)]


def embedding_secrets(model: BertModel, export: Export, rows: Sequence[Sequence[int]], length: int) -> dict[str, Secret]:
    """Token ids of a batch, each at most ``length`` long → what is shared: rows, mask, pooling weights."""
    assert export.plan.embedding_norm is not None
    x = np.stack([_padded(centred(embedding_sum(model, [row])[0]), length) for row in rows])
    mask = np.zeros((len(rows), length))
    pooling = np.zeros((len(rows), 1, length), np.int64)
    for i, row in enumerate(rows):
        mask[i, len(row) :] = -(MASK_DEPTH + 2.0**BUCKET_LOG)
        pooling[i, 0] = _whole_weights(pooling_vector(model.pooling, len(row), length))
    return {
        "x": Secret(encode(x, export.plan.embedding_norm.centre_scale, name="embedded text"), export.plan.embedding_norm.centre_scale),
        "mask": Secret(encode(mask, SCORE_SCALE, name="mask"), SCORE_SCALE),
        "pooling": Secret(torch.from_numpy(pooling), POOL_SCALE),
    }


def hidden_secrets(x: Array, export: Export | None = None) -> dict[str, Secret]:
    """Embedded input x (b, n, h), no padding → what is shared. With an embedding norm in ``export``, x is before it."""
    norm = export.plan.embedding_norm if export is not None else None
    if norm is None:
        return {"x": Secret(encode(x, HIDDEN_SCALE, name="embedded input"), HIDDEN_SCALE)}
    return {"x": Secret(encode(centred(x), norm.centre_scale, name="embedded input"), norm.centre_scale)}


def run_messages(
    secrets: Mapping[str, Secret], name: str, job: bytes, attempt: int, output: str, range_check: bool = True
) -> list[Message]:
    """One job's message for each party; the shares are fresh at every call."""
    header = {
        "cmd": "run",
        "model": name,
        "job": job.hex(),
        "attempt": attempt,
        "output": output,
        "range_check": range_check,
    }
    return [Message({**header, **p.header}, p.tensors) for p in deal(secrets)]


def result(answers: Sequence[Message]) -> Array:
    """The output, float64, from the three answers. Raises RangeExceeded naming layer and function if a check struck."""
    _check_ranges(answers)
    scales = {int(_header(a)["scale"]) for a in answers}
    if len(scales) != 1:
        raise MpcError("the parties disagree on the output's scale", remedy="use one version everywhere")
    total = sum(torch.from_numpy(a.tensors["output"]) for a in answers)
    assert isinstance(total, torch.Tensor)
    return decode(total, scales.pop())


def _check_ranges(answers: Sequence[Message]) -> None:
    first = _header(answers[0])["checks"]
    if any(_header(a)["checks"] != first for a in answers):
        raise MpcError("the parties disagree on what was checked", remedy="use one version everywhere")
    struck = []
    for i, (label, bits) in enumerate(first):
        total = sum(a.tensors[f"check {i}"] for a in answers)
        if (np.asarray(total) & ((1 << int(bits)) - 1)).any():
            struck.append(str(label).split(" (")[0])
    if struck:
        raise RangeExceeded(
            f"the input left the calibrated range in {', '.join(dict.fromkeys(struck))}",
            remedy="calibrate with texts like this one (mpc-ray … --calibrate FILE), or see docs/protocols.md, Ranges",
        )


def _header(message: Message) -> dict[str, Any]:
    return message.header


def _padded(x: Array, length: int) -> Array:
    """Rows (n, h) → (length, h): the missing ones are copies of the first."""
    return np.concatenate([x, np.repeat(x[:1], length - len(x), 0)], 0)


def _whole_weights(p: Array) -> np.ndarray:
    """Weights as integers at POOL_SCALE whose sum is exact: the largest remainders are rounded up."""
    exact = np.ldexp(p, POOL_SCALE)
    whole = np.floor(exact).astype(np.int64)
    missing = int(round(float(exact.sum()))) - int(whole.sum())
    whole[np.argsort(-(exact - whole), kind="stable")[:missing]] += 1
    return whole
