"""What the proxy needs of a model, whoever computes it: its public facts, its tokenizer, and vectors for token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from mpc_ray.errors import InputError

Vectors: TypeAlias = npt.NDArray[np.float64]
Row: TypeAlias = list[int]


@dataclass(frozen=True)
class ModelFacts:
    """What is public about a model. Lengths count special tokens.

    ``longest``: tokens a text may have; ``max_tokens``: what truncation cuts to. ``prefix`` and ``suffix``: the special
    ids that the tokenizer puts around a text.
    """

    name: str
    digest: str
    hidden: int
    normalize: bool
    pooling: str
    vocab: int
    longest: int
    max_tokens: int
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()


@dataclass(frozen=True)
class Token:
    """One token of a text, as TEI's ``/tokenize`` tells it; ``start`` and ``stop`` count characters."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class Embedder(Protocol):
    """Methods are called from one event loop, many at once; ``encode`` and ``tokens`` from threads."""

    @property
    def facts(self) -> ModelFacts: ...

    def encode(self, texts: Sequence[str]) -> list[Row]:
        """Token ids of each text, special ones included, nothing cut: a row may be longer than the model takes.

        Raises InputError, which names a text by its index and never quotes it.
        """
        ...

    def tokens(self, text: str, special: bool) -> list[Token]:
        """The tokens of one text with their places in it; ``special``: with the special ones around it."""
        ...

    async def embed(self, rows: Sequence[Row]) -> Vectors:
        """Sentence vectors (rows, hidden), in order, of token ids as ``encode`` gives them. Raises MpcErrors."""
        ...

    async def ready(self) -> bool:
        """Whether a request could be answered now. Never raises."""
        ...

    async def aclose(self) -> None: ...


class TooLong(InputError):
    """A text of ``tokens`` tokens, where the model takes ``most``."""

    def __init__(self, index: int, tokens: int, most: int) -> None:
        super().__init__(
            f"text {index} has {tokens} tokens, the model takes {most}",
            remedy="split it, or have it truncated (auto_truncate in the proxy's settings)",
        )
        self.tokens = tokens
        self.most = most


def fitted(facts: ModelFacts, rows: Sequence[Row], truncate: bool) -> list[Row]:
    """``rows`` as the model takes them: long ones cut before their closing special ids, or ``TooLong``."""
    most = min(facts.max_tokens, facts.longest)
    out = []
    for index, row in enumerate(rows):
        if truncate and len(row) > most:
            out.append([*row[: most - len(facts.suffix)], *facts.suffix])
        elif len(row) > facts.longest:
            raise TooLong(index, len(row), facts.longest)
        else:
            out.append(list(row))
    return out


def own_ids(facts: ModelFacts, rows: Sequence[Row]) -> None:
    """Check that token arrays of a caller are of the model's own tokenizer, its special ids around them.

    Ids of another tokenizer (OpenAI's cl100k_base, which LangChain sends unless told otherwise) lie in the same range:
    they would give vectors of other words, without any error. The frame of special ids shows whose they are, so it is
    asked for. Raises InputError saying what to do.
    """
    head, tail = list(facts.prefix), list(facts.suffix)
    for index, row in enumerate(rows):
        ends = len(row) - len(tail)
        framed = bool(head or tail) and ends > len(head) and row[: len(head)] == head and row[ends:] == tail
        if not framed:
            frame = f" (those begin with {head} and end with {tail})" if head or tail else ""
            raise InputError(
                f"token array {index} does not hold ids of this model's own tokenizer{frame}",
                remedy="send strings; with LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False)",
            )
        if not all(0 <= i < facts.vocab for i in row):
            raise InputError(
                f"token array {index} has an id outside 0..{facts.vocab - 1}",
                remedy="use the tokenizer.json of this model, or send strings",
            )
