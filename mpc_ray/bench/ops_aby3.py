"""A party's side of ``mpc-ray bench ops`` under aby3 and malicious_3pc: the functions of ``ops_party``, without a
dealer and without thirds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mpc_ray.bench.ops_party import RESULT_SCALE, Inputs, OpsExecutor
from mpc_ray.channel.link import Message
from mpc_ray.errors import InputError
from mpc_ray.execute_aby3 import activation_of, reciprocal, row_function_of, row_norm_of
from mpc_ray.kernels.warm import warm, warm_proofs
from mpc_ray.models.plan import EncoderPlan
from mpc_ray.models.public import tables_of
from mpc_ray.models.record import from_record
from mpc_ray.protocols.aby3.bits import Bits
from mpc_ray.protocols.aby3.compare import argmax, less_than_zero, maximum, number_of, relu
from mpc_ray.protocols.aby3.norm import normalise
from mpc_ray.protocols.aby3.piecewise import activate, lookup, row_values
from mpc_ray.protocols.aby3.place import Place
from mpc_ray.protocols.aby3.product import Linear
from mpc_ray.protocols.aby3.range_check import RangeChecks
from mpc_ray.protocols.aby3.softmax import Softmax, attention
from mpc_ray.protocols.aby3.truncate import truncate
from mpc_ray.protocols.malicious.background import Background
from mpc_ray.protocols.malicious.copies import Copies
from mpc_ray.protocols.runtime import Protocol
from mpc_ray.sharing.deal import receive
from mpc_ray.sharing.replicated import Shared, summand

Found = tuple[Shared, dict[str, Bits]]
Function = Callable[[Place], Protocol[Shared]]
Prepare = Callable[[Inputs, EncoderPlan, RangeChecks, float], Function]


class Aby3OpsExecutor(OpsExecutor):
    """One party's program; see ``mpc_ray.commands.Executor``."""

    def run(self, message: Message) -> Message:
        """Function ``op`` of the header on the shares, all rows at once; a summand comes back."""
        header: Mapping[str, Any] = message.header
        runtime, op = self.runtime, str(header["op"])
        prepare = PROGRAMS.get(op)
        if prepare is None:
            raise InputError(f"unknown function {op[:40]!r}", remedy=f"one of {', '.join(PROGRAMS)}")
        plan = from_record(header["record"], tables_of(message.tensors))
        inputs = receive(runtime.me, header, message.tensors)
        job = bytes.fromhex(header["job"])
        checks = RangeChecks(runtime.me, job, bool(header["range_check"]))
        warm()
        function = prepare(inputs, plan, checks, float(header["smallest"]))
        started = time.perf_counter()
        runtime.begin(job, int(header["attempt"]))
        output, found = runtime.run(self._whole(self._checked(op, function, checks), job, inputs))
        tensors, labels = {"output": summand(output).value.numpy()}, []
        for i, (label, sums) in enumerate(found.items()):
            tensors[f"check {i}"] = (sums.own + self._zero_share(i, sums.own.shape)).numpy() & 1
            labels.append([label, 1])
        said: dict[str, Any] = {
            "ok": True,
            "scale": output.scale,
            "checks": labels,
            "seconds": time.perf_counter() - started,
            **runtime.counts(),
        }
        return Message(said, tensors)

    def _checked(self, op: str, function: Function, checks: RangeChecks) -> Protocol[Found]:
        runtime = self.runtime
        output = yield from runtime.timed(op, function(Place(runtime, "", op)))
        return output, (yield from checks.settle(runtime))

    def _whole(self, program: Protocol[Found], job: bytes, inputs: Inputs) -> Protocol[Found]:
        return program


class MaliciousOpsExecutor(Aby3OpsExecutor):
    """The same, and every product proved before it ends; there is no last product for an answer in copies."""

    def _whole(self, program: Protocol[Found], job: bytes, inputs: Inputs) -> Protocol[Found]:
        warm_proofs()
        copies = Copies(self.runtime.me)
        for name, shared in inputs.items():
            copies.add(name, shared)
        return Background(self.runtime, job, 0, copies).alongside(program)


def _matmul(inputs: Inputs, plan: EncoderPlan, checks: RangeChecks, smallest: float) -> Function:
    """x @ w + b with secret weights, laid out beforehand as at load, and the truncation; the bias's too."""
    x, w, b = inputs["x"], inputs["w"], inputs["b"]
    linear = Linear(w, b, (x.scale,), (0,), (w.shape[0],))

    def program(place: Place) -> Protocol[Shared]:
        bias = yield from truncate(place, b, 1)
        z = yield from linear.apply(place, bias, x)
        return (yield from _truncated(place, z, checks))

    return program


def _truncated(place: Place, z: Shared, checks: RangeChecks) -> Protocol[Shared]:
    checks.product(place.label, z)
    return (yield from truncate(place, z, z.scale - RESULT_SCALE))


def _truncate(inputs: Inputs, plan: EncoderPlan, checks: RangeChecks, smallest: float) -> Function:
    return lambda place: _truncated(place, inputs["x"], checks)


def _spline(inputs: Inputs, plan: EncoderPlan, checks: RangeChecks, smallest: float) -> Function:
    """The layer's "activation", of an argument that was not a product."""
    spline, x = plan.layers[0].activation, inputs["x"]
    w = spline.window
    if spline.degree == 0:  # a table of any content
        return lambda place: lookup(place, x, spline.tables[0], w.low_units, w.t, spline.scale)
    f = activation_of(spline, w.scale)

    def program(place: Place) -> Protocol[Shared]:
        m = f.t + f.n
        checks.symmetric(place.label, x, m, f.low_units + (1 << (m - 1)))
        return (yield from activate(place, x, f))

    return program


def _rows(inputs: Inputs, plan: EncoderPlan, checks: RangeChecks, smallest: float) -> Function:
    """The same of positive arguments, as one value a row."""
    spline = plan.layers[0].activation
    x, f = inputs["x"], row_function_of(spline, smallest)

    def program(place: Place) -> Protocol[Shared]:
        checks.positive(place.label, x, f, smallest)
        return (yield from row_values(place, x, f, spline.scale))

    return program


def _layer_norm(inputs: Inputs, plan: EncoderPlan, checks: RangeChecks, smallest: float) -> Function:
    norm = row_norm_of(plan.layers[0].attention_norm)
    return lambda place: normalise(place, inputs["x"], norm, checks)


def _softmax(inputs: Inputs, plan: EncoderPlan, checks: RangeChecks, smallest: float) -> Function:
    """softmax(x·kᵀ)·v for all heads: the product with V is part of the function here."""
    q, k, v = (inputs[name].map(lambda t: t.unsqueeze(0)) for name in ("x", "k", "v"))
    heads, n = q.shape[1], q.shape[2]
    found = plan.softmax(0, n, False)
    # The case's plan is for one head: all have its window.
    softmax = Softmax(replace(found, low=found.low * heads, buckets=found.buckets * heads), reciprocal(n))

    def program(place: Place) -> Protocol[Shared]:
        context = yield from attention(place, q, k, v, softmax, checks)
        return context.map(lambda t: t[0])

    return program


def _negative(inputs: Inputs, plan: EncoderPlan, checks: RangeChecks, smallest: float) -> Function:
    """[x < 0] as a shared 0 or 1."""

    def program(place: Place) -> Protocol[Shared]:
        bit = yield from less_than_zero(place, inputs["x"])
        return (yield from number_of(place, bit, inputs["x"].shape))

    return program


def _relu(inputs: Inputs, plan: EncoderPlan, checks: RangeChecks, smallest: float) -> Function:
    """After a product: its truncation first."""

    def program(place: Place) -> Protocol[Shared]:
        x = yield from _truncated(place, inputs["x"], checks)
        return (yield from relu(place, x))

    return program


PROGRAMS: dict[str, Prepare] = {
    "matmul": _matmul,
    "truncate": _truncate,
    "spline": _spline,
    "rows": _rows,
    "layer_norm": _layer_norm,
    "softmax": _softmax,
    "relu": _relu,
    "negative": _negative,
    "maximum": lambda inputs, plan, checks, smallest: lambda place: maximum(place, inputs["x"]),
    "argmax": lambda inputs, plan, checks, smallest: lambda place: argmax(place, inputs["x"]),
}
