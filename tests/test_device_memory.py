"""device_memory: no device is an error; running out says what was asked, the limit, and what would fit."""

from __future__ import annotations

import pytest
import torch

from mpc_ray.device_memory import DeviceMemory
from mpc_ray.errors import DeviceError

GIB = 1 << 30


def test_the_cpu_is_left_alone() -> None:
    memory = DeviceMemory(torch.device("cpu"))
    with memory.guarded("a job", 1, 16):
        assert memory.place.type == "cpu"


def test_no_device_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r"no usable GPU \(use device cpu\)"):
        DeviceMemory(torch.device("cuda"))


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A pretended device of 80 GiB, and what is allocated on it now and at most."""
    state = {"now": 10 * GIB, "most": 10 * GIB, "fraction": 0}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda f, _: state.update(fraction=round(100 * f))
    )
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: state["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: state["most"])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: type("Properties", (), {"total_memory": 80 * GIB})
    )
    return state


def exhausted() -> Exception:
    return torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")


def test_running_out_says_what_would_fit(held: dict[str, int]) -> None:
    memory = DeviceMemory(torch.device("cuda"), 0.5)
    assert memory.place == torch.device("cuda", 1)
    assert held["fraction"] == 50

    def run(texts: int) -> None:
        with memory.guarded("a job", texts, 128):
            held["most"] = 38 * GIB
            raise exhausted()

    with pytest.raises(DeviceError) as caught:
        run(100)
    # 30 GiB of 0.3 each are reached when it fails: at most 100 of them fit in 40 - 10
    said = "cuda:1 is out of memory for a job: 2.00 GiB asked, 10.00 GiB of 40.00 GiB in use"
    assert str(caught.value) == (
        f"{said} (send at most 99 texts of 128 tokens at once, or raise MPC_GPU_MEMORY_FRACTION)"
    )
    with memory.guarded("a job", 10, 128):  # a job that fits shows what a text needs in truth
        held["most"] = 20 * GIB
    with pytest.raises(DeviceError, match="at most 30 texts of 128"):
        run(100)
    with pytest.raises(DeviceError, match="free the GPU, or pad to fewer tokens"):
        run(1)


def test_a_model_that_does_not_fit(held: dict[str, int]) -> None:
    memory = DeviceMemory(torch.device("cuda", 0))
    said = r"for the model's shares: 2\.00 GiB asked.*a smaller model"
    with pytest.raises(DeviceError, match=said), memory.guarded("the model's shares"):
        raise exhausted()
    with pytest.raises(ZeroDivisionError), memory.guarded("a job", 1, 16):
        raise ZeroDivisionError
