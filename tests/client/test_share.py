"""A client with a bundle does what a session does with the whole model: the same parcels, the same vectors."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from owned import LENGTHS, make  # type: ignore[import-not-found]

from mpc_ray.channel import Message
from mpc_ray.client.share import prepare, vectors
from mpc_ray.errors import InputError, MpcError, RangeExceeded
from mpc_ray.models import query
from mpc_ray.models.tokenize import Tokenizer
from mpc_ray.sharing.parcel import deal

TEXTS = ["Hello, world!", "a", "The 7 quick foxes and a dog", "b", "c d e f g h i j k l m n"]
SEEDS = (bytes(range(32)), bytes(range(32, 64)))


def answers(output: Any, checks: dict[str, tuple[int, Any]] | None = None, scale: int = 20) -> list[Message]:
    rng = np.random.default_rng(0)

    def split(value: Any) -> list[np.ndarray]:
        whole = np.asarray(value, np.int64)
        a, b = (rng.integers(-(2**63), 2**63, whole.shape, dtype=np.int64) for _ in range(2))
        return [a, b, whole - a - b]

    parts = {"output": split(output)}
    for i, (bits, value) in enumerate((checks or {}).values()):
        parts[f"check {i}"] = [x & ((1 << bits) - 1) for x in split(value)]
    labels = [[label, bits] for label, (bits, _) in (checks or {}).items()]
    return [
        Message(
            {"scale": scale, "checks": copy.deepcopy(labels)}, {name: part[i] for name, part in parts.items()}
        )
        for i in range(3)
    ]


@pytest.mark.parametrize("pooling", ["mean", "cls", "mean_sqrt_len", "weightedmean", "lasttoken"])
@pytest.mark.parametrize("normalize", [True, False])
def test_parcels_and_vectors_are_a_sessions(tmp_path: Path, pooling: Any, normalize: bool) -> None:
    made = make(tmp_path, pooling, normalize)
    bundle = made.bundle
    rows = Tokenizer(made.bert.folder).encode(TEXTS)
    for batch in prepare(bundle, TEXTS):
        mine = [rows[i] for i in batch.indices]
        secrets = query.embedding_secrets(made.bert, made.export, mine, batch.length)
        for ours, theirs in zip(batch.deal(SEEDS), deal(secrets, SEEDS), strict=True):
            assert ours.header == theirs.header
            assert list(ours.tensors) == list(theirs.tensors)
            assert all(np.array_equal(ours.tensors[name], theirs.tensors[name]) for name in ours.tensors)
        output = np.random.default_rng(1).integers(-(2**30), 2**30, (batch.size, 32))
        three = answers(output)
        assert np.array_equal(vectors(bundle, batch, three), query.embeddings(made.bert, mine, three))


def test_every_deal_is_fresh(made: Any) -> None:
    batch = prepare(made.bundle, ["a"])[0]
    first, second = batch.deal(), batch.deal()
    assert not set(first[0].header["seeds"].values()) & set(second[0].header["seeds"].values())
    assert not np.array_equal(first[1].tensors["x"], second[1].tensors["x"])
    assert "rows" not in repr(batch) and "seeds" not in repr(first)


def test_batches_are_of_one_length_and_bounded(made: Any) -> None:
    bundle = made.bundle
    batches = prepare(bundle, TEXTS * 3, max_batch_tokens=32)
    assert sorted(i for batch in batches for i in batch.indices) == list(range(15))
    assert [batch.length for batch in batches] == sorted(batch.length for batch in batches)
    for batch in batches:
        assert batch.length in LENGTHS and max(batch.tokens) <= batch.length
        assert batch.size * batch.length <= 32 or batch.size == 1
    assert prepare(bundle, []) == []


def test_token_ids_are_taken_as_they_are(made: Any) -> None:
    bundle = made.bundle
    rows = bundle.tokenizer.encode(TEXTS)
    by_text, by_ids = prepare(bundle, TEXTS), prepare(bundle, rows)
    assert [(b.indices, b.rows) for b in by_text] == [(b.indices, b.rows) for b in by_ids]
    assert prepare(bundle, [[5]])[0].rows == ((5,),)


def test_truncation_keeps_the_closing_token(made: Any) -> None:
    bundle = made.bundle
    long = "a " * 60
    for given in ([long], bundle.tokenizer.encode([long])):
        row = prepare(bundle, given, truncate=True)[0].rows[0]
        assert len(row) == bundle.max_tokens == 32 and row[-1] == 3
        with pytest.raises(InputError, match="text 0 has 62 tokens, the model takes 32"):
            prepare(bundle, given)


@pytest.mark.parametrize(
    ("texts", "word"),
    [
        ("hello", "texts is a str"),
        (b"hello", "texts is a bytes"),
        (7, "texts is a int"),
        (["a", [5]], "mixed"),
        (["a", ""], "text 1 is empty"),
        ([[5], []], "text 1 is no list of token ids from 0 to 127"),
        ([[5], [128]], "text 1 is no list"),
        ([[-1]], "text 0 is no list"),
        ([[True]], "text 0 is no list"),
        ([[1.0]], "text 0 is no list"),
        ([["a"]], "text 0 is no list"),
        ([7], "text 0 is a int"),
        ([b"ab"], "text 0 is a bytes"),
        ([None], "text 0 is a NoneType"),
    ],
)
def test_what_is_no_text_is_refused(made: Any, texts: Any, word: str) -> None:
    with pytest.raises(InputError, match=word):
        prepare(made.bundle, texts)


def test_a_check_that_struck_is_named(made: Any) -> None:
    batch = prepare(made.bundle, ["a"])[0]
    three = answers(np.zeros((1, 32)), {"layer 0/qkv": (3, [8]), "layer 1/softmax (7 bits)": (7, [1])})
    with pytest.raises(RangeExceeded, match="range in layer 1/softmax "):
        vectors(made.bundle, batch, three)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda a: a[1].header.update(scale=21), "disagree on the answer's scale"),
        (lambda a: a[2].header.update(checks=[["x", 3]]), "disagree on the answer's checks"),
        (lambda a: a[0].header.pop("checks"), "disagree on the answer's checks"),
        (lambda a: [m.header.update(scale="20") for m in a], "scale is none"),
        (lambda a: [m.header.update(scale=99) for m in a], "scale is none"),
        (lambda a: [m.header.update(checks="x") for m in a], "checks are no list"),
        (lambda a: [m.header.update(checks=[["x", 64]]) for m in a], "malformed"),
        (lambda a: [m.header.update(checks=[[3, "x"]]) for m in a], "malformed"),
        (lambda a: [m.header.update(checks=[["y", 4]]) for m in a], "summands of check 0"),
        (lambda a: a[1].tensors.pop("output"), "summands of output"),
        (lambda a: a[1].tensors.update(output=a[1].tensors["output"][:, :5]), "summands of output"),
        (lambda a: a[1].tensors.update(output=a[1].tensors["output"].astype(float)), "summands of output"),
        (lambda a: a.pop(), "disagree"),
        (
            lambda a: [m.tensors.update(output=m.tensors["output"][:, :5]) for m in a],
            r"shape \(1, 5\), not \(1, 32\)",
        ),
    ],
)
def test_answers_that_do_not_fit_are_refused(made: Any, change: Any, word: str) -> None:
    batch = prepare(made.bundle, ["a"])[0]
    three = answers(np.zeros((1, 32)))
    change(three)
    with pytest.raises(MpcError, match=word):
        vectors(made.bundle, batch, three)
