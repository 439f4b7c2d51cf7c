"""The three roles of a proof as programs: what each sends, what it computes between, and what it refuses.

A role is a generator. It yields the bytes of its next message, or None to be given the next message that it receives,
in the order of ``schedule``. It sees no channel and no clock, so the same programs run in tests, under attack and in
parties. What it finds wrong it raises as CheatingDetected, naming the one or two parties that must be behind it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc_ray.errors import CheatingDetected
from mpc_ray.protocols.malicious import arithmetic, boolean
from mpc_ray.protocols.malicious.arithmetic import ProverStatement, Statement, verifier_side
from mpc_ray.protocols.malicious.chunks import Arithmetic, Boolean, Chunk
from mpc_ray.protocols.malicious.keys import ProofKeys, expand_coin
from mpc_ray.protocols.malicious.schedule import (
    ACCEPT,
    HASH_BYTES,
    READY,
    REJECT_PAIR,
    REJECT_PROVER,
    ROUND_ENTRIES,
    WORD_ENTRIES,
    Role,
    Shape,
    party_of,
)
from mpc_ray.protocols.malicious.sumcheck import (
    Field,
    array,
    blinded,
    blinded_claim,
    elements,
    from_wire,
    less,
    next_claim,
    padded,
    to_wire,
)

Word = NDArray[np.uint64]
Program = Generator[bytes | None, bytes, None]
SALT_BYTES = 32


@dataclass(frozen=True)
class Proof:
    """What a role knows of its proof besides the claims: its keys and its names. ``steps``: what the chunk covers."""

    chunk: Chunk
    number: int
    prover: int
    keys: ProofKeys
    steps: str

    @property
    def shape(self) -> Shape:
        return self.chunk.shape(self.prover)

    def cheated(self, what: str, *roles: Role) -> CheatingDetected:
        """The error that ends the session: ``roles`` are whom the evidence leaves."""
        culprits = tuple(sorted(party_of(role, self.prover) for role in roles))
        who = " or ".join(f"party {party}" for party in culprits)
        return CheatingDetected(
            f"{who}: {what}, in the proof of party {self.prover} of chunk {self.number} ({self.steps})",
            culprits,
        )

    def coin(self, step: str) -> bytes:
        """A verifier's own coin."""
        return self.keys.coin(self.number, self.prover, step)

    def with_prover(self, role: Role, step: str, length: int) -> NDArray[np.uint8]:
        """Bytes that P shares with A (``role`` "A") or with B."""
        seed = self.prover if role == "A" else self.prover + 1
        return self.keys.stream(seed, self.number, self.prover, step, length)

    def elements(self, f: Field, role: Role, step: str, count: int) -> list[int]:
        """Uniform elements that P shares with A, or with B."""
        return elements(f, self.with_prover(role, step, count * f.random_bytes))


def coin_elements(f: Field, coin: bytes, purpose: str, count: int, nonzero: bool = False) -> list[int]:
    """Uniform elements that follow from a coin."""
    return elements(f, expand_coin(coin, purpose, count * f.random_bytes), nonzero)


def _fold_coins(f: Field, coin: bytes) -> tuple[list[int], list[int]]:
    drawn = coin_elements(f, coin, "fold", 8)
    return drawn[:4], drawn[4:]


def _mask_coins(f: Field, coin: bytes) -> tuple[int, int]:
    """λ, μ of the mask round: not 0, else a mask would be none."""
    lam, mu = coin_elements(f, coin, "masks", 2, nonzero=True)
    return lam, mu


def _names(shape: Shape) -> list[str]:
    """The coins of a proof in their order."""
    return ["subsets", "field", *(f"round {i}" for i in range(shape.rounds)), "masks"]


def _promise(salt: bytes, last: bytes) -> bytes:
    return hashlib.sha256(b"mpc-ray promise|" + salt + last).digest()


# -- the prover --------------------------------------------------------------------------------------------


def prover(proof: Proof) -> Program:
    """P: binds itself before every coin; follows A's side to the end, and promises B what A will say."""
    coins = [(yield None)]
    f: Field
    if isinstance(proof.chunk, Arithmetic):
        statement = ProverStatement(proof.chunk, proof.prover, coins[0])
        quotients = statement.quotients()
        masks = arithmetic.quotient_masks(
            proof.with_prover("A", "quotients", arithmetic.QUOTIENT_MASK_BYTES * len(quotients))
        )
        shares = [q - mask for q, mask in zip(quotients, masks, strict=True)]
        yield arithmetic.quotients_to_wire(shares)
        coins.append((yield None))
        merged = arithmetic.merged(coins[1], len(quotients))
        f = merged.f
        u, v, claim = statement.merge(merged, masks)
        del statement
    else:
        u, v, claim = yield from _prove_words(proof, proof.chunk, coins)
        f = boolean.FIELD
    for number in range(proof.shape.rounds):
        u, v = padded(u), padded(v)
        m = f.cross(u, v)
        shared = proof.elements(f, "A", f"round {number}", ROUND_ENTRIES)
        yield to_wire(less(f, m[1:], shared))
        coins.append((yield None))
        lam, mu = _fold_coins(f, coins[-1])
        u, v = f.fold(u, f.coefficients(lam)), f.fold(v, f.coefficients(mu))
        claim = next_claim(f, claim, shared, lam, mu)
    u, v = u[: proof.shape.last], v[: proof.shape.last]
    s_a, s_b = (proof.elements(f, role, "vector mask", u.size) for role in ("A", "B"))
    products = [f.inner(u, array(s_b)), f.inner(array(s_a), v), f.inner(array(s_a), array(s_b))]
    shared = proof.elements(f, "A", "masks", 3)
    yield to_wire(less(f, products, shared))
    coins.append((yield None))
    lam_, mu_ = _mask_coins(f, coins[-1])
    last = to_wire([*blinded(f, u, lam_, s_a), blinded_claim(f, claim, shared, lam_, mu_)])
    yield hashlib.sha256(b"".join(coins)).digest()
    yield _promise(proof.with_prover("A", "salt", SALT_BYTES).tobytes(), last)
    _heed(proof, "P", (yield None))


def _prove_words(
    proof: Proof, chunk: Boolean, coins: list[bytes]
) -> Generator[bytes | None, bytes, tuple[Word, Word, int]]:
    f = boolean.FIELD
    weights = boolean.weights(coins[0], chunk.words, chunk.limits.weight_bits)
    left, right = boolean.left_side(chunk, True), boolean.right_side(chunk, False)
    d = boolean.matrix(weights, left, right)
    claim = boolean.first_claim(weights, left.sums)
    shared = proof.elements(f, "A", "words", WORD_ENTRIES)
    yield to_wire(less(f, d[1:], shared))
    coins.append((yield None))
    lam, mu = boolean.fold_coins(coins[1])
    u, v = boolean.prover_vectors(weights, left, right, lam, mu)
    return u, v, next_claim(f, claim, shared, lam, mu, weights.eta)


# -- A -----------------------------------------------------------------------------------------------------


def left(proof: Proof) -> Program:
    """A: knows all coins, so it computes at once; speaks once, at the end, and only if P was given the true coins."""
    coins = {name: proof.coin(name) for name in _names(proof.shape)}
    yield READY
    last = _last(proof, coins)
    echo = yield None
    if not hmac.compare_digest(echo, hashlib.sha256(b"".join(coins.values())).digest()):
        raise proof.cheated("the prover was given other coins than the verifiers have", "P", "B")
    yield last + proof.with_prover("A", "salt", SALT_BYTES).tobytes()
    _heed(proof, "A", (yield None))


def _last(proof: Proof, coins: dict[str, bytes]) -> bytes:
    """u* and A's share of the claim."""
    f, u, claim, rounds = _verifier(proof, coins, "A", None)
    for number, (lam, mu) in enumerate(rounds):
        claim = next_claim(f, claim, proof.elements(f, "A", f"round {number}", ROUND_ENTRIES), lam, mu)
    s_a = proof.elements(f, "A", "vector mask", u.size)
    lam_, mu_ = _mask_coins(f, coins["masks"])
    claim = blinded_claim(f, claim, proof.elements(f, "A", "masks", 3), lam_, mu_)
    return to_wire([*blinded(f, u, lam_, s_a), claim])


Rounds = Sequence[tuple[list[int], list[int]]]


def _verifier(
    proof: Proof, coins: dict[str, bytes], role: Role, shares: Sequence[int] | None
) -> tuple[Field, Word, int, Rounds]:
    """A verifier's field, its vector after all folding, its share of the claim at the first round, and all λ, μ.

    ``shares``: B's of the quotients or of the Boolean matrix, as they came; A's are expanded here.
    """
    chunk, is_a = proof.chunk, role == "A"
    side = 0 if is_a else 1
    if isinstance(chunk, Arithmetic):
        count = proof.shape.quotients
        if shares is None:
            raw = proof.with_prover("A", "quotients", arithmetic.QUOTIENT_MASK_BYTES * count)
            shares = arithmetic.quotient_masks(raw)
        merged = arithmetic.merged(coins["field"], count)
        f: Field = merged.f
        rounds = [_fold_coins(f, coins[f"round {i}"]) for i in range(proof.shape.rounds)]
        statement = Statement(chunk, proof.prover, coins["subsets"])
        u, claim = verifier_side(statement, merged, is_a, shares, [pair[side] for pair in rounds])
        return f, u, claim, rounds
    f = boolean.FIELD
    rounds = [_fold_coins(f, coins[f"round {i}"]) for i in range(proof.shape.rounds)]
    if shares is None:
        shares = proof.elements(f, "A", "words", WORD_ENTRIES)
    weights = boolean.weights(coins["subsets"], chunk.words, chunk.limits.weight_bits)
    words = boolean.left_side(chunk, False) if is_a else boolean.right_side(chunk, True)
    pair = boolean.fold_coins(coins["field"])
    claim = next_claim(f, boolean.first_claim(weights, words.sums), shares, *pair, weights.eta)
    omega = weights.omega if is_a else None
    return f, boolean.verifier_vector(words, pair[side], omega, [p[side] for p in rounds]), claim, rounds


# -- the chair ---------------------------------------------------------------------------------------------


def chair(proof: Proof) -> Program:
    """B: releases each coin after the message that it is tossed for, compares at the end, tells both its verdict."""
    shape = proof.shape
    coins = {name: proof.coin(name) for name in _names(shape)}
    if (yield None) != READY:
        raise proof.cheated("a message that is none", "A")
    yield coins["subsets"]
    shares = _first_shares(proof, (yield None))
    yield coins["field"]
    f, v, claim, rounds = _verifier(proof, coins, "B", shares)
    for number, (lam, mu) in enumerate(rounds):
        entries = _checked(proof, f, (yield None), f"round {number}", "P")
        yield coins[f"round {number}"]
        claim = next_claim(f, claim, entries, lam, mu)
    entries = _checked(proof, f, (yield None), "the mask round", "P")
    yield coins["masks"]
    lam_, mu_ = _mask_coins(f, coins["masks"])
    claim = blinded_claim(f, claim, entries, lam_, mu_)
    v_star = blinded(f, v, mu_, proof.elements(f, "B", "vector mask", v.size))
    promise = yield None
    message = yield None
    last, salt = message[:-HASH_BYTES], message[-HASH_BYTES:]
    *u_star, a_claim = _checked(proof, f, last, "the last message", "A")
    if f.inner(array(u_star), array(v_star)) == f.add(a_claim, claim):
        verdict, error = ACCEPT, None
    elif hmac.compare_digest(promise, _promise(salt, last)):
        verdict, error = REJECT_PROVER, proof.cheated("a false claim", "P")
    else:
        verdict, error = REJECT_PAIR, proof.cheated("a false claim or a false check", "P", "A")
    yield verdict
    yield verdict
    if error is not None:
        raise error


def _first_shares(proof: Proof, message: bytes) -> list[int]:
    if proof.shape.boolean:
        return _checked(proof, boolean.FIELD, message, "the words' matrix", "P")
    shares = arithmetic.quotients_from_wire(message)
    if shares is None:
        raise proof.cheated("a quotient out of range", "P")
    return shares


def _checked(proof: Proof, f: Field, message: bytes, what: str, sender: Role) -> list[int]:
    values = from_wire(f, message)
    if values is None:
        raise proof.cheated(f"a number that is no field element in {what}", sender)
    return values


def _heed(proof: Proof, role: Role, verdict: bytes) -> None:
    """A verdict other than "accepted" ends the session. It is the chair's word: ``role``, P or A, knows that it was
    honest itself, so the chair is among those that it holds for possible culprits."""
    if verdict == ACCEPT:
        return
    said = f"the check failed, says its chair, party {party_of('B', proof.prover)}"
    if verdict not in (REJECT_PROVER, REJECT_PAIR):
        raise proof.cheated("a verdict that is none", "B")
    if role == "A":
        raise proof.cheated(said, "P", "B")
    # An honest prover's promise is true: what equals it passes the check, so a chair that says otherwise lies.
    raise proof.cheated(said, *(("B",) if verdict == REJECT_PROVER else ("A", "B")))  # type: ignore[arg-type]


PROGRAMS: dict[Role, Callable[[Proof], Program]] = {"P": prover, "A": left, "B": chair}
