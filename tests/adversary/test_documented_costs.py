"""docs/protocols.md gives rounds and bytes as formulas: they are what a run of the whole encoder counts."""

from __future__ import annotations

from collections import Counter

import pytest
from encoders import LENGTH, TEXTS, embedding_messages, loaded, small_model

from mpc_ray.functions.plan import NormPlan, exp_plan
from mpc_ray.kernels.dpf import key_bytes

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


def test_bytes_and_rounds_are_the_documented_ones() -> None:
    parties = loaded()
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
    assert headers == sum(60 * c.meter.frames_sent for c in parties.channels)
    assert {answer.header["rounds"] for answer in answers} == {11 + 21}


@pytest.mark.parametrize(("output", "rounds"), [("hidden", 6 + 21)])
def test_rounds_of_hidden_states(output: str, rounds: int) -> None:
    parties = loaded()
    messages = embedding_messages("all different")
    for message in messages:
        message.header["output"] = output
    assert max(int(a.header["rounds"]) for a in parties.run(messages)) == rounds  # type: ignore[arg-type]
