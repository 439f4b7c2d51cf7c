"""The proxy's model: an ``AsyncClient`` as an ``Embedder``."""

from __future__ import annotations

import time
from collections.abc import Sequence

from mpc_ray.client.http import AsyncClient
from mpc_ray.client.proxy.embedder import ModelFacts, Row, Token, Vectors

UNCUT = 1 << 30
READY_S = 1.0  # monitors that ask often ask the gateway once


class ClientEmbedder:
    """Embeds through the gateway. For one event loop; ``encode`` and ``tokens`` may run in threads."""

    def __init__(self, client: AsyncClient) -> None:
        bundle = client.bundle
        self._client = client
        self._tokenizer = bundle.tokenizer
        self._ready = (0.0, False)
        self.facts = ModelFacts(
            name=bundle.name,
            digest=bundle.model_digest,
            hidden=bundle.hidden,
            normalize=bundle.normalize,
            pooling=bundle.pooling,
            vocab=bundle.vocab,
            longest=bundle.lengths[-1],
            max_tokens=bundle.max_tokens,
            prefix=tuple(bundle.tokenizer.prefix),
            suffix=tuple(bundle.tokenizer.suffix),
        )

    def encode(self, texts: Sequence[str]) -> list[Row]:
        return self._tokenizer.encode(texts, limit=UNCUT)

    def tokens(self, text: str, special: bool) -> list[Token]:
        return [Token(*piece) for piece in self._tokenizer.pieces(text, special=special)]

    async def embed(self, rows: Sequence[Row]) -> Vectors:
        return await self._client.embed(rows)

    async def ready(self) -> bool:
        asked, said = self._ready
        now = time.monotonic()
        if now - asked >= READY_S:
            said = await self._client.ready()
            self._ready = now, said
        return said

    async def aclose(self) -> None:
        await self._client.aclose()
