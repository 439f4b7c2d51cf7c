"""An authorisation with its key, contents and recipients: for the tests of authorisations and policies."""

from __future__ import annotations

import os
from typing import Any

from mpc_ray.trust.authorisation import Authorisation, SigningKey, input_digest
from mpc_ray.trust.hpke import PrivateKeys

KEY = SigningKey.generate()
PARTIES = [PrivateKeys.generate() for _ in range(3)]
TO = [keys.publics[0] for keys in PARTIES]
CONTENTS = [bytes([index]) * 8 + os.urandom(64) for index in range(3)]
ISSUED = 1_800_000_000_000


def an_authorisation(**changes: Any) -> Authorisation:
    fields: dict[str, Any] = {
        "job": "00112233445566778899aabbccddeeff", "federation": "demo", "set": "eu", "client": KEY.id,
        "model": "all-MiniLM-L6-v2", "model_digest": "ab" * 32, "protocol": "semi_honest_3pc", "batch": 4,
        "length": 128, "output": "embedding", "range_check": True, "purpose": "search",
        "jurisdictions": ("IE", "DE", "US-CA"), "retention": "job", "issued_ms": ISSUED,
        "expires_ms": ISSUED + 60_000, "inputs": tuple(map(input_digest, CONTENTS)),
    }  # fmt: skip
    return Authorisation(**(fields | changes))
