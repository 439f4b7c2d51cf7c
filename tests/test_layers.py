"""Who may import whom: the contracts of pyproject.toml, and what they cannot say."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mpc_ray"

# The only places that import Ray; everything else must run without it.
MAY_IMPORT_RAY = (
    "mpc_ray.session",
    "mpc_ray.scheduler",
    "mpc_ray.party",
    "mpc_ray.launch",
    "mpc_ray.launch_ray",
    "mpc_ray.serve",
    "mpc_ray.endpoint",
    "mpc_ray.dispatch.actor",
    "mpc_ray.dispatch.emulated",
    "mpc_ray.dispatch.router",
    "mpc_ray.ops.ray_schema",
    "mpc_ray.tune",
)


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package with its file, the two linked folders included."""
    for folder, _, files in os.walk(PACKAGE, followlinks=True):
        for file in sorted(files):
            path = Path(folder, file)
            if path.suffix == ".py":
                parts = path.relative_to(ROOT).with_suffix("").parts
                yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(source: str) -> set[str]:
    """What a file imports by absolute name, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            found.add(node.module)
    return found


def within(module: str, parents: tuple[str, ...]) -> bool:
    return any(module == parent or module.startswith(parent + ".") for parent in parents)


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


def contracts(cwd: Path) -> subprocess.CompletedProcess[str]:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    if not lint_imports.exists():
        pytest.skip("import-linter is not installed beside this Python; `make lint` has it")
    return run(str(lint_imports), "--no-cache", cwd=cwd)


def test_contracts_hold() -> None:
    answer = contracts(ROOT)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_contracts_can_fail(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    package = tmp_path / "mpc_ray"
    for name in ("kernels", "protocols", "planner"):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").write_text("")
    for name in ("__init__", "errors", "config", "session"):
        (package / f"{name}.py").write_text("")
    (package / "kernels" / "up.py").write_text("import mpc_ray.protocols\n")
    (package / "planner" / "out.py").write_text("import ray\n")
    (package / "homeless.py").write_text("")
    answer = contracts(tmp_path)
    assert answer.returncode == 1
    assert "mpc_ray.kernels is not allowed to import mpc_ray.protocols" in answer.stdout
    assert "mpc_ray.planner is not allowed to import ray" in answer.stdout
    assert "homeless" in answer.stdout


def test_ray_is_imported_in_its_layer_only() -> None:
    offenders = [
        module
        for module, path in modules()
        if "ray" in {name.split(".")[0] for name in imports(path.read_text(encoding="utf-8"))}
        and not within(module, MAY_IMPORT_RAY)
    ]
    assert offenders == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import ray", {"ray"}),
        ("def f():\n    from ray.util import x", {"ray.util"}),
        ("from . import ray", set()),
        ("import os, json as j", {"os", "json"}),
    ],
)
def test_imports_are_seen(source: str, expected: set[str]) -> None:
    assert imports(source) == expected


def test_outer_folders_are_imported_through_the_package() -> None:
    """A bare `import kernels` is Hugging Face's package, or ours by accident of the working directory."""
    offenders = [
        (module, name)
        for module, path in modules()
        for name in imports(path.read_text(encoding="utf-8"))
        if within(name, ("kernels", "planner"))
    ]
    assert offenders == []


def test_importing_the_package_is_cheap(tmp_path: Path) -> None:
    code = (
        "import sys, mpc_ray\n"
        "assert mpc_ray.__version__\n"
        "heavy = {'torch', 'ray', 'numba', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    answer = run(sys.executable, "-c", code, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr


def test_settings_and_planner_need_neither_torch_nor_ray(tmp_path: Path) -> None:
    code = (
        "import sys, mpc_ray.config, mpc_ray.planner\n"
        "heavy = {'torch', 'ray'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    answer = run(sys.executable, "-c", code, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr


def test_unknown_names_are_refused() -> None:
    import mpc_ray

    with pytest.raises(AttributeError, match="no attribute 'Sesion'"):
        _ = mpc_ray.Sesion
    assert "Session" in dir(mpc_ray)


def test_the_root_is_not_on_the_path() -> None:
    """Else the top-level folder `kernels` would shadow Hugging Face's package of that name."""
    assert str(ROOT) not in sys.path, (
        "run `make test` or `pytest`, without PYTHONPATH and without `python -m`"
    )
