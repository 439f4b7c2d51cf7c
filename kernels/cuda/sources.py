"""The CUDA sources of this folder: which kernels there are, what each takes, and a digest of all that goes into one."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
HEADERS = tuple(sorted(FOLDER.glob("*.cuh")))
# One file is one translation unit: compiled, cached and loaded by itself.
UNITS = tuple(sorted(path.stem for path in FOLDER.glob("*.cu")))

_KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)', re.DOTALL
)
_PARAMETER = re.compile(r"^(?:const\s+)?(\w+)\s*(\*?)\s*(?:__restrict__\s+)?(\w+)$")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel: ``kind`` is the C name of the element (``u64``), or of the scalar."""

    name: str
    kind: str
    pointer: bool


@dataclass(frozen=True)
class Kernel:
    """A kernel's name, the file it is in, and its parameters in order."""

    name: str
    unit: str
    parameters: tuple[Parameter, ...]


def text(unit: str) -> str:
    """The source of a unit."""
    return (FOLDER / f"{unit}.cu").read_text(encoding="utf-8")


def parse(unit: str, source: str) -> dict[str, Kernel]:
    """The kernels that ``source`` defines. Raises ValueError for a parameter that no launch could pass."""
    found = {}
    for name, parameters in _KERNEL.findall(source):
        parts = []
        for part in parameters.split(",") if parameters.strip() else ():
            match = _PARAMETER.match(" ".join(part.split()))
            if match is None:
                raise ValueError(f"{unit}.cu: {name} takes {part.strip()!r}, which no launch can pass")
            parts.append(Parameter(match[3], match[1], bool(match[2])))
        found[name] = Kernel(name, unit, tuple(parts))
    return found


@cache
def kernels() -> dict[str, Kernel]:
    """All kernels by name."""
    return {name: kernel for unit in UNITS for name, kernel in parse(unit, text(unit)).items()}


@cache
def digest(unit: str) -> str:
    """What a compiled unit is valid for: its source and every header."""
    total = hashlib.sha256()
    for path in (FOLDER / f"{unit}.cu", *HEADERS):
        total.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:24]
