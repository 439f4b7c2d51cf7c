"""``mpc-ray embed``: the numbers are the plaintext model's, whichever way they come out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TEXTS = ["hello world", "a rather longer text than the other one"]


@pytest.fixture(scope="module")
def plain(tiny: Path) -> Any:
    from mpc_ray.models.bert_float import embed
    from mpc_ray.models.load import load_bert

    return embed(load_bert(tiny), TEXTS)


def near(found: Any, plain: Any) -> bool:
    array = np.array(found)
    return array.shape == plain.shape and bool(np.abs(array - plain).max() < 1e-3)


def test_json(cli: Any, tiny: Path, fast: Any, plain: Any) -> None:
    ended = cli("embed", *TEXTS, "--model", tiny, "--json", *fast)
    assert ended.code == 0
    said = ended.json
    assert near(said["embeddings"], plain)
    assert said["shape"] == list(plain.shape)
    assert said["launcher"] == "threads"
    assert "for tests only" in said["trust"]
    assert len(said["bytes_sent"]) == 3
    assert sum(f["bytes"] for f in said["functions"]) == sum(said["bytes_sent"])
    assert said["rounds"] == sum(job["rounds"] for job in said["jobs"])
    assert "computing on shares" in ended.err


def test_public_weights(cli: Any, tiny: Path, fast: Any, plain: Any) -> None:
    secret = cli("embed", *TEXTS, "--model", tiny, "--json", *fast)
    ended = cli("embed", *TEXTS, "--model", tiny, "--public-weights", "--json", *fast)
    assert ended.code == 0 and near(ended.json["embeddings"], plain)
    assert (secret.json["public_weights"], ended.json["public_weights"]) == (False, True)
    assert ended.json["bytes_sent"] == secret.json["bytes_sent"]
    assert "public weights: every party sees the model" in ended.err
    assert "public weights" not in secret.err


def test_public_weights_need_a_protocol_that_has_them(cli: Any, tiny: Path, fast: Any) -> None:
    """Said before parties are started."""
    for command in (("embed", *TEXTS, "--model", tiny), ("bench", "encoder", "--shape", "bert-tiny")):
        ended = cli(*command, "--public-weights", "--protocol", "aby3", *fast)
        ended.one_line_error(2, "aby3 keeps weights secret")
        assert "starting" not in ended.err


def test_aby3(cli: Any, tiny: Path, fast: Any, plain: Any) -> None:
    ended = cli("embed", *TEXTS, "--model", tiny, "--protocol", "aby3", "--json", *fast)
    assert ended.code == 0 and near(ended.json["embeddings"], plain)
    cuda = cli("embed", *TEXTS, "--model", tiny, "--protocol", "aby3", "--device", "cuda", *fast)
    cuda.one_line_error(2, "aby3 has no kernels for cuda")


def test_npy(cli: Any, tiny: Path, fast: Any, plain: Any, tmp_path: Path) -> None:
    ended = cli("embed", *TEXTS, "--model", tiny, "-o", "v.npy", *fast)
    assert ended.code == 0
    rows = np.load(tmp_path / "v.npy", allow_pickle=False)
    assert rows.dtype == np.float64
    assert near(rows, plain)
    assert [path.name for path in tmp_path.iterdir()] == ["v.npy"]


def test_jsonl_of_a_file_with_truncation(cli: Any, tiny: Path, fast: Any, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("x" * 200 + "\n\nsecond\n")
    ended = cli("embed", "-f", "t.txt", "--truncate", "--model", tiny, "-o", "v.jsonl", "--json", *fast)
    assert ended.json["output"] == str(tmp_path / "v.jsonl")
    assert "embeddings" not in ended.json
    lines = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines] == ["x" * 200, "second"]
    assert all(len(line["embedding"]) == 32 for line in lines)


def test_standard_input_to_standard_output_in_a_process(
    own_process: Any, tiny: Path, fast: Any, plain: Any
) -> None:
    ended = own_process("embed", "-o", "-", "--model", tiny, *fast, stdin="\n".join(TEXTS) + "\n")
    assert ended.code == 0, ended.err
    assert near([json.loads(line)["embedding"] for line in ended.out.splitlines()], plain)


def test_for_people(cli: Any, tiny: Path, fast: Any) -> None:
    ended = cli("embed", *TEXTS, "--model", tiny, *fast)
    assert "2 × 32 embeddings" in ended.out
    assert "rounds" in ended.out
    assert "trust: " in ended.err


def test_own_texts_for_the_calibration(
    cli: Any, tiny: Path, fast: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mpc_ray.session import Session

    heard: list[Any] = []
    load = Session.load

    def listen(session: Session, path: Path, *, texts: Any = None, weights: str) -> Any:
        assert weights == "secret"
        heard.append(texts)
        return load(session, path)

    monkeypatch.setattr(Session, "load", listen)
    (tmp_path / "mine.txt").write_text("zebra zebra\n\nquartz\n")
    assert cli("embed", "zebra", "--model", tiny, "--calibrate", "mine.txt", *fast).code == 0
    assert cli("embed", "zebra", "--model", tiny, *fast).code == 0
    assert heard == [("zebra zebra", "quartz"), None]
