"""The public record of a model: its plan as JSON and integer tables, for the parties, with one digest."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mpc_ray.errors import ModelError
from mpc_ray.functions.plan import NormPlan
from mpc_ray.functions.spline import Spline
from mpc_ray.functions.window import Window
from mpc_ray.models.plan import EncoderPlan, LayerPlan
from mpc_ray.models.public import PublicTensor, digest

__all__ = ["digest", "from_record", "to_record"]

_CLASSES = {c.__name__: c for c in (EncoderPlan, LayerPlan, NormPlan, Spline, Window, PublicTensor)}


def to_record(plan: EncoderPlan) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(JSON, tables): every spline's tables become one int64 array, named in the JSON."""
    tables: dict[str, np.ndarray] = {}
    return _encode(plan, tables), tables


def from_record(record: Mapping[str, Any], tables: Mapping[str, np.ndarray]) -> EncoderPlan:
    """The plan again. Raises ModelError if the record is not one of this version."""
    try:
        plan = _decode(record, tables)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"the model's public record does not fit this version: {error!r}", remedy="import the model again"
        ) from error
    if not isinstance(plan, EncoderPlan):
        raise ModelError("the model's public record is not an encoder's", remedy="import the model again")
    return plan


def _encode(value: Any, tables: dict[str, np.ndarray]) -> Any:
    if isinstance(value, torch.Tensor):
        name = f"table {len(tables)}"
        tables[name] = value.contiguous().numpy()
        return {"table": name}
    if dataclasses.is_dataclass(value):
        fields = [f for f in dataclasses.fields(value) if f.compare]
        return {
            "type": type(value).__name__,
            **{f.name: _encode(getattr(value, f.name), tables) for f in fields},
        }
    if isinstance(value, dict):
        return {"map": [[k, _encode(v, tables)] for k, v in value.items()]}
    if isinstance(value, tuple):
        return [_encode(v, tables) for v in value]
    return value


def _decode(value: Any, tables: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return tuple(_decode(v, tables) for v in value)
    if not isinstance(value, Mapping):
        return value
    if "table" in value:
        return torch.from_numpy(np.ascontiguousarray(tables[value["table"]]))
    if "map" in value:
        return {k: _decode(v, tables) for k, v in value["map"]}
    cls = _CLASSES[value["type"]]
    return cls(**{k: _decode(v, tables) for k, v in value.items() if k != "type"})
