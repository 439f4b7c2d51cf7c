"""Arrays of compiled bodies live for as long as their addresses are used.

numba frees an array after its last use in the source, and an address taken with ``.ctypes.data`` is no use of it: where
that is the last one, the memory is gone before what got the address has read it.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[2] / "kernels"
MAKERS = {"empty", "zeros", "ones", "full", "array"}


Loops = tuple[ast.AST, ...]  # around a place, the outermost first


@dataclass
class Uses:
    """Of one function: in which innermost loop arrays are made; each name's last use: line, address or not, loops."""

    made: dict[str, ast.AST | None] = field(default_factory=dict)
    last: dict[str, tuple[int, bool, Loops]] = field(default_factory=dict)

    def freed_too_early(self) -> list[str]:
        """In a loop that an array is made before, the next turn uses it again; elsewhere an address is no use."""
        found = []
        for name, loop in self.made.items():
            _, address, loops = self.last[name]
            if address and (not loops or loops[-1] is loop):
                found.append(name)
        return found

    def visit(self, node: ast.AST, loops: Loops = ()) -> None:
        inside = (*loops, node) if isinstance(node, ast.For | ast.While) else loops
        match node:
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                for name, value in zip(names, values, strict=True):
                    self.visit(ast.copy_location(ast.Assign([name], value), node), loops)
                return
            case ast.Assign(
                targets=[ast.Name(id=name)],
                value=ast.Call(func=ast.Attribute(value=ast.Name(id="np"), attr=maker)),
            ) if maker in MAKERS:
                self.made[name] = loops[-1] if loops else None
            case ast.Attribute(value=ast.Name() as name, attr="ctypes"):
                self._note(name, True, inside)
                return
            case ast.Name():
                self._note(node, False, inside)
        for child in ast.iter_child_nodes(node):
            self.visit(child, inside)

    def _note(self, name: ast.Name, address: bool, loops: Loops) -> None:
        before = self.last.get(name.id)
        if before is None or name.lineno > before[0] or (name.lineno == before[0] and not address):
            self.last[name.id] = name.lineno, address, loops


def freed_too_early(source: str) -> list[str]:
    """'function: name' of each array that a compiled function makes and uses last by its address."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef) and any(
            "compiled" in ast.unparse(decorator) for decorator in function.decorator_list
        ):
            uses = Uses()
            uses.visit(function)
            found += [f"{function.name}: {name}" for name in uses.freed_too_early()]
    return found


@pytest.mark.parametrize("path", sorted(KERNELS.glob("*.py")), ids=lambda path: path.stem)
def test_no_array_is_freed_before_its_address_was_used(path: Path) -> None:
    assert freed_too_early(path.read_text(encoding="utf-8")) == []


def test_one_that_is_freed_too_early_is_found() -> None:
    source = """
@compiled
def body(x):
    a, kept = np.empty(4, np.uint64), np.zeros(4, np.uint64)
    turns = np.empty(4, np.uint64)
    for i in range(3):
        use(turns.ctypes.data)
    use(x.ctypes.data, a.ctypes.data, kept.ctypes.data)
    kept[0] = 0
"""
    assert freed_too_early(source) == ["body: a"]
