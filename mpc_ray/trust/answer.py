"""A party's sealed answer: AES-256-GCM under the reply key that came in its envelope.

    nonce 12 · ciphertext · tag 16

The authorisation's digest and the party's index are associated data, so that an answer opens as that job's and that
party's alone. The reply key is the client's own, random, for one job; a second attempt uses it again with another
random nonce.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mpc_ray.errors import SealError
from mpc_ray.trust.secret import Secret

KEY_BYTES = 32
OVERHEAD = 28
_LABEL = b"mpc-ray answer v1|"


def new_reply_key() -> Secret:
    """32 random bytes, for one party and one job."""
    return Secret(os.urandom(KEY_BYTES))


def seal_answer(plaintext: bytes, reply_key: Secret, authorisation_digest: bytes, index: int) -> bytes:
    """``plaintext`` and 28 bytes more. ``SealError`` if key or digest are not of 32 bytes."""
    nonce = os.urandom(12)
    return nonce + _cipher(reply_key).encrypt(nonce, plaintext, _bound(authorisation_digest, index))


def open_answer(sealed: bytes, reply_key: Secret, authorisation_digest: bytes, index: int) -> bytes:
    """The plaintext. ``SealError`` if it is another job's or party's, under another key, or was changed."""
    if len(sealed) < OVERHEAD:
        raise SealError(f"party {index}'s answer is truncated", remedy="send the job again")
    try:
        return _cipher(reply_key).decrypt(
            bytes(sealed[:12]), bytes(sealed[12:]), _bound(authorisation_digest, index)
        )
    except InvalidTag:
        raise SealError(
            f"party {index}'s answer does not open: of another job or party, or changed on the way",
            remedy="send the job again; if it persists, the gateway or that party is at fault",
        ) from None


def _cipher(key: Secret) -> AESGCM:
    if len(key) != KEY_BYTES:
        raise SealError(f"a reply key has {KEY_BYTES} bytes", remedy="draw it with new_reply_key")
    return AESGCM(key.reveal())


def _bound(digest: bytes, index: int) -> bytes:
    if len(digest) != 32 or index not in (0, 1, 2):
        raise SealError(
            "an answer belongs to a digest of 32 bytes and party 0, 1 or 2", remedy="see seal_answer"
        )
    return _LABEL + digest + bytes([index])
