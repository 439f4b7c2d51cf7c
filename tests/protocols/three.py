"""Runs one program at three parties in three threads, with fixed seeds, and collects what each returns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from mpc_ray.channel.local import local_channels
from mpc_ray.correlation.prf import Correlation, derive
from mpc_ray.protocols.runtime import Protocol, Runtime
from mpc_ray.protocols.semi_honest.open import Opening
from mpc_ray.sharing.replicated import Shared, Summand

JOB = bytes(range(16))
Program = Callable[[Runtime], Protocol[Any]]


def runtimes(master: bytes = b"test seed", channels: Sequence[Any] | None = None) -> list[Runtime]:
    """Three runtimes over in-process channels; all randomness follows from ``master``."""
    channels = channels if channels is not None else local_channels(timeout=20.0)
    seeds = [derive(master, b"pair %d" % i) for i in range(3)]
    out = []
    for i in range(3):
        held = {i: seeds[i], (i + 1) % 3: seeds[(i + 1) % 3]}
        runtime = Runtime(channels[i], Correlation(i, held, derive(master, b"private %d" % i)))
        out.append(runtime)
    return out


def run_three(
    program: Program, parties: list[Runtime] | None = None, job: bytes = JOB, attempt: int = 0
) -> list[Any]:
    """The three parties' results, in order. The first exception of any party is raised."""
    parties = parties if parties is not None else runtimes()
    results: list[Any] = [None] * 3
    errors: list[BaseException | None] = [None] * 3

    def party(i: int) -> None:
        try:
            parties[i].begin(job, attempt)
            results[i] = parties[i].run(program(parties[i]))
        except BaseException as error:  # noqa: BLE001 - handed to the test's thread
            errors[i] = error
            parties[i].channel.fail(error)

    threads = [threading.Thread(target=party, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for error in errors:
        if error is not None:
            raise error
    return results


def share(x: torch.Tensor, scale: int = 0, seed: int = 1) -> list[Shared]:
    """Each party's half of ⟨x⟩ (test randomness)."""
    rng = np.random.default_rng(seed)
    first, second = (
        torch.from_numpy(rng.integers(-(2**63), 2**63, tuple(x.shape), dtype=np.int64)) for _ in range(2)
    )
    pieces = [first, second, x - first - second]
    return [Shared(pieces[i], pieces[(i + 1) % 3], scale) for i in range(3)]


def summands(x: torch.Tensor, scale: int = 0, seed: int = 2) -> list[Summand]:
    """Each party's summand of [x]."""
    return [Summand(s.own, scale) for s in share(x, scale, seed)]


def two_of_two(results: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """The sum of whatever evaluators returned (the dealer returns None)."""
    return torch.stack([r for r in results if r is not None]).sum(0)


__all__ = ["JOB", "Opening", "run_three", "runtimes", "share", "summands", "two_of_two"]
