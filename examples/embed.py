"""Private sentence embeddings from Python: sentences in, each one's nearest neighbour out.

    .venv/bin/python examples/embed.py "How do I reset my password?" "I forgot my login." "Soup needs salt."

This program is client and model owner at once: it splits weights and sentences into shares, sends each of three
parties its own, and puts the answer together. The parties are processes of this machine (``--launcher processes``) or
threads of this program (``--launcher threads``); that shows how it works and protects nobody, which the program says.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

import mpc_ray
from mpc_ray.errors import MpcError

SENTENCES = (
    "How do I reset my password?",
    "I forgot my login credentials.",
    "Simmer the lentils with cumin until soft.",
    "Cook the beans slowly with spices.",
)


def neighbours(vectors: np.ndarray) -> list[tuple[int, float]]:
    """For each row (n, hidden) the index of the row nearest to it, and their cosine. n is at least 2."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = units @ units.T
    np.fill_diagonal(cosines, -np.inf)
    return [(int(row.argmax()), float(row.max())) for row in cosines]


def main(arguments: list[str] | None = None) -> int:
    """Embed, compare, print; the exit code."""
    parser = argparse.ArgumentParser(description="Find each sentence's nearest neighbour, privately.")
    parser.add_argument("sentences", nargs="*", help="two or more; without any, four of ours")
    parser.add_argument(
        "--model", default="all-MiniLM-L6-v2", help="folder in Hugging Face layout, or a name"
    )
    parser.add_argument("--launcher", default="processes", choices=("threads", "processes", "ray"))
    given = parser.parse_args(arguments)
    sentences = given.sentences or list(SENTENCES)
    if len(sentences) < 2:
        parser.error("one sentence has no neighbour: give two or more")

    try:
        with mpc_ray.Session(launcher=given.launcher) as session:
            model = session.load(given.model)
            vectors = model.embed(sentences)
            trust, report = session.trust, model.report
    except MpcError as error:  # one line: the cause, and what to do about it
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code

    for sentence, (other, cosine) in zip(sentences, neighbours(vectors), strict=True):
        print(f"{cosine:6.3f}  {sentence}  ->  {sentences[other]}")
    print(
        f"{report.seconds:.1f} s, {report.rounds} rounds, {max(report.bytes_sent) / 1e6:.1f} MB sent by one party"
    )
    print(f"trust: {trust}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
