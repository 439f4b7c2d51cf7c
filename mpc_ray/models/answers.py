"""What a client reads from the three answers, in numpy alone: sums of summands, range checks, embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mpc_ray.errors import CheatingDetected, MpcError, RangeExceeded
from mpc_ray.models.pooling import pooling_sum
from mpc_ray.models.weights import Array, Pooling
from mpc_ray.sharing.integers import Integers, to_reals

_VERSIONS = "use one version everywhere"
COPY = " copy"
"""Suffix of the name of a tensor's second piece, where parties answer both their pieces (``copies`` in the header)."""


class Answer(Protocol):
    """One party's answer: a ``Message``, or anything with its two parts."""

    @property
    def header(self) -> Mapping[str, Any]: ...
    @property
    def tensors(self) -> Mapping[str, npt.NDArray[Any]]: ...


def result(answers: Sequence[Answer]) -> Array:
    """The output, float64, from the three answers. Raises RangeExceeded naming layer and function if a check struck,
    MpcError if the answers do not belong together."""
    if struck := outside(answers):
        raise RangeExceeded(
            f"the input left the calibrated range in {', '.join(struck)}",
            remedy="calibrate with texts like this one (mpc-ray … --calibrate FILE), or see docs/protocols.md, Ranges",
        )
    scale = _agreed(answers, "scale")
    if type(scale) is not int or not -64 < scale < 64:
        raise MpcError("an answer's scale is none", remedy=_VERSIONS)
    return to_reals(_sum(answers, "output"), scale)


def embeddings(out: Array, pooling: Pooling, normalize: bool, lengths: Iterable[int]) -> Array:
    """What the model calls embeddings, of texts of ``lengths`` tokens, from the ``result`` of their job.

    The parties pool with weights that add up to 1; what a pooling's weights add up to otherwise is put back here.
    """
    if normalize:
        return out
    return np.asarray(out * np.array([pooling_sum(pooling, length) for length in lengths])[:, None])


def outside(answers: Sequence[Answer]) -> list[str]:
    """The places, "layer/function", whose range check struck; empty when all values stayed in their windows."""
    struck = []
    for i, check in enumerate(_list(answers, "checks")):
        match check:
            case [str(label), int(bits)] if 1 <= bits <= 63:
                if (_sum(answers, f"check {i}") & ((1 << bits) - 1)).any():
                    struck.append(label.split(" (")[0])
            case _:
                raise MpcError("an answer's range check is malformed", remedy=_VERSIONS)
    return list(dict.fromkeys(struck))


def traced(answers: Sequence[Answer]) -> dict[str, Array]:
    """The normalised rows (b, n, h) at each place that a traced job went through, float64, in order."""
    return {
        str(place): to_reals(_sum(answers, f"trace {i}"), int(scale))
        for i, (place, scale) in enumerate(_list(answers, "trace"))
    }


def _list(answers: Sequence[Answer], key: str) -> list[Any]:
    said = _agreed(answers, key)
    if not isinstance(said, list):
        raise MpcError(f"an answer's {key} are no list", remedy=_VERSIONS)
    return said


def _agreed(answers: Sequence[Answer], key: str) -> Any:
    """What the three headers say alike. Raises MpcError if one says something else."""
    said = [answer.header.get(key) for answer in answers]
    if len(said) != 3 or said[0] is None or any(value != said[0] for value in said):
        raise MpcError(f"the parties disagree on the answer's {key}", remedy=_VERSIONS)
    return said[0]


def _sum(answers: Sequence[Answer], name: str) -> Integers:
    """The three summands added up in the ring. Raises MpcError if one is missing or has another form.

    Where the answers hold copies, every summand comes from two parties: raises CheatingDetected if they differ.
    """
    found = _three(answers, name)
    if any(answer.header.get("copies") for answer in answers):
        _agreed(answers, "copies")
        copies = _three(answers, name + COPY)
        for i in range(3):
            j = (i + 1) % 3  # P_i's second piece is P_j's own
            if not np.array_equal(copies[i], found[j]):
                raise CheatingDetected(
                    f"party {i} or party {j}: they answered different copies of a piece of {name}", (i, j)
                )
    first, second, third = (
        x.reshape(-1) for x in found
    )  # flat, since numpy warns of what wraps in 0-d arrays
    return (first + second + third).reshape(found[0].shape)


def _three(answers: Sequence[Answer], name: str) -> list[Integers]:
    """The three parties' tensors of this name, all int64 and of one shape."""
    found = [answer.tensors[name] for answer in answers if name in answer.tensors]
    if len(found) != 3 or any(x.dtype != np.int64 or x.shape != found[0].shape for x in found):
        raise MpcError(f"the parties' summands of {name} do not fit together", remedy=_VERSIONS)
    return found
