"""What nvcc makes of the sources, without a device: registers, spills, instructions and tensor-core instructions.

``budget.json`` keeps the figures; a test compiles again where there is an nvcc, and compares. To write it anew:

    python -m mpc_ray.kernels.cuda.cost
"""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from mpc_ray.errors import DeviceError

from . import sources

ARCHITECTURES = ("sm_80", "sm_90")
BUDGET = sources.FOLDER / "budget.json"
INSTRUCTION = 16  # bytes
IMMA = 0x237  # the low 12 bits of an instruction that multiplies int8 matrices
_PROPERTIES = re.compile(
    r"Function properties for (\w+)\s+(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
)
_REGISTERS = re.compile(r"Compiling entry function '(\w+)'.*?Used (\d+) registers", re.DOTALL)


@dataclass(frozen=True)
class Cost:
    """A kernel's static cost. ``instructions`` counts the code, loops once, with the padding at its end."""

    registers: int
    stack: int
    spills: int
    instructions: int
    mma: int


def nvcc() -> str | None:
    """The CUDA compiler, if there is one."""
    return shutil.which("nvcc")


@cache
def compile_unit(unit: str, architecture: str) -> dict[str, Cost]:
    """The costs of a unit's kernels by name. Raises DeviceError with nvcc's first error if it does not compile."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "unit.cubin"
        done = subprocess.run(
            [
                *(nvcc() or "nvcc", "-std=c++17", "-cubin", f"-arch={architecture}", "-Xptxas", "-v"),
                *("-o", str(cubin), str(sources.FOLDER / f"{unit}.cu")),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            first = next((line for line in done.stderr.splitlines() if "error" in line), "no message")
            raise DeviceError(f"{unit}.cu for {architecture}: {first}", remedy="correct it")
        code = code_of(cubin.read_bytes())
    frames = {
        name: (int(stack), int(st) + int(ld)) for name, stack, st, ld in _PROPERTIES.findall(done.stderr)
    }
    registers = {name: int(count) for name, count in _REGISTERS.findall(done.stderr)}
    return {
        name: Cost(
            registers[name],
            *frames[name],
            len(code[name]) // INSTRUCTION,
            sum(
                struct.unpack_from("<H", code[name], at)[0] & 0xFFF == IMMA
                for at in range(0, len(code[name]), INSTRUCTION)
            ),
        )
        for name in sources.parse(unit, sources.text(unit))
    }


def code_of(cubin: bytes) -> dict[str, bytes]:
    """The machine code of every kernel in an ELF image: its sections ``.text.NAME``."""
    table, size, count, names_index = (
        *struct.unpack_from("<Q", cubin, 40),
        *struct.unpack_from("<HHH", cubin, 58),
    )
    headers = [struct.unpack_from("<IIQQQQIIQQ", cubin, table + i * size) for i in range(count)]
    names = headers[names_index][4]
    found = {}
    for header in headers:
        start = names + header[0]
        name = cubin[start : cubin.index(b"\0", start)].decode()
        if name.startswith(".text."):
            found[name.removeprefix(".text.")] = cubin[header[4] : header[4] + header[5]]
    return found


def budget() -> dict[str, dict[str, Cost]]:
    """The figures kept, by architecture and kernel."""
    kept = json.loads(BUDGET.read_text(encoding="utf-8"))
    return {a: {name: Cost(**cost) for name, cost in kernels.items()} for a, kernels in kept.items()}


def main() -> None:
    """Write ``budget.json`` anew."""
    found = {
        architecture: {
            name: asdict(cost)
            for unit in sources.UNITS
            for name, cost in sorted(compile_unit(unit, architecture).items())
        }
        for architecture in ARCHITECTURES
    }
    lines = []
    for architecture, kernels in found.items():
        rows = ",\n".join(f'  "{name}": {json.dumps(cost)}' for name, cost in kernels.items())
        lines.append(f' "{architecture}": {{\n{rows}\n }}')
    BUDGET.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
