"""Texts to shares and answers to vectors, at the client of a service. No torch.

What a session does with ``mpc_ray.models.query``, from a bundle instead of the whole model: the same parcels, the same
numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mpc_ray.errors import InputError, MpcError
from mpc_ray.models import answers as read
from mpc_ray.models.answers import Answer
from mpc_ray.models.bundle import Bundle
from mpc_ray.models.inputs import padded, text_secrets
from mpc_ray.models.tokenize import BATCH_TOKENS, batches
from mpc_ray.models.weights import Array
from mpc_ray.sharing.parcel import Parcel, deal


@dataclass(frozen=True, eq=False)
class Batch:
    """Texts that make one job. ``indices``: their places in what was given; ``length``: what they are padded to.

    Its text form holds no token.
    """

    indices: tuple[int, ...]
    length: int
    bundle: Bundle = field(repr=False)
    rows: tuple[tuple[int, ...], ...] = field(repr=False)

    @property
    def size(self) -> int:
        """How many texts."""
        return len(self.rows)

    @property
    def tokens(self) -> tuple[int, ...]:
        """How many tokens each text has, special ones included: known to the client alone."""
        return tuple(len(row) for row in self.rows)

    def deal(self, entropy: tuple[bytes, bytes] | None = None) -> tuple[Parcel, Parcel, Parcel]:
        """What parties 0, 1 and 2 are sent: fresh shares at every call, so one call for each attempt.

        Parcels of two calls do not go together, and a second attempt with the same shares at other parties would let
        parties of both attempts combine what they hold. ``entropy`` (tests only) fixes the two 32-byte seeds.
        """
        given = padded(self.bundle.tables, self.bundle.pooling, self.rows, self.length)
        first, second, third = deal(text_secrets(given, self.bundle.scales), entropy)
        return first, second, third


def prepare(
    bundle: Bundle,
    texts: Sequence[str] | Sequence[Sequence[int]],
    *,
    truncate: bool = False,
    max_batch_tokens: int = BATCH_TOKENS,
) -> list[Batch]:
    """Texts, or token ids with their special tokens, in batches of one padded length, shortest first.

    A batch has at most ``max_batch_tokens`` padded tokens, or one text. ``truncate`` cuts to ``bundle.max_tokens``
    what is longer than the model's largest length. Raises InputError, which names the index and never quotes.
    """
    if isinstance(texts, str | bytes) or not isinstance(texts, Sequence):
        raise InputError(f"texts is a {type(texts).__name__}", remedy="pass a list of texts")
    if max_batch_tokens < 1:
        raise InputError(f"max_batch_tokens is {max_batch_tokens}", remedy="take at least 1")
    top = bundle.lengths[-1]
    cut = bundle.max_tokens if truncate else top
    rows = _rows(bundle, texts, truncate, cut)
    jobs = batches(map(len, rows), bundle.lengths, limit=top, tokens=max_batch_tokens)
    return [
        Batch(tuple(chosen), length, bundle, tuple(tuple(rows[i]) for i in chosen)) for length, chosen in jobs
    ]


def vectors(bundle: Bundle, batch: Batch, answers: Sequence[Answer]) -> Array:
    """The embeddings of ``batch``, float64 (batch.size, hidden), from the answers of parties 0, 1 and 2.

    Raises RangeExceeded naming layer and function if a value left its window, MpcError if the answers do not fit each
    other or the batch.
    """
    out = read.result(answers)
    if out.shape != (batch.size, bundle.hidden):
        raise MpcError(
            f"the answer has shape {out.shape}, not {(batch.size, bundle.hidden)}",
            remedy="get the bundle of the model that the parties hold",
        )
    return read.embeddings(out, bundle.pooling, bundle.normalize, batch.tokens)


def _rows(
    bundle: Bundle, texts: Sequence[str] | Sequence[Sequence[int]], truncate: bool, limit: int
) -> list[list[int]]:
    kinds = {isinstance(text, str) for text in texts}
    if kinds == {True, False}:
        raise InputError("texts and token ids are mixed", remedy="pass one kind")
    if kinds == {False}:
        for index, row in enumerate(texts):
            if not isinstance(row, Sequence) or isinstance(row, bytes):
                raise InputError(
                    f"text {index} is a {type(row).__name__}", remedy="pass texts, or lists of ids"
                )
        return bundle.tokenizer.take(texts, truncate=truncate, limit=limit)  # type: ignore[arg-type]
    return bundle.tokenizer.encode(texts, truncate=truncate, limit=limit)  # type: ignore[arg-type]
