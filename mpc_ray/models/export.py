"""The owner's side of a model: fold, plan, encode: public record and secrets, neutral of any protocol.

Secrets are ring tensors at scales that the plan fixes; parties make their own combinations of the shares at load.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mpc_ray.models.fold import Folded, fold
from mpc_ray.models.observed import Observed
from mpc_ray.models.plan import (
    ACTIVATION_SCALE,
    CONTEXT_SCALE,
    GAIN_SCALE,
    HIDDEN_SCALE,
    POOLED_SCALE,
    EncoderPlan,
    plan_encoder,
)
from mpc_ray.models.record import digest, to_record
from mpc_ray.models.weights import Array, Encoder
from mpc_ray.sharing.integers import to_integers
from mpc_ray.sharing.parcel import Secret


@dataclass(frozen=True, eq=False)
class Export:
    """A model ready to be shared. ``digest`` is of the public part."""

    plan: EncoderPlan
    record: dict[str, Any]
    tables: dict[str, np.ndarray]
    secrets: dict[str, Secret]
    digest: bytes


def export_encoder(
    encoder: Encoder,
    observed: Observed,
    lengths: tuple[int, ...],
    *,
    gain: Array | None = None,
    bias: Array | None = None,
    normalize: bool = False,
) -> Export:
    """``gain``, ``bias``: of the embedding norm (None for a bare encoder). Errors: ScaleError from the plan, InputError
    for a weight that does not fit its scale."""
    plan = plan_encoder(encoder.config, observed, lengths, normalize)
    record, tables = to_record(plan)
    secrets = _secrets(fold(encoder, gain, bias), plan)
    return Export(plan, record, tables, secrets, digest(record, tables))


def _secrets(folded: Folded, plan: EncoderPlan) -> dict[str, Secret]:
    out: dict[str, Secret] = {}

    def put(name: str, value: Array, scale: int) -> None:
        out[name] = Secret(to_integers(value, scale, name=name), scale)

    def put_stacked(name: str, value: Array, product: int, first: int) -> None:
        """Rows for the first input (at ``first``) and for the residual, which is at HIDDEN_SCALE; doubled product."""
        split = value.shape[0] - plan.hidden
        parts = [
            to_integers(value[:split], product - first - 1, name=name),
            to_integers(value[split:], product - HIDDEN_SCALE - 1, name=name),
        ]
        out[name] = Secret(np.concatenate(parts), product)

    for i, (w, p) in enumerate(zip(folded.layers, plan.layers, strict=True)):
        at = f"layer {i}"
        put(f"{at}/qkv", w.qkv, p.qkv_scale - HIDDEN_SCALE - 1)
        put(f"{at}/qkv bias", w.qkv_bias, p.qkv_scale)
        put_stacked(f"{at}/out", w.out, p.out_scale, CONTEXT_SCALE)
        put(f"{at}/out bias", w.out_bias, p.out_scale)
        put(f"{at}/up", w.up, p.up_scale - HIDDEN_SCALE - 1)
        put(f"{at}/up bias", w.up_bias, p.up_scale)
        put_stacked(f"{at}/down", w.down, p.down_scale, ACTIVATION_SCALE)
        put(f"{at}/down bias", w.down_bias, p.down_scale)
    put("head/gain", folded.gain, GAIN_SCALE)
    put("head/hidden bias", folded.bias, HIDDEN_SCALE + GAIN_SCALE + 1)
    put("head/pooled bias", folded.bias, POOLED_SCALE + GAIN_SCALE + 1)
    return out
