"""Token ids, lengths and truncation, and the texts that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_ray.errors import InputError, ModelError
from mpc_ray.models.synthetic import random_bert, save_bert
from mpc_ray.models.tokenize import BUCKETS, Tokenizer, batches, bucket, group_by_bucket

CLS, SEP = 2, 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = save_bert(random_bert(), tmp_path)
    (root / "sentence_bert_config.json").write_text('{"max_seq_length": 10}')
    return root


@pytest.fixture
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer(folder)


def test_ids(tokenizer: Tokenizer) -> None:
    a, sharp_b = 5, 5 + 36 + 1
    assert tokenizer.encode(["Ab", " ab\n"]) == [[CLS, a, sharp_b, SEP]] * 2
    assert (tokenizer.prefix, tokenizer.suffix) == ((CLS,), (SEP,))
    assert tokenizer.encode([]) == []


def test_padding_and_truncation_of_the_file_are_off(folder: Path) -> None:
    path = folder / "tokenizer.json"
    raw = json.loads(path.read_text())
    raw["truncation"] = {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    raw["padding"] = {
        "strategy": {"Fixed": 32},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    path.write_text(json.dumps(raw))
    assert [len(ids) for ids in Tokenizer(folder).encode(["a", "a b c d e f"])] == [3, 8]


def test_truncation_keeps_the_closing_token(tokenizer: Tokenizer) -> None:
    long = "a " * 100
    assert (tokenizer.max_positions, tokenizer.max_tokens) == (64, 10)
    assert tokenizer.encode([long], truncate=True) == [[CLS, *[5] * 8, SEP]]
    assert tokenizer.encode([long], truncate=True, limit=64) == [[CLS, *[5] * 62, SEP]]


def test_between_the_limits_a_text_is_taken_whole(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode(["a " * 62])[0]) == 64
    with pytest.raises(InputError, match=r"text 1 has 65 tokens, the model takes 64.*truncate=True"):
        tokenizer.encode(["a", "a " * 63])


def test_a_written_special_token_does_not_move_the_cut(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(["a " * 30 + "[SEP]"], truncate=True)[0]
    assert ids == [CLS, *[5] * 8, SEP]


@pytest.mark.parametrize("text", ["", "  \n\t", "\x00\x01"])
def test_empty(tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(InputError, match=r"text 1 (is empty|has no tokens)"):
        tokenizer.encode(["fine", text])


@pytest.mark.parametrize("text", [None, 7, b"bytes", ["nested"]])
def test_not_a_string(tokenizer: Tokenizer, text: Any) -> None:
    with pytest.raises(InputError, match="text 0 is a"):
        tokenizer.encode([text])


def test_a_single_string_is_no_list(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="single string"):
        tokenizer.encode("hello")


def test_errors_never_quote_the_text(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="surrogate") as caught:
        tokenizer.encode(["secret \ud800"])
    assert "secret" not in repr(caught.value)
    assert caught.value.__suppress_context__


def test_lower_case_setting(folder: Path) -> None:
    path = folder / "tokenizer.json"
    raw = json.loads(path.read_text())
    raw["normalizer"]["lowercase"] = False
    path.write_text(json.dumps(raw))
    assert Tokenizer(folder).encode(["A"]) == [[CLS, 1, SEP]]
    (folder / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    assert Tokenizer(folder).encode(["A"]) == [[CLS, 5, SEP]]


def test_vocab_txt_gives_the_same_ids(folder: Path, tokenizer: Tokenizer) -> None:
    vocab = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(sorted(vocab, key=vocab.__getitem__)) + "\n")
    texts = ["Hello, world!", "é 42", "a-b"]
    expected = tokenizer.encode(texts)
    (folder / "tokenizer.json").unlink()
    assert Tokenizer(folder).encode(texts) == expected


def test_no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        Tokenizer(folder)


@pytest.mark.parametrize("text", ["{}", "[]", "", "no json", '{"model": {"type": "' + "long " * 99 + '"}}'])
def test_malformed_tokenizer(folder: Path, text: str) -> None:
    path = folder / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(ModelError, match="is no file of the tokenizers library: ") as caught:
        Tokenizer(folder)
    assert str(path) in str(caught.value)
    assert "save_pretrained" in str(caught.value)
    assert len(str(caught.value).replace(str(path), "")) < 220
    assert "\n" not in str(caught.value)


def test_tokenizer_of_another_model(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 10}))
    with pytest.raises(ModelError, match="the model has 10"):
        Tokenizer(folder).encode(["z"])


@given(st.integers(1, 512))
def test_bucket_is_the_smallest_that_holds(length: int) -> None:
    size = bucket(length)
    assert size in BUCKETS
    assert size >= length
    assert all(other < length for other in BUCKETS if other < size)


@pytest.mark.parametrize(
    ("length", "limit", "expected"),
    [(16, 512, 16), (17, 512, 32), (40, 50, 50), (600, 1000, 1000), (3, 10, 10)],
)
def test_bucket_limit(length: int, limit: int, expected: int) -> None:
    assert bucket(length, limit=limit) == expected


@pytest.mark.parametrize(("length", "limit"), [(0, None), (513, None), (51, 50), (-1, 50)])
def test_no_bucket(length: int, limit: int | None) -> None:
    with pytest.raises(InputError, match="no bucket"):
        bucket(length, limit=limit)


def test_group_by_bucket() -> None:
    assert group_by_bucket([20, 3, 130, 16, 32]) == {16: [1, 3], 32: [0, 4], 256: [2]}
    assert list(group_by_bucket([300, 1])) == [16, 512]


def test_batches_are_bounded_in_padded_tokens() -> None:
    lengths = [20, 3, 60, 16, 32, 4]
    assert batches(lengths, (16, 32, 64), limit=64, tokens=32) == [
        (16, [1, 3]),
        (16, [5]),
        (32, [0]),
        (32, [4]),
        (64, [2]),
    ]
    assert batches([], BUCKETS, limit=512) == []


def test_ids_made_elsewhere_are_checked_and_cut(tokenizer: Tokenizer) -> None:
    assert tokenizer.take([[CLS, 5, SEP], [5]]) == [[CLS, 5, SEP], [5]]
    assert tokenizer.take([[CLS, *[5] * 90, SEP]], truncate=True) == [[CLS, *[5] * 8, SEP]]
    with pytest.raises(InputError, match="text 1 has 65 tokens, the model takes 64"):
        tokenizer.take([[5], [5] * 65])
    for bad in ([], [-1], [1 << 40], [True], [1.0], ["a"]):
        with pytest.raises(InputError, match="text 1 is no list of token ids"):
            tokenizer.take([[5], bad])  # type: ignore[list-item]


def test_a_saved_tokenizer_gives_the_same_ids(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    again = Tokenizer(tmp_path, tokenizer.limits)
    assert again.encode(["Ab, c!", "x"]) == tokenizer.encode(["Ab, c!", "x"])
    assert (again.prefix, again.suffix, again.max_tokens) == (
        tokenizer.prefix,
        tokenizer.suffix,
        tokenizer.max_tokens,
    )
