"""What a party holds of a model: prepared shares of its weights, or weights that are public, as everybody has them."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from functools import partial

import numpy as np
import torch

from mpc_ray.errors import ModelError
from mpc_ray.kernels.memory import give_back
from mpc_ray.models import bert
from mpc_ray.models.plan import (
    ACTIVATION_SCALE,
    CONTEXT_SCALE,
    HIDDEN_SCALE,
    POOLED_SCALE,
    QUERY_KEY_SCALE,
    EncoderPlan,
)
from mpc_ray.models.public import WEIGHTS, PublicTensor, check_tensor
from mpc_ray.protocols.semi_honest.blocks import AnyLinear, LayerShares, ModelShares
from mpc_ray.protocols.semi_honest.product import AnyVector, Linear, PublicLinear, PublicVector, Residual
from mpc_ray.sharing.fixed import check_scale
from mpc_ray.sharing.replicated import Shared

CPU = torch.device("cpu")
_MakeLinear = Callable[[str, int, tuple[int, ...]], AnyLinear]


Take = Callable[[str], Shared | None]


def required(take: Take, name: str, scale: int | None = None) -> Shared:
    """Tensor ``name`` of the shares, at ``scale``. Raises ModelError if it is missing."""
    shared = take(name)
    if shared is None:
        raise ModelError(f"the shares lack {name}", remedy="share the model again")
    if scale is not None:
        check_scale(shared.scale, scale, name)
    return shared


def model_shares(me: int, plan: EncoderPlan, take: Take, place: torch.device = CPU) -> ModelShares:
    """This party's prepared weights on ``place``, tensor by tensor. Raises ModelError if one of the plan is missing."""

    def linear(name: str, scale: int, inputs: tuple[int, ...]) -> Linear:
        return Linear(me, required(take, name), required(take, f"{name} bias", scale), inputs, place)

    return _assembled(plan, linear, lambda name: moved(required(take, name), place))


def public_weights(
    me: int, plan: EncoderPlan, tensors: MutableMapping[str, np.ndarray], place: torch.device = CPU
) -> ModelShares:
    """The model's weights on ``place``, from a load message's ``tensors``, which lose them one by one.

    Raises ModelError if one is missing, or is not the one whose SHA-256 the public record holds: all parties compare
    that record, so all have the same weights.
    """
    known = {public.name: public for public in plan.weights}

    def get(name: str, scale: int | None = None) -> tuple[torch.Tensor, PublicTensor]:
        public = known.get(name)
        if public is None:
            raise ModelError(f"the model's public record lacks {name}", remedy="share the model again")
        array = tensors.pop(WEIGHTS + name, None)
        check_tensor(public, array)
        assert array is not None
        if scale is not None:
            check_scale(public.scale, scale, name)
        return torch.from_numpy(array).to(place), public

    def vector(name: str, scale: int | None = None) -> PublicVector:
        value, public = get(name, scale)
        return PublicVector(value, public.scale)

    def linear(name: str, scale: int, inputs: tuple[int, ...]) -> PublicLinear:
        residual = None
        if len(inputs) > 1:
            residual = Residual(vector(f"{name} diagonal").value, vector(f"{name} mean").value)
        weight, _ = get(name, scale - inputs[0])
        return PublicLinear(me, weight, vector(f"{name} bias", scale), inputs, residual)

    return _assembled(plan, linear, vector)


def _assembled(plan: EncoderPlan, linear: _MakeLinear, vector: Callable[[str], AnyVector]) -> ModelShares:
    layers = {}
    for i, p in enumerate(plan.layers):
        at = bert.layer_name(i)
        layers[at] = LayerShares(
            qkv=linear(f"{at}/qkv", p.qkv_scale, (HIDDEN_SCALE,)),
            out=linear(f"{at}/out", p.out_scale, (CONTEXT_SCALE, HIDDEN_SCALE)),
            up=linear(f"{at}/up", p.up_scale, (HIDDEN_SCALE,)),
            down=linear(f"{at}/down", p.down_scale, (ACTIVATION_SCALE, HIDDEN_SCALE)),
            query_key_scale=QUERY_KEY_SCALE,
            value_scale=p.value_scale,
            softmax=partial(plan.softmax, i),
            attention_norm=p.attention_norm,
            activation=p.activation,
            ffn_norm=p.ffn_norm,
        )
        give_back()  # or what each layer leaves between small blocks would add up to half the weights again
    return ModelShares(
        heads=plan.heads,
        embedding_norm=plan.embedding_norm,
        layers=layers,
        gain=vector("head/gain"),
        hidden_bias=vector("head/hidden bias"),
        pooled_bias=vector("head/pooled bias"),
        pooled_scale=POOLED_SCALE,
        pool=plan.pool,
    )


def moved(x: Shared, place: torch.device) -> Shared:
    """The same shares on another device."""
    return x.map(lambda t: t.to(place))
