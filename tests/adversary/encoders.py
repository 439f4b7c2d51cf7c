"""A small encoder run by three real party programs in three threads."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from mpc_ray.channel import Message, local_channels
from mpc_ray.execute import Executor
from mpc_ray.models import query
from mpc_ray.models.export import Export, Visibility, export_encoder
from mpc_ray.models.statistics import observe
from mpc_ray.models.synthetic import random_bert
from mpc_ray.models.weights import BertModel

DIGEST = bytes(range(32))
LENGTH = 16
TEXTS: dict[str, list[list[int]]] = {
    "one word, repeated": [[2, 7, 7, 7, 3]] * 8,
    "all different": [
        [2, *np.random.default_rng(i).permutation(np.arange(5, 128))[:14].tolist(), 3] for i in range(8)
    ],
}


@cache
def small_model(weights: Visibility = "secret") -> tuple[BertModel, Export]:
    """One layer of 32 with 4 heads, calibrated on the very texts it will see."""
    model = random_bert(layers=1, hidden=32, heads=4, ffn=64)
    rows = [row for text in TEXTS.values() for row in text]
    export = export_encoder(
        model.encoder,
        observe(model, rows),
        (LENGTH,),
        gain=model.embeddings.norm_gain,
        bias=model.embeddings.norm_bias,
        normalize=model.normalize,
        weights=weights,
    )
    return model, export


@dataclass
class Parties:
    """Three Executors and their channels."""

    executors: list[Executor]
    channels: list[Any]
    traces: list[list[tuple[Any, ...]]] = field(default_factory=list)

    def use(self, variant: str) -> None:
        """Compute by this variant from now on."""
        if variant != "bytes":
            for executor in self.executors:
                executor.use(variant)

    def load(self, export: Export, name: str = "model", job: bytes | None = None) -> list[Message]:
        messages = query.load_messages(export, name, job or secrets.token_bytes(16))
        return together(
            [lambda e=e, m=m: e.load(m) for e, m in zip(self.executors, messages, strict=True)], self
        )

    def run(self, messages: Sequence[Message]) -> list[Message]:
        return together(
            [lambda e=e, m=m: e.run(m) for e, m in zip(self.executors, messages, strict=True)], self
        )

    def trace(self) -> None:
        """From now on keep the name of every draw of correlated randomness, by party."""
        self.traces = [[] for _ in range(3)]
        for executor, names in zip(self.executors, self.traces, strict=True):
            executor.runtime.correlation.trace = names


def start(
    channels: Sequence[Any] | None = None, timeout: float = 30.0, make: Callable[..., Executor] = Executor
) -> Parties:
    """Three parties that have agreed on fresh seeds."""
    channels = list(channels) if channels is not None else list(local_channels(timeout=timeout))
    executors = together([lambda c=c: make(c, digest=DIGEST) for c in channels])
    return Parties(executors, channels)


def loaded(
    weights: Visibility = "secret", make: Callable[..., Executor] = Executor, variant: str = "bytes"
) -> Parties:
    """Three parties that hold the small model."""
    parties = start(make=make)
    parties.use(variant)
    parties.load(small_model(weights)[1])
    return parties


def together(
    calls: Sequence[Callable[[], Any]], parties: Parties | None = None, limit: float = 60.0
) -> list[Any]:
    """All results. As a party's server does, one that fails ends its channel; the first error is raised."""
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []

    def call(i: int) -> None:
        try:
            results[i] = calls[i]()
        except Exception as error:  # noqa: BLE001 - handed to the test
            errors.append(error)
            if parties is not None:
                parties.channels[i].fail(error)

    threads = [threading.Thread(target=call, args=(i,), daemon=True) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(limit)
    assert not any(thread.is_alive() for thread in threads), "a party hangs"
    if errors:
        raise errors[0]
    return results


def embedding_messages(
    text: str, job: bytes | None = None, attempt: int = 0, name: str = "model"
) -> list[Message]:
    """The three messages of one embedding job."""
    model, export = small_model()
    shared = query.embedding_secrets(model, export, TEXTS[text], LENGTH)
    return query.run_messages(shared, name, job or secrets.token_bytes(16), attempt, "embedding")
