"""A local folder in Hugging Face or sentence-transformers layout: what its JSON files say.

Nothing is downloaded, no code of the folder is run, and nothing is unpickled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpc_ray.errors import ModelError
from mpc_ray.models.weights import Pooling

Json = dict[str, Any]

# Module types of sentence-transformers (last part of the dotted name) whose meaning is implemented here.
_KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class Layout:
    """Where the parts are and what wraps the encoder.

    ``root`` is the folder that was named, ``encoder`` the one with config.json and the weights (the same but
    for old sentence-transformers folders). ``max_tokens`` is the declared sentence limit or None.
    """

    root: Path
    encoder: Path
    config: Json
    pooling: Pooling
    normalize: bool
    max_tokens: int | None
    lower_case: bool


def read_layout(folder: str | Path) -> Layout:
    """Read config.json, modules.json, the pooling's and the sentence limits' files of ``folder``.

    Without a pooling file the pooling is the mean over tokens, as sentence-transformers itself assumes for a
    plain encoder; without modules.json the embedding is not normalised unless a 2_Normalize folder is there.

    Raises ModelError: no folder, no config.json, malformed JSON, a module or pooling not implemented.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise ModelError(
            f"no model folder at {root}",
            remedy="give a local folder in Hugging Face layout; models are not downloaded by name",
        )
    encoder, pooling_folder, normalize = _modules(root)
    config = read_json(encoder / "config.json")
    if config is None:
        raise ModelError(
            f"no config.json in {encoder}",
            remedy="copy the whole model folder: config.json, model.safetensors, tokenizer.json",
        )
    _refuse_default_prompt(root)
    sentence = _sentence_config(encoder)
    return Layout(
        root=root,
        encoder=encoder,
        config=config,
        pooling=_pooling(pooling_folder),
        normalize=normalize,
        max_tokens=_max_tokens(encoder, sentence),
        lower_case=bool(sentence.get("do_lower_case", False)),
    )


def read_json(path: Path) -> Json | None:
    """The JSON object in ``path``, or None where there is no such file. Raises ModelError if malformed."""
    value = _parse(path)
    if value is not None and not isinstance(value, dict):
        raise ModelError(f"{path} holds no JSON object", remedy="copy the file again")
    return value


def whole_number(config: Json, key: str, where: str, *, least: int = 1, default: int | None = None) -> int:
    """``config[key]`` as an integer of at least ``least``. Raises ModelError if absent or anything else."""
    value = config.get(key, default)
    if value is None:
        raise ModelError(f"{where} lacks {key}", remedy="copy the model's own file again")
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ModelError(f"{where}: {key} is {value!r}", remedy=f"it must be an integer of at least {least}")
    return value


def _parse(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}", remedy="copy the file again") from error
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {error.strerror}", remedy="check its permissions"
        ) from error


def _modules(root: Path) -> tuple[Path, Path, bool]:
    """Folder of the encoder, folder of the pooling, and whether embeddings are normalised."""
    modules = _parse(root / "modules.json")
    if modules is None:
        return root, root / "1_Pooling", (root / "2_Normalize").is_dir()
    encoder, pooling, normalize = root, root / "1_Pooling", False
    try:
        entries = [(str(entry["type"]).rpartition(".")[2], str(entry.get("path", ""))) for entry in modules]
    except (TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{root / 'modules.json'} is no list of modules", remedy="copy the file again"
        ) from error
    for kind, path in entries:
        if kind not in _KNOWN_MODULES:
            raise ModelError(
                f"modules.json has a module {kind!r}, which is not implemented",
                remedy=f"use a model made of {', '.join(_KNOWN_MODULES)}",
            )
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise ModelError(f"modules.json names {path!r}, outside the folder", remedy="use relative paths")
        if kind == "Transformer":
            encoder = root / path
        elif kind == "Pooling":
            pooling = root / path
        else:
            normalize = True
    return encoder, pooling, normalize


_FLAGS: dict[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def _pooling(folder: Path) -> Pooling:
    """Pooling from boolean flags or from the newer ``pooling_mode`` (a string, or a list with one entry)."""
    config = read_json(folder / "config.json")
    if config is None:
        return "mean"
    named = config.get("pooling_mode")
    if named is not None:
        modes = [str(mode) for mode in (named if isinstance(named, list) else [named])]
    else:
        flags = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
        modes = [str(_FLAGS.get(flag, flag.removeprefix("pooling_mode_"))) for flag in flags]
    for mode in _FLAGS.values():
        if modes == [mode]:
            return mode
    what = f"the concatenation of {' and '.join(modes)}" if len(modes) > 1 else (modes or ["none"])[0]
    raise ModelError(
        f"{folder / 'config.json'}: pooling {what!r} is not implemented",
        remedy=f"use a model that pools by one of {', '.join(_FLAGS.values())}",
    )


def _sentence_config(encoder: Path) -> Json:
    """sentence_bert_config.json, or its likes for other architectures; empty where there is none."""
    for path in sorted(encoder.glob("sentence_*_config.json")):
        return read_json(path) or {}
    return {}


def _max_tokens(encoder: Path, sentence: Json) -> int | None:
    if sentence.get("max_seq_length") is not None:
        return whole_number(sentence, "max_seq_length", "the sentence configuration", least=3)
    limit = (read_json(encoder / "tokenizer_config.json") or {}).get("model_max_length")
    # Tokenizers without a limit say 1e30, as a float or a huge integer.
    return limit if isinstance(limit, int) and 3 <= limit < 1 << 31 else None


def _refuse_default_prompt(root: Path) -> None:
    name = (read_json(root / "config_sentence_transformers.json") or {}).get("default_prompt_name")
    if name:
        raise ModelError(
            f"config_sentence_transformers.json: the default prompt {name!r} is not implemented",
            remedy="set default_prompt_name to null and write the prompt into the texts",
        )
