"""The functions of ``mpc-ray bench ops``: for each a size, an input, its public plan and the exact result."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from mpc_ray.bench.ops_party import RESULT_SCALE
from mpc_ray.errors import InputError
from mpc_ray.functions.spline import Function, Spline, fit
from mpc_ray.functions.window import window_around
from mpc_ray.models.fold import centred
from mpc_ray.models.observed import LayerRange, NormRange, Observed
from mpc_ray.models.plan import (
    ACTIVATION_SCALE,
    ACTIVATIONS,
    HIDDEN_SCALE,
    QUERY_KEY_SCALE,
    WEIGHT_SCALE,
    EncoderPlan,
    plan_encoder,
)
from mpc_ray.models.weights import Array, BertConfig
from mpc_ray.sharing.integers import to_integers
from mpc_ray.sharing.parcel import Secret

Size = tuple[int, ...]
PRODUCT_SCALE = 2 * RESULT_SCALE
EPS = 1e-5
LARGEST = 1 << 28  # elements of one tensor: 2 GiB a party and share


@dataclass(frozen=True, eq=False)
class Case:
    """One function at one size. ``program`` is the party's; ``axis`` is where rows are cut into thirds; ``smallest``:
    of positive arguments.
    """

    op: str
    size: Size
    program: str
    secrets: dict[str, Secret]
    plan: EncoderPlan
    expected: Array
    axis: int = 0
    smallest: float = 0.0


@dataclass(frozen=True)
class Op:
    """``form`` names the dimensions of a size."""

    form: str
    default: Size
    make: Callable[[str, Size], Case]


def case_of(name: str, size: str | None) -> Case:
    """Function ``name`` at ``size``, such as "128x768" (default: its own). Raises InputError if either does not
    fit.
    """
    op = OPS.get(name)
    if op is None:
        raise InputError(f"unknown function {name!r}", remedy=f"one of {', '.join(OPS)}")
    if size is None:
        return op.make(name, op.default)
    found = tuple(int(n) for n in size.split("x")) if re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", size) else ()
    if len(found) != op.form.count("x") + 1 or math.prod(found) > LARGEST:
        shown = "x".join(map(str, op.default))
        raise InputError(f"{name} has no size {size!r}", remedy=f"{op.form}, such as {shown}")
    return op.make(name, found)


def _matmul(op: str, size: Size) -> Case:
    m, k, n = size
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((m, k)), rng.standard_normal((k, n)) * k**-0.5
    scale = HIDDEN_SCALE + WEIGHT_SCALE + 1
    secrets = {
        "x": _secret(x, HIDDEN_SCALE),
        "w": _secret(w, WEIGHT_SCALE),
        "b": _secret(np.zeros(n), scale),
    }
    return Case(op, size, "matmul", secrets, _plan(), x @ w)


def _truncate(op: str, size: Size) -> Case:
    x = _normal(size)
    return Case(op, size, "truncate", {"x": _secret(x, PRODUCT_SCALE)}, _plan(), x)


def _relu(op: str, size: Size) -> Case:
    x = _normal(size)
    return Case(op, size, "relu", {"x": _secret(x, PRODUCT_SCALE)}, _plan(), np.maximum(x, 0))


def _negative(op: str, size: Size) -> Case:
    x = _normal(size)
    return Case(op, size, "negative", {"x": _secret(x, RESULT_SCALE)}, _plan(), (x < 0).astype(np.float64))


def _maximum(op: str, size: Size) -> Case:
    secret = _secret(_normal(size), RESULT_SCALE)
    x = np.ldexp(secret.value.astype(np.float64), -RESULT_SCALE)  # ties by the shared values
    expected = x.max(-1) if op == "maximum" else x.argmax(-1).astype(np.float64)
    return Case(op, size, op, {"x": secret}, _plan(), expected)


def _unary(f: Function) -> Callable[[str, Size], Case]:
    """As an activation after a product: window twice as wide as [-8, 8], cells of a quarter, degree 2."""

    def make(op: str, size: Size) -> Case:
        window = window_around(-8.0, 8.0, 55, 0.25)
        spline = fit(f, window, degree=2, fraction=12, scale=ACTIVATION_SCALE, used=(-8.0, 8.0))
        x = np.clip(2 * _normal(size), -8, 8)
        return Case(op, size, "spline", {"x": _secret(x, window.scale)}, _plan(activation=spline), f(x))

    return make


def _lookup(op: str, size: Size) -> Case:
    """One table of 256 entries at a secret index, no polynomial: whole numbers, so the result is exact."""
    window = window_around(0.0, 128.0, RESULT_SCALE, 1.0)
    table = np.random.default_rng(1).integers(-1000, 1000, 1 << window.n)
    index = np.random.default_rng(0).integers(0, 128, size)
    spline = Spline(window, torch.from_numpy(table).reshape(1, -1), 0, 0, 0.0, 0.0)
    expected = table[index - round(window.low)].astype(np.float64)
    secret = _secret(index.astype(np.float64), window.scale)
    return Case(op, size, "spline", {"x": secret}, _plan(activation=spline), expected)


def _row(op: str, size: Size) -> Case:
    """As one value a row: a look-up over 2^16 cells by distributed point function, degree 1, relative precision."""
    low, high = 1.0, 256.0
    power = {"reciprocal": -1.0, "rsqrt": -0.5}[op]
    window = window_around(0.0, high, 34, high / 2**15)
    spline = fit(
        lambda u: np.maximum(u, low / 4) ** power,
        window,
        degree=1,
        fraction=6,
        scale=22,
        relative=True,
        used=(low, high),
    )
    x = np.exp(np.random.default_rng(0).uniform(np.log(low), np.log(high), size))
    secrets = {"x": _secret(x, window.scale)}
    return Case(op, size, "rows", secrets, _plan(activation=spline), x**power, smallest=low)


def _layer_norm(op: str, size: Size) -> Case:
    x = centred(_normal(size))
    variance = (x * x).mean(-1, keepdims=True)
    plan = _plan(hidden=size[1], variance=(float(variance.min()), float(variance.max())))
    return Case(op, size, "layer_norm", {"x": _secret(x, 54)}, plan, x / np.sqrt(variance + EPS))


def _softmax(op: str, size: Size) -> Case:
    heads, n, d = size
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((heads, n, d)) for _ in range(3))
    q *= d**-0.5
    scores = q @ k.transpose(0, 2, 1)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    plan = _plan(
        length=n, scores=(float(scores.min()), float(scores.max())), values=float((e @ np.abs(v)).max())
    )
    secrets = {
        "x": _secret(q, QUERY_KEY_SCALE),
        "k": _secret(k, QUERY_KEY_SCALE),
        "v": _secret(v, plan.layers[0].value_scale),
    }
    return Case(op, size, "softmax", secrets, plan, (e @ v) / e.sum(-1, keepdims=True), axis=1)


def _plan(
    *,
    hidden: int = 64,
    length: int = 16,
    variance: tuple[float, float] = (0.5, 2.0),
    scores: tuple[float, float] = (-4.0, 4.0),
    values: float = 8.0,
    activation: Spline | None = None,
) -> EncoderPlan:
    """The public plan of one layer with these ranges, made as a model's is."""
    norm = NormRange(centred=8.0, variance=variance, normalised=8.0)
    seen = LayerRange(
        query=(8.0,),
        key=(8.0,),
        value=(8.0,),
        scores=(scores,),
        exp_sum=(float(length),),
        weighted_value=(values,),
        context=(8.0,),
        attention_norm=norm,
        ffn_input=(-8.0, 8.0),
        ffn_output=8.0,
        ffn_norm=norm,
        output=8.0,
    )
    observed = Observed("", "bench ops", 1, length, length, None, (seen,), None, None)
    config = BertConfig("ops", 1, hidden, 1, 2 * hidden, length, 0, 0, EPS, "gelu")
    plan = plan_encoder(config, observed, (length,))
    return (
        plan
        if activation is None
        else replace(plan, layers=(replace(plan.layers[0], activation=activation),))
    )


def _secret(x: Array, scale: int) -> Secret:
    return Secret(to_integers(x, scale, name="bench"), scale)


def _normal(size: Size) -> Array:
    return np.asarray(np.random.default_rng(0).standard_normal(size))


_SMOOTH: dict[str, Function] = {
    "gelu": ACTIVATIONS["gelu"],
    "silu": ACTIVATIONS["silu"],
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}

OPS: dict[str, Op] = {
    "matmul": Op("ROWSxINNERxCOLUMNS", (128, 768, 768), _matmul),
    "truncate": Op("COUNT", (1_000_000,), _truncate),
    "lookup": Op("ROWSxCOLUMNS", (128, 3072), _lookup),
    **{name: Op("ROWSxCOLUMNS", (128, 3072), _unary(f)) for name, f in _SMOOTH.items()},
    "relu": Op("ROWSxCOLUMNS", (128, 3072), _relu),
    "negative": Op("COUNT", (1_000_000,), _negative),
    "maximum": Op("ROWSxCOLUMNS", (128, 1024), _maximum),
    "argmax": Op("ROWSxCOLUMNS", (128, 1024), _maximum),
    "reciprocal": Op("COUNT", (4096,), _row),
    "rsqrt": Op("COUNT", (4096,), _row),
    "layer_norm": Op("ROWSxCOLUMNS", (128, 768), _layer_norm),
    "softmax": Op("HEADSxLENGTHxHEAD_SIZE", (12, 128, 64), _softmax),
}
