"""The owner's side of a model: fold, plan, encode: public record, and secrets or public weights.

Secrets are ring tensors at scales that the plan fixes; parties make their own combinations of the shares at load.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from mpc_ray.models.fold import Folded, FoldedLayer, fold
from mpc_ray.models.observed import Observed
from mpc_ray.models.plan import (
    ACTIVATION_SCALE,
    CONTEXT_SCALE,
    GAIN_SCALE,
    HIDDEN_SCALE,
    POOLED_SCALE,
    EncoderPlan,
    LayerPlan,
    plan_encoder,
)
from mpc_ray.models.public import describe_tensor
from mpc_ray.models.record import digest, to_record
from mpc_ray.models.weights import Array, Encoder
from mpc_ray.sharing.integers import to_integers
from mpc_ray.sharing.parcel import Secret

Visibility = Literal["secret", "public"]


@dataclass(frozen=True, eq=False)
class Export:
    """A model ready to be shared. ``digest`` is of the public part.

    Of secret weights all are in ``secrets``; of public ones in ``weights``, integers as every party gets them.
    """

    plan: EncoderPlan
    record: dict[str, Any]
    tables: dict[str, np.ndarray]
    secrets: dict[str, Secret]
    digest: bytes
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def visibility(self) -> Visibility:
        """Whether the parties see the weights."""
        return "public" if self.weights else "secret"


def export_encoder(
    encoder: Encoder,
    observed: Observed,
    lengths: tuple[int, ...],
    *,
    gain: Array | None = None,
    bias: Array | None = None,
    normalize: bool = False,
    weights: Visibility = "secret",
) -> Export:
    """``gain``, ``bias``: of the embedding norm (None for a bare encoder). ``weights``: whether parties may see them.
    Errors: ScaleError from the plan, InputError for a weight that does not fit its scale."""
    plan = plan_encoder(encoder.config, observed, lengths, normalize)
    folded = fold(encoder, gain, bias)
    secrets = _secrets(folded, plan) if weights == "secret" else {}
    public = _public(folded, plan) if weights == "public" else {}
    named = tuple(describe_tensor(name, value, scale) for name, (value, scale) in public.items())
    plan = replace(plan, weights=named)
    record, tables = to_record(plan)
    known = {name: value for name, (value, _) in public.items()}
    return Export(plan, record, tables, secrets, digest(record, tables), known)


def _secrets(folded: Folded, plan: EncoderPlan) -> dict[str, Secret]:
    """By name, at the scales that the doubled product needs: one bit less than product - input."""
    out: dict[str, Secret] = {}

    def put(name: str, value: Array, scale: int) -> None:
        out[name] = Secret(to_integers(value, scale, name=name), scale)

    for i, (w, p) in enumerate(zip(folded.layers, plan.layers, strict=True)):
        for name, value, bias, product, first, residual in _products(i, w, p):
            if not residual:
                put(name, value, product - first - 1)
            else:  # rows for the first input, and for the residual, which is at HIDDEN_SCALE
                split = value.shape[0] - plan.hidden
                parts = [
                    to_integers(value[:split], product - first - 1, name=name),
                    to_integers(value[split:], product - HIDDEN_SCALE - 1, name=name),
                ]
                out[name] = Secret(np.concatenate(parts), product)
            put(f"{name} bias", bias, product)
    put("head/gain", folded.gain, GAIN_SCALE)
    put("head/hidden bias", folded.bias, HIDDEN_SCALE + GAIN_SCALE + 1)
    put("head/pooled bias", folded.bias, POOLED_SCALE + GAIN_SCALE + 1)
    return out


def _public(folded: Folded, plan: EncoderPlan) -> dict[str, tuple[np.ndarray, int]]:
    """By name (integers, scale). Products are not doubled, so weights have the bit that this costs; what a residual is
    multiplied by is two vectors (``product.Residual``). Matrices are int32 where they fit."""
    out: dict[str, tuple[np.ndarray, int]] = {}

    def put(name: str, value: Array, scale: int) -> None:
        out[name] = (to_integers(value, scale, name=name), scale)

    for i, (w, p) in enumerate(zip(folded.layers, plan.layers, strict=True)):
        for name, value, bias, product, first, residual in _products(i, w, p):
            matrix = value[: -plan.hidden] if residual else value
            put(name, matrix, product - first)
            if (np.abs(out[name][0]) < 1 << 31).all():
                out[name] = (out[name][0].astype(np.int32), product - first)
            if residual:
                scale = product - HIDDEN_SCALE
                block = to_integers(value[-plan.hidden :], scale, name=name)
                mean = -block[np.arange(plan.hidden), np.arange(1, plan.hidden + 1) % plan.hidden]
                out[f"{name} diagonal"] = (block.diagonal() + mean, scale)
                out[f"{name} mean"] = (mean, scale)
            put(f"{name} bias", bias, product)
    put("head/gain", folded.gain, GAIN_SCALE + 1)
    put("head/hidden bias", folded.bias, HIDDEN_SCALE + GAIN_SCALE + 1)
    put("head/pooled bias", folded.bias, POOLED_SCALE + GAIN_SCALE + 1)
    return out


def _products(i: int, w: FoldedLayer, p: LayerPlan) -> Iterator[tuple[str, Array, Array, int, int, bool]]:
    """(name, matrix, bias, scale of the product, scale of its first input, whether a residual is the second) of a
    layer, in the order of the parties."""
    at = f"layer {i}"
    yield f"{at}/qkv", w.qkv, w.qkv_bias, p.qkv_scale, HIDDEN_SCALE, False
    yield f"{at}/out", w.out, w.out_bias, p.out_scale, CONTEXT_SCALE, True
    yield f"{at}/up", w.up, w.up_bias, p.up_scale, HIDDEN_SCALE, False
    yield f"{at}/down", w.down, w.down_bias, p.down_scale, ACTIVATION_SCALE, True
