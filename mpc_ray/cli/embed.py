"""``mpc-ray embed``: sentence embeddings, for people and programs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mpc_ray.cli import options, texts
from mpc_ray.cli.output import check_writable, opened, write
from mpc_ray.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mpc_ray.models.weights import Array

OutputFile = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="FILE.npy (float64, a row a text) or FILE.jsonl (text and embedding a line); - for lines on stdout",
    ),
]


@options.with_settings
def embed(
    flags: options.Settings,
    text: options.Texts = None,
    file: options.TextFile = None,
    output: OutputFile = None,
    model: options.ModelPath = options.DEFAULT_MODEL,
    truncate: options.Truncate = False,
    calibrate: options.CalibrateFile = None,
    public_weights: options.PublicWeights = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Embed texts on shares: arguments, a file, or standard input with one text a line."""
    chosen = texts.read(text, file, piped=True)
    if not chosen:
        raise InputError(
            "there is no text", remedy="give texts as arguments, with --file, or on standard input"
        )
    lines = output is not None and str(output) == "-"
    if lines and as_json:
        raise InputError("--json and --output - both want standard output", remedy="use one of them")
    if output is not None and not lines:
        check_writable(output, (".npy", ".jsonl"))
    settings = flags.load()
    with opened(as_json) as out:
        from mpc_ray.cli import show
        from mpc_ray.cli.outcome import costs_json, setting_of
        from mpc_ray.cli.run import prepare, running
        from mpc_ray.cli.steps import Steps

        seen = options.visibility(public_weights)
        settings.check_weights(seen)
        work = prepare(model, chosen, truncate, calibrate, settings, seen)
        with Steps(out.notes) as steps, running(work, settings, steps, debug=debug) as run:
            steps.note(show.trust(run.session.trust))
            if public_weights:
                steps.note(options.SEEN)
            vectors = run.embed()
            setting = setting_of(model, settings, run.session.trust, run.model)
            report = run.model.report
        if output is not None and not lines:
            write(output, encode(output.suffix, work.texts, vectors))
        if as_json:
            said: dict[str, object] = {"command": "embed", "shape": list(vectors.shape)}
            said |= vars(setting) | costs_json(report) | {"seconds": run.seconds}
            said |= {"embeddings": vectors.tolist()} if output is None else {"output": str(output.resolve())}
            out.emit(said)
        elif lines:
            out.stream.write(json_lines(work.texts, vectors))
        else:
            show.vectors(out.console, work.texts, vectors, report)
            out.console.print(
                f"written to {output.resolve()}" if output else "all numbers: --output FILE.npy, or --json"
            )


def encode(suffix: str, chosen: Sequence[str], vectors: Array) -> bytes:
    """The content of a file ending in ``suffix``."""
    if suffix == ".jsonl":
        return json_lines(chosen, vectors).encode()
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, vectors, allow_pickle=False)
    return buffer.getvalue()


def json_lines(chosen: Sequence[str], vectors: Array) -> str:
    """``{"text": …, "embedding": […]}`` a line."""
    rows = zip(chosen, vectors.tolist(), strict=True)
    return "".join(
        json.dumps({"text": text, "embedding": row}, ensure_ascii=False) + "\n" for text, row in rows
    )
