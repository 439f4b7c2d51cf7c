"""The plain reference: a BERT encoder in float, nothing folded, nothing approximated.

Results on shares are compared with this file, and calibration reads its ranges by a tap on the intermediate
values. Post-norm encoder of Devlin et al. 2018 (arXiv:1810.04805), figure 1, with token type 0 throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from mpc_ray.errors import InputError, ModelError
from mpc_ray.models.inputs import embedding_sum
from mpc_ray.models.pooling import normalized, pooling_vector
from mpc_ray.models.tokenize import Tokenizer
from mpc_ray.models.weights import Activation, Array, BertConfig, BertModel, Encoder, Layer

# A tap gets (name, value) of intermediates. Names in ``encoder_layer``; "embedding_sum" in ``embed_tokens``.
Tap = Callable[[str, torch.Tensor], None]
Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_ACTIVATIONS: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
    "silu": functional.silu,
}


def activate(name: Activation, x: torch.Tensor) -> torch.Tensor:
    """The activation called ``name``, element by element."""
    return _ACTIVATIONS[name](x)


def _no_tap(name: str, value: torch.Tensor) -> None:
    del name, value


def forward(model: BertModel, ids: npt.ArrayLike, mask: npt.ArrayLike | None = None) -> list[Array]:
    """Hidden states of padded token ids (batch, n): layers + 1 arrays (batch, n, hidden) float64.

    The first is the output of the embedding norm. ``mask`` (batch, n) is true where a token is real; hidden
    states of the other tokens are computed but never attended to. Raises InputError on a wrong shape, an id
    or length outside the model, or a text without a real token.
    """
    tokens = _check_ids(model.config, ids)
    with torch.inference_mode():
        x = embed_tokens(model, torch.from_numpy(tokens), torch.float64)
        states = [x, *_states(model.encoder, x, _check_mask(mask, tokens.shape))]
    return [state.numpy() for state in states]


def encoder_float(encoder: Encoder, x: npt.ArrayLike, mask: npt.ArrayLike | None = None) -> Array:
    """Last hidden state, float64, from embedded input ``x`` (n, hidden) or (batch, n, hidden); same shape."""
    return encoder_states(encoder, x, mask)[-1]


def encoder_states(encoder: Encoder, x: npt.ArrayLike, mask: npt.ArrayLike | None = None) -> list[Array]:
    """Hidden state after each layer, float64, shaped as ``x`` (n, hidden) or (batch, n, hidden).

    ``mask`` is x's shape without the last axis. Raises InputError if the last axis is not the hidden size.
    """
    values = np.array(x, dtype=np.float64)
    if values.ndim not in (2, 3) or values.shape[-1] != encoder.config.hidden:
        raise InputError(
            f"embedded input has shape {values.shape}",
            remedy=f"its last of 2 or 3 axes is {encoder.config.hidden}",
        )
    batch = values.reshape(-1, *values.shape[-2:])
    flat = None if mask is None else np.asarray(mask).reshape(-1, values.shape[-2])
    with torch.inference_mode():
        states = _states(encoder, torch.from_numpy(batch), _check_mask(flat, batch.shape[:2]))
        return [state.numpy().reshape(values.shape) for state in states]


def embed(
    model: BertModel, texts: Sequence[str], *, truncate: bool = False, tokenizer: Tokenizer | None = None
) -> Array:
    """Sentence embeddings (len(texts), hidden) float64 in the clear, normalised if the model says so.

    Texts of equal length share a batch, so nothing is padded. Raises InputError as ``Tokenizer.encode`` does,
    ModelError if the model has neither folder nor ``tokenizer``.
    """
    ids = tokenizer_of(model, tokenizer).encode(texts, truncate=truncate)
    out = np.zeros((len(ids), model.config.hidden))
    for rows in batches([len(row) for row in ids]):
        hidden = forward(model, [ids[row] for row in rows])[-1]
        out[rows] = np.einsum("i,bih->bh", pooling_vector(model.pooling, hidden.shape[1]), hidden)
    return normalized(out) if model.normalize else out


def tokenizer_of(model: BertModel, tokenizer: Tokenizer | None = None) -> Tokenizer:
    """``tokenizer``, or else that of the model's folder. Raises ModelError if there is none."""
    if tokenizer is not None:
        return tokenizer
    if model.folder is None:
        raise ModelError(
            f"model {model.config.name} has no folder, so no tokenizer", remedy="pass a tokenizer"
        )
    return Tokenizer(model.folder)


def batches(lengths: Iterable[int], tokens: int = 2048) -> list[list[int]]:
    """Indices of equal lengths together, shortest first, at most ``tokens`` tokens (or one text) a batch."""
    groups: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        groups.setdefault(length, []).append(index)
    out = []
    for length, rows in sorted(groups.items()):
        size = max(1, tokens // max(1, length))
        out += [rows[start : start + size] for start in range(0, len(rows), size)]
    return out


def embed_tokens(model: BertModel, ids: torch.Tensor, dtype: torch.dtype, tap: Tap = _no_tap) -> torch.Tensor:
    """Output of the embedding norm for ids (batch, n): (batch, n, hidden) of ``dtype``."""
    x = torch.from_numpy(embedding_sum(model.embeddings, ids.numpy())).to(dtype)
    gain = torch.from_numpy(model.embeddings.norm_gain).to(dtype)
    bias = torch.from_numpy(model.embeddings.norm_bias).to(dtype)
    return layer_norm(x, gain, bias, model.config.eps, lambda name, value: tap(f"embedding_{name}", value))


def layer_tensors(layer: Layer, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The layer's arrays as tensors of ``dtype``, by field name; no copy for float64."""
    return {f.name: torch.from_numpy(getattr(layer, f.name)).to(dtype) for f in fields(layer)}


def layer_norm(
    x: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor, eps: float, tap: Tap = _no_tap
) -> torch.Tensor:
    """``(x - mean) / sqrt(variance + eps) * gain + bias`` over the last axis.

    Taps: "centred" (x - mean), "variance" (mean square of centred, without eps), "normalised" (before gain).
    """
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    normalised = centred * torch.rsqrt(variance + eps)
    tap("centred", centred)
    tap("variance", variance)
    tap("normalised", normalised)
    return normalised * gain + bias


def encoder_layer(
    w: dict[str, torch.Tensor],
    x: torch.Tensor,
    config: BertConfig,
    mask: torch.Tensor | None = None,
    tap: Tap = _no_tap,
) -> torch.Tensor:
    """One layer on x (batch, n, hidden); ``mask`` (batch, n) bool, true where a key may be attended to.

    Taps, with b = batch, a = heads, d = head size: "query", "key", "value" (b, a, n, d), query not yet
    divided by sqrt(d); "scores" (b, a, n, n) divided by sqrt(d), masked keys included as they are; "exp"
    (b, a, n, n) = exp(score - row maximum), zero at masked keys; "context" (b, a, n, d); "attention_norm_*"
    and "ffn_norm_*" as ``layer_norm``; "ffn_input" and "ffn_output" (b, n, ffn) around the activation;
    "output" (b, n, hidden).
    """
    batch, n, hidden = x.shape

    def heads(name: str) -> torch.Tensor:
        flat = x @ w[f"{name}_weight"] + w[f"{name}_bias"]
        return flat.view(batch, n, config.heads, config.head_size).transpose(1, 2)

    query, key, value = heads("q"), heads("k"), heads("v")
    scores = (query * config.head_size**-0.5) @ key.transpose(-1, -2)
    visible = scores if mask is None else scores.masked_fill(~mask[:, None, None, :], -torch.inf)
    exp = torch.exp(visible - visible.amax(-1, keepdim=True))
    context = (exp @ value) / exp.sum(-1, keepdim=True)
    for name, tensor in zip(
        ("query", "key", "value", "scores", "exp", "context"),
        (query, key, value, scores, exp, context),
        strict=True,
    ):
        tap(name, tensor)
    joined = context.transpose(1, 2).reshape(batch, n, hidden)
    y = x + joined @ w["o_weight"] + w["o_bias"]
    y = layer_norm(
        y,
        w["attention_norm_gain"],
        w["attention_norm_bias"],
        config.eps,
        lambda k, v: tap(f"attention_norm_{k}", v),
    )
    before = y @ w["ffn1_weight"] + w["ffn1_bias"]
    after = activate(config.activation, before)
    tap("ffn_input", before)
    tap("ffn_output", after)
    z = y + after @ w["ffn2_weight"] + w["ffn2_bias"]
    out = layer_norm(
        z, w["ffn_norm_gain"], w["ffn_norm_bias"], config.eps, lambda k, v: tap(f"ffn_norm_{k}", v)
    )
    tap("output", out)
    return out


def _states(encoder: Encoder, x: torch.Tensor, mask: torch.Tensor | None) -> list[torch.Tensor]:
    states = []
    for layer in encoder.layers:
        x = encoder_layer(layer_tensors(layer, x.dtype), x, encoder.config, mask)
        states.append(x)
    return states


def _check_ids(config: BertConfig, ids: npt.ArrayLike) -> Ids:
    try:
        tokens = np.array(ids)
    except ValueError as error:
        raise InputError("token ids are ragged", remedy="pad them, or batch equal lengths") from error
    if tokens.ndim != 2 or tokens.shape[1] < 1 or not np.issubdtype(tokens.dtype, np.integer):
        raise InputError(f"token ids have shape {tokens.shape}", remedy="pass integers of shape (batch, n)")
    if tokens.shape[1] > config.max_positions:
        raise InputError(
            f"{tokens.shape[1]} tokens, the model takes {config.max_positions}", remedy="truncate"
        )
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < config.vocab:
        raise InputError(
            f"a token id is outside 0..{config.vocab - 1}", remedy="use the model's own tokenizer"
        )
    return tokens.astype(np.int64)


def _check_mask(mask: npt.ArrayLike | None, shape: tuple[int, ...]) -> torch.Tensor | None:
    if mask is None:
        return None
    real: Mask = np.array(mask, dtype=np.bool_)
    if real.shape != shape:
        raise InputError(f"mask has shape {real.shape}, expected {shape}", remedy="one flag for each token")
    if not real.any(axis=1).all():
        raise InputError("a text has no real token", remedy="leave it out of the batch")
    return torch.from_numpy(real)
