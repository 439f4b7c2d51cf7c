"""Input, weights and output of a benchmark in one file, so that anyone can recompute its error."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np

from mpc_ray.bench.workload import Workload
from mpc_ray.errors import InputError
from mpc_ray.models.weights import Array, Layer


def write_dump(path: Path, work: Workload, output: Array) -> None:
    """A .npz: "config" (JSON), "input" and "output" (batch, seq, hidden), "norm gain" and "norm bias" where the input
    is still to be normalised, and "layer I/NAME" for every array, matrices as (in, out).

    float32 where that is exact. Read by benchmarks/recompute.py. Raises InputError if the file cannot be written.
    """
    config = work.encoder.config
    constants = {
        "layers": config.layers,
        "heads": config.heads,
        "eps": config.eps,
        "activation": config.activation,
        "weights": work.weights,
    }
    arrays: dict[str, np.ndarray] = {
        "config": np.array(json.dumps(constants)),
        "input": work.x,
        "output": output,
    }
    if work.norm is not None:
        arrays["norm gain"], arrays["norm bias"] = map(_narrowed, work.norm)
    for i, layer in enumerate(work.encoder.layers):
        arrays |= {f"layer {i}/{f.name}": _narrowed(getattr(layer, f.name)) for f in fields(Layer)}
    try:
        with path.open("wb") as file:  # by name, numpy would append a suffix
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}", remedy="choose another --dump") from error


def _narrowed(array: Array) -> np.ndarray:
    narrow = array.astype(np.float32)
    return narrow if np.array_equal(narrow.astype(np.float64), array) else array
