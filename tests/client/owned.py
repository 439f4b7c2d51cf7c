"""A tiny model as its owner has it, exported, and its bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mpc_ray.models.bundle import Bundle, write_bundle
from mpc_ray.models.export import Export, export_encoder
from mpc_ray.models.load import load_bert
from mpc_ray.models.plan import input_scales
from mpc_ray.models.statistics import observe
from mpc_ray.models.synthetic import random_bert, save_bert
from mpc_ray.models.tokenize import Tokenizer
from mpc_ray.models.weights import BertModel, Pooling

LENGTHS = (8, 16, 32)


@dataclass(frozen=True)
class Owned:
    """A model as its owner has it, and the folder of what its clients get."""

    bert: BertModel
    export: Export
    folder: Path
    digest: str

    @property
    def bundle(self) -> Bundle:
        return Bundle.load(self.folder)


def make(root: Path, pooling: Pooling = "mean", normalize: bool = True, seed: int = 10) -> Owned:
    source = save_bert(random_bert(seed=seed, pooling=pooling, normalize=normalize), root / "model")
    bert = load_bert(source)
    tables = bert.embeddings
    tokenizer = Tokenizer(source)
    samples = tokenizer.encode(["A quick brown fox, 2 dogs!", "x", "hello world and all"])
    export = export_encoder(
        bert.encoder,
        observe(bert, samples),
        LENGTHS,
        gain=tables.norm_gain,
        bias=tables.norm_bias,
        normalize=normalize,
    )
    digest = write_bundle(
        root / "tiny.client",
        name="tiny",
        model_digest=export.digest.hex(),
        embeddings=tables,
        tokenizer=tokenizer,
        lengths=LENGTHS,
        pooling=pooling,
        normalize=normalize,
        scales=input_scales(export.plan),
    )
    return Owned(bert, export, root / "tiny.client", digest)
