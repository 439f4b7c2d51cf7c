"""How far embeddings on shares are from the plaintext model's, on texts that calibration has not seen.

    python benchmarks/accuracy.py --texts 200 --launcher processes

Texts of 5 to 500 tokens, spread evenly over the orders of magnitude, from the standard library's prose (another draw
than calibration's). Prints one JSON object: 1 - cosine (largest, mean, by padded length) and how many texts the
range check refused.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np

import mpc_ray
from mpc_ray.errors import RangeExceeded
from mpc_ray.model import Model
from mpc_ray.models.bert_float import embed as plain_embed
from mpc_ray.models.calibrate import COUNT
from mpc_ray.models.texts import calibration_texts
from mpc_ray.models.tokenize import bucket

SEED = 20_260
POOL = 4_000
LONGEST = 501


def chosen_texts(model: Model, count: int) -> list[tuple[str, int]]:
    """``count`` different texts and their lengths in tokens, geometrically spread from 5 to 500."""
    seen = set(calibration_texts(COUNT))
    pool = [text for text in calibration_texts(POOL, seed=SEED) if text not in seen]
    lengths = np.array([len(row) for row in model.tokenizer.encode(pool, truncate=True, limit=LONGEST)])
    pool = [text for text, length in zip(pool, lengths, strict=True) if length < LONGEST]
    lengths = lengths[lengths < LONGEST]
    if len(pool) < count:
        raise SystemExit(f"only {len(pool)} texts of fewer than {LONGEST} tokens")
    taken: list[tuple[str, int]] = []
    for want in np.geomspace(5, 500, count):
        best = int(np.abs(np.log(lengths) - np.log(want)).argmin())
        taken.append((pool[best], int(lengths[best])))
        lengths[best] = 10**9
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--launcher", default="processes", choices=["threads", "processes", "ray"])
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    arguments = parser.parse_args()
    started = time.perf_counter()
    distances: dict[int, list[float]] = {}
    refused: list[str] = []
    with mpc_ray.Session(launcher=arguments.launcher) as session:
        model = session.load(arguments.model)
        for done, (text, length) in enumerate(chosen_texts(model, arguments.texts)):
            print(f"\r{done}/{arguments.texts} ({length} tokens) ", end="", file=sys.stderr)
            try:
                ours = model.embed([text], truncate=False)[0]
            except RangeExceeded as error:
                refused.append(f"{length} tokens: {error.cause}")
                continue
            exact = plain_embed(model.bert, [text])[0]
            cosine = ours @ exact / np.linalg.norm(ours) / np.linalg.norm(exact)
            distances.setdefault(bucket(length), []).append(float(1 - cosine))
    every = [d for group in distances.values() for d in group]
    result = {
        "model": arguments.model,
        "texts": len(every) + len(refused),
        "largest": max(every),
        "mean": float(np.mean(every)),
        "lengths": [5, LONGEST - 1],
        "by_padded_length": {n: {"texts": len(g), "largest": max(g)} for n, g in sorted(distances.items())},
        "refused": refused,
        "seconds": time.perf_counter() - started,
    }
    print(file=sys.stderr)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
