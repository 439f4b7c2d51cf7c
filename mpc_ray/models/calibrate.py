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
_OURS = "stdlib-"  # how the names of this file's samples begin
_SAMPLE = f"{_OURS}{COUNT}-{_RANDOM}-2"  # its last number changes when the sample does
_INSTALLED = frozenset({"site-packages", "dist-packages"})  # folders that a package manager answers for


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
    sequences, and the user's ``texts`` where given, all cut to the model's positions. Stored beside the model,
    unless the folder is read-only, belongs to an installed package, or holds a calibration that its owner ships; then,
    and with ``texts``, whose extremes are nobody else's business, in the cache. A record of another model, or of an
    older sample, counts as absent.

    ``cache`` defaults to ``default_cache()``. Cost when computed: see ``observe``. Raises ModelError if a
    stored record is damaged or the cache cannot be written, InputError for a text it cannot take.
    """
    home = model.folder if folder is None else Path(folder).expanduser()
    sample = _sample(texts)
    path = (default_cache() if cache is None else Path(cache).expanduser()) / f"{model.digest}-{sample}.json"
    beside = None if home is None else home / BESIDE
    for candidate in (path,) if beside is None else (beside, path):
        stored = load_observed(candidate)
        if stored is not None and stored.digest == model.digest and _covers(stored.sample, sample):
            return stored
    observed = calibrate(model, tokenizer_of(model, tokenizer), texts, progress)
    own = not texts and beside is not None and _may_write(beside, model.digest)
    save_observed(observed, beside if own and beside is not None else path)
    return observed


def _covers(stored: str, wanted: str) -> bool:
    """Without texts of the user's own the owner's sample will do, or the standard one, but never another user's."""
    return stored == wanted or (wanted == _SAMPLE and not stored.startswith(_OURS))


def _may_write(beside: Path, digest: str) -> bool:
    home = beside.resolve().parent
    if _INSTALLED & set(home.parts) or not os.access(home, os.W_OK):
        return False
    there = load_observed(beside)
    return there is None or there.digest != digest or there.sample.startswith(_OURS)


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
    return observe(model, ids, sample=_sample(texts), progress=progress)


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
