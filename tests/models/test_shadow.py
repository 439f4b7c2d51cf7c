"""Shadow mode: drifts are what they say, the first place outside its bound is named, and nobody is traced unasked."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc_ray.errors import ConfigError, MpcError
from mpc_ray.models import bert, query
from mpc_ray.models.clear import float_input
from mpc_ray.models.export import export_encoder
from mpc_ray.models.fold import fold
from mpc_ray.models.shadow import Drift, ShadowReport, drifts, float_rows, merged
from mpc_ray.models.statistics import observe
from mpc_ray.models.synthetic import random_bert, save_bert

SAMPLE = [[2, *np.random.default_rng(i).integers(5, 128, 3 + i % 60).tolist(), 3] for i in range(60)]
ROWS = [[2, 9, 8, 3], [2, *range(20, 33), 3]]
MODEL = random_bert(seed=5)
FOLDED = fold(MODEL.encoder, MODEL.embeddings.norm_gain, MODEL.embeddings.norm_bias)
PROGRAM = bert.Program(MODEL.config.layers, True, "embedding")
REAL = float_input(MODEL, ROWS, 16).real.numpy()


def wanted() -> dict[str, np.ndarray]:
    return float_rows(FOLDED, MODEL.config, PROGRAM, float_input(MODEL, ROWS, 16))


def exported() -> Any:
    tables = MODEL.embeddings
    return export_encoder(
        MODEL.encoder,
        observe(MODEL, SAMPLE),
        (16,),
        gain=tables.norm_gain,
        bias=tables.norm_bias,
        normalize=True,
    )


def test_drifts_of_what_the_parties_traced(trio: Any) -> None:
    export = exported()
    trio.load(export)
    answers = trio.run(query.embedding_secrets(MODEL, export, ROWS, 16), trace=True)
    report = merged([drifts(query.traced(answers), wanted(), REAL)], query.outside(answers))
    assert tuple(d.place for d in report.drifts) == bert.places(PROGRAM)
    assert all(d.count == REAL.sum() * 32 for d in report.drifts)
    assert report.ok and report.first_outside is None
    assert 1e-7 < report.drifts[0].mean < 1e-3
    assert "every layer is inside" in str(report)
    # No party's trace says anything by itself: it is blinded.
    rows = [np.abs(a.tensors["trace 3"].astype(np.float64)).mean() for a in answers]
    assert all(2.0**61 < size < 2.0**63 for size in rows)


def test_a_wrong_weight_is_named_where_it_acts(trio: Any) -> None:
    export = exported()
    wrong = export.secrets["layer 1/out"]
    secrets = {**export.secrets, "layer 1/out": dataclasses.replace(wrong, value=np.roll(wrong.value, 1, 1))}
    trio.load(dataclasses.replace(export, secrets=secrets), "wrong")
    answers = trio.run(query.embedding_secrets(MODEL, export, ROWS, 16), name="wrong", trace=True)
    report = merged([drifts(query.traced(answers), wanted(), REAL)])
    assert report.first_outside is not None
    assert report.first_outside.place == "layer 1/attention out"
    assert "first outside its bound: layer 1/attention out" in str(report)


def test_padding_does_not_count() -> None:
    rows = wanted()
    off = {place: np.where(REAL[..., None], x, x + 9) for place, x in rows.items()}
    assert all(d.largest == 0 for d in drifts(off, rows, REAL))
    off = {place: x + 0.25 for place, x in rows.items()}
    assert all(d.mean == pytest.approx(0.25) and not d.ok for d in drifts(off, rows, REAL))
    assert all(d.ok for d in drifts(off, rows, REAL, mean_bound=0.3, largest_bound=0.3))


def test_other_places_are_an_error() -> None:
    rows = wanted()
    with pytest.raises(MpcError, match="other places"):
        drifts({k: v for k, v in rows.items() if k != "embeddings"}, rows, REAL)


def test_merged_jobs_weigh_by_their_numbers() -> None:
    one, two = Drift("a", 1, 0.4, 0.4), Drift("a", 3, 0.0, 0.1)
    report = merged([(one,), (two,)], ["layer 0/softmax", "layer 0/softmax"])
    assert report == ShadowReport((Drift("a", 4, 0.1, 0.4),), ("layer 0/softmax",))
    assert not report.ok
    assert str(report).endswith("left the calibrated range: layer 0/softmax")


def test_a_party_that_does_not_allow_it_refuses(make_trio: Any) -> None:
    trio = make_trio(allow_trace=False)
    export = exported()
    trio.load(export)
    shared = query.embedding_secrets(MODEL, export, ROWS, 16)
    assert not any(name.startswith("trace") for name in trio.run(shared)[0].tensors)
    with pytest.raises(ConfigError, match="does not give away"):
        trio.run(shared, trace=True)


@pytest.mark.parametrize("shadow", [True, False])
def test_session(shadow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mpc_ray
    from mpc_ray.models import calibrate

    monkeypatch.setattr(calibrate, "COUNT", 60)
    folder = save_bert(MODEL, tmp_path / "model")
    with mpc_ray.Session(launcher="threads", tls=False, buckets=(16, 32), shadow=shadow) as session:
        model = session.load(folder)
        vectors = model.embed(["one of them", "another"])
        assert vectors.shape == (2, 32)
        if shadow:
            assert model.drift is not None and model.drift.ok
            report = model.shadow(["and a third"])
            assert report.drifts and model.drift == report
        else:
            assert model.drift is None
            with pytest.raises(ConfigError, match="shadow=True"):
                model.shadow(["and a third"])
