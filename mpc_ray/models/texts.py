"""What calibration reads: real prose that every machine has, and token sequences that nobody would write.

No corpus is shipped. The standard library's docstrings are thousands of real sentences wherever Python is;
its source gives code; random and repeated token ids reach ranges that prose does not. Randomness here only
picks samples, so it is numpy's seeded generator, and two machines with the same Python get the same texts.
"""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mpc_ray.errors import InputError, ModelError

# (share of the texts, fewest words, most words): mostly a sentence or two, some pages. A word is about 1.5
# tokens. Entry 0 takes single sentences as they are.
_LENGTHS = ((0.48, 3, 40), (0.35, 12, 40), (0.13, 60, 90), (0.03, 120, 165), (0.01, 190, 290))
_SKIPPED = frozenset({"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__"})
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


def calibration_texts(count: int = 1000, seed: int = 0) -> list[str]:
    """``count`` texts of 3 to 290 words, nine in ten from docstrings and one in ten from source code.

    Files are parsed, never imported, and only as many as needed (about 1 s for 1,000). Raises ModelError if
    the standard library is not there as source.
    """
    if count < 1:
        raise InputError(f"count is {count}", remedy="ask for at least one text")
    rng = np.random.default_rng(seed)
    shares = np.array([share for share, _, _ in _LENGTHS])
    kinds = rng.choice(len(_LENGTHS), size=count, p=shares / shares.sum())
    prose, code = _library_texts(rng)
    texts = []
    for number, kind in enumerate(kinds):
        _, least, most = _LENGTHS[int(kind)]
        words = int(rng.integers(least, most + 1)) if kind else most
        texts.append(_take(code if number % 10 == 9 else prose, words, single=kind == 0))
    return texts


def file_texts(path: str | Path) -> list[str]:
    """The user's own texts, one a line, blank lines left out. Raises InputError if unreadable or empty."""
    source = Path(path).expanduser()
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{source} cannot be read as UTF-8 text", remedy="give a file with one text a line"
        ) from error
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise InputError(f"{source} holds no text", remedy="give a file with one text a line")
    return texts


def random_sequences(
    count: int,
    vocab: int,
    *,
    seed: int = 0,
    longest: int = 128,
    prefix: Sequence[int] = (),
    suffix: Sequence[int] = (),
) -> list[list[int]]:
    """Token ids nobody would write, inside the special ids, 1 to ``longest`` tokens of body.

    In turn: uniform ids, one id repeated, and a few ids mixed. Half of them are short (up to 16).
    """
    rng = np.random.default_rng(seed)
    sequences = []
    for number in range(count):
        size = int(rng.integers(1, (min(16, longest) if number % 2 else longest) + 1))
        kinds = (size, 1, int(rng.integers(2, 6)))[number % 3]
        body = (
            rng.choice(rng.integers(0, vocab, size=kinds), size=size)
            if kinds < size
            else rng.integers(0, vocab, size)
        )
        sequences.append([*prefix, *(int(token) for token in body), *suffix])
    return sequences


def _library_texts(rng: np.random.Generator) -> tuple[Iterator[str], Iterator[str]]:
    """Endless sentences and code lines; files in shuffled order, each in its own order inside."""
    root = Path(sysconfig.get_path("stdlib"))
    files = sorted(
        path for path in root.rglob("*.py") if not _SKIPPED.intersection(path.relative_to(root).parts)
    )
    if len(files) < 20:
        raise ModelError(
            "the standard library is not here as source, so there are no texts to calibrate with",
            remedy="calibrate with a file of your own texts, or use a Python with .py files",
        )
    order = [files[int(i)] for i in rng.permutation(len(files))]
    return _cycle(order, _sentences), _cycle(order[::-1], _code)


def _cycle(files: list[Path], extract: Callable[[str], list[str]]) -> Iterator[str]:
    while True:
        found = False
        for path in files:
            try:
                pieces = extract(path.read_text(encoding="utf-8"))
            except (SyntaxError, UnicodeDecodeError, OSError):
                continue  # templates and deliberately broken files are no texts
            found = found or bool(pieces)
            yield from pieces
        if not found:
            raise ModelError(
                "the standard library's sources hold no docstrings",
                remedy="calibrate with a file of your own texts",
            )


def _sentences(source: str) -> list[str]:
    """Sentences of the docstrings of a source file: paragraphs that are mostly letters, no doctests."""
    sentences = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
            plain = " ".join(paragraph.split())
            letters = sum(character.isalpha() or character == " " for character in plain)
            if ">>>" not in plain and letters >= 0.8 * len(plain):
                sentences += [part for part in _SENTENCE.split(plain) if len(part.split()) >= 3]
    return sentences


def _code(source: str) -> list[str]:
    """Lines of code of at least three words."""
    return [line.strip() for line in source.splitlines() if len(line.split()) >= 3]


def _take(stream: Iterator[str], words: int, *, single: bool) -> str:
    """Consecutive pieces of the stream until there are ``words`` words, cut there; or just one piece."""
    taken = next(stream).split()
    while len(taken) < words and not single:
        taken += next(stream).split()
    return " ".join(taken[:words])
