"""Requests made by hand, right or wrong in one thing: what the client library would never send."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpc_ray.channel.packed import Message, pack
from mpc_ray.client.bundle import Bundle
from mpc_ray.client.share import prepare
from mpc_ray.trust.authorisation import Authorisation, SigningKey, input_digest, seal_envelopes
from mpc_ray.trust.directory import Directory

Body = dict[str, Any]


@dataclass(frozen=True)
class Maker:
    """Makes bodies of ``POST /v1/private/infer`` for one set and model."""

    bundle: Bundle
    directory: Directory
    key: SigningKey
    set: str

    def authorisation(
        self, plaintexts: list[bytes], batch: int, length: int, **changed: Any
    ) -> Authorisation:
        now = int(time.time() * 1000)
        fields: dict[str, Any] = {
            "job": os.urandom(16).hex(),
            "federation": self.directory.federation,
            "set": self.set,
            "client": self.key.id,
            "model": self.bundle.name,
            "model_digest": self.bundle.model_digest,
            "protocol": "semi_honest_3pc",
            "batch": batch,
            "length": length,
            "output": "embedding",
            "range_check": True,
            "purpose": "search",
            "jurisdictions": (),
            "retention": "job",
            "issued_ms": now,
            "expires_ms": now + 30_000,
            "inputs": tuple(map(input_digest, plaintexts)),
        }
        return Authorisation(**(fields | changed))

    def plaintexts(self, text: str) -> tuple[list[bytes], int, int]:
        (batch,) = prepare(self.bundle, [text])
        found = []
        for parcel in batch.deal():
            header = {"v": 1, "reply_key": os.urandom(32).hex(), **parcel.header}
            found.append(pack(Message(header, dict(parcel.tensors))))
        return found, batch.size, batch.length

    def body(
        self, text: str = "A man is eating food.", *, key: SigningKey | None = None, **changed: Any
    ) -> Body:
        """A valid request but for ``changed`` fields, which are signed; ``key`` signs in place of the enrolled one."""
        plaintexts, size, length = self.plaintexts(text)
        signer = key or self.key
        authorisation = self.authorisation(plaintexts, size, length, **({"client": signer.id} | changed))
        return self.sealed(authorisation, plaintexts, signer)

    def sealed(self, authorisation: Authorisation, plaintexts: list[bytes], signer: SigningKey) -> Body:
        keys = [record.key() for record in self.directory.parties(self.set)]
        envelopes = seal_envelopes(authorisation, plaintexts, keys)
        return {
            "authorisation": authorisation.to_json(),
            "signature": base64.b64encode(signer.sign(authorisation)).decode(),
            "envelopes": [base64.b64encode(envelope).decode() for envelope in envelopes],
        }

    def unsealed(self, text: str = "A man is eating food.") -> tuple[Authorisation, list[bytes]]:
        plaintexts, size, length = self.plaintexts(text)
        return self.authorisation(plaintexts, size, length), plaintexts


def maker(bundle: Path, directory: Path, key: Path, set: str) -> Maker:
    return Maker(Bundle.load(bundle), Directory.load(directory), SigningKey.load(key), set)


def with_changed(body: Body, **changed: Any) -> Body:
    """The body with fields of its authorisation changed after signing."""
    return {**body, "authorisation": {**body["authorisation"], **changed}}


def flipped(text: str) -> str:
    """Base64 with one bit of what it says changed."""
    raw = bytearray(base64.b64decode(text))
    raw[len(raw) // 2] ^= 1
    return base64.b64encode(bytes(raw)).decode()


def expired(a: Authorisation, by_ms: int) -> Mapping[str, Any]:
    return replace(a, issued_ms=a.issued_ms - by_ms, expires_ms=a.expires_ms - by_ms).to_json()
