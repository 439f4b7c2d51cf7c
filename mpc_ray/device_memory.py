"""A party's share of a GPU's memory: the limit, what a job of which length needs, and the error when it is not there.

torch is the only allocator on a device (kernels get pointers), so its limit is the party's. Parties in threads of one
process share that process's limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mpc_ray.errors import DeviceError

_TRIED = re.compile(r"Tried to allocate ([\d.]+ [KMGT]?i?B)")


class DeviceMemory:
    """Memory of ``place``; of the CPU nothing is limited, counted or caught.

    ``fraction`` in (0, 1]: of the device's memory for this process. Raises DeviceError where the device is not there.
    """

    def __init__(self, place: torch.device, fraction: float = 1.0) -> None:
        self.place = place
        self._fraction = fraction
        self._needs: dict[int, int] = {}  # padded length -> bytes a text, the most seen
        if place.type == "cuda":
            if not torch.cuda.is_available():
                raise DeviceError(
                    "cuda was asked for, but this machine has no usable GPU", remedy="use device cpu"
                )
            if place.index is None:
                self.place = torch.device("cuda", torch.cuda.current_device())
            torch.cuda.set_per_process_memory_fraction(fraction, self.place)

    @contextmanager
    def guarded(self, what: str, texts: int = 0, length: int = 0) -> Iterator[None]:
        """Turn running out of memory into a DeviceError with the size asked, the limit, and the batch that would fit.

        ``texts`` of a padded ``length``: a job; what it needed is remembered for the next one's error.
        """
        if self.place.type != "cuda":
            yield
            return
        before = torch.cuda.memory_allocated(self.place)
        torch.cuda.reset_peak_memory_stats(self.place)
        try:
            yield
        except torch.cuda.OutOfMemoryError as error:
            raise self._exhausted(what, str(error), before, texts, length) from None
        if texts:
            need = -(-(torch.cuda.max_memory_allocated(self.place) - before) // texts)
            self._needs[length] = max(need, self._needs.get(length, 0))

    def _exhausted(self, what: str, said: str, before: int, texts: int, length: int) -> DeviceError:
        total = torch.cuda.get_device_properties(self.place).total_memory
        limit = int(total * self._fraction)
        tried = _TRIED.search(said)
        asked = tried[1] if tried else "more"
        cause = (
            f"{self.place} is out of memory for {what}: {asked} asked,"
            f" {_gib(torch.cuda.memory_allocated(self.place))} of {_gib(limit)} in use"
        )
        if not texts:
            return DeviceError(
                cause, remedy="raise MPC_GPU_MEMORY_FRACTION, free the GPU, or use a smaller model"
            )
        # What was reached before the failure is the least that a text can need; an earlier job may know better.
        reached = (torch.cuda.max_memory_allocated(self.place) - before + _bytes(asked)) // texts
        need = max(self._needs.get(length, 0), reached, 1)
        fits = min(max((limit - before) // need, 0), texts - 1)
        if fits == 0:
            remedy = "raise MPC_GPU_MEMORY_FRACTION, free the GPU, or pad to fewer tokens"
        else:
            remedy = f"send at most {fits} texts of {length} tokens at once, or raise MPC_GPU_MEMORY_FRACTION"
        return DeviceError(cause, remedy=remedy)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _bytes(size: str) -> int:
    """What torch writes as "2.00 GiB", in bytes; 0 for anything else."""
    number, _, unit = size.partition(" ")
    scale = {"B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}.get(unit)
    return 0 if scale is None else int(float(number) * 2**scale)
