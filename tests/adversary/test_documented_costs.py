"""docs/protocols.md gives rounds and bytes as formulas: they are what a run of the whole encoder counts."""

from __future__ import annotations

from collections import Counter

import pytest
from encoders import LENGTH, TEXTS, embedding_messages, loaded, small_model

from mpc_ray.functions.plan import NormPlan, exp_plan
from mpc_ray.kernels.dpf import key_bytes
from mpc_ray.models.export import Visibility

BATCH = len(TEXTS["all different"])
ROWS, HIDDEN, HEADS, FFN = BATCH * LENGTH, 32, 4, 64
DPF = 2 * key_bytes(16)


def low_bytes(f: int) -> int:
    return -(-f // 8)


def checked(m: int) -> int:
    """Bytes of a range check of an argument in a window of 2^m."""
    k = min(66 - m, 16)
    return 2**k // 8 if k <= 7 else 2 * low_bytes(k)


def truncate(elements: int, f: int) -> int:
    return elements * (40 + low_bytes(f) + checked(63))


def row_function(degree: int) -> int:
    """1/x or rsqrt of one number: its keys and its product."""
    return DPF + 16 * (degree + 1) + 8 * (degree + 2)


def scaled_rows(rows: int, width: int, scale: int, plan: NormPlan) -> int:
    """``normalise`` without its reshare."""
    f, d, window = scale - plan.centre_scale, plan.rsqrt.degree, plan.rsqrt.window
    m = low_bytes(f)
    element = 24 + 2 * m + (d + 2) * (8 + m) + (checked(63) if f else 0)
    return rows * (width * element + 16 + 8 + row_function(d) + 32 + checked(window.t + window.n))


def offline_of_row_functions() -> int:
    """Of 1/x and 1/sqrt, whose arguments are 2-of-2: keys, products, flags, range checks; and the zero tests."""
    plan = small_model()[1].plan
    assert plan.embedding_norm is not None and plan.pool is not None
    norms = [plan.embedding_norm, plan.layers[0].attention_norm, plan.layers[0].ffn_norm]
    rows = [(ROWS, norm.rsqrt) for norm in norms] + [(BATCH, plan.pool.rsqrt)]
    total = sum(n * (DPF + 8 * (s.degree + 2) + 16 + checked(s.window.t + s.window.n)) for n, s in rows)
    soft = plan.softmax(0, LENGTH, True)
    (b,) = set(soft.buckets)
    zero_tests = (b - 1) * 2**soft.count_bits // 8
    return total + ROWS * HEADS * (zero_tests + DPF + 8 * (soft.reciprocal.degree + 2))


def softmax() -> int:
    plan = small_model()[1].plan.softmax(0, LENGTH, True)
    (b,) = set(plan.buckets)
    k, d = plan.count_bits, plan.reciprocal.degree
    cells = 1 << exp_plan(b, plan.bucket_log).bits
    window = plan.score_scale + plan.bucket_log + b.bit_length() - 1
    score = 16 + b * k // 8 + cells // 8 + 32 + 16 + checked(window)
    row = (b - 1) * k // 4 + (b - 1) * 2**k // 8 + b // 4 + 2 + 16 + row_function(d)
    f = 34 + plan.value_scale + 1 - plan.context_scale
    element = 32 + (d + 2) * (8 + low_bytes(f)) + checked(63)
    return ROWS * HEADS * (LENGTH * score + row) + ROWS * HIDDEN * element


def offline_with_public_weights(functions: dict[str, int]) -> int:
    """Whatever D deals for products with weights, all of whose masks are then free of D's own summand."""
    plan, elements = small_model()[1].plan, ROWS * HIDDEN
    layer = plan.layers[0]
    assert plan.embedding_norm is not None
    d, window = layer.activation.degree, layer.activation.window
    qkv = functions["qkv"] - 3 * elements * 32  # all but openings and resharings
    activation = ROWS * FFN * (8 * (d + 2) + 2**window.n // 8 + checked(window.t + window.n))
    norms = 0
    for scale, norm in ((layer.out_scale, layer.attention_norm), (layer.down_scale, layer.ffn_norm)):
        m = low_bytes(scale - norm.centre_scale)
        norms += elements * (8 + 2 * m + (norm.rsqrt.degree + 2) * (8 + m) + checked(63)) + 8 * ROWS
    return qkv + activation + norms


@pytest.mark.parametrize("weights", ["secret", "public"])
def test_bytes_and_rounds_are_the_documented_ones(weights: Visibility) -> None:
    parties = loaded(weights)
    answers = parties.run(embedding_messages("all different"))
    counted: Counter[str] = Counter()
    for answer in answers:
        for _, label, count in answer.header["split"]:  # type: ignore[union-attr,misc]
            counted[str(label).split("/")[0]] += int(count)  # type: ignore[arg-type]
    plan = small_model()[1].plan
    layer = plan.layers[0]
    assert plan.embedding_norm is not None
    assert plan.pool is not None
    activation, elements = layer.activation, ROWS * HIDDEN
    window = activation.window
    wanted = {
        "norm": scaled_rows(ROWS, HIDDEN, plan.embedding_norm.centre_scale, plan.embedding_norm)
        + 16 * elements,
        "qkv": truncate(2 * elements, layer.qkv_scale - 16)
        + truncate(elements, layer.qkv_scale - layer.value_scale),
        "softmax": softmax(),
        "attention out": scaled_rows(ROWS, HIDDEN, layer.out_scale, layer.attention_norm) + 16 * elements,
        "activation": ROWS
        * FFN
        * (64 + 24 * activation.degree + 2**window.n // 8 + checked(window.t + window.n)),
        "ffn out": scaled_rows(ROWS, HIDDEN, layer.down_scale, layer.ffn_norm) + 16 * elements,
        "pool": truncate(BATCH * HIDDEN, 53 - 20),
        "l2 norm": scaled_rows(BATCH, HIDDEN, 39, plan.pool),
    }
    headers = counted.pop("frame headers")
    assert counted == wanted
    offline = sum(int(answer.header["bytes_sent_offline"]) for answer in answers)  # type: ignore[arg-type]
    ahead = 0 if weights == "secret" else offline_with_public_weights(wanted)
    assert offline == offline_of_row_functions() + ahead
    assert headers == sum(60 * c.meter.frames_sent for c in parties.channels)
    assert {answer.header["rounds"] for answer in answers} == {11 + 21}


@pytest.mark.parametrize(("output", "rounds"), [("hidden", 6 + 21)])
def test_rounds_of_hidden_states(output: str, rounds: int) -> None:
    parties = loaded()
    messages = embedding_messages("all different")
    for message in messages:
        message.header["output"] = output
    assert max(int(a.header["rounds"]) for a in parties.run(messages)) == rounds  # type: ignore[arg-type]
