"""A party's side of ``mpc-ray bench ops``: one function on shares, and nothing else.

It takes the place of the product's Executor in a session of its own, so a function is measured under the same
launchers, channels and counts as a model. What a party would do once, when it loads a model, is done before the clock
starts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from mpc_ray.channel.interface import Channel
from mpc_ray.channel.link import Message
from mpc_ray.errors import DeviceError, InputError
from mpc_ray.execute import Executor
from mpc_ray.functions.spline import Spline
from mpc_ray.models.plan import EncoderPlan
from mpc_ray.models.public import tables_of
from mpc_ray.models.record import from_record
from mpc_ray.protocols.runtime import Protocol, Runtime, together
from mpc_ray.protocols.semi_honest.compare import less_than_zero
from mpc_ray.protocols.semi_honest.lookup import deal_index, spline_product
from mpc_ray.protocols.semi_honest.norm import normalise
from mpc_ray.protocols.semi_honest.open import open_masked, reshare
from mpc_ray.protocols.semi_honest.product import Linear, factor
from mpc_ray.protocols.semi_honest.range_check import RangeChecks
from mpc_ray.protocols.semi_honest.role import Role
from mpc_ray.protocols.semi_honest.select import relu, to_shared
from mpc_ray.protocols.semi_honest.softmax import Group, attention
from mpc_ray.protocols.semi_honest.tournament import argmax, maximum
from mpc_ray.protocols.semi_honest.truncate import truncate
from mpc_ray.sharing.deal import receive
from mpc_ray.sharing.fixed import check_scale
from mpc_ray.sharing.replicated import Shared, Summand, concatenate, summand

RESULT_SCALE = 20  # of products and truncations
CHECK_ROLE = 3  # no chunk's role: the zero shares that blind the checks have streams of their own

Inputs = Mapping[str, Shared]
Chunk = Callable[[Role, Inputs, slice], Protocol[Shared]]
Prepare = Callable[[int, Inputs, EncoderPlan, RangeChecks], Chunk]


class OpsExecutor:
    """One party's program; see ``mpc_ray.commands.Executor``."""

    def __init__(self, channel: Channel, *, digest: bytes, threads: int = 1, device: str = "cpu") -> None:
        if device != "cpu":
            raise DeviceError(
                "bench ops measures single functions on the CPU; some have no CUDA path",
                remedy="use device cpu, or bench encoder",
            )
        # Seeds and threads are the product's own affair.
        self.runtime: Runtime = Executor(channel, digest=digest, threads=threads).runtime
        self.progress: Callable[[str, float], None] | None = None
        self.allow_trace = False

    def load(self, message: Message) -> Message:
        """There is no model here. Raises InputError."""
        raise InputError("parties of bench ops hold no model", remedy="use bench encoder")

    def forget(self, message: Message) -> Message:
        """As ``load``."""
        return self.load(message)

    def run(self, message: Message) -> Message:
        """Function ``op`` of the header on the shares, rows cut into thirds as in a model; a summand comes back."""
        header: Mapping[str, Any] = message.header
        runtime = self.runtime
        prepare = PROGRAMS.get(str(header["op"]))
        if prepare is None:
            raise InputError(
                f"unknown function {str(header['op'])[:40]!r}", remedy=f"one of {', '.join(PROGRAMS)}"
            )
        tables = tables_of(message.tensors)
        plan = from_record(header["record"], tables)
        inputs = receive(runtime.me, header, message.tensors)
        job = bytes.fromhex(header["job"])
        checks = RangeChecks(job, bool(header["range_check"]))
        chunk = prepare(runtime.me, inputs, plan, checks)
        rows = inputs["x"].shape[int(header["axis"])]
        started = time.perf_counter()
        runtime.begin(job, int(header["attempt"]))
        output = runtime.run(self._thirds(str(header["op"]), chunk, inputs, rows, int(header["axis"])))
        tensors, labels = {"output": output.own.numpy()}, []
        for i, (label, (bits, total)) in enumerate(checks.finish().items()):
            tensors[f"check {i}"] = ((total + self._zero_share(i, total.shape)) & ((1 << bits) - 1)).numpy()
            labels.append([label, bits])
        seconds = time.perf_counter() - started
        said: dict[str, Any] = {
            "ok": True,
            "scale": output.scale,
            "checks": labels,
            "seconds": seconds,
            **runtime.counts(),
        }
        return Message(said, tensors)

    def _thirds(self, op: str, chunk: Chunk, inputs: Inputs, rows: int, axis: int) -> Protocol[Shared]:
        """All three assignments of roles side by side, so that work and bytes even out."""
        cuts = [rows * i // 3 for i in range(4)]
        parts = [
            self.runtime.timed(op, chunk(Role(self.runtime, k, "", op), inputs, slice(cuts[k], cuts[k + 1])))
            for k in range(3)
            if cuts[k] < cuts[k + 1]
        ]
        return concatenate((yield from together(parts)), axis)

    def _zero_share(self, step: int, shape: torch.Size) -> torch.Tensor:
        me, draw = self.runtime.me, self.runtime.correlation.int64
        first, second = (draw(i % 3, "check", CHECK_ROLE, step, 0, tuple(shape)) for i in (me, me + 1))
        return first - second


# -- what each function does on a third of the rows ----------------------------------------------------


def _matmul(me: int, inputs: Inputs, plan: EncoderPlan, checks: RangeChecks) -> Chunk:
    """x @ w + b with secret weights, laid out beforehand as at load, and the truncation."""
    linear = Linear(me, inputs["w"], inputs["b"], (inputs["x"].scale,))

    def chunk(role: Role, inputs: Inputs, rows: slice) -> Protocol[Shared]:
        z = linear.apply(inputs["x"][rows])
        return truncate(role, z, z.scale - RESULT_SCALE, checks)

    return chunk


def _truncate(me: int, inputs: Inputs, plan: EncoderPlan, checks: RangeChecks) -> Chunk:
    def chunk(role: Role, inputs: Inputs, rows: slice) -> Protocol[Shared]:
        z = summand(inputs["x"][rows])
        return truncate(role, z, z.scale - RESULT_SCALE, checks)

    return chunk


def _spline(me: int, inputs: Inputs, plan: EncoderPlan, checks: RangeChecks) -> Chunk:
    """The layer's "activation": 3 rounds, open with the one-hot, multiply, reshare."""
    spline: Spline = plan.layers[0].activation
    window = spline.window
    _ = spline.prepared

    def chunk(role: Role, inputs: Inputs, rows: slice) -> Protocol[Shared]:
        z = summand(inputs["x"][rows])
        check_scale(z.scale, window.scale, role.label)
        opening = open_masked(role, z.value - window.low_units if role.is_e0 else z.value, z.shape)
        checks.add(role, opening, window.t + window.n)
        one_hot = deal_index(role, opening, window)
        yield
        product = spline_product(role, spline, one_hot, opening).value
        yield
        return (yield from reshare(role, product.share(), z.shape, spline.scale))

    return chunk


def _layer_norm(me: int, inputs: Inputs, plan: EncoderPlan, checks: RangeChecks) -> Chunk:
    norm = plan.layers[0].attention_norm

    def chunk(role: Role, inputs: Inputs, rows: slice) -> Protocol[Shared]:
        return normalise(role, summand(inputs["x"][rows]), norm, checks)

    return chunk


def _softmax(me: int, inputs: Inputs, plan: EncoderPlan, checks: RangeChecks) -> Chunk:
    """softmax(x·kᵀ)·v for all heads, one block of query rows: the product with V is part of the function here."""
    heads, n, _ = inputs["k"].shape
    softmax = plan.softmax(0, n, False)
    low = torch.full((heads,), round(softmax.low[0] * 2**softmax.score_scale), dtype=torch.int64)
    group = Group(low, softmax.buckets[0], softmax)
    keys, values = factor(me, inputs["k"].map(lambda t: t.transpose(-1, -2))), factor(me, inputs["v"])

    def chunk(role: Role, inputs: Inputs, rows: slice) -> Protocol[Shared]:
        return attention(role, inputs["x"][:, rows], keys, values, group, checks)

    return chunk


def _relu(me: int, inputs: Inputs, plan: EncoderPlan, checks: RangeChecks) -> Chunk:
    def chunk(role: Role, inputs: Inputs, rows: slice) -> Protocol[Shared]:
        z = inputs["x"][rows]
        return relu(role, z, z.scale - RESULT_SCALE, checks)

    return chunk


def _negative(me: int, inputs: Inputs, plan: EncoderPlan, checks: RangeChecks) -> Chunk:
    """[x < 0] as a shared 0 or 1."""

    def chunk(role: Role, inputs: Inputs, rows: slice) -> Protocol[Shared]:
        x = inputs["x"][rows]
        bit = yield from less_than_zero(role, Summand(x.own, x.scale))
        return (yield from to_shared(role, bit))

    return chunk


def _maximum(me: int, inputs: Inputs, plan: EncoderPlan, checks: RangeChecks) -> Chunk:
    return lambda role, inputs, rows: maximum(role, inputs["x"][rows])


def _argmax(me: int, inputs: Inputs, plan: EncoderPlan, checks: RangeChecks) -> Chunk:
    return lambda role, inputs, rows: argmax(role, inputs["x"][rows])


PROGRAMS: dict[str, Prepare] = {
    "matmul": _matmul,
    "truncate": _truncate,
    "spline": _spline,
    "rows": _spline,
    "layer_norm": _layer_norm,
    "softmax": _softmax,
    "relu": _relu,
    "negative": _negative,
    "maximum": _maximum,
    "argmax": _argmax,
}
