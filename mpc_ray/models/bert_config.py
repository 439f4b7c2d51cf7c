"""What a config.json in Hugging Face layout says of a BERT-like encoder: shapes, constants, limits. No weights."""

from __future__ import annotations

from mpc_ray.errors import ModelError
from mpc_ray.models.folder import Json, whole_number
from mpc_ray.models.weights import Activation, BertConfig

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}

# model_type -> rows of the position table that are reserved after the padding row.
_FAMILIES = {"bert": None, "roberta": 1, "xlm-roberta": 1, "camembert": 1}
_ENCODERS = ("Bert", "Roberta", "XLMRoberta", "Camembert")


def position_limit(config: Json) -> int:
    """Longest sequence (special tokens included) of the model with this config.json. Raises ModelError."""
    return read_config(config, "")[0].max_positions


def read_config(raw: Json, name: str) -> tuple[BertConfig, int]:
    """The configuration, and how many rows of the position table no text can use."""
    family = _family(raw)
    where = "config.json"
    act = raw.get("hidden_act", "gelu")
    if not isinstance(act, str) or act not in ACTIVATIONS:
        raise ModelError(
            f"{where}: activation {act!r} is not implemented",
            remedy=f"known: {', '.join(sorted(ACTIVATIONS))}",
        )
    kind = raw.get("position_embedding_type", "absolute")
    if kind != "absolute":
        raise ModelError(
            f"{where}: positions of type {kind!r} are not implemented", remedy="use absolute positions"
        )
    if raw.get("is_decoder") or raw.get("add_cross_attention"):
        raise ModelError(f"{where}: a decoder, not an encoder", remedy="use a model with is_decoder false")
    eps = raw.get("layer_norm_eps", 1e-12)
    if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 < eps < 1:
        raise ModelError(f"{where}: layer_norm_eps is {eps!r}", remedy="it must be a number between 0 and 1")
    hidden = whole_number(raw, "hidden_size", where)
    heads = whole_number(raw, "num_attention_heads", where)
    if hidden % heads:
        raise ModelError(
            f"{where}: {heads} heads do not divide hidden size {hidden}", remedy="copy the file again"
        )
    first = _FAMILIES[family]
    pad_id = whole_number(raw, "pad_token_id", where, least=0, default=0 if first is None else 1)
    reserved = 0 if first is None else pad_id + first
    config = BertConfig(
        name=name,
        layers=whole_number(raw, "num_hidden_layers", where),
        hidden=hidden,
        heads=heads,
        ffn=whole_number(raw, "intermediate_size", where),
        max_positions=whole_number(raw, "max_position_embeddings", where, least=reserved + 1) - reserved,
        vocab=whole_number(raw, "vocab_size", where),
        types=whole_number(raw, "type_vocab_size", where, default=2),
        eps=float(eps),
        activation=ACTIVATIONS[act],
        pad_id=pad_id,
    )
    if pad_id >= config.vocab:
        raise ModelError(
            f"{where}: pad_token_id {pad_id} is outside the vocabulary", remedy="copy the file again"
        )
    return config, reserved


def _family(raw: Json) -> str:
    named = raw.get("architectures") or []
    architectures = [str(item) for item in named] if isinstance(named, list) else [str(named)]
    family = str(raw.get("model_type") or "")
    if not family and any(item == "BertModel" or item.startswith("BertFor") for item in architectures):
        family = "bert"
    known = [a for a in architectures if any(a == f"{e}Model" or a.startswith(f"{e}For") for e in _ENCODERS)]
    if family not in _FAMILIES or (architectures and not known):
        what = ", ".join(architectures) or f"model_type {family!r}"
        raise ModelError(
            f"architecture {what} is not implemented",
            remedy="use a BERT, RoBERTa or XLM-RoBERTa encoder such as all-MiniLM-L6-v2",
        )
    return family
