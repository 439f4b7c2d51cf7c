"""The client runs on the base installation: no torch, no Ray, no numba, nothing of the extras."""

from __future__ import annotations

import importlib.metadata
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "mpc_ray"

BLOCK = """
import importlib.abc, sys
blocked = set(sys.argv[1].split(","))

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"blocked: {name}", name=name)
        return None

sys.meta_path.insert(0, Block())
"""

WORK = """
from mpc_ray.client.bundle import Bundle
from mpc_ray.client.share import prepare, vectors
bundle = Bundle.load(sys.argv[2])
batch = prepare(bundle, ["Hello", "a b c"])[0]
parcels = batch.deal()
assert [len(p.tensors) for p in parcels] == [0, 3, 3]
"""


def base() -> set[str]:
    """Distributions that ``pip install mpc-ray`` brings: its dependencies and theirs, extras left out."""
    waiting, seen = ["mpc-ray"], set()
    while waiting:
        name = plain(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another Python or system
        for line in requires:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return seen


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def others() -> set[str]:
    """Top-level modules of everything else that is installed here."""
    provided, own = importlib.metadata.packages_distributions(), base()
    tops = {top for top, names in provided.items() if not {plain(name) for name in names} & own}
    return tops | {"torch", "ray", "numba"}


def client(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCK + code, ",".join(sorted(others())), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT.parent)


def test_the_base_installation_has_what_is_small_and_nothing_else() -> None:
    names = base()
    assert {"cryptography", "httpx", "numpy", "pydantic", "safetensors", "tokenizers", "typer"} <= names
    assert not names & {"torch", "ray", "numba", "fastapi", "uvicorn", "prometheus-client", "transformers"}
    assert not others() & {"mpc_ray", "numpy", "cryptography"}


@pytest.mark.parametrize("package", ["client", "trust", "channel"])
def test_every_module_of_a_package_imports(package: str) -> None:
    """But for the proxy, which has an extra of its own."""
    names = [module.name for module in pkgutil.walk_packages([str(PACKAGE / package)], f"mpc_ray.{package}.")]
    own = [name for name in names if not name.startswith("mpc_ray.client.proxy")]
    assert len(own) > 1
    answer = client(f"import {', '.join([f'mpc_ray.{package}', *own])}")
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize(
    "module",
    [
        "cli.main",
        "cli.model",
        "endpoint.store",
        "sharing.parcel",
        "models.tokenize",
        "models.answers",
        "models.share_file",
    ],
)
def test_a_module_imports(module: str) -> None:
    answer = client(f"import mpc_ray.{module}")
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("module", ["torch", "numba", "ray", "fastapi", "mpc_ray.sharing.deal"])
def test_the_block_works(module: str) -> None:
    answer = client(f"import {module}")
    assert answer.returncode == 1 and "blocked: " in answer.stderr


def test_a_client_works_without_them(made: object) -> None:
    answer = client(WORK, str(made.folder))  # type: ignore[attr-defined]
    assert answer.returncode == 0, answer.stderr
