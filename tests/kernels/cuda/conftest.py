"""Tests of CUDA bodies need a C++ compiler: skipped, and said so, where there is none; in CI that is an error."""

from __future__ import annotations

import os

import pytest

from mpc_ray.errors import DeviceError
from mpc_ray.kernels.cuda import emulated


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    try:
        emulated.compiler()
    except DeviceError as error:
        if not os.environ.get("CI"):
            for item in items:
                if "kernels/cuda" in item.path.as_posix():
                    item.add_marker(pytest.mark.skip(reason=str(error)))
