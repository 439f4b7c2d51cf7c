"""What demo and embed do alike: refuse bad input before anything starts, then run a session with progress."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mpc_ray.cli.steps import Steps

if TYPE_CHECKING:
    from mpc_ray.config import Config
    from mpc_ray.model import Model
    from mpc_ray.models.export import Visibility
    from mpc_ray.models.weights import Array
    from mpc_ray.session import Session


@dataclass(frozen=True)
class Work:
    """Texts that the model takes, in ``jobs`` jobs. ``own`` are the user's texts for the calibration, if any."""

    folder: Path
    texts: tuple[str, ...]
    truncate: bool
    jobs: int
    layers: int
    own: tuple[str, ...] | None = None
    weights: Visibility = "secret"


@dataclass
class Run:
    """A loaded model in a running session, and how long each step took, in seconds."""

    session: Session
    model: Model
    work: Work
    seconds: dict[str, float] = field(default_factory=dict)

    def embed(self) -> Array:
        """Embeddings on shares, float64 (texts, hidden)."""
        return self._timed("embed", lambda: self.model.embed(self.work.texts, truncate=self.work.truncate))

    def plaintext(self) -> Array:
        """The same by the plaintext model, here at the client."""
        from mpc_ray.models.bert_float import embed

        return self._timed(
            "plaintext", lambda: embed(self.model.bert, self.work.texts, truncate=self.work.truncate)
        )

    def _timed(self, name: str, call: Callable[[], Array]) -> Array:
        began = time.perf_counter()
        result = call()
        self.seconds[name] = time.perf_counter() - began
        return result


def prepare(
    model: str,
    texts: Sequence[str],
    truncate: bool,
    calibrate: Path | None,
    config: Config,
    weights: Visibility = "secret",
) -> Work:
    """Check the folder and the texts before anything starts. Raises ModelError, InputError."""
    from mpc_ray.model import bucket_lengths, model_folder
    from mpc_ray.models.folder import read_layout, whole_number
    from mpc_ray.models.texts import file_texts
    from mpc_ray.models.tokenize import Tokenizer, batches

    folder = model_folder(model)
    layout = read_layout(folder)
    tokenizer = Tokenizer(folder)
    limit = tokenizer.max_positions
    lengths = [len(row) for row in tokenizer.encode(list(texts), truncate=truncate)]
    jobs = batches(lengths, bucket_lengths(config.buckets, limit), limit=limit)
    return Work(
        folder=folder,
        texts=tuple(texts),
        truncate=truncate,
        jobs=len(jobs),
        layers=whole_number(layout.config, "num_hidden_layers", "config.json"),
        own=None if calibrate is None else tuple(file_texts(calibrate)),
        weights=weights,
    )


@contextlib.contextmanager
def running(work: Work, config: Config, steps: Steps, *, debug: bool = False) -> Iterator[Run]:
    """Three parties that hold shares of the model. Raises what ``Session`` and ``Session.load`` raise."""
    from mpc_ray.session import Session

    began = time.perf_counter()
    steps.expect(work.jobs, work.layers)
    with Session(config=config, progress=steps, debug=debug) as session:
        started = time.perf_counter()
        model = session.load(work.folder, texts=work.own, weights=work.weights)
        run = Run(session, model, work)
        run.seconds |= {"start": started - began, "load": time.perf_counter() - started}
        yield run
