"""The choice between gates and Yao's sharing, and that functions which take it are as right, in fewer rounds."""

from __future__ import annotations

import pytest
import torch
from running import run
from test_primitives import numbers
from three import share

from mpc_ray.cost.links import Link
from mpc_ray.errors import InputError
from mpc_ray.protocols.aby3 import choice, compare
from mpc_ray.protocols.aby3.choice import COSTS

FAR = Link(0.2)
NEAR = Link(0.0)


def test_costs_are_those_of_runs() -> None:
    x = share(numbers(1, 192), 3)
    for link, way in ((NEAR, "boolean"), (FAR, "yao")):
        assert choice.choose(192, link) == way
        found = run(lambda place, me, link=link: compare.negative(place, x[me], link), proving=False)
        cost = COSTS[way]  # type: ignore[index]
        assert found.rounds == cost.rounds
        assert max(found.payload) == pytest.approx(192 * cost.bytes, rel=0.01)


@pytest.mark.parametrize("mbit", [None, 100, 1000])
@pytest.mark.parametrize("count", [1, 1000, 100_000])
def test_the_break_even_is_where_the_choice_turns(count: int, mbit: float | None) -> None:
    bits = None if mbit is None else mbit * 1e6
    rtt = choice.break_even_rtt_s(count, bits)
    assert choice.choose(count, Link(rtt * 1.01, bits)) == "yao"
    assert choice.choose(count, Link(rtt * 0.99, bits)) == "boolean"


def test_the_most_numbers() -> None:
    for link in (Link(0.05, 1e9), Link(0.01, 1e8), FAR):
        most = choice.most_numbers(link)
        assert most > 0
        assert choice.choose(most, link) == "yao" and choice.choose(most + 1, link) == "boolean"
    assert choice.most_numbers(NEAR) == 0


def test_a_link_that_cannot_be() -> None:
    for rtt, bits in ((-1.0, None), (60.0, None), (float("nan"), None), (0.0, 0.0)):
        with pytest.raises(InputError, match="a link of"):
            Link(rtt, bits)


def test_functions_over_a_slow_link() -> None:
    x = numbers(2, 200, 6, bits=62)
    x[0] = 7
    shares = share(x, 4)
    relu = run(lambda place, me: compare.relu(place, shares[me], FAR), proving=False)
    assert torch.equal(relu.value, x.clamp(min=0)) and relu.rounds == 3
    largest = run(lambda place, me: compare.maximum(place, shares[me], FAR), proving=False)
    assert torch.equal(largest.value, x.amax(-1)) and largest.rounds == 3 * 3
    where = run(lambda place, me: compare.argmax(place, shares[me], FAR), proving=False)
    assert where.value.tolist() == [int((row == row.max()).nonzero()[0, 0]) for row in x]
    assert where.rounds == 3 * 3
