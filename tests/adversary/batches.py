"""Jobs of several clients on the small model, as one run."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
from encoders import LENGTH, TEXTS, small_model

from mpc_ray import parcels
from mpc_ray.channel import Message
from mpc_ray.models import query
from mpc_ray.sharing.parcel import Secret, deal

ROWS = [row for rows in TEXTS.values() for row in rows]
HEADER = {"cmd": "run", "model": "model", "attempt": 0, "output": "embedding", "range_check": True}


def secrets_of(rows: Sequence[Sequence[int]], louder: int = 0) -> dict[str, Secret]:
    """One client's job; ``louder``: its embedded rows times 2^louder, which leaves every calibrated range."""
    shared = query.embedding_secrets(*small_model(), rows, LENGTH)
    return {**shared, "x": dataclasses.replace(shared["x"], value=shared["x"].value << louder)}


def dealt(*jobs: dict[str, Secret], entropy: bytes | None = None) -> list[list[Message]]:
    """For each job the three parties' parcels."""
    out = []
    for i, job in enumerate(jobs):
        seeds = None if entropy is None else (bytes([i, *entropy[1:]]), bytes([i + 100, *entropy[1:]]))
        out.append([Message(p.header, dict(p.tensors)) for p in deal(job, seeds)])
    return out


def batch(jobs: Sequence[Sequence[Message]], job: bytes | None = None, **header: Any) -> list[Message]:
    """One run of ``jobs`` (each three parcels) for the three parties."""
    name = (job or secrets.token_bytes(16)).hex()
    return [parcels.join({**HEADER, "job": name, **header}, [j[i] for j in jobs]) for i in range(3)]


def by_job(answers: Sequence[Message]) -> list[list[Message]]:
    """For each job the three parties' answers."""
    return [list(job) for job in zip(*(parcels.answers(a) for a in answers), strict=True)]


def split(rows: Sequence[Any], sizes: Sequence[int]) -> list[Sequence[Any]]:
    ends = np.cumsum(sizes)
    return [rows[end - size : end] for size, end in zip(sizes, ends, strict=True)]
