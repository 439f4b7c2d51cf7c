"""What a party runs for its client under malicious_3pc: aby3, every product of it proved before anything is answered.

A party answers both its pieces of the output and of the range checks, made anew by a last product with a public 1, so
that every piece comes from two parties and the client can compare. Nothing is answered before the barrier
(``protocols.malicious.background``). Experimental: nobody outside the project has read the proof of its security.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from mpc_ray.channel.interface import Channel
from mpc_ray.config import warn_if_experimental
from mpc_ray.execute import Body, Executor, Outcome, Run
from mpc_ray.execute_aby3 import ABY3, prepare, run_pieces
from mpc_ray.holdings import Take
from mpc_ray.kernels.warm import warm_proofs
from mpc_ray.models.plan import EncoderPlan
from mpc_ray.protocols.aby3.bits import Bits, and_, join
from mpc_ray.protocols.aby3.blocks import ModelShares
from mpc_ray.protocols.aby3.place import Place
from mpc_ray.protocols.aby3.product import multiply
from mpc_ray.protocols.malicious.background import Background
from mpc_ray.protocols.malicious.copies import Copies
from mpc_ray.protocols.runtime import Protocol, Runtime, together
from mpc_ray.sharing.replicated import Shared, Summand


def public_ones(me: int, shape: torch.Size, value: int) -> tuple[torch.Tensor, torch.Tensor]:
    """This party's two pieces of a public constant: piece 0 is it, the others are 0."""
    return tuple(  # type: ignore[return-value]
        torch.full(shape, value if piece % 3 == 0 else 0, dtype=torch.int64) for piece in (me, me + 1)
    )


def _fresh(runtime: Runtime, output: Shared, sums: list[Bits]) -> Protocol[tuple[Shared, list[Bits]]]:
    """The same values in new pieces, which say nothing but the values. 1 round."""
    me = runtime.me

    def numbers() -> Protocol[Any]:
        one = Shared(*public_ones(me, output.shape, 1), 0)
        return (yield from multiply(Place(runtime, "head", "answer"), output, one))

    def bits() -> Protocol[Any]:
        both = join([Bits(s.own.reshape(-1), s.next.reshape(-1)) for s in sums])
        ones = Bits(*public_ones(me, both.shape, -1))
        return (yield from and_(Place(runtime, "head", "answer check"), both, ones))

    made = yield from together([numbers(), bits()] if sums else [numbers()])
    if not sums:
        return made[0], []
    parts, end = [], 0
    for s in sums:
        start, end = end, end + s.own.numel()
        parts.append(Bits(made[1].own[start:end].reshape(s.shape), made[1].next[start:end].reshape(s.shape)))
    return made[0], parts


def _answered(runtime: Runtime, shares: ModelShares, run: Run) -> Protocol[Outcome]:
    output, found = yield from run_pieces(runtime, shares, run)
    fresh, sums = yield from _fresh(runtime, output, list(found.values()))
    checks = {label: (1, bits.own) for label, bits in zip(found, sums, strict=True)}
    copies = [fresh.next, *(bits.next for bits in sums)]
    return Outcome(Summand(fresh.own, fresh.scale), checks, copies)


def _program(runtime: Runtime, shares: ModelShares, run: Run) -> Protocol[Outcome]:
    copies = Copies(runtime.me)
    settings = [list(run.texts), run.range_check, run.program.layers, run.program.embedding_norm]
    copies.add_public("job", json.dumps([run.job.hex(), run.program.output, *settings]).encode())
    for name, shared in run.inputs.items():
        copies.add(name, shared)
    background = Background(runtime, run.job, 0, copies)
    outcome = yield from background.alongside(_answered(runtime, shares, run))
    runtime.timing.add("proofs", "proofs", background.clock.seconds)
    return outcome


def _prepare(me: int, plan: EncoderPlan, take: Take, place: torch.device) -> ModelShares:
    warm_proofs()
    return prepare(me, plan, take, place)


MALICIOUS = Body(ABY3.digest, _prepare, _program, checked=True)


def executor(channel: Channel, **settings: Any) -> Executor:
    """A party of malicious_3pc; says that it is experimental. ``settings``: those of ``Executor``, without a body."""
    warn_if_experimental("malicious_3pc")
    return Executor(channel, body=MALICIOUS, **settings)
