"""No false claim, no false message of a proof is accepted, at full parameters; the blame contains who cheated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest
from statements import Dealer, Played, chunks, keys, play

from mpc_ray.kernels.field_prime import is_prime, uniform_prime
from mpc_ray.protocols.malicious.chunks import Chunk
from mpc_ray.protocols.malicious.roles import PROGRAMS, SALT_BYTES, Program, Proof
from mpc_ray.protocols.malicious.schedule import Message, Role, party_of, schedule

TOP = 2**63


def assert_caught(played: Played, prover: int, culprit: Role) -> None:
    """Somebody stopped, and every honest party that did names the culprit among at most two, and never itself.

    A chair whose coin was changed on the way may be the one to stop, over an answer in another field than its own: the
    others then wait in vain, which the channel ends.
    """
    cheat = party_of(culprit, prover)
    honest = {role: error for role, error in played.errors.items() if role != culprit}
    assert honest or (culprit == "B" and not played.sent("last") and not played.accepted)
    for role, error in honest.items():
        assert cheat in error.culprits, (role, error)
        assert party_of(role, prover) not in error.culprits, (role, error)
        assert len(error.culprits) <= 2
        assert "chunk 0" in str(error)


def first(claims: list) -> list[Chunk]:
    return [own[0] for own in chunks(claims)]


@cache
def statement(kind: str) -> list[Chunk]:
    """True claims, the same at every call."""
    return first(STATEMENTS[kind]())


# -- false claims: what a party computed wrongly --------------------------------------------------------------

LIES: dict[str, Callable[[Dealer, int], list]] = {
    "z + 1": lambda d, i: [d.product((40,), errors={i: {0: 1}})],
    "z + 2^63": lambda d, i: [d.product((40,), errors={i: {39: TOP}})],
    "z + 2^62": lambda d, i: [d.product((64,), errors={i: {63: 2**62}})],
    "z random": lambda d, i: [d.product((65,), errors={i: {64: int(d.rng.integers(1, TOP))}})],
    "z + e, z' - e": lambda d, i: [d.product((40,), errors={i: {3: 12345, 4: -12345}})],
    "2^63 twice": lambda d, i: [d.product((40,), errors={i: {3: TOP, 30: TOP}})],
    "all even": lambda d, i: [d.product((40,), errors={i: {j: 2 * j + 2 for j in range(40)}})],
    "dot product": lambda d, i: [d.product((7, 9), axis=1, errors={i: {6: TOP}})],
    "one of a long chunk": lambda d, i: [d.product((700,)), d.product((1,), errors={i: {0: TOP}})],
    "one party, mod 2^16": lambda d, i: [d.one_party(i, 30, errors={7: 2**15})],
    "one party, mod 2": lambda d, i: [d.one_party(i, 30, terms=2, bits=1, errors={29: 1})],
    "one party, mod 2^64": lambda d, i: [d.one_party(i, 30, bits=64, errors={0: -TOP})],
    "matrix entry": lambda d, i: [d.matrix(5, 6, 7, errors={i: {34: TOP}})],
    "matrix row": lambda d, i: [d.matrix(5, 6, 7, errors={i: dict.fromkeys(range(7), TOP)})],
    "matrix column": lambda d, i: [d.matrix(5, 6, 7, errors={i: {7 * j: 5 for j in range(5)}})],
    "matrix, all even": lambda d, i: [d.matrix(5, 6, 7, errors={i: dict.fromkeys(range(35), TOP // 2)})],
    "matrix, +e and -e": lambda d, i: [d.matrix(5, 6, 7, errors={i: {0: 77, 1: -77}})],
    "matrix, rank one": lambda d, i: [
        d.matrix(5, 6, 7, errors={i: {7 * r + c: (r + 1) * (c + 2) for r in range(5) for c in range(7)}})
    ],
    "one matrix of a batch": lambda d, i: [d.matrix(3, 4, 5, (2, 3), errors={i: {59: TOP}})],
    "one bit of a word": lambda d, i: [d.words((16,), errors={i: {3: 1}})],
    "top bit of the last word": lambda d, i: [d.words((13,), errors={i: {12: TOP}})],
    "two bits of a word": lambda d, i: [d.words((16,), errors={i: {3: 0b11}})],
    "two words of a block": lambda d, i: [d.words((16,), errors={i: {3: 1, 4: 1}})],
    "two blocks": lambda d, i: [d.words((16,), errors={i: {3: 1, 11: 1}})],
    "pairs": lambda d, i: [d.words((9,), pairs=True, errors={i: {8: 1 << 40}})],
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("prover", range(3))
def test_false_claims_are_rejected(lie: str, prover: int) -> None:
    """6 times each with fresh shares and coins; the proofs of the two others, who did nothing, are accepted."""
    for seed in range(6):
        three = first(LIES[lie](Dealer(seed), prover))
        played = play(three, prover, keys(b"%d %d" % (seed, prover)))
        assert_caught(played, prover, "P")
        assert set(played.errors) == {"A", "B", "P"}
        if seed == 0:
            for other in {0, 1, 2} - {prover}:
                assert play(three, other).accepted


def test_z_that_differs_from_what_was_used_is_caught() -> None:
    """P sends A another z than it goes on with: its claim is about its own, A's share about what A was sent."""
    d = Dealer(9)
    record = d.product((20,))
    record[2].z.next[5] += TOP  # A of proof 0 is party 2
    assert_caught(play(first([record]), 0), 0, "P")


# -- false messages -------------------------------------------------------------------------------------------


def flip(bit: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[(bit // 8) % len(data)] ^= 1 << bit % 8
        return bytes(changed)

    return change


def words(change: Callable[[np.ndarray], None]) -> Callable[[bytes], bytes]:
    def apply(data: bytes) -> bytes:
        if len(data) % 8:
            return bytes([data[0] ^ 1]) + data[1:]
        values = np.frombuffer(data, np.uint64).copy()
        change(values)
        return values.tobytes()

    return apply


def bump(values: np.ndarray) -> None:
    values[-1:] += np.uint64(1)


def swap(values: np.ndarray) -> None:
    values[:] = values[::-1].copy() if len(set(values.tolist())) > 1 else values + np.uint64(1)


TAMPER: dict[str, Callable[[bytes], bytes]] = {
    "lowest bit": flip(0),
    "a bit within": flip(8 * 9 + 3),
    "top bit": lambda data: flip(8 * len(data) - 1)(data),
    "plus one": words(bump),
    "reversed": words(swap),
    "zeros": lambda data: bytes(len(data)) if any(data) else b"\1" * len(data),
    "garbage": lambda data: np.random.default_rng(len(data)).bytes(len(data)),
}

STATEMENTS: dict[str, Callable[[], list]] = {
    "arithmetic": lambda: [Dealer(1).product((180,)), Dealer(1).one_party(0, 3), Dealer(1).one_party(1, 5)],
    "matrices": lambda: [Dealer(2).matrix(3, 40, 5), Dealer(2).product((4,))],
    "boolean": lambda: [Dealer(3).words((8,))],
}


def all_messages(kind: str) -> Iterator[tuple[int, int, Message]]:
    three = statement(kind)
    for prover in range(3):
        for index, message in enumerate(schedule(three[0].shape(prover))):
            yield prover, index, message


def matters(message: Message, before: bytes, after: bytes) -> bool:
    """Whether the change can be of account: P's promise and A's salt are looked at only where a check has failed."""
    if message.name == "promise":
        return False
    end = len(before) - SALT_BYTES if message.name == "last" else len(before)
    return before[:end] != after[:end]


def attacked(kind: str, prover: int, index: int, change: Callable[[bytes], bytes]) -> tuple[Played, bool]:
    """Play with message ``index`` changed; whether the change matters."""
    messages = list(schedule(statement(kind)[0].shape(prover)))
    changed = []

    def hook(message: Message, data: bytes) -> bytes:
        if message != messages[index]:
            return data
        changed.append(matters(message, data, change(data)))
        return change(data)

    return play(statement(kind), prover, keys(b"%d" % index), hook=hook), any(changed)


@pytest.mark.parametrize("kind", STATEMENTS)
@pytest.mark.parametrize("tamper", TAMPER)
def test_every_message_of_every_proof(kind: str, tamper: str) -> None:
    """Exhaustive over provers and messages."""
    for prover, index, message in all_messages(kind):
        played, changed = attacked(kind, prover, index, TAMPER[tamper])
        if not changed:
            assert played.accepted
            continue
        assert_caught(played, prover, message.sender)
        if message.name.startswith("coin"):
            assert not played.sent("last"), "A spoke to a chair that misled the prover"


@pytest.mark.parametrize("kind", STATEMENTS)
def test_every_entry_of_every_matrix(kind: str) -> None:
    """Each number of P's messages, one at a time, off by one: rounds, mask round, the words' matrix, quotients."""
    count = 0
    for prover, index, message in all_messages(kind):
        if prover or message.sender != "P" or message.length <= 32:
            continue
        step = 32 if message.name == "quotients" else 8
        for at in range(0, message.length, step):

            def change(data: bytes, at: int = at) -> bytes:
                return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

            assert_caught(attacked(kind, prover, index, change)[0], prover, "P")
            count += 1
    assert count > 50


@pytest.mark.parametrize("kind", STATEMENTS)
def test_messages_of_other_proofs_are_no_use(kind: str) -> None:
    """Replay: what P and A said in another chunk, another attempt, or as another prover."""
    three = statement(kind)
    master = b"replay"
    elsewhere = [
        play(three, 0, keys(master), number=1),
        play(three, 0, keys(master, attempt=1)),
        play(three, 0, keys(b"another session")),
        play(three, 1, keys(master)),
    ]
    for other in elsewhere:
        assert other.accepted
        for message, data in other.messages:
            if message.sender == "B" or message.name in ("promise", "ready"):  # ready is a constant
                continue
            same = (message.stage, message.name, message.length)

            def hook(m: Message, sent: bytes, same: object = same, data: bytes = data) -> bytes:
                return data if (m.stage, m.name, m.length) == same else sent

            mine = [m for m in schedule(three[0].shape(0)) if (m.stage, m.name, m.length) == same]
            if mine:
                assert_caught(play(three, 0, keys(master), hook=hook), 0, message.sender)


def test_numbers_that_are_no_elements_are_refused_by_name() -> None:
    for prover, index, message in all_messages("arithmetic"):
        if message.sender == "B" or message.length % 8 or message.name in ("echo", "promise"):
            continue
        if message.name == "quotients":
            change = flip(8 * 32 - 2)
        else:
            change = words(lambda values: values.__setitem__(0, 2**61 + 1))
        played, _ = attacked("arithmetic", prover, index, change)
        what = "out of range" if message.name == "quotients" else "no field element"
        assert what in str(played.errors["B"])
        assert played.errors["B"].culprits == (party_of(message.sender, prover),)
        assert not played.sent("verdict")


@pytest.mark.parametrize("shift", [1, -1, 1 << 64, -(1 << 64), 1 << 190])
def test_shifted_quotients(shift: int) -> None:
    for at in (0, 55):

        def change(data: bytes, at: int = at) -> bytes:
            q = int.from_bytes(data[32 * at : 32 * at + 32], "little", signed=True) + shift
            return data[: 32 * at] + q.to_bytes(32, "little", signed=True) + data[32 * at + 32 :]

        assert_caught(attacked("arithmetic", 0, 1, change)[0], 0, "P")


def test_a_quotient_that_fits_a_guessed_prime() -> None:
    """A false sum made divisible by one prime passes if that prime is drawn: 4 in 2^54.6. Here all 56 sums are."""
    d = Dealer(4)
    three = first([d.product((6,), errors={0: {j: 1 << j for j in range(6)}})])
    guess = uniform_prime(range(TOP, TOP + 2**12, 16))
    assert is_prime(guess)
    inverse = pow(1 << 64, -1, guess)

    def hook(message: Message, data: bytes) -> bytes:
        if message.name != "quotients":
            return data
        out = b""
        for at in range(
            0, len(data), 32
        ):  # of every sum, the part below 2^64 is at most Σ 2^j: try to absorb it
            q = int.from_bytes(data[at : at + 32], "little", signed=True) + 63 * inverse
            out += q.to_bytes(32, "little", signed=True)
        return out

    for seed in range(10):
        assert_caught(play(three, 0, keys(b"%d" % seed), hook=hook), 0, "P")


# -- local lies of verifiers ----------------------------------------------------------------------------------


def bent(role: Role, at: int, change: Callable[[bytes], bytes]) -> dict[Role, Callable[[Proof], Program]]:
    """A role that changes the message it receives ``at`` that place before it looks at it."""

    def program(proof: Proof) -> Program:
        inner, given, count = PROGRAMS[role](proof), None, 0
        while True:
            try:
                out = inner.send(given)  # type: ignore[arg-type]
            except StopIteration:
                return
            given = yield out
            if out is None:
                given = change(given) if count == at else given
                count += 1

    return {**PROGRAMS, role: program}


@pytest.mark.parametrize("verdict", [b"\0", b"\1", b"\2", b"\3", b"\xff"])
def test_a_chair_that_lies_is_named_or_without_effect(verdict: bytes) -> None:
    """A false reject stops the session and names the chair. (A false accept needs a corrupt prover besides.)"""
    true = first([Dealer(5).product((9,))])
    played = play(true, 0, hook=lambda m, data: verdict if m.name == "verdict" else data)
    if verdict == b"\1":
        assert played.accepted
    else:
        assert_caught(played, 0, "B")
    assert "B" not in played.errors


def test_equivocating_verdicts_stop_whoever_hears_of_it() -> None:
    """The chair accepts to one and rejects to the other: the one that heard stops, and it names the chair."""
    true = first([Dealer(5).product((9,))])
    for told in ("A", "P"):
        played = play(
            true, 0, hook=lambda m, data, told=told: b"\2" if (m.name, m.receiver) == ("verdict", told) else data
        )  # fmt: skip
        assert set(played.errors) == {told}
        assert_caught(played, 0, "B")


def test_a_prover_that_uses_other_coins_than_it_echoes_is_caught() -> None:
    for at in range(5):
        played = play(statement("arithmetic"), 0, programs=bent("P", at, flip(3)))
        assert_caught(played, 0, "P")


def test_the_blame_falls_on_the_prover_alone_where_a_said_what_it_promised() -> None:
    three = first([Dealer(6).product((9,), errors={0: {0: 1}})])
    assert play(three, 0).errors["B"].culprits == (0,)
    shifted = play(
        first([Dealer(6).product((9,))]), 0, hook=lambda m, d: flip(0)(d) if m.name == "last" else d
    )
    assert shifted.errors["B"].culprits == (0, 2)
