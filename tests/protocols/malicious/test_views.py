"""What the verifiers see tells them nothing, also where they cheat: the attacks that a simpler proof would allow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from statements import Dealer, chunks, keys, play

from mpc_ray.kernels.field import PrimeField
from mpc_ray.protocols.malicious import roles
from mpc_ray.protocols.malicious.arithmetic import merged
from mpc_ray.protocols.malicious.roles import PROGRAMS, Program, Proof
from mpc_ray.protocols.malicious.schedule import Message, schedule
from mpc_ray.protocols.malicious.sumcheck import array

PROOFS = 600
LIMIT = 60.0  # chi-square with 15 degrees of freedom: exceeded with 2e-7


def chi_square(fractions: list[float]) -> float:
    counts = np.bincount((np.array(fractions) * 16).astype(int), minlength=16)
    expected = len(fractions) / 16
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("kind", ["arithmetic", "boolean"])
def test_the_chairs_view_of_fixed_inputs_is_uniform(kind: str) -> None:
    """Two inputs that could not differ more, new masks each time: all numbers that B gets from P and A are uniform."""
    for extreme in (False, True):
        d = Dealer(1, extreme)
        claims = [d.product((40,))] if kind == "arithmetic" else [d.words((16,))]
        three = [own[0] for own in chunks(claims)]
        seen: dict[str, list[float]] = {}
        for t in range(PROOFS // 2):
            played = play(three, 0, keys(b"%d" % t))
            assert played.accepted
            coin = next(data for m, data in played.messages if m.name == "coin: field")
            p = merged(coin, 1).f.p if kind == "arithmetic" else 1 << 64
            for message, data in played.messages:
                if message.receiver != "B" or message.name in ("promise", "ready"):
                    continue
                if message.name == "quotients":  # q - mask: the mask has 192 bits
                    q = int.from_bytes(data[:32], "little", signed=True)
                    assert -(1 << 192) <= q < 1 << 91
                    seen.setdefault("quotients", []).append((q % (1 << 192)) / 2**192)
                    continue
                values = np.frombuffer(data[: message.length // 8 * 8], np.uint64)
                end = len(values) - 4 if message.name == "last" else len(values)
                seen.setdefault(f"{message.name} first", []).append(int(values[0]) / p)
                seen.setdefault(f"{message.name} last", []).append(int(values[end - 1]) / p)
        for name, fractions in seen.items():
            assert chi_square(fractions) < LIMIT, name
        assert len(seen) == (7 if kind == "arithmetic" else 8)


def captured(role: str, into: dict[str, object]) -> Callable[[Proof], Program]:
    """The role's program, which leaves its vector of the last comparison, before it is masked, in ``into``."""

    def program(proof: Proof) -> Program:
        original = roles._verifier

        def watched(proof: Proof, coins: dict, who: str, shares: object) -> tuple:
            found = original(proof, coins, who, shares)  # type: ignore[arg-type]
            if who == role:
                into["f"], into["vector"] = found[0], found[1]
            return found

        roles._verifier = watched  # type: ignore[assignment]
        try:
            inner, given = PROGRAMS[role](proof), None  # type: ignore[index]
            while True:
                given = yield inner.send(given)  # type: ignore[arg-type]
        except StopIteration:
            return
        finally:
            roles._verifier = original

    return program


def test_a_cheating_a_cannot_test_a_guess_of_the_chairs_secret() -> None:
    """A adds (δ, γ) to its last message. Were only u masked, B would accept exactly if ⟨δ, v⟩ = γ: a guess of v, right
    or wrong, would show in the verdict. v* = v + μ·s_B is uniform to A: both are rejected."""
    three = [own[0] for own in chunks([Dealer(2).product((20,))])]
    for right in (True, False):
        for t in range(20):
            seen: dict[str, object] = {}

            def hook(message: Message, data: bytes, right: bool = right, seen: dict = seen) -> bytes:
                if message.name != "last":
                    return data
                f: PrimeField = seen["f"]
                guess = int(seen["vector"][0]) + (0 if right else 1)
                values = np.frombuffer(data[:-32], np.uint64).copy()
                values[0] = f.add(int(values[0]), 1)
                values[-1] = f.add(int(values[-1]), guess % f.p)
                return values.tobytes() + data[-32:]

            programs = {**PROGRAMS, "B": captured("B", seen)}
            played = play(three, 0, keys(b"%d" % t), hook=hook, programs=programs)  # type: ignore[arg-type]
            assert "vector" in seen
            assert set(played.errors) == {"A", "B", "P"}


@pytest.mark.parametrize("kind", ["arithmetic", "boolean"])
def test_a_chair_that_misleads_the_prover_learns_nothing(kind: str) -> None:
    """With other coins at P than at A, c_A + c_B - ⟨u*, v*⟩ would be a linear equation in P's secrets. It needs A's
    last message, which never comes, whichever coin was false."""
    d = Dealer(3)
    three = [own[0] for own in chunks([d.product((200,))] if kind == "arithmetic" else [d.words((16,))])]
    coins = [m for m in schedule(three[0].shape(0)) if m.name.startswith("coin")]
    assert len(coins) == (5 if kind == "arithmetic" else 4)
    for false in coins:
        played = play(three, 0, hook=lambda m, data, false=false: bytes(16) if m == false else data)
        assert not played.sent("last")
        assert not played.accepted


def test_a_sees_one_hash_that_it_can_compute_itself() -> None:
    """All that A receives: the echo, which follows from coins that it knows, and a verdict that follows from its own
    behaviour. The same for two different secrets."""
    echoes = []
    for seed in (4, 5):
        three = [own[0] for own in chunks([Dealer(seed).product((20,))])]
        played = play(three, 0, keys(b"same"))
        echoes.append([data for m, data in played.messages if m.receiver == "A"])
    assert echoes[0] == echoes[1]
    assert len(echoes[0]) == 2


def test_a_prover_sees_nothing_but_coins_and_the_verdict() -> None:
    three = [own[0] for own in chunks([Dealer(6).product((20,)), Dealer(6).matrix(3, 4, 5)])]
    names = {m.name for m, _ in play(three, 0).messages if m.receiver == "P"}
    assert all(name.startswith("coin: ") or name == "verdict" for name in names)


def test_the_masks_of_both_sides_are_in_the_last_comparison() -> None:
    """u* differs from u in every entry, and the mask's factor is never 0: with λ = 0 A's vector would go out bare."""
    three = [own[0] for own in chunks([Dealer(7).product((20,))])]
    seen: dict[str, object] = {}
    played = play(three, 0, programs={**PROGRAMS, "A": captured("A", seen)})  # type: ignore[dict-item]
    assert played.accepted
    last = np.frombuffer(next(d for m, d in played.messages if m.name == "last")[:-40], np.uint64)
    assert (last != array([int(x) for x in seen["vector"]])).all()  # type: ignore[attr-defined]
    f = PrimeField((1 << 61) - 1)
    assert min(roles.coin_elements(f, bytes([t]) * 16, "masks", 2, nonzero=True)[0] for t in range(200)) > 0
    assert f.element(bytes(24), nonzero=True) == 1
