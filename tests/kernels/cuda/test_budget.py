"""The static budget: what nvcc makes of each kernel, held to what is kept. Skipped, and said so, without an nvcc."""

from __future__ import annotations

import ctypes.util

import pytest

from mpc_ray.errors import DeviceError
from mpc_ray.kernels.cuda import cost, sources

SLACK_REGISTERS = 8  # another nvcc may choose otherwise by a few
SLACK = 1.15  # of instructions
nvcc = pytest.mark.skipif(
    cost.nvcc() is None, reason="no nvcc: the CUDA sources were not compiled for a device"
)


def test_the_budget_names_every_kernel_and_no_spill() -> None:
    kept = cost.budget()
    assert set(kept) == set(cost.ARCHITECTURES)
    for kernels in kept.values():
        assert set(kernels) == set(sources.kernels())
        assert all((c.spills, c.stack) == (0, 0) and c.registers <= 255 for c in kernels.values())
        # 36 products of digits for each of 2 x 2 tiles of a warp; nothing else uses tensor cores
        users = {name for name, c in kernels.items() if c.mma}
        assert users == {"ring_product", "ring_product_straight", "ring_product_turned"}
        assert {kernels[name].mma for name in users} == {36 * 4}


@nvcc
@pytest.mark.parametrize("unit", sources.UNITS)
@pytest.mark.parametrize("architecture", cost.ARCHITECTURES)
def test_compiled_kernels_keep_the_budget(unit: str, architecture: str) -> None:
    kept = cost.budget()[architecture]
    for name, now in cost.compile_unit(unit, architecture).items():
        assert (now.spills, now.stack) == (0, 0), name
        assert now.registers <= kept[name].registers + SLACK_REGISTERS, name
        assert now.instructions <= SLACK * kept[name].instructions, name
        assert now.mma == kept[name].mma, name


@nvcc
def test_what_does_not_compile_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(cost, "sources", _Sources(tmp_path))
    with pytest.raises(DeviceError, match=r"broken\.cu for sm_90: .*error"):
        cost.compile_unit("broken", "sm_90")


class _Sources:
    def __init__(self, folder: object) -> None:
        self.FOLDER = folder
        (folder / "broken.cu").write_text("__global__ void f() { missing(); }\n")  # type: ignore[operator]


def test_nvrtc_compiles_the_sources() -> None:
    """The compiler that CuPy uses on a device knows no header but ours."""
    found = ctypes.util.find_library("nvrtc")
    if found is None:
        pytest.skip("no NVRTC library: on a device CuPy compiles the sources with it (tests/gpu)")
    library = ctypes.CDLL(found)
    header = (sources.FOLDER / "mpc.cuh").read_bytes()
    others = [
        (path.name.encode(), path.read_bytes())
        for path in sources.HEADERS
        if path.stem not in ("mpc", "emulate")
    ]
    names = [b"mpc.cuh", *(name for name, _ in others)]
    texts = [header, *(text for _, text in others)]
    for unit in sources.UNITS:
        program = ctypes.c_void_p()
        count = len(names)
        assert library.nvrtcCreateProgram(
            ctypes.byref(program), sources.text(unit).encode(), unit.encode(), count,
            (ctypes.c_char_p * count)(*texts), (ctypes.c_char_p * count)(*names),
        ) == 0  # fmt: skip
        for architecture in cost.ARCHITECTURES:
            options = (ctypes.c_char_p * 2)(f"--gpu-architecture={architecture}".encode(), b"--std=c++17")
            assert library.nvrtcCompileProgram(program, 2, options) == 0, unit
