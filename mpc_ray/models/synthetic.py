"""Models with random weights, for tests and benchmarks, and the writer of a folder in Hugging Face layout.

The randomness here is no secret of anybody: numpy's generator, so that everyone gets the same weights.
"""

from __future__ import annotations

import json
import string
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models, normalizers, pre_tokenizers, processors

from mpc_ray.errors import InputError
from mpc_ray.models.bert_config import ACTIVATIONS
from mpc_ray.models.load import EMBEDDING_TENSORS, LAYER_TENSORS
from mpc_ray.models.weights import (
    Activation,
    Array,
    BertConfig,
    BertModel,
    Embeddings,
    Encoder,
    Layer,
    Pooling,
    layer_shapes,
    make_encoder,
    make_model,
)

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def random_bert(
    layers: int = 2,
    hidden: int = 32,
    heads: int = 4,
    ffn: int = 64,
    seed: int = 0,
    *,
    vocab: int = 128,
    max_positions: int = 64,
    activation: Activation = "gelu",
    eps: float = 1e-12,
    pooling: Pooling = "mean",
    normalize: bool = True,
) -> BertModel:
    """A small model with random weights, gains about 1 and small biases: values exact in float32.

    Raises InputError if heads do not divide hidden, or vocab has no room for the special tokens.
    """
    if hidden % heads or vocab <= len(_SPECIAL):
        raise InputError("heads must divide hidden, and vocab must exceed 5", remedy="choose other sizes")
    rng = np.random.default_rng(seed)
    config = BertConfig(
        name=f"random-{layers}x{hidden}",
        layers=layers,
        hidden=hidden,
        heads=heads,
        ffn=ffn,
        max_positions=max_positions,
        vocab=vocab,
        types=2,
        eps=eps,
        activation=activation,
    )

    def draw(name: str, shape: tuple[int, ...]) -> Array:
        if name.endswith("gain"):
            values = 1 + 0.1 * rng.standard_normal(shape)
        elif name.endswith("bias"):
            values = 0.1 * rng.standard_normal(shape)
        else:
            values = rng.standard_normal(shape) * shape[0] ** -0.5
        return np.asarray(values.astype(np.float32), dtype=np.float64)

    shapes = layer_shapes(config)
    encoder = make_encoder(
        config, [Layer(**{name: draw(name, shape) for name, shape in shapes.items()}) for _ in range(layers)]
    )
    tables = {"word": (vocab, hidden), "position": (max_positions, hidden), "token_type": (2, hidden)}
    arrays: dict[str, Any] = {
        f.name: draw(f.name, tables.get(f.name, (hidden,))) * (tables.get(f.name, (1,))[0] ** 0.5)
        for f in fields(Embeddings)
    }
    arrays = {name: array.astype(np.float32).astype(np.float64) for name, array in arrays.items()}
    arrays["word"] = arrays["word"].astype(np.float32)
    return make_model(encoder, Embeddings(**arrays), pooling=pooling, normalize=normalize)


def peer_weights(layers: int, hidden: int, heads: int, ffn: int, seq: int) -> tuple[Encoder, Array]:
    """The encoder and the embedded input (seq, hidden) that the peer's benchmark script draws, bit for bit.

    Standard normal weights over sqrt(inputs), biases 0, gains 1, eps 1e-5, exact GELU; no embeddings. Drawn
    in the script's order from ``numpy.random.default_rng(0)``: the input, then for each layer QKV in one
    matrix, output, feed-forward.
    """
    if hidden % heads:
        raise InputError(f"{heads} heads do not divide hidden size {hidden}", remedy="choose other sizes")
    rng = np.random.default_rng(0)

    def dense(rows: int, columns: int) -> Array:
        return np.asarray((rng.standard_normal((rows, columns)) * rows**-0.5).astype(np.float32), np.float64)

    x = rng.standard_normal((seq, hidden)).astype(np.float32).astype(np.float64)
    config = BertConfig(
        name=f"peer-{layers}x{hidden}",
        layers=layers,
        hidden=hidden,
        heads=heads,
        ffn=ffn,
        max_positions=seq,
        vocab=0,
        types=0,
        eps=1e-5,
        activation="gelu",
    )
    stack = []
    for _ in range(layers):
        drawn = dict(
            zip(("q_weight", "k_weight", "v_weight"), np.split(dense(hidden, 3 * hidden), 3, 1), strict=True)
        )
        drawn["o_weight"] = dense(hidden, hidden)
        drawn["ffn1_weight"] = dense(hidden, ffn)
        drawn["ffn2_weight"] = dense(ffn, hidden)
        for name, shape in layer_shapes(config).items():
            if name not in drawn:
                drawn[name] = np.ones(shape) if name.endswith("gain") else np.zeros(shape)
        stack.append(Layer(**{name: np.ascontiguousarray(array) for name, array in drawn.items()}))
    return make_encoder(config, stack), x


def save_bert(model: BertModel, folder: str | Path) -> Path:
    """Write ``model`` as a sentence-transformers folder (float32) with a tokenizer of single letters.

    The word table must be the one that ``random_bert`` numbers: special tokens first. Returns the folder.
    """
    root = Path(folder)
    (root / "1_Pooling").mkdir(parents=True, exist_ok=True)
    tensors = {
        f"encoder.layer.{number}.{tensor}": getattr(layer, field).T
        for number, layer in enumerate(model.layers)
        for field, tensor in LAYER_TENSORS.items()
    }
    tensors |= {tensor: getattr(model.embeddings, field) for field, tensor in EMBEDDING_TENSORS.items()}
    save_file(
        {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in tensors.items()},
        root / "model.safetensors",
    )
    config = model.config
    hugging_face_name = next(
        key for key, value in reversed(ACTIVATIONS.items()) if value == config.activation
    )
    _write(
        root / "config.json",
        {
            "architectures": ["BertModel"],
            "model_type": "bert",
            "num_hidden_layers": config.layers,
            "hidden_size": config.hidden,
            "num_attention_heads": config.heads,
            "intermediate_size": config.ffn,
            "max_position_embeddings": config.max_positions,
            "vocab_size": config.vocab,
            "type_vocab_size": config.types,
            "layer_norm_eps": config.eps,
            "hidden_act": hugging_face_name,
            "pad_token_id": config.pad_id,
        },
    )
    _write(root / "sentence_bert_config.json", {"max_seq_length": model.max_tokens, "do_lower_case": False})
    _write(root / "1_Pooling" / "config.json", {"pooling_mode": model.pooling})
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    _write(
        root / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(kinds[: 2 + model.normalize])
        ],
    )
    _letters(config.vocab).save(str(root / "tokenizer.json"))
    return root


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _letters(size: int) -> FastTokenizer:
    """A WordPiece tokenizer whose pieces are single characters, cut to ``size`` entries."""
    letters = string.ascii_lowercase + string.digits
    words = [*_SPECIAL, *letters, *(f"##{letter}" for letter in letters), *string.punctuation][:size]
    words += [f"[unused{i}]" for i in range(size - len(words))]
    vocab = {word: index for index, word in enumerate(words)}
    fast = FastTokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer()
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return fast
