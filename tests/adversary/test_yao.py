"""Yao's sharing in aby3: each party's view is uniform, each mask is missed where it is forgotten, and whoever changes a
message changes a result at most.

Of tables this says that they look random, no more; the argument is in docs/security.md. Family-wise error 1e-6.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from aby3_traffic import recording, view_tests
from attacks import CHANGES, Case, survey
from recording import Recording, unmasked
from three import run_three, runtimes, share
from uniform import balanced_p, uniform_p

from mpc_ray.protocols.aby3 import yao
from mpc_ray.protocols.aby3.one_party import slice_of
from mpc_ray.protocols.aby3.place import Place
from mpc_ray.protocols.runtime import Protocol, Runtime
from mpc_ray.sharing.replicated import Shared, reconstruct

FAMILY_WISE = 1e-6
COUNT = 64 * 30
KINDS = {"labels", "key", "tables", "decoding", "bits", "choices", "numbers"}


def views(x: torch.Tensor) -> tuple[Recording, dict[str, float]]:
    """Signs of x both ways, and the p-values of all messages and of what an evaluator can tell of each result."""
    shares = share(x, 0, 7)

    def program(runtime: Runtime) -> Protocol[tuple[torch.Tensor, torch.Tensor]]:
        me = runtime.me
        bits = yield from yao.less_than_zero(Place(runtime, "layer", "bits"), shares[me])
        number = yield from yao.negative(Place(runtime, "layer", "number"), shares[me])
        return bits.own ^ bits.next, number.own + number.next

    with recording() as found:
        results = run_three(program, runtimes())
    tests: dict[str, float] = {}
    for i, (bits, numbers) in enumerate(results):
        for name, p in view_tests(found, i).items():
            tests[f"party {i}: {name}"] = p
        for k in range(3):  # what its two pieces together say of the results, in each turn
            part = slice_of(COUNT, k)
            rows = bits[:, part.start // 64 : part.stop // 64].numpy().view(np.uint8).reshape(-1, 8)
            tests[f"party {i}: both pieces of bits, third {k}"] = balanced_p(rows)
            tests[f"party {i}: both pieces of numbers, third {k}"] = uniform_p(
                numbers[part].numpy().view(np.uint8), 256
            )
    return found, tests


def test_every_view_is_uniform_and_of_one_shape() -> None:
    rng = np.random.default_rng(3)
    runs = [
        views(x) for x in (torch.full((COUNT,), -1), torch.from_numpy(rng.integers(-(2**63), 2**63, COUNT)))
    ]
    (first, ps), (second, other) = runs
    assert ps.keys() == other.keys() and len(ps) > 80
    assert {part.what for part in first.sent} == KINDS
    worst = min((p, name) for tests in (ps, other) for name, p in tests.items())
    assert worst[0] * 2 * len(ps) > FAMILY_WISE, worst
    shapes = [
        sorted((s.source, s.peer, s.function, s.what, s.data.shape) for s in found.sent)
        for found in (first, second)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("purpose", ["yao labels", "yao result", "yao bits", "yao numbers"])
def test_a_missing_mask_is_found(purpose: str) -> None:
    with unmasked(purpose):
        _, tests = views(torch.full((COUNT,), -1))
    assert min(tests.values()) * 2 * len(tests) < FAMILY_WISE


def test_both_garblers_draw_alike_and_the_evaluator_nothing_of_it() -> None:
    found, _ = views(torch.zeros(COUNT, dtype=torch.int64))
    for seed in range(3):
        held = [
            Counter(
                (d.purpose, d.role, d.site, d.data.tobytes())
                for d in found.draws
                if d.me == party and d.seed == seed
            )
            for party in ((seed - 1) % 3, seed)
        ]
        # What the tables are hashed under is sent by the one who garbles; the other has no use for it.
        both = [Counter({k: n for k, n in one.items() if k[0] != "yao key"}) for one in held]
        assert both[0] == both[1] and max(held[0].values()) == max(held[1].values()) == 1
        assert not any(d.seed == seed for d in found.draws if d.me == (seed + 1) % 3)
    offsets = [d.data.tobytes() for d in found.draws if d.purpose == "yao offset"]
    assert len(set(offsets)) == len(offsets) // 2 == 6  # one for each third of each call


def _case(numbers: bool) -> Case:
    x = torch.from_numpy(np.random.default_rng(4).integers(-(2**40), 2**40, 192))
    shares = share(x, 0, 8)
    right = (x < 0).to(torch.int64)

    def bits(runtime: Runtime) -> Protocol[Shared]:
        found = yield from yao.less_than_zero(Place(runtime, "attack", "f"), shares[runtime.me])
        return Shared(found.own, found.next, 0)

    def number(runtime: Runtime) -> Protocol[Shared]:
        return (yield from yao.negative(Place(runtime, "attack", "f"), shares[runtime.me]))

    if numbers:
        return Case("number", number, lambda results: torch.equal(reconstruct(results), right))
    plane = (right.reshape(3, 64) << torch.arange(64)).sum(1)[None]
    return Case("bits", bits, lambda rs: torch.equal(rs[0].own ^ rs[1].own ^ rs[2].own, plane))


@pytest.mark.parametrize("numbers", [False, True])
def test_a_changed_message_gives_a_wrong_result_or_an_error(numbers: bool) -> None:
    """Every kind of message, in every way: no crash, no hang."""
    loud = [change for change in CHANGES if change != "silence"]
    verdicts = Counter(o.verdict for _, _, o, _ in survey(_case(numbers), loud, every=3, proved=False))
    assert verdicts["wrong"] > 10 and verdicts["abort"] > 0
    assert set(verdicts) <= {"wrong", "right", "abort"}
