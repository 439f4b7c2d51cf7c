"""Import of a BERT-like encoder from a local folder in Hugging Face layout.

``load_bert(folder)`` reads config.json and the safetensors files. Every tensor that the architecture needs
must be there with the right shape, in a floating type, and finite; a tensor of the encoder that it would not
use is an error too, since leaving it out would silently be another model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from mpc_ray.errors import ModelError
from mpc_ray.models.bert_config import read_config
from mpc_ray.models.folder import read_json, read_layout
from mpc_ray.models.weights import (
    Array,
    BertConfig,
    BertModel,
    Embeddings,
    Layer,
    Table,
    layer_shapes,
    make_encoder,
    make_model,
)

# Field of Layer -> tensor name below ``encoder.layer.N.``.
LAYER_TENSORS: dict[str, str] = {
    "q_weight": "attention.self.query.weight",
    "q_bias": "attention.self.query.bias",
    "k_weight": "attention.self.key.weight",
    "k_bias": "attention.self.key.bias",
    "v_weight": "attention.self.value.weight",
    "v_bias": "attention.self.value.bias",
    "o_weight": "attention.output.dense.weight",
    "o_bias": "attention.output.dense.bias",
    "attention_norm_gain": "attention.output.LayerNorm.weight",
    "attention_norm_bias": "attention.output.LayerNorm.bias",
    "ffn1_weight": "intermediate.dense.weight",
    "ffn1_bias": "intermediate.dense.bias",
    "ffn2_weight": "output.dense.weight",
    "ffn2_bias": "output.dense.bias",
    "ffn_norm_gain": "output.LayerNorm.weight",
    "ffn_norm_bias": "output.LayerNorm.bias",
}

EMBEDDING_TENSORS: dict[str, str] = {
    "word": "embeddings.word_embeddings.weight",
    "position": "embeddings.position_embeddings.weight",
    "token_type": "embeddings.token_type_embeddings.weight",
    "norm_gain": "embeddings.LayerNorm.weight",
    "norm_bias": "embeddings.LayerNorm.bias",
}

_PREFIXES = ("", "bert.", "roberta.", "model.")
_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
_FLOATS = ("F64", "F32", "F16", "BF16")


def load_bert(folder: str | Path, *, name: str | None = None) -> BertModel:
    """Import a BERT, RoBERTa or XLM-RoBERTa encoder (BertModel or BertFor...; heads on top are not read).

    ``name`` defaults to the folder's. Half-precision files are widened exactly. Memory: 8 bytes a weight, the
    word table 4. Raises ModelError, with a remedy: no folder or config.json, malformed JSON, an architecture,
    activation, pooling or module that is not implemented, a missing, misshapen, integer or non-finite tensor,
    a damaged or pickled file.
    """
    layout = read_layout(folder)
    config, reserved = read_config(layout.config, name or _folder_name(layout.root))
    with ExitStack() as stack:
        tensors = _Tensors(layout.encoder, stack)
        layers = list(_layers(tensors, config))
        rows = config.max_positions + reserved
        h = config.hidden
        shapes = {"word": (config.vocab, h), "position": (rows, h), "token_type": (config.types, h)}
        arrays: dict[str, Any] = {
            field: tensors.take(tensor, shapes.get(field, (h,)), table=field == "word")
            for field, tensor in EMBEDDING_TENSORS.items()
        }
        arrays["position"] = np.ascontiguousarray(arrays["position"][reserved:])
        tensors.refuse_rest()
    return make_model(
        make_encoder(config, layers),
        Embeddings(**arrays),
        pooling=layout.pooling,
        normalize=layout.normalize,
        max_tokens=layout.max_tokens,
        folder=layout.root,
    )


def _folder_name(root: Path) -> str:
    resolved = root.resolve()
    return resolved.parent.name if resolved.name == "model" else resolved.name


def _layers(tensors: _Tensors, config: BertConfig) -> Iterator[Layer]:
    shapes = layer_shapes(config)
    for number in range(config.layers):
        arrays: dict[str, Any] = {}
        for field, tensor in LAYER_TENSORS.items():
            # Checkpoints store (out, in).
            array = tensors.take(f"encoder.layer.{number}.{tensor}", shapes[field][::-1])
            arrays[field] = np.ascontiguousarray(array.T)
        yield Layer(**arrays)


class _Tensors:
    """The tensors of one or several safetensors files, by name without prefix; knows which were taken."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._where: dict[str, tuple[Any, str]] = {}
        for path in _weight_files(folder):
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
                names = list(file.keys())
            except (SafetensorError, OSError) as error:
                raise ModelError(
                    f"{path} is no readable safetensors file", remedy="copy the file again"
                ) from error
            self._where.update({name: (file, name) for name in names})
        prefix = next((p for p in _PREFIXES if p + EMBEDDING_TENSORS["word"] in self._where), "")
        # The first BERT checkpoints call a norm's gain gamma and its bias beta.
        self._where = {
            name.removeprefix(prefix).replace(".gamma", ".weight").replace(".beta", ".bias"): entry
            for name, entry in self._where.items()
            if name.startswith(prefix)
        }
        self._taken: set[str] = set()

    def take(self, name: str, shape: tuple[int, ...], *, table: bool = False) -> Array | Table:
        """The tensor as float64, or as float32 for a ``table`` whose file has no more than that."""
        if name not in self._where:
            raise ModelError(
                f"tensor {name} is missing", remedy="the weights do not belong to this config.json"
            )
        self._taken.add(name)
        file, stored = self._where[name]
        view = file.get_slice(stored)
        if view.get_dtype() not in _FLOATS:
            raise ModelError(
                f"tensor {name} has type {view.get_dtype()}",
                remedy="use an unquantized copy: F32, F16 or BF16",
            )
        found = tuple(view.get_shape())
        if found != shape:
            raise ModelError(
                f"tensor {name} has shape {found}, expected {shape}",
                remedy="the weights do not belong to this config.json",
            )
        tensor: torch.Tensor = file.get_tensor(stored)
        wide = torch.float32 if table and view.get_dtype() != "F64" else torch.float64
        array: Array | Table = tensor.to(wide).numpy()
        finite = np.isfinite(array)
        if not finite.all():
            first = tuple(int(i) for i in np.argwhere(~finite)[0])
            raise ModelError(f"tensor {name} is not finite at {first}", remedy="copy the weights again")
        return array

    def refuse_rest(self) -> None:
        """Raise ModelError if the encoder or the embeddings hold a tensor that was not taken."""
        for name in sorted(set(self._where) - self._taken - set(_BUFFERS)):
            if name.startswith(("encoder.", "embeddings.")):
                raise ModelError(
                    f"tensor {name} has no place in this architecture",
                    remedy="the weights do not belong to this config.json",
                )


def _weight_files(folder: Path) -> list[Path]:
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    index = read_json(folder / "model.safetensors.index.json")
    if index is not None:
        names = index.get("weight_map")
        if not isinstance(names, dict) or not all(Path(str(n)).name == n for n in names.values()):
            raise ModelError(
                "model.safetensors.index.json has no usable weight_map", remedy="copy the file again"
            )
        paths = [folder / name for name in sorted(set(names.values()))]
        for path in paths:
            if not path.is_file():
                raise ModelError(f"{path} is missing", remedy="copy all files that the index names")
        return paths
    if any(folder.glob("*.bin")):
        raise ModelError(
            f"{folder} holds only pickled weights (.bin), which are never opened",
            remedy="convert them where you trust the file: "
            "safetensors.torch.save_file(torch.load('pytorch_model.bin'), 'model.safetensors')",
        )
    raise ModelError(f"no model.safetensors in {folder}", remedy="copy the weights beside config.json")
