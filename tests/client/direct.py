"""A proxy over a model that answers at once, in the clear, and how to ask it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
from owned import Owned  # type: ignore[import-not-found]

from mpc_ray.client.bundle import Bundle
from mpc_ray.client.proxy.app import make_app
from mpc_ray.client.proxy.embedder import ModelFacts, Row, Token, Vectors
from mpc_ray.client.proxy.settings import ProxySettings

TEXTS = ["Hello, world!", "a", "The 7 quick foxes"]
LONG = "a " * 40


class Direct:
    """An ``Embedder`` that computes in the clear. ``error`` is raised instead; ``gate`` holds answers back."""

    def __init__(self, owned: Owned, **changed: Any) -> None:
        bundle: Bundle = owned.bundle
        self.owned, self.tokenizer = owned, bundle.tokenizer
        facts: dict[str, Any] = {
            "name": "tiny",
            "digest": bundle.model_digest,
            "hidden": bundle.hidden,
            "normalize": bundle.normalize,
            "pooling": bundle.pooling,
            "vocab": bundle.vocab,
            "longest": bundle.lengths[-1],
            "max_tokens": bundle.max_tokens,
            "prefix": tuple(bundle.tokenizer.prefix),
            "suffix": tuple(bundle.tokenizer.suffix),
        }
        self.facts = ModelFacts(**(facts | changed))
        self.error: BaseException | None = None
        self.gate: asyncio.Event | None = None
        self.cancelled = 0
        self.is_ready = True
        self.closed = False
        self.seen: list[list[Row]] = []

    def encode(self, texts: Sequence[str]) -> list[Row]:
        return self.tokenizer.encode(texts, limit=1 << 30)

    def tokens(self, text: str, special: bool) -> list[Token]:
        return [Token(*piece) for piece in self.tokenizer.pieces(text, special=special)]

    async def embed(self, rows: Sequence[Row]) -> Vectors:
        self.seen.append([list(row) for row in rows])
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return vectors(self.owned, rows)

    async def ready(self) -> bool:
        return self.is_ready

    async def aclose(self) -> None:
        self.closed = True


def vectors(owned: Owned, rows: Sequence[Row]) -> Vectors:
    from mpc_ray.models.bert_float import forward
    from mpc_ray.models.pooling import normalized

    means = np.array([forward(owned.bert, [row])[-1][0].mean(0) for row in rows])
    return normalized(means) if owned.bert.normalize else means


def call(
    direct: Direct,
    method: str,
    path: str,
    body: Any = None,
    *,
    settings: dict[str, Any] | None = None,
    key: bytes | None = None,
    headers: dict[str, str] | None = None,
    content: bytes | None = None,
) -> httpx.Response:
    app = make_app(
        direct, ProxySettings(**({"aliases": {"text-embedding-3-small": "tiny"}} | (settings or {}))), key
    )

    async def work() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8089") as client:
            return await client.request(method, path, json=body, content=content, headers=headers)

    return asyncio.run(work())


def openai(direct: Direct, given: Any, **more: Any) -> httpx.Response:
    return call(direct, "POST", "/v1/embeddings", {"input": given, "model": "tiny"} | more)


def fault(answer: httpx.Response) -> dict[str, Any]:
    """The error of OpenAI's form, whole."""
    said: dict[str, Any] = answer.json()
    assert set(said) == {"error"} and set(said["error"]) == {"message", "type", "param", "code"}
    return said["error"]  # type: ignore[no-any-return]
