"""Parcels: three add up to the secret; one says nothing, and holds no two pieces that give it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mpc_ray.errors import InputError
from mpc_ray.sharing.deal import Parcel, Secret, deal, receive
from mpc_ray.sharing.replicated import reconstruct

tensors = hnp.arrays(np.int64, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
named = st.dictionaries(st.text(max_size=8), st.tuples(tensors, st.integers(0, 60)), max_size=4)
FIXED = (bytes(range(32)), bytes(range(32, 64)))


def secrets(**values: list[int]) -> dict[str, Secret]:
    return {name: Secret(np.array(value), 10) for name, value in values.items()}


@given(values=named)
def test_three_parcels_add_up(values: dict[str, tuple[np.ndarray, int]]) -> None:
    wanted = {name: Secret(value, scale) for name, (value, scale) in values.items()}
    parcels = deal(wanted)
    halves = [receive(i, json.loads(json.dumps(p.header)), p.tensors) for i, p in enumerate(parcels)]
    for name, secret in wanted.items():
        assert np.array_equal(reconstruct([h[name] for h in halves]).numpy(), secret.value)
        assert {h[name].scale for h in halves} == {secret.scale}


def test_a_parcel_holds_its_partys_two_pieces_and_no_third() -> None:
    """P0 gets two seeds and no data; P1 and P2 one seed each, not the same, and the data."""
    parcels = deal(secrets(x=[1, 2, 3]), FIXED)
    first, second = (seed.hex() for seed in FIXED)
    assert [p.header["seeds"] for p in parcels] == [{"0": first, "1": second}, {"1": second}, {"0": first}]
    assert [set(p.tensors) for p in parcels] == [set(), {"x"}, {"x"}]
    texts = [json.dumps(p.header) + "".join(v.tobytes().hex() for v in p.tensors.values()) for p in parcels]
    assert [(first in t, second in t) for t in texts] == [(True, True), (False, True), (True, False)]


@given(x=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=4, max_size=4))
def test_two_pieces_never_give_the_secret(x: list[int]) -> None:
    """Whatever the secret is, what one party holds is the same function of fresh seeds and one padded tensor."""
    value = torch.tensor(x)
    for i, parcel in enumerate(deal({"x": Secret(value.numpy(), 0)})):
        half = receive(i, parcel.header, parcel.tensors)["x"]
        for combined in (half.own, half.next, half.own + half.next, half.own - half.next):
            assert not (combined == value).any()


def test_the_data_is_uniform_whatever_the_secret() -> None:
    for value in (np.zeros(40_000, np.int64), np.arange(40_000)):
        raw = deal({"x": Secret(value, 0)})[1].tensors["x"].view(np.uint8)
        counts = np.bincount(raw, minlength=256)
        assert ((counts - 1250) ** 2 / 1250).sum() < 255 + 8 * (2 * 255) ** 0.5  # false alarm below 1e-9


def test_every_deal_is_fresh() -> None:
    x = secrets(x=[5])
    seen = {seed for _ in range(4) for seed in deal(x)[0].header["seeds"].values()}
    assert len(seen) == 8


def test_tensors_of_one_message_have_unrelated_pieces() -> None:
    parcels = deal(secrets(a=[7] * 8, b=[7] * 8), FIXED)
    a, b = (receive(0, parcels[0].header, {})[name] for name in "ab")
    assert not {*a.own.tolist(), *a.next.tolist()} & {*b.own.tolist(), *b.next.tolist()}
    assert len({*a.own.tolist(), *a.next.tolist()}) == 16
    assert not (parcels[1].tensors["a"] == parcels[1].tensors["b"]).any()


def test_pieces_are_fixed() -> None:
    """Our own vector: a client in another language must expand the same."""
    half = receive(0, deal(secrets(x=[0, 0]), FIXED)[0].header, {})["x"]
    assert half.own.tolist() == PIECES[0]
    assert half.next.tolist() == PIECES[1]


PIECES: list[list[int]] = [
    [-7907045518706726231, 894527640814637091],
    [7616189919299095285, -5168984103352091969],
]


@pytest.mark.parametrize("me", range(3))
def test_another_partys_parcel_is_refused(me: int) -> None:
    parcels = deal(secrets(x=[1]))
    for i in range(3):
        if i != me:
            with pytest.raises(InputError, match=f"not party {me}'s"):
                receive(me, parcels[i].header, parcels[i].tensors)


def test_a_parcel_with_a_third_piece_is_refused() -> None:
    parcels = deal(secrets(x=[1]))
    both = {**parcels[1].header, "seeds": parcels[0].header["seeds"]}
    with pytest.raises(InputError, match="not party 1's"):
        receive(1, both, parcels[1].tensors)


@pytest.mark.parametrize(
    ("tensors", "found"),
    [
        ({}, "missing"),
        ({"x": np.zeros(2, np.int64)}, r"int64 \(2,\)"),
        ({"x": np.zeros(3, np.float64)}, r"float64 \(3,\)"),
        ({"x": np.zeros(3, np.int32)}, r"int32 \(3,\)"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tensors: dict[str, np.ndarray], found: str) -> None:
    parcel = deal(secrets(x=[1, 2, 3]))[2]
    with pytest.raises(InputError, match=rf"shares of x are {found}, not int64 \(3,\)"):
        receive(2, parcel.header, tensors)


def test_a_seed_of_another_length_is_refused() -> None:
    parcel: Parcel = deal(secrets(x=[1]))[1]
    with pytest.raises(InputError, match="not party 1's"):
        receive(1, {**parcel.header, "seeds": {"1": "00" * 16}}, parcel.tensors)


def test_parcels_share_no_memory() -> None:
    """In one process, a party that writes into its tensors or header must not change another's."""
    parcels = deal(secrets(x=[1, 2]))
    parcels[1].header["shares"]["x"]["scale"] = 99
    parcels[1].tensors.clear()
    assert parcels[2].header["shares"]["x"]["scale"] == 10
    assert parcels[2].tensors.keys() == {"x"}


@pytest.mark.parametrize("shape", [[1 << 28], [1 << 32, 1 << 32], [-1], [1.5], "many", None])
@pytest.mark.parametrize("me", [0, 1, 2])
def test_a_short_header_cannot_take_any_memory(me: int, shape: object) -> None:
    """Summands that are seeds are expanded from the header's shapes: those are bounded first."""
    header = deal({"x": Secret(np.zeros(2, np.int64), 0)}, FIXED)[me].header
    header["shares"]["x"]["shape"] = shape
    with pytest.raises(InputError, match="shares of"):
        receive(me, header, {}, max_bytes=1 << 20)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"shares": None}, "without shares"),
        ({"shares": [1]}, "without shares"),
        ({"shares": {"x": 5}}, "no shape"),
        ({"shares": {"x": {"shape": [1], "scale": "4"}}}, "no scale"),
        ({"shares": {"x": {"shape": [1], "scale": 64}}}, "no scale"),
        ({"shares": {"x": {"shape": [1]}}}, "no scale"),
        ({"seeds": None}, "not party 1's"),
        ({"seeds": {"1": 5}}, "not party 1's"),
        ({"seeds": {"1": "zz" * 32}}, "not party 1's"),
        ({"seeds": {"1": "AB" * 32}}, "not party 1's"),
        ({"seeds": {1: "ab" * 32}}, "not party 1's"),
    ],
)
def test_a_header_that_is_none_is_refused(change: dict[str, object], word: str) -> None:
    """It may come from anyone: what is wrong with it is an InputError, never a defect's KeyError."""
    parcel = deal(secrets(x=[1]))[1]
    with pytest.raises(InputError, match=word):
        receive(1, {**parcel.header, **change}, parcel.tensors)
