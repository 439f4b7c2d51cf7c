"""The variant with the fewest rounds: its costs, its views, its masks, and what becomes of changed bytes."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from encoders import LENGTH, TEXTS, Parties, embedding_messages, loaded, small_model, start
from recording import Recording, assert_every_byte_is_padded, recording, unmasked
from test_documented_costs import BATCH, FFN, HEADS, HIDDEN, ROWS, checked, low_bytes, row_function, truncate
from test_documented_costs import scaled_rows as whole_norm
from uniform import view_tests

from mpc_ray.channel import local_channels
from mpc_ray.channel.frame import HEADER_BYTES
from mpc_ray.channel.wrappers import Tampering
from mpc_ray.errors import ConfigError, MpcError
from mpc_ray.functions.plan import NormPlan, exp_plan
from mpc_ray.models import query
from mpc_ray.protocols.semi_honest.fewest_rounds import QUERY_KEY_SCALE
from mpc_ray.protocols.semi_honest.half_norm import COARSER

FAMILY_WISE = 1e-6
ROUNDS = "rounds"
UNIFORM_ANYWAY = {"r_hi²", "kappa"}
PURPOSES = [
    "mask", "product", "reshare", "one-hot", "dpf root", "beta", "r_hi", "r_msb", "r_hi·r_msb", "r_hi·beta",
    "r_msb·beta", "range check", "thermometer", "count mask", "zero counts", "reference mask",
]  # fmt: skip


@pytest.fixture(scope="module")
def parties() -> Iterator[Parties]:
    made = loaded(variant=ROUNDS)
    yield made
    for channel in made.channels:
        channel.close()


# -- costs -------------------------------------------------------------------------------------------------


def row_norm(plan: NormPlan) -> int:
    return row_function(plan.rsqrt.degree)


def scaling(f: int, plan: NormPlan) -> int:
    """A product of rows before their norm, opened and scaled by 1/√: an element, with the check of its truncation."""
    m = low_bytes(f)
    return 16 + (plan.rsqrt.degree + 2) * (8 + m) + (checked(63) if f else 0)


def softmax() -> int:
    plan = small_model()[1].plan.softmax(0, LENGTH, True)
    (b,) = set(plan.buckets)
    k, d, w = plan.count_bits, plan.reciprocal.degree, b.bit_length() - 1
    cells = 1 << exp_plan(b, plan.bucket_log).bits
    window = 2 * QUERY_KEY_SCALE + 1 + plan.bucket_log + w
    score = 16 + b * k // 8 + cells // 8 + 32 + 16 + checked(window)
    row = (b - 1) * k // 4 + (b - 1) * 2**k * w // 8 + 2 + 16 + row_function(d)
    f = 34 + plan.value_scale + 1 - plan.context_scale
    element = 32 + (d + 2) * (8 + low_bytes(f)) + checked(63)
    return ROWS * HEADS * (LENGTH * score + row) + ROWS * HIDDEN * element


def test_bytes_and_rounds_are_the_documented_ones(parties: Parties) -> None:
    answers = parties.run(embedding_messages("all different"))
    counted: Counter[str] = Counter()
    for answer in answers:
        for _, label, count in answer.header["split"]:  # type: ignore[union-attr,misc]
            counted[str(label).split("/")[0]] += int(count)  # type: ignore[arg-type]
    plan = small_model()[1].plan
    layer, norm = plan.layers[0], plan.embedding_norm
    assert norm is not None
    assert plan.pool is not None
    activation, elements = layer.activation, ROWS * HIDDEN
    window = activation.window
    d = norm.rsqrt.degree
    factor = 30 - norm.centre_scale  # the coarse factor's scale
    assert factor == norm.rsqrt.scale - COARSER
    f = norm.centre_scale + layer.qkv_scale - 34 - (QUERY_KEY_SCALE - factor)
    bias = 2 * HIDDEN * (24 + low_bytes(layer.qkv_scale - QUERY_KEY_SCALE))
    wanted = {
        # The rows before normalisation are reshared too; and the coarse factor.
        "norm": whole_norm(ROWS, HIDDEN, norm.centre_scale, norm)
        + 32 * elements
        + ROWS * (16 * (d + 1) + 8 * (d + 2)),
        "qkv": 2 * elements * (scaling(f, norm) + 16)
        + 3 * bias
        + truncate(elements, layer.qkv_scale - layer.value_scale),
        "softmax": softmax(),
        "attention out": whole_norm(ROWS, HIDDEN, layer.out_scale, layer.attention_norm) + 32 * elements,
        "activation": ROWS
        * FFN
        * (
            scaling(0, layer.attention_norm)
            + 64
            + 24 * activation.degree
            + 2**window.n // 8
            + checked(window.t + window.n)
        ),
        "ffn out": whole_norm(ROWS, HIDDEN, layer.down_scale, layer.ffn_norm) + 32 * elements,
        "pool": truncate(BATCH * HIDDEN, 53 - 20),
        "l2 norm": whole_norm(BATCH, HIDDEN, 39, plan.pool),
    }
    headers = counted.pop("frame headers")
    assert counted == wanted
    assert headers == HEADER_BYTES * sum(c.meter.frames_sent for c in parties.channels)
    assert {answer.header["rounds"] for answer in answers} == {11 + 17}
    assert sum(int(answer.header["unattributed"]) for answer in answers) == 0  # type: ignore[arg-type]


def test_rounds_of_hidden_states(parties: Parties) -> None:
    messages = embedding_messages("all different")
    for message in messages:
        message.header["output"] = "hidden"
    assert {answer.header["rounds"] for answer in parties.run(messages)} == {6 + 17}


# -- views -------------------------------------------------------------------------------------------------


def views(parties: Parties, text: str) -> tuple[Recording, dict[str, float]]:
    (buckets,) = set(small_model()[1].plan.layers[0].masked_buckets)
    turns = buckets << max(0, 1 - exp_plan(buckets, 1).cell_log)
    with recording() as found:
        parties.run(embedding_messages(text))
    return found, {
        f"party {i}: {name}": p for i in range(3) for name, p in view_tests(found, i, turns, buckets).items()
    }


def test_every_view_is_uniform_and_traffic_has_one_shape(parties: Parties) -> None:
    runs = {text: views(parties, text) for text in TEXTS}
    tests = {(text, name): p for text, (_, found) in runs.items() for name, p in found.items()}
    worst = min(tests, key=lambda name: tests[name])
    assert len(tests) > 1800
    assert tests[worst] * len(tests) > FAMILY_WISE, worst
    shapes = [
        [
            [(s.peer, s.role, s.layer, s.function, s.what, s.data.shape) for s in found.sent if s.source == i]
            for i in range(3)
        ]
        for found, _ in runs.values()
    ]
    assert shapes[0] == shapes[1]


def test_the_dealer_receives_nothing(parties: Parties) -> None:
    found, _ = views(parties, "one word, repeated")
    assert not [part for part in found.sent if part.peer == (part.role + 2) % 3]
    assert {draw.purpose for draw in found.draws} == {*PURPOSES, *UNIFORM_ANYWAY, "output"}


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_missing_mask_is_found(parties: Parties, purpose: str) -> None:
    with unmasked(purpose):
        _, tests = views(parties, "one word, repeated")
    assert min(tests.values()) * 2 * len(tests) < FAMILY_WISE


def test_every_message_has_a_pad_that_its_receiver_lacks_and_no_name_is_drawn_twice() -> None:
    parties = loaded(variant=ROUNDS)
    parties.trace()
    with recording() as found:
        parties.run(embedding_messages("one word, repeated"))
    kinds = assert_every_byte_is_padded(found)
    assert kinds >= {"reference", "zero counts", "count", "r_hi·beta", "point function"}
    sent = sum(c.meter.bytes_sent - HEADER_BYTES * c.meter.frames_sent for c in parties.channels)
    assert sum(part.data.size for part in found.sent) == sent
    for seed in range(3):
        first, second = (
            Counter(name for name in parties.traces[party] if name[2] == seed)
            for party in ((seed - 1) % 3, seed)
        )
        assert first == second
        assert max(first.values()) == 1


@pytest.mark.parametrize("weights", ["secret", "public"])
def test_both_variants_give_one_answer(weights: str) -> None:
    found = []
    for variant in ("bytes", ROUNDS):
        parties = loaded(weights, variant=variant)  # type: ignore[arg-type]
        answers = parties.run(embedding_messages("all different"))
        assert not query.outside(answers)
        found.append((query.result(answers), {int(a.header["rounds"]) for a in answers}))  # type: ignore[arg-type]
    assert found[0][1] == {11 + 21}
    assert found[1][1] == {11 + 17}
    assert np.abs(found[0][0] - found[1][0]).max() < 5e-4
    assert np.abs(found[0][0]).max() > 0.1


def test_a_protocol_with_one_variant_refuses_the_other() -> None:
    from mpc_ray.execute_aby3 import executor

    parties = start(make=executor)
    parties.executors[0].use("bytes")
    for name in (ROUNDS, "fastest"):
        with pytest.raises(ConfigError, match=f"no variant '{name}'"):
            parties.executors[0].use(name)


# -- changed bytes, and other ways to end --------------------------------------------------------------------


def test_changed_bytes_never_hang_or_crash() -> None:
    rng = np.random.default_rng(7)
    at = [0]

    def hook(step: int, peer: int, data: bytes) -> bytes:
        if step != at[0] or not data:
            return data
        changed = np.frombuffer(data, np.uint8).copy()
        changed[int(rng.integers(len(changed))) :][:4096] ^= np.uint8(255)
        return changed.tobytes()

    channels = list(local_channels(timeout=10.0))
    parties = start([channels[0], Tampering(channels[1], hook), channels[2]])
    parties.use(ROUNDS)
    parties.load(small_model()[1])
    clean = query.result(parties.run(embedding_messages("all different")))
    seen = set()
    for step in (2, 4, 6, 8, 11, 14, 17, 20):
        at[0] = step
        try:
            got = query.result(parties.run(embedding_messages("all different")))
        except MpcError as error:
            seen.add(type(error).__name__)
        else:
            seen.add("same" if np.abs(got - clean).max() < 1e-3 else "different")
    assert seen <= {"same", "different", "RangeExceeded"}
    assert seen & {"different", "RangeExceeded"}
    at[0] = 0
    assert np.abs(query.result(parties.run(embedding_messages("all different"))) - clean).max() < 1e-3


def test_a_party_of_the_other_variant_ends_in_an_error() -> None:
    """HELLO compares the variant; if that were forgotten, frames would not fit: an error, and no answer."""
    parties = start(local_channels(timeout=3.0))
    parties.load(small_model()[1])
    parties.executors[1].use(ROUNDS)
    with pytest.raises(MpcError):
        parties.run(embedding_messages("all different", secrets.token_bytes(16)))


def test_traced_rows_are_those_of_the_other_variant(parties: Parties) -> None:
    traces = []
    other = loaded()
    for three in (parties, other):
        for executor in three.executors:
            executor.allow_trace = True
        messages = embedding_messages("all different")
        for message in messages:
            message.header["trace"] = True
        answers = three.run(messages)
        assert answers[0].header["trace"] == answers[1].header["trace"]
        traces.append(
            [
                sum(answer.tensors[f"trace {i}"] for answer in answers) / 2.0 ** int(scale)
                for i, (_, scale) in enumerate(answers[0].header["trace"])  # type: ignore[union-attr,arg-type,misc]
            ]
        )
    assert len(traces[0]) == 3
    for first, second in zip(*traces, strict=True):
        assert np.abs(first - second).mean() < 1e-3
        assert np.abs(second).mean() > 0.1
