"""One job as it travels: shares, an authorisation over them, three sealed envelopes; and its three answers, opened."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpc_ray.channel.packed import Message, finite, pack, unpack
from mpc_ray.client.bundle import Bundle
from mpc_ray.client.share import Batch, vectors
from mpc_ray.errors import BadFrame, MpcError, SealError
from mpc_ray.models.weights import Array
from mpc_ray.trust.answer import new_reply_key, open_answer
from mpc_ray.trust.authorisation import (
    MAX_LIFETIME_MS,
    Authorisation,
    SigningKey,
    input_digest,
    seal_envelopes,
)
from mpc_ray.trust.directory import Directory
from mpc_ray.trust.secret import Secret

VERSION = 1
MAX_OUTPUT_BYTES = 64 << 20
NORM_TOLERANCE = 0.02
"""How far a unit vector's length may be off: fixed point costs 0.001, a wrong summand gives any length at all."""


@dataclass(frozen=True)
class Terms:
    """What the client allows for its jobs (``mpc_ray.trust.authorisation``)."""

    purpose: str = "inference"
    jurisdictions: tuple[str, ...] = ()
    retention: str = "job"
    protocol: str = "semi_honest_3pc"
    range_check: bool = True
    lifetime_ms: int = MAX_LIFETIME_MS


@dataclass(frozen=True)
class Sealed:
    """A job ready to be posted. ``body`` may be sent again as it is, under the same ``idempotency_key``; a new attempt
    is a new one. Its text form has neither keys nor envelopes.
    """

    authorisation: Authorisation
    body: bytes = field(repr=False)
    _reply_keys: tuple[Secret, Secret, Secret] = field(repr=False)

    @property
    def job(self) -> str:
        """The job's id."""
        return self.authorisation.job

    @property
    def idempotency_key(self) -> str:
        """Names these bytes, for the gateway."""
        return self.authorisation.job

    def expired(self, now_ms: int | None = None) -> bool:
        """Whether the parties would refuse it by now."""
        return self.authorisation.expires_ms <= (_now_ms() if now_ms is None else now_ms)

    @property
    def age_s(self) -> float:
        """Seconds since it was sealed."""
        return (_now_ms() - self.authorisation.issued_ms) / 1000


def seal(batch: Batch, directory: Directory, set: str, terms: Terms, key: SigningKey) -> Sealed:
    """Fresh shares of ``batch``, sealed to the three parties of ``set``. 10 ms and more: not for an event loop.

    Raises CertificateError if the set is not usable, SealError if nothing can be sealed to its keys.
    """
    records = directory.parties(set)
    reply_keys = new_reply_key(), new_reply_key(), new_reply_key()
    plaintexts = [
        pack(
            Message({"v": VERSION, "reply_key": reply.reveal().hex(), **parcel.header}, dict(parcel.tensors))
        )
        for reply, parcel in zip(reply_keys, batch.deal(), strict=True)
    ]
    a, b, c = map(input_digest, plaintexts)
    now = _now_ms()
    bundle = batch.bundle
    authorisation = Authorisation(
        job=secrets.token_hex(16),
        federation=directory.federation,
        set=set,
        client=key.id,
        model=bundle.name,
        model_digest=bundle.model_digest,
        protocol=terms.protocol,
        batch=batch.size,
        length=batch.length,
        output="embedding",
        range_check=terms.range_check,
        purpose=terms.purpose,
        jurisdictions=terms.jurisdictions,
        retention=terms.retention,
        issued_ms=now,
        expires_ms=now + terms.lifetime_ms,
        inputs=(a, b, c),
    )
    envelopes = seal_envelopes(authorisation, plaintexts, [record.key() for record in records])
    body = {
        "authorisation": authorisation.to_json(),
        "signature": _text(key.sign(authorisation)),
        "envelopes": [_text(envelope) for envelope in envelopes],
    }
    return Sealed(authorisation, json.dumps(body, separators=(",", ":")).encode(), reply_keys)


def opened(sealed: Sealed, body: bytes, batch: Batch) -> tuple[Array, dict[str, float]]:
    """The vectors of ``batch``, float64 (batch.size, hidden), and the gateway's timing, from the body of an answer.

    Raises SealError for what is not the three parties' answer to this job, RangeExceeded if a text left the calibrated
    range, MpcError if the parties disagree or what they opened cannot be an embedding.
    """
    said = _object(body)
    answers = said.get("answers")
    if said.get("job") != sealed.job or not isinstance(answers, list) or len(answers) != 3:
        raise SealError("the gateway answered another job, or not with three answers", remedy="send it again")
    digest = sealed.authorisation.digest()
    messages = [
        _message(index, open_answer(_bytes(index, text), key, digest, index))
        for index, (text, key) in enumerate(zip(answers, sealed._reply_keys, strict=True))
    ]
    out = vectors(batch.bundle, batch, messages)
    check_vectors(out, batch.bundle)
    return out, _timing(said.get("timing"))


def check_vectors(out: Array, bundle: Bundle) -> None:
    """MpcError unless ``out`` can be embeddings of this model: finite, and of length 1 where the model normalises.

    Summands that do not belong together (a party that computed something else, or mixed up its rows) add up to numbers
    all over the ring, so their length gives them away. It names no party: that takes a protocol with checks.
    """
    norms = np.linalg.norm(out, axis=1)
    fits = np.isfinite(norms)
    if bundle.normalize:
        fits &= np.abs(norms - 1) <= NORM_TOLERANCE
    if not fits.all():
        raise MpcError(
            f"the answers add up to no embedding for {int((~fits).sum())} of {len(out)} texts: a party computed or "
            "sent something else",
            remedy="do not use it; tell the operators of this set the job's id",
        )


def _message(index: int, plaintext: bytes) -> Message:
    try:
        return unpack(plaintext, MAX_OUTPUT_BYTES, f"party {index}'s answer")
    except BadFrame as error:
        raise SealError(error.cause, remedy="use one version everywhere") from None


def _object(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise SealError("the gateway's answer is no JSON object", remedy="check the gateway's URL")
    return said


def _bytes(index: int, text: object) -> bytes:
    try:
        if not isinstance(text, str):
            raise ValueError
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SealError(f"party {index}'s answer is not base64", remedy="send the job again") from None


def _timing(said: object) -> dict[str, float]:
    if not isinstance(said, Mapping):
        return {}
    return {str(k)[:40]: finite(v) for k, v in list(said.items())[:32] if isinstance(v, int | float)}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def joined(batches: Sequence[Batch], found: Sequence[Array], hidden: int) -> Array:
    """The vectors of all batches in the order of the texts: float64 (texts, hidden)."""
    out = np.zeros((sum(batch.size for batch in batches), hidden))
    for batch, rows in zip(batches, found, strict=True):
        out[list(batch.indices)] = rows
    return out
