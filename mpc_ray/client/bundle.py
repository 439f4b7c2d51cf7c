"""The folder that a model's owner gives to clients (``mpc_ray.models.bundle`` reads and writes it)."""

from __future__ import annotations

from mpc_ray.models.bundle import Bundle

__all__ = ["Bundle"]
