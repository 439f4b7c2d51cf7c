"""Run recorded launches again where a stray access is seen: ``replay.py MODE FILE``, a program of its own.

MODE ``guard``: each memory ends where an unmapped page begins, then starts where one ends. MODE ``sanitize``: the
libraries are built with the address and undefined-behaviour sanitizers, and each memory is an allocation of exactly its
size. FILE is a pickle of {"libraries": {unit: path}, "launches": [...]}. Prints a digest of what each launch left.
No torch and no numpy: they would allocate inside what is watched.
"""

from __future__ import annotations

import ctypes
import hashlib
import pickle
import sys
from pathlib import Path
from typing import Any

from mpc_ray.kernels.cuda import emulated

PAGE = 4096
ALIGNMENT = 16
_c = ctypes.CDLL(None)
_c.mmap.restype = ctypes.c_void_p
_c.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
_c.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_c.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


class Guarded:
    """Memory between two pages that nobody may touch."""

    def __init__(self, size: int, at_end: bool) -> None:
        room = -(-max(size, 1) // PAGE) * PAGE
        self.length = room + 2 * PAGE
        self.base = _c.mmap(None, self.length, 3, 0x22, -1, 0)
        for page in (self.base, self.base + PAGE + room):
            assert _c.mprotect(page, PAGE, 0) == 0
        self.address = self.base + PAGE
        if at_end:
            self.address += (room - size) // ALIGNMENT * ALIGNMENT

    def free(self) -> None:
        _c.munmap(self.base, self.length)


class Allocated:
    """An allocation of exactly this size, which the sanitizer fences."""

    def __init__(self, size: int) -> None:
        address = ctypes.c_void_p()
        assert _c.posix_memalign(ctypes.byref(address), 256, ctypes.c_size_t(max(size, 1))) == 0
        self.address = address.value

    def free(self) -> None:
        _c.free(ctypes.c_void_p(self.address))


def run(library: ctypes.CDLL, launch: dict[str, Any], make: Any, seed: int) -> str:
    """One launch on memories from ``make``; the digest of all memories afterwards."""
    memories = [(make(len(content)), content) for content in launch["memories"]]
    for memory, content in memories:
        ctypes.memmove(memory.address, content, len(content))
    values: list[Any] = []
    for kind, value in launch["values"]:
        if kind == "memory":
            values.append(ctypes.c_void_p(memories[value][0].address))
        else:
            values.append(getattr(ctypes, kind)(value))
    emulated.run_in(library, launch["name"], launch["grid"], launch["block"], launch["shared"], values, seed)
    total = hashlib.sha256()
    for memory, content in memories:
        total.update(ctypes.string_at(memory.address, len(content)))
        memory.free()
    return total.hexdigest()[:16]


def main(mode: str, path: str) -> None:
    recorded = pickle.loads(Path(path).read_bytes())
    libraries = {unit: ctypes.CDLL(file) for unit, file in recorded["libraries"].items()}
    for number, launch in enumerate(recorded["launches"]):
        sys.stderr.write(f"at {launch['name']}\n")  # the last line names who was stopped
        library = libraries[launch["unit"]]
        if mode == "guard":
            digests = {
                run(library, launch, lambda n, end=end: Guarded(n, end), number) for end in (True, False)
            }
            assert len(digests) == 1
            sys.stdout.write(digests.pop() + "\n")
        else:
            sys.stdout.write(run(library, launch, Allocated, number) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
