"""An encoder on "cuda" where there is none: shares stay on the device from receipt to send, bits are the CPU's.

The device is pretended: a tensor "on cuda" is a subclass that lies in CPU memory, says it does not, cannot be read as
numpy, and does not mix with CPU tensors, as torch would have it. Its kernels run in emulation. What this cannot show:
streams, pinned memory, time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from mpc_ray import execute
from mpc_ray.channel.local import local_channels
from mpc_ray.correlation.prf import derive
from mpc_ray.kernels.cuda import device as cuda_device
from mpc_ray.kernels.cuda import emulated
from mpc_ray.kernels.cuda import ring as cuda_ring
from mpc_ray.kernels.cuda.launch import observer
from mpc_ray.models import query
from mpc_ray.models.export import Export, export_encoder
from mpc_ray.models.statistics import observe
from mpc_ray.models.synthetic import random_bert
from mpc_ray.models.weights import BertModel
from mpc_ray.sharing.deal import deal

CUDA = torch.device("cuda", 0)
SAMPLE = [
    [2, *np.random.default_rng(i).integers(5, 128, i % 12 + 1).tolist(), 3] for i in range(60)
]  # what the ranges are observed on


class OnDevice(torch.Tensor):
    """Memory that the CPU cannot see."""

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(function, "__name__", "")
        owner = getattr(getattr(function, "__self__", None), "__name__", "")
        if owner in ("device", "is_cuda"):
            return CUDA if owner == "device" else True
        if name == "numpy":
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if name == "copy_":
            args[0].as_subclass(torch.Tensor).copy_(args[1].as_subclass(torch.Tensor))
            return args[0]
        if name == "cpu" or (name == "to" and _wants(args[1:], kwargs, "cpu")):
            return args[0].as_subclass(torch.Tensor).clone()
        if name == "to":
            args = tuple(a for a in args if not isinstance(a, torch.device))
            kwargs = {k: v for k, v in kwargs.items() if k not in ("device", "non_blocking")}
            if len(args) == 1 and not kwargs:
                return args[0]
        kwargs.pop("device", None)
        for other in _tensors((args, kwargs)):
            if not isinstance(other, OnDevice) and other.dim() and other.numel():
                raise RuntimeError(f"Expected all tensors to be on the same device: cpu in {name}")
        return super().__torch_function__(function, types, args, kwargs)


def _tensors(given: Any) -> Iterator[torch.Tensor]:
    if isinstance(given, torch.Tensor):
        yield given
    elif isinstance(given, dict):
        yield from _tensors(list(given.values()))
    elif isinstance(given, (list, tuple)):
        for part in given:
            yield from _tensors(part)


def _wants(args: tuple[Any, ...], kwargs: dict[str, Any], kind: str) -> bool:
    places = [a for a in (*args, kwargs.get("device")) if isinstance(a, (torch.device, str))]
    return any(torch.device(p).type == kind for p in places)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A device in every thread; the names of the kernels launched on it."""
    for name in ("empty", "zeros", "tensor", "full", "ones", "arange"):
        monkeypatch.setattr(torch, name, _factory(getattr(torch, name)))
    moved = torch.Tensor.to

    def to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not isinstance(self, OnDevice) and _wants(args, kwargs, "cuda"):
            return self.clone().as_subclass(OnDevice)
        return moved(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # nothing is pinned

    def launch(kernel: Any, place: Any, grid: Any, block: Any, shared: int, values: Any) -> None:
        assert place == CUDA
        emulated.launch(kernel, grid, block, shared, values)

    monkeypatch.setattr(cuda_device, "launch", launch)
    monkeypatch.setattr(cuda_ring, "processors", lambda place: 4)
    monkeypatch.setattr("mpc_ray.device_memory.DeviceMemory.__init__", _unlimited)
    monkeypatch.setattr("mpc_ray.device_memory.DeviceMemory.guarded", _unguarded)
    launched: list[str] = []
    observer.append(lambda kernel, *_: launched.append(kernel.name))
    yield launched
    observer.clear()


def _factory(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def make(*args: Any, **kwargs: Any) -> torch.Tensor:
        place = kwargs.pop("device", None)
        kwargs.pop("pin_memory", None)
        made = original(*args, **kwargs)
        elsewhere = place is not None and torch.device(place).type == "cuda"
        return made.as_subclass(OnDevice) if elsewhere else made

    return make


def _unlimited(self: Any, place: torch.device, fraction: float = 1.0) -> None:
    self.place = CUDA if place.type == "cuda" else place


class _unguarded:  # noqa: N801 - stands for a method
    def __init__(self, *_: Any) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: Any) -> None: ...


def test_the_pretended_device_refuses_what_a_device_would(pretended: list[str]) -> None:
    x = torch.ones(3, dtype=torch.int64).to(CUDA)
    assert x.device == CUDA and x.is_cuda and (x + 1).device == CUDA and x[:2].device == CUDA
    assert torch.empty(2, device=CUDA).device == CUDA and x.new_zeros(3).device == CUDA
    assert torch.zeros_like(x).device == CUDA and torch.cat([x, x]).device == CUDA
    assert x.cpu().device.type == "cpu" and x.to("cpu").device.type == "cpu"
    assert type(x.cpu().numpy()) is np.ndarray
    with pytest.raises(TypeError, match="numpy"):
        x.numpy()
    for other in (torch.ones(3, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)):
        with pytest.raises(RuntimeError, match="same device"):
            torch.cat([x, other])
    with pytest.raises(RuntimeError, match="same device"):
        x + torch.ones(3, dtype=torch.int64)


def exported(model: BertModel) -> Export:
    tables = model.embeddings
    return export_encoder(
        model.encoder,
        observe(model, SAMPLE),
        (16,),
        gain=tables.norm_gain,
        bias=tables.norm_bias,
        normalize=model.normalize,
    )


def run_fixed(monkeypatch: pytest.MonkeyPatch, device: str, prf: str) -> tuple[np.ndarray, list[Any]]:
    """A small encoder with fixed seeds everywhere: its vectors, and all that the parties answered."""
    model = random_bert(layers=1, hidden=16, heads=2, ffn=32)
    rows = [[2, 9, 8, 3], [2, 7, 3]]
    export = exported(model)
    seeds = [derive(b"fixed", b"pair %d" % i) for i in range(3)]
    monkeypatch.setattr(
        execute, "agree", lambda channel, *_: {i % 3: seeds[i % 3] for i in (channel.me, channel.me + 1)}
    )
    monkeypatch.setattr(query, "deal", lambda secrets: deal(secrets, (bytes(32), bytes([1]) * 32)))
    channels = local_channels(timeout=100.0)
    options = {"digest": bytes(32), "device": device, "prf": prf}

    def party(i: int) -> Any:
        executor = execute.Executor(channels[i], **options)
        executor.runtime.correlation.private = bytes([i]) * 32
        try:
            executor.load(query.load_messages(export, "m", bytes(16))[i])
            shared = query.embedding_secrets(model, export, rows, 16)
            return executor.run(query.run_messages(shared, "m", bytes([7]) * 16, 0, "embedding")[i])
        except BaseException as error:
            channels[i].fail(error)
            raise

    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(party, range(3)))
    return query.embeddings(model, rows, answers), answers


@pytest.mark.parametrize("prf", ["chacha20", "aes128ctr"])
def test_an_encoder_on_the_device_gives_the_cpus_bits(
    prf: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    vectors, on_cpu = run_fixed(monkeypatch, "cpu", prf)
    launched = request.getfixturevalue("pretended")
    again, on_device = run_fixed(monkeypatch, "cuda", prf)
    assert np.array_equal(vectors, again)
    for one, other in zip(on_cpu, on_device, strict=True):
        assert one.tensors.keys() == other.tensors.keys()
        assert all(np.array_equal(one.tensors[name], other.tensors[name]) for name in one.tensors)
        assert one.header["bytes_sent"] == other.header["bytes_sent"]
    kinds = {"ring_product", "lookup_sums", "dpf_expand", "thermometer_counts_uint8", "truncated_share"}
    assert kinds <= set(launched)
    assert ("stream_add" in launched) == (prf == "chacha20")
