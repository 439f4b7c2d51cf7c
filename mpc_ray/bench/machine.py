"""What a figure was measured on, so that it is never quoted without it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import psutil
import torch

import mpc_ray
from mpc_ray.kernels import lookup, ring


def machine(device: str = "cpu") -> dict[str, Any]:
    """Processor, usable cores, memory, versions, and the kernels' bodies in use; ``load`` is the one-minute average
    at the moment of asking: above zero, somebody else was on the machine too.
    """
    found: dict[str, Any] = {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mpc_ray": mpc_ray.__version__,
        "product_body": ring.body(),
        "lookup_body": lookup.body(),
    }
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
