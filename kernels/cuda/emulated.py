"""The CUDA sources as C++ on this processor: built once by g++, kept on disk by content.

``emulate.cuh`` says what is emulated and what is refused. Launches of different OS threads run side by side, each on a
device of its own. The order of blocks and threads is shuffled by ``set_order``'s seed, which all launches use.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mpc_ray.errors import DeviceError, MpcError

from . import sources

FLAGS = (
    "-std=c++17",
    "-O2",
    "-fPIC",
    "-shared",
    "-fno-strict-aliasing",
    "-Wall",
    "-Wextra",
    "-Wno-unknown-pragmas",
)
# What a stray access or an undefined shift ends at. (Overflow of int32 is what tensor cores do, in mma_s8 as unsigned.)
SANITIZERS = ("-O1", "-g1", "-fsanitize=address,bounds,shift,alignment,null", "-fno-sanitize-recover=all")
_order = [0]


class KernelFault(MpcError):
    """The emulated device refused what a kernel did: a divergent barrier, a copy never waited for. Always a defect."""


def compiler() -> str:
    """The C++ compiler: $CXX or g++. Raises DeviceError where there is none."""
    found = shutil.which(os.environ.get("CXX") or "g++")
    if found is None:
        raise DeviceError(
            "no C++ compiler to emulate the CUDA kernels with", remedy="install g++, or set CXX"
        )
    return found


def cache_folder() -> Path:
    """Where built units lie: $XDG_CACHE_HOME or ~/.cache, in mpc-ray/emulated; made private to this user."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "mpc-ray" / "emulated"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def set_order(seed: int) -> None:
    """Shuffle blocks and threads of all launches from now on by ``seed``; 0 takes them in order."""
    _order[0] = seed


def build(unit: str, extra: tuple[str, ...] = ()) -> Path:
    """The shared library of a unit, built unless the cache has it; ``extra`` are flags, such as ``SANITIZERS``.

    Raises DeviceError with the compiler's first message if it does not build.
    """
    return build_source(unit, sources.text(unit), sources.digest(unit), extra)


def build_source(unit: str, source: str, digest: str, extra: tuple[str, ...] = ()) -> Path:
    """As ``build``, of a source that need not lie in this folder; ``digest`` names it in the cache."""
    compile_with = compiler()
    flags = (*FLAGS, *extra, "-I", str(sources.FOLDER))
    tag = hashlib.sha256("\0".join((digest, compile_with, *flags)).encode()).hexdigest()[:24]
    target = cache_folder() / f"{unit}-{tag}.so"
    if target.exists():
        return target
    wrappers = "".join(
        f'extern "C" const char* launch_{name}(const emulate::Launch* how)'
        f" {{ return emulate::launch({name}, *how); }}\n"
        for name in sources.parse(unit, source)
    )
    # Messages name the kernel's own file and line.
    code = f'#line 1 "{unit}.cu"\n{source}\n{wrappers}'
    handle, building = tempfile.mkstemp(suffix=".so", dir=target.parent)
    os.close(handle)
    command = [compile_with, *flags, "-x", "c++", "-", "-o", building]
    try:
        done = subprocess.run(command, input=code, text=True, capture_output=True, check=False)
        said = [line for line in done.stderr.splitlines() if "error:" in line or "warning:" in line]
        if done.returncode or said:
            message = said[0] if said else f"{compile_with} ended with {done.returncode}"
            raise DeviceError(f"{unit}.cu does not build as C++: {message}", remedy="correct it")
        os.replace(building, target)  # in one step: another process may build the same
    finally:
        Path(building).unlink(missing_ok=True)
    return target


class Launch(ctypes.Structure):
    """``emulate::Launch``."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_size_t),
        ("seed", ctypes.c_ulonglong),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
    )


@cache
def _library(unit: str) -> ctypes.CDLL:
    return ctypes.CDLL(str(build(unit)))


def launch(
    kernel: sources.Kernel,
    grid: Sequence[int],
    block: Sequence[int],
    shared: int,
    values: Sequence[Any],
) -> None:
    """Run a kernel to its end. ``values`` are ctypes values, one a parameter. Raises KernelFault."""
    run_in(_library(kernel.unit), kernel.name, grid, block, shared, values, _order[0])


def run_in(
    library: ctypes.CDLL,
    name: str,
    grid: Sequence[int],
    block: Sequence[int],
    shared: int,
    values: Sequence[Any],
    seed: int,
) -> None:
    """As ``launch``, from a library that the caller opened."""
    function = library[f"launch_{name}"]
    function.restype = ctypes.c_char_p
    addresses = (ctypes.c_void_p * len(values))(*[ctypes.addressof(value) for value in values])
    how = Launch(
        (ctypes.c_uint * 3)(*grid),
        (ctypes.c_uint * 3)(*block),
        shared,
        seed,
        ctypes.cast(addresses, ctypes.POINTER(ctypes.c_void_p)),
    )
    fault = function(ctypes.byref(how))
    if fault is not None:
        raise KernelFault(
            f"kernel {name}: {fault.decode()}", remedy="a defect of the kernel: please report it"
        )
