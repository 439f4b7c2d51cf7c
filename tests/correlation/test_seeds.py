"""Agreement on seeds: equal at both holders, unknown to the third, new at every start, tied to the session."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from mpc_ray.channel import local_channels
from mpc_ray.correlation.prf import derive
from mpc_ray.correlation.seeds import NONCE_BYTES, _seed, agree

SESSION, DIGEST = bytes(range(16)), bytes(32)


def agreed(sessions: tuple[bytes, ...] = (SESSION,) * 3, digest: bytes = DIGEST) -> list[dict[int, bytes]]:
    channels = local_channels(timeout=10.0)
    results: list[Any] = [None] * 3

    def party(i: int) -> None:
        results[i] = agree(channels[i], sessions[i], digest)

    threads = [threading.Thread(target=party, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for channel in channels:
        assert channel.meter.bytes_sent == 2 * (60 + NONCE_BYTES)
        assert channel.meter.rounds == 1
        channel.close()
    return results


def test_each_seed_is_held_by_its_two_parties_alone() -> None:
    seeds = agreed()
    for i in range(3):
        assert seeds[(i - 1) % 3][i] == seeds[i][i]
        assert i not in seeds[(i + 1) % 3]
        assert len(seeds[i][i]) == 32
    assert len({seeds[i][i] for i in range(3)}) == 3


def test_seeds_are_new_at_every_start() -> None:
    everything = [seed for _ in range(3) for held in agreed() for seed in held.values()]
    assert len(set(everything)) == 9


@pytest.mark.parametrize("other", [b"", SESSION[::-1]])
def test_two_parties_in_different_sessions_get_different_seeds(other: bytes) -> None:
    seeds = agreed((SESSION, other, SESSION))
    assert seeds[0][1] != seeds[1][1]
    assert seeds[1][2] != seeds[2][2]
    assert seeds[2][0] == seeds[0][0]


def test_session_and_digest_cannot_run_into_each_other() -> None:
    nonces = {1: bytes(32), 2: bytes(32)}
    theirs = {1: bytearray(32), 2: bytearray(32)}
    pairs = ((b"ab", b"c"), (b"a", b"bc"), (b"", b"abc"))
    assert len({_seed(nonces, theirs, 0, 1, session, digest) for session, digest in pairs}) == 3


def test_the_derivation_is_fixed() -> None:
    """Both nonces, the lower party's first; pair, session and digest in the info, with their lengths."""
    sent = {a: {b: bytes([10 * a + b]) * 32 for b in range(3) if b != a} for a in range(3)}
    for me in range(3):
        theirs = {peer: bytearray(sent[peer][me]) for peer in sent[me]}
        for i in (me, (me + 1) % 3):
            first, second = sorted(((i - 1) % 3, i))
            info = b"mpc-ray seed|" + bytes([i]) + b"\0\0\0\x10" + SESSION + b"\0\0\0\x20" + DIGEST
            wanted = derive(sent[first][second] + sent[second][first], info)
            assert _seed(sent[me], theirs, me, i, SESSION, DIGEST) == wanted
