"""Where texts come from: arguments, a file, standard input, or typed in."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from mpc_ray.errors import InputError

# Six pairs of neighbours: short enough for the smallest bucket of all-MiniLM-L6-v2.
SENTENCES = (
    "How do I reset my password?",
    "I forgot my login credentials.",
    "My card was charged twice for one order.",
    "There is a duplicate payment on my statement.",
    "He feels pain in his chest when he climbs stairs.",
    "The patient reports chest pressure during exercise.",
    "The forecast says it will rain all weekend.",
    "Expect wet weather on Saturday and Sunday.",
    "The tenant must give two months' notice.",
    "Ending the lease requires sixty days' warning.",
    "Simmer the lentils with cumin until soft.",
    "Cook the beans slowly with spices.",
)


def read(
    given: Sequence[str] | None, file: Path | None, *, typed: bool = False, piped: bool = False
) -> list[str]:
    """Texts of the arguments, then of ``file``, then typed in; with ``piped`` and none of these, standard input.

    An empty list if nobody gave anything. Raises InputError for an empty text or a source that holds none.
    """
    texts = list(given or ())
    if file is not None:
        texts += _lines(sys.stdin, "standard input") if str(file) == "-" else _file(file)
    if typed:
        texts += _typed()
    if piped and not texts and not typed and sys.stdin is not None and not sys.stdin.isatty():
        texts = _lines(sys.stdin, "standard input")
    for index, text in enumerate(texts):
        if not text.strip():
            raise InputError(f"text {index} is empty", remedy="leave it out")
    return texts


def _file(path: Path) -> list[str]:
    from mpc_ray.models.texts import file_texts

    return file_texts(path)


def _lines(stream: TextIO, name: str) -> list[str]:
    try:
        texts = [line.strip() for line in stream.read().splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise InputError(f"{name} is not UTF-8 text", remedy="give one text a line, in UTF-8") from None
    if not texts:
        raise InputError(f"{name} holds no text", remedy="give one text a line")
    return texts


def _typed() -> list[str]:
    """Lines typed at a prompt, which goes to standard error; an empty line or end of file ends them."""
    texts: list[str] = []
    print("Type your sentences, one a line; an empty line ends.", file=sys.stderr)
    while True:
        print(f"{len(texts) + 1:3} > ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline().strip()
        if not line:
            break
        texts.append(line)
    if not texts:
        raise InputError("nothing was typed", remedy="type a sentence, or give texts as arguments")
    return texts
