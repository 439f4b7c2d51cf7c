"""Agreement on the pairwise seeds at session start.

S = HKDF(a ‖ b; pair, session, HELLO digest), with a and b 32 fresh bytes of each side, exchanged over the
(mutually authenticated, encrypted) channel. Fresh at every start, so nothing dealt before a crash, a retry
or a restored disk image can ever be dealt again. One round, 32 bytes to each peer.

What makes a seed unique and secret is a and b; session and digest only tie it to what HELLO compared, so the session
may be left out where the digest covers it. Each is hashed with its length, so that no two pairs of them collide.
"""

from __future__ import annotations

import os

from mpc_ray.channel.interface import Channel
from mpc_ray.correlation.prf import derive

NONCE_BYTES = 32
NO_JOB = bytes(16)  # the agreement belongs to no job


def agree(channel: Channel, session: bytes, digest: bytes) -> dict[int, bytes]:
    """Returns {i: S_i} for the two seeds this party holds, 32 bytes each.

    Seed S_i belongs to the pair (P_{i-1}, P_i). Errors: whatever the channel raises.
    """
    me = channel.me
    channel.begin(NO_JOB, 0)
    fresh = {peer: os.urandom(NONCE_BYTES) for peer in range(3) if peer != me}
    theirs = {peer: bytearray(NONCE_BYTES) for peer in fresh}
    for peer, nonce in fresh.items():
        channel.send(peer, 1, 1, [memoryview(nonce)])
    for peer, into in theirs.items():
        channel.receive(peer, 1, [memoryview(into)])
    channel.flush()
    return {i: _seed(fresh, theirs, me, i, session, digest) for i in (me, (me + 1) % 3)}


def _seed(
    fresh: dict[int, bytes], theirs: dict[int, bytearray], me: int, i: int, session: bytes, digest: bytes
) -> bytes:
    first, second = sorted(((i - 1) % 3, i))
    peer = second if first == me else first
    ordered = [fresh[peer], bytes(theirs[peer])] if me == first else [bytes(theirs[peer]), fresh[peer]]
    named = b"".join(len(part).to_bytes(4, "big") + part for part in (session, digest))
    return derive(b"".join(ordered), b"mpc-ray seed|" + bytes((i,)) + named)
