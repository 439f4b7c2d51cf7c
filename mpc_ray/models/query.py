"""The client's side of a job within a session: texts to shares (``inputs``), answers to vectors (``answers``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mpc_ray.channel.packed import Message
from mpc_ray.models import answers as read
from mpc_ray.models.answers import outside, result, traced
from mpc_ray.models.export import Export
from mpc_ray.models.fold import centred
from mpc_ray.models.inputs import padded, text_secrets
from mpc_ray.models.plan import HIDDEN_SCALE, input_scales
from mpc_ray.models.public import WEIGHTS
from mpc_ray.models.weights import Array, BertModel
from mpc_ray.sharing.integers import to_integers
from mpc_ray.sharing.parcel import Secret, deal

__all__ = [
    "embedding_secrets",
    "embeddings",
    "hidden_secrets",
    "load_messages",
    "outside",
    "result",
    "run_messages",
    "traced",
]


def load_messages(export: Export, name: str, job: bytes) -> list[Message]:
    """One message for each party: the public record, and its shares of all weights, or the weights where they are
    public."""
    tables = {f"public/{k}": v for k, v in export.tables.items()}
    header: dict[str, Any] = {"cmd": "load", "model": name, "job": job.hex(), "record": export.record}
    if export.weights:
        tables |= {WEIGHTS + k: v for k, v in export.weights.items()}
        return [Message(dict(header), dict(tables)) for _ in range(3)]
    return [Message({**header, **p.header}, {**tables, **p.tensors}) for p in deal(export.secrets)]


def embedding_secrets(
    model: BertModel, export: Export, rows: Sequence[Sequence[int]], length: int
) -> dict[str, Secret]:
    """Token ids of a batch, each at most ``length`` long → what is shared: rows, mask, pooling weights."""
    given = padded(model.embeddings, model.pooling, rows, length)
    return text_secrets(given, input_scales(export.plan))


def hidden_secrets(x: Array, export: Export | None = None) -> dict[str, Secret]:
    """Embedded input x (b, n, h), no padding → what is shared. With an embedding norm in ``export``, x is before it."""
    norm = export.plan.embedding_norm if export is not None else None
    if norm is None:
        return {"x": Secret(to_integers(x, HIDDEN_SCALE, name="embedded input"), HIDDEN_SCALE)}
    return {"x": Secret(to_integers(centred(x), norm.centre_scale, name="embedded input"), norm.centre_scale)}


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
    return [Message({**header, **p.header}, {**p.tensors}) for p in deal(secrets)]


def embeddings(model: BertModel, rows: Sequence[Sequence[int]], answers: Sequence[Message]) -> Array:
    """``result`` of an embedding job on the token ids ``rows``: what the model calls their embeddings."""
    return read.embeddings(result(answers), model.pooling, model.normalize, map(len, rows))
