"""The client's side: what is shared of a text, and what is read from the answers."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_ray.channel import Message
from mpc_ray.errors import MpcError, RangeExceeded
from mpc_ray.models import query
from mpc_ray.models.export import export_encoder
from mpc_ray.models.fold import centred
from mpc_ray.models.inputs import embedding_sum, whole_weights
from mpc_ray.models.plan import BUCKET_LOG, HIDDEN_SCALE, MASK_DEPTH, POOL_SCALE, SCORE_SCALE
from mpc_ray.models.pooling import pooling_vector
from mpc_ray.models.statistics import observe
from mpc_ray.models.synthetic import random_bert
from mpc_ray.sharing.deal import receive
from mpc_ray.sharing.fixed import decode
from mpc_ray.sharing.replicated import reconstruct

MODEL = random_bert(seed=10)
TABLES = MODEL.embeddings
EXPORT = export_encoder(
    MODEL.encoder,
    observe(MODEL, [[2, *range(9, 40), 3], [2, 7, 3]]),
    (8, 16),
    gain=TABLES.norm_gain,
    bias=TABLES.norm_bias,
    normalize=True,
)
ROWS = [[2, 9, 3], [2, *range(20, 25), 3]]


def answers(output: Any, checks: dict[str, tuple[int, Any]], scale: int = 4, **header: Any) -> list[Message]:
    """Three answers whose sum is ``output`` and whose checks add up to the values given."""
    rng = np.random.default_rng(0)

    def split(value: Any) -> list[np.ndarray]:
        whole = np.asarray(value, np.int64)
        a, b = (rng.integers(-(2**63), 2**63, whole.shape, dtype=np.int64) for _ in range(2))
        return [a, b, whole - a - b]

    parts = {"output": split(output)}
    for i, (bits, value) in enumerate(checks.values()):
        parts[f"check {i}"] = [x & ((1 << bits) - 1) for x in split(value)]
    head = {
        "scale": scale,
        "checks": [[label, bits] for label, (bits, _) in checks.items()],
        "trace": [],
        **header,
    }
    return [Message(dict(head), {name: part[i] for name, part in parts.items()}) for i in range(3)]


def test_what_is_shared_of_two_texts() -> None:
    shared = query.embedding_secrets(MODEL, EXPORT, ROWS, 8)
    assert EXPORT.plan.embedding_norm is not None
    x = decode(shared["x"].value, shared["x"].scale)
    assert shared["x"].scale == EXPORT.plan.embedding_norm.centre_scale
    assert x.shape == (2, 8, 32)
    want = centred(embedding_sum(TABLES, ROWS[0]))
    assert np.abs(x[0, :3] - want).max() < 2.0 ** -shared["x"].scale
    assert np.array_equal(x[0, 3:], np.repeat(x[0, :1], 5, 0))  # padding is the first row
    mask = decode(shared["mask"].value, SCORE_SCALE)
    depth = MASK_DEPTH + 2**BUCKET_LOG
    assert mask.tolist() == [[0.0] * 3 + [-depth] * 5, [0.0] * 7 + [-depth]]
    assert shared["pooling"].value.sum(-1).tolist() == [[2**POOL_SCALE]] * 2
    assert (shared["pooling"].value[0, 0, 3:] == 0).all()


@given(st.sampled_from(["mean", "cls", "lasttoken", "weightedmean"]), st.integers(1, 512))
def test_pooling_weights_are_whole_and_add_up_exactly(pooling: Any, length: int) -> None:
    p = pooling_vector(pooling, length, 512)
    whole = whole_weights(p, POOL_SCALE)
    assert whole.sum() == 2**POOL_SCALE
    assert np.abs(whole - np.ldexp(p, POOL_SCALE)).max() <= 1
    assert (whole[length:] == 0).all()


def test_embedded_input_before_and_after_its_norm() -> None:
    x = np.random.default_rng(1).standard_normal((1, 4, 32))
    bare = query.hidden_secrets(x)["x"]
    assert (
        bare.scale == HIDDEN_SCALE and np.abs(decode(bare.value, bare.scale) - x).max() < 2.0**-HIDDEN_SCALE
    )
    before = query.hidden_secrets(x, EXPORT)["x"]
    assert np.abs(decode(before.value, before.scale) - centred(x)).max() < 2.0**-before.scale


def test_messages_hold_shares_that_add_up_and_are_fresh_every_time() -> None:
    shared = query.embedding_secrets(MODEL, EXPORT, ROWS, 8)
    job = secrets.token_bytes(16)
    first, second = (query.run_messages(shared, "m", job, attempt, "embedding") for attempt in (0, 1))
    halves = [receive(i, m.header, m.tensors) for i, m in enumerate(first)]
    for name, secret in shared.items():
        assert np.array_equal(reconstruct([h[name] for h in halves]).numpy(), secret.value)
    assert not np.array_equal(first[1].tensors["x"], second[1].tensors["x"])
    assert [m.header["attempt"] for m in (first[0], second[0])] == [0, 1]
    assert first[0].tensors == {}  # all of party 0's shares are expanded from seeds
    loads = query.load_messages(EXPORT, "m", job)
    assert all(m.header["record"] == EXPORT.record for m in loads)
    assert set(loads[0].tensors) == {f"public/{k}" for k in EXPORT.tables}


def test_the_answers_add_up() -> None:
    got = query.result(
        answers([[16, -8]], {"layer 0/softmax": (3, [8, 0]), "layer 0/qkv": (16, [0, 1 << 16])})
    )
    assert got.tolist() == [[1.0, -0.5]]


def test_a_check_that_struck_is_named() -> None:
    checks = {
        "layer 0/qkv": (3, [0, 0]),
        "layer 3/softmax": (3, [1, 0]),
        "layer 3/softmax (7 bits)": (7, [0, 2]),
    }
    struck = answers([1], checks)
    assert query.outside(struck) == ["layer 3/softmax"]
    with pytest.raises(RangeExceeded, match=r"^the input left the calibrated range in layer 3/softmax \("):
        query.result(struck)


@pytest.mark.parametrize("key", ["scale", "checks", "trace"])
def test_parties_that_disagree(key: str) -> None:
    three = answers([1], {})
    three[2].header[key] = 5 if key == "scale" else [["x", 1]]
    with pytest.raises(MpcError, match=f"disagree on the answer's {key}"):
        query.traced(three) if key == "trace" else query.result(three)


def test_traced_rows_add_up() -> None:
    parts = [np.full((1, 2, 2), v, np.int64) for v in (5, -3, 2)]
    three = [Message({"trace": [["embeddings", 2]]}, {"trace 0": part}) for part in parts]
    assert query.traced(three)["embeddings"].tolist() == [[[1.0, 1.0], [1.0, 1.0]]]


@pytest.mark.parametrize(("normalize", "factors"), [(True, [1.0, 1.0]), (False, [3**0.5, 7**0.5])])
def test_pooling_by_the_root_of_the_length_is_restored(normalize: bool, factors: list[float]) -> None:
    model = random_bert(pooling="mean_sqrt_len", normalize=normalize)
    got = query.embeddings(model, ROWS, answers([[16], [16]], {}))
    assert got[:, 0].tolist() == pytest.approx(factors)
