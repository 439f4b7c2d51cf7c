"""No CUDA body reads or writes outside of its tensors: launches run again beside unmapped pages, and sanitized."""

from __future__ import annotations

import ctypes
import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mpc_ray.kernels import device
from mpc_ray.kernels.cuda import emulated, planes, ring, sources
from mpc_ray.kernels.cuda.launch import Argument, launch, observer
from mpc_ray.kernels.operations import OPERATIONS, Draw

REPLAY = Path(__file__).with_name("replay.py")


def span(tensor: torch.Tensor) -> bytes:
    """What lies from a tensor's first element to its last, gaps included."""
    count = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return ctypes.string_at(tensor.data_ptr(), count * tensor.element_size() if tensor.numel() else 0)


class Recorder:
    """Launches as ``replay.py`` takes them."""

    def __init__(self) -> None:
        self.launches: list[dict[str, Any]] = []

    def __call__(
        self,
        kernel: sources.Kernel,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        shared: int,
        arguments: tuple[Argument, ...],
    ) -> None:
        memories: dict[int, bytes] = {}
        for argument in arguments:
            if isinstance(argument, torch.Tensor):
                known, new = memories.get(argument.data_ptr(), b""), span(argument)
                memories[argument.data_ptr()] = max(known, new, key=len)
        numbers = {address: i for i, address in enumerate(memories)}
        kinds = {
            "u64": "c_uint64",
            "i64": "c_int64",
            "u32": "c_uint32",
            "int": "c_int32",
            "double": "c_double",
        }
        values: list[tuple[str, Any]] = []
        for parameter, argument in zip(kernel.parameters, arguments, strict=True):
            if isinstance(argument, torch.Tensor):
                values.append(("memory", numbers[argument.data_ptr()]))
            elif parameter.pointer:
                values.append(("c_void_p", None))
            else:
                values.append((kinds[parameter.kind], argument))
        self.launches.append(
            {"unit": kernel.unit, "name": kernel.name, "grid": grid, "block": block, "shared": shared,
             "values": values, "memories": list(memories.values())}
        )  # fmt: skip


def everything() -> None:
    """At least one launch of every kernel, at lengths that fill no block."""
    for operation in OPERATIONS:
        for size in (3, 45):
            for i in range(2 * len(operation.kernels) - 1):
                arguments = operation.draw(Draw(torch.Generator().manual_seed(size + i), size))
                with device.emulating():
                    operation.body(*arguments)
    x = Draw(torch.Generator().manual_seed(1), 0)
    a, b = x.ring(33, 45), x.ring(45, 18)
    out = torch.empty((33, 18), dtype=torch.int64)
    for form in ("digits", "residues"):
        planes.matmul(a, b, form, out)
    ring.matmul_plain(a, b)


@pytest.fixture(scope="module")
def recorded() -> list[dict[str, Any]]:
    recorder = Recorder()
    observer.append(recorder)
    try:
        everything()
    finally:
        observer.remove(recorder)
    assert {launch["name"] for launch in recorder.launches} == set(sources.kernels())
    return recorder.launches


def replay(
    mode: str, launches: list[dict[str, Any]], libraries: dict[str, str], folder: Path, preload: str = ""
) -> subprocess.CompletedProcess[str]:
    file = folder / f"{mode}.pickle"
    file.write_bytes(pickle.dumps({"libraries": libraries, "launches": launches}))
    environment = os.environ | {
        "PYTHONMALLOC": "malloc",
        "LD_PRELOAD": preload,
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
    }
    return subprocess.run(
        [sys.executable, str(REPLAY), mode, str(file)],
        env=environment, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip


def plain() -> dict[str, str]:
    return {unit: str(emulated.build(unit)) for unit in sources.UNITS}


def sanitizer() -> str:
    """g++'s address sanitizer, to be loaded before anything else; skips where there is none."""
    named = subprocess.run(
        [emulated.compiler(), "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(named).is_absolute():
        pytest.skip("the compiler has no address sanitizer")
    return str(Path(named).resolve())


@pytest.mark.timeout(600)  # the first time it builds everything with sanitizers
def test_no_kernel_strays(recorded: list[dict[str, Any]], tmp_path: Path) -> None:
    preload = sanitizer()
    guarded = replay("guard", recorded, plain(), tmp_path)
    assert guarded.returncode == 0, guarded.stderr[-2000:]
    checked = {unit: str(emulated.build(unit, emulated.SANITIZERS)) for unit in sources.UNITS}
    sanitized = replay("sanitize", recorded, checked, tmp_path, preload)
    assert sanitized.returncode == 0, sanitized.stderr[-4000:]
    assert guarded.stdout == sanitized.stdout
    assert len(guarded.stdout.split()) == len(recorded)


STRAY = """
#include "mpc.cuh"
extern "C" __global__ void beyond(u8* x, int n) { x[n] = 1; }
extern "C" __global__ void before(const u8* x, u8* out) { *out = x[-1]; }
extern "C" __global__ void shared_beyond(u8* out) { SHARED_MEMORY(memory); memory[64] = 1; *out = memory[0]; }
extern "C" __global__ void shift(const int* by, int* out) { *out = 1 << *by; }
"""
FAULTS = {
    "beyond": [("memory", 0), ("c_int32", 32)],
    "before": [("memory", 0), ("memory", 1)],
    "shared_beyond": [("memory", 0)],
    "shift": [("memory", 1), ("memory", 0)],
}


@pytest.fixture
def stray() -> list[dict[str, Any]]:
    memories = [bytes(32), (64).to_bytes(32, "little")]
    return [
        {"unit": "stray", "name": name, "grid": (1, 1, 1), "block": (1, 1, 1), "shared": 64,
         "values": values, "memories": memories}
        for name, values in FAULTS.items()
    ]  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_strays_are_caught(name: str, stray: list[dict[str, Any]], tmp_path: Path) -> None:
    preload = sanitizer()
    only = [launch for launch in stray if launch["name"] == name]
    digest = hashlib.sha256(STRAY.encode()).hexdigest() + sources.digest(sources.UNITS[0])
    checked = {"stray": str(emulated.build_source("stray", STRAY, digest, emulated.SANITIZERS))}
    caught = replay("sanitize", only, checked, tmp_path, preload)
    assert caught.returncode != 0
    assert "AddressSanitizer" in caught.stderr or "shift exponent" in caught.stderr
    if name in ("beyond", "before"):
        library = {"stray": str(emulated.build_source("stray", STRAY, digest))}
        assert replay("guard", only, library, tmp_path).returncode == -11, "a page that nobody may touch"


def test_a_launch_of_nothing_is_none() -> None:
    seen: list[str] = []
    observer.append(lambda kernel, *_: seen.append(kernel.name))
    try:
        launch("pick_bits", 0, 32, *[torch.empty(0, dtype=d) for d in (torch.uint8, torch.int64)], 0, 4,
               torch.empty(0, dtype=torch.uint8))  # fmt: skip
    finally:
        observer.clear()
    assert seen == []
