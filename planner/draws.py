"""Random numbers of the compiled loops: xorshift64 (G. Marsaglia, Xorshift RNGs, 2003). Never of cryptography.

A state is an array [1] of uint64 that is not 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpc_ray.planner.compiled import compiled


@compiled
def draw(state: Any) -> Any:
    """The next 64 bits."""
    x = state[0]
    x ^= x << np.uint64(13)
    x ^= x >> np.uint64(7)
    x ^= x << np.uint64(17)
    state[0] = x
    return x


@compiled
def below(state: Any, bound: int) -> Any:
    """A number from 0 to bound - 1, uniform but for 2^-31 of itself; bound is at most 2^31."""
    return np.int64(((draw(state) >> np.uint64(33)) * np.uint64(bound)) >> np.uint64(31))


@compiled
def unit(state: Any) -> Any:
    """A number between 0 and 1, neither included."""
    return (np.float64(draw(state) >> np.uint64(11)) + 0.5) / 9007199254740992.0
