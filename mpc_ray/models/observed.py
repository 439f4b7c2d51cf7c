"""Observed ranges: what calibration saw of a model, as a record that is stored beside it.

The protocols' windows and scales are fitted to these numbers, at least twice as wide.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpc_ray.errors import ModelError

FORMAT = "mpc-ray observed ranges"
VERSION = 1

Span = tuple[float, float]  # smallest and largest value seen


@dataclass(frozen=True)
class NormRange:
    """Of one LayerNorm: largest |x - mean|; variance (mean square, without eps); largest |normalised|."""

    centred: float
    variance: Span
    normalised: float


@dataclass(frozen=True)
class LayerRange:
    """What one layer was seen to compute. Tuples hold one entry a head.

    ``query``, ``key``, ``value``: largest magnitude; query is NOT yet divided by sqrt(head size).
    ``scores``: smallest and largest score, divided by sqrt(head size). ``exp_sum``: largest over rows of
    sum_j exp(s_j - row maximum), so from 1 to the length. ``weighted_value``: largest over rows and columns
    of sum_j exp(s_j - row maximum) * |v_j|. ``context``: largest |attention output|.
    ``ffn_input`` and ``ffn_output``: before and after the activation. ``output``: largest |hidden state|.
    """

    query: tuple[float, ...]
    key: tuple[float, ...]
    value: tuple[float, ...]
    scores: tuple[Span, ...]
    exp_sum: tuple[float, ...]
    weighted_value: tuple[float, ...]
    context: tuple[float, ...]
    attention_norm: NormRange
    ffn_input: Span
    ffn_output: float
    ffn_norm: NormRange
    output: float


@dataclass(frozen=True)
class Observed:
    """Ranges over ``sequences`` texts of ``tokens`` tokens in all, the longest of ``longest``.

    ``digest`` is the model's; ``sample`` names the texts. ``embedding_norm``, ``pooled`` (largest |entry| of
    the pooled vector, with weights that add up to 1) and ``pooled_square`` (its squared norm, before
    normalisation) are None for a bare encoder.
    """

    digest: str
    sample: str
    sequences: int
    tokens: int
    longest: int
    embedding_norm: NormRange | None
    layers: tuple[LayerRange, ...]
    pooled: float | None
    pooled_square: Span | None

    def to_json(self) -> str:
        """One JSON object with format name and version; floats round-trip exactly."""
        return json.dumps({"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}, indent=1)


def observed_from_json(text: str, where: str = "calibration") -> Observed:
    """Inverse of ``Observed.to_json``; errors name ``where``. Raises ModelError: damaged, another version."""
    remedy = "delete the file: the model is then calibrated again"
    try:
        raw = json.loads(text)
        if raw["format"] != FORMAT or raw["version"] != VERSION:
            raise ModelError(f"{where} has version {raw['version']!r}, expected {VERSION}", remedy=remedy)
        embedding, square = raw["embedding_norm"], raw["pooled_square"]
        return Observed(
            digest=str(raw["digest"]),
            sample=str(raw["sample"]),
            sequences=int(raw["sequences"]),
            tokens=int(raw["tokens"]),
            longest=int(raw["longest"]),
            embedding_norm=None if embedding is None else _norm_from(embedding),
            layers=tuple(_layer_from(layer) for layer in raw["layers"]),
            pooled=None if raw["pooled"] is None else float(raw["pooled"]),
            pooled_square=None if square is None else _span_from(square),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{where} is damaged", remedy=remedy) from error


def save_observed(observed: Observed, path: Path) -> None:
    """Write atomically: a reader finds the old file or the whole new one. Raises ModelError if it cannot."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".calibration-")
    except OSError as error:
        raise ModelError(
            f"calibration cannot be written to {path.parent}: {error.strerror}",
            remedy="choose another cache folder",
        ) from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(observed.to_json() + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise ModelError(
            f"calibration cannot be written to {path}: {error.strerror}", remedy="free space"
        ) from error


def load_observed(path: Path) -> Observed | None:
    """The record in ``path``, or None where there is no such file. Raises ModelError if damaged."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"calibration {path} cannot be read", remedy="delete the file") from error
    return observed_from_json(text, str(path))


def _span_from(raw: Any) -> Span:
    low, high = raw
    return float(low), float(high)


def _floats_from(raw: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in raw)


def _norm_from(raw: Any) -> NormRange:
    return NormRange(float(raw["centred"]), _span_from(raw["variance"]), float(raw["normalised"]))


def _layer_from(raw: Any) -> LayerRange:
    return LayerRange(
        query=_floats_from(raw["query"]),
        key=_floats_from(raw["key"]),
        value=_floats_from(raw["value"]),
        scores=tuple(_span_from(span) for span in raw["scores"]),
        exp_sum=_floats_from(raw["exp_sum"]),
        weighted_value=_floats_from(raw["weighted_value"]),
        context=_floats_from(raw["context"]),
        attention_norm=_norm_from(raw["attention_norm"]),
        ffn_input=_span_from(raw["ffn_input"]),
        ffn_output=float(raw["ffn_output"]),
        ffn_norm=_norm_from(raw["ffn_norm"]),
        output=float(raw["output"]),
    )
