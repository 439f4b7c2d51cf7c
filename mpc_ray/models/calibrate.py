"""Calibration of an imported model: texts, ranges, and the stored record that saves doing it twice."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from mpc_ray.models.bert_float import tokenizer_of
from mpc_ray.models.observed import Observed, load_observed, save_observed
from mpc_ray.models.statistics import Progress, observe
from mpc_ray.models.texts import calibration_texts, random_sequences
from mpc_ray.models.tokenize import Tokenizer
from mpc_ray.models.weights import BertModel

BESIDE = "mpc_ray_calibration.json"  # in the model's folder: a calibration its owner ships with it
COUNT = 1000  # texts of the standard library
_RANDOM = 100  # token sequences that nobody would write
_LONGEST_RANDOM = 128
_PADDED = 100  # of the texts, run once more as buckets run them
_LONGEST_PADDED = 64
_SAMPLE = f"stdlib-{COUNT}-{_RANDOM}-{_PADDED}-1"  # its last number changes when the sample does


def observed_for(
    model: BertModel,
    folder: str | Path | None = None,
    texts: Sequence[str] | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
    tokenizer: Tokenizer | None = None,
) -> Observed:
    """Ranges of ``model``: stored ones where its digest matches, else computed and stored.

    Looked up in order: ``folder``/mpc_ray_calibration.json (``folder`` defaults to the model's), then the
    cache folder, by digest and sample. Computed over 1,000 texts of the standard library, random token
    sequences, and the user's ``texts`` where given, all cut to the model's positions; written to the cache,
    never to the model's folder (``save_observed`` puts it there). A record of another model counts as absent.

    ``cache`` defaults to ``default_cache()``. Cost when computed: see ``observe``. Raises ModelError if a
    stored record is damaged or the cache cannot be written, InputError for a text it cannot take.
    """
    home = model.folder if folder is None else Path(folder).expanduser()
    sample = _sample(texts)
    path = (default_cache() if cache is None else Path(cache).expanduser()) / f"{model.digest}-{sample}.json"
    for candidate in (path,) if home is None else (home / BESIDE, path):
        stored = load_observed(candidate)
        if (
            stored is not None
            and stored.digest == model.digest
            and (texts is None or stored.sample == sample)
        ):
            return stored
    observed = calibrate(model, tokenizer_of(model, tokenizer), texts, progress)
    save_observed(observed, path)
    return observed


def calibrate(
    model: BertModel,
    tokenizer: Tokenizer,
    texts: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Observed:
    """Ranges over the standard sample and the user's ``texts``, nothing stored. Errors as ``observe``."""
    limit = tokenizer.max_positions
    ids = tokenizer.encode(texts or (), truncate=True, limit=limit)  # first: an error names the user's index
    ids += tokenizer.encode(calibration_texts(COUNT), truncate=True, limit=limit)
    frame = len(tokenizer.prefix) + len(tokenizer.suffix)
    ids += random_sequences(
        _RANDOM,
        model.config.vocab,
        longest=min(_LONGEST_RANDOM, limit - frame),
        prefix=tokenizer.prefix,
        suffix=tokenizer.suffix,
    )
    short = [row for row in ids if len(row) <= _LONGEST_PADDED]
    padded = [short[i * len(short) // _PADDED] for i in range(_PADDED if short else 0)]
    return observe(model, ids, padded=padded, sample=_sample(texts), progress=progress)


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/mpc-ray``, by default ~/.cache/mpc-ray."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "mpc-ray"


def _sample(texts: Sequence[str] | None) -> str:
    if not texts:
        return _SAMPLE
    digest = hashlib.sha256()
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return f"{_SAMPLE}-{digest.hexdigest()[:16]}"
