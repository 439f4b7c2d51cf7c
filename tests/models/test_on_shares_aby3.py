"""aby3 on three real parties, from the shares and the record that semi_honest_3pc has: same models, same answers."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from test_on_shares import ROWS, SAMPLE, exported, far, plain, scaled

from mpc_ray import parcels
from mpc_ray.channel import Message
from mpc_ray.errors import RangeExceeded
from mpc_ray.execute_aby3 import activation_of, executor, reciprocal, row_function_of
from mpc_ray.functions.exp_digits import LEVELS
from mpc_ray.functions.piecewise import ARGUMENT_SCALE, FOURTH_SCALE, Piecewise
from mpc_ray.models import bert, query
from mpc_ray.models.bert_float import encoder_float, forward
from mpc_ray.models.export import Export, export_encoder
from mpc_ray.models.shadow import drifts, float_rows
from mpc_ray.models.statistics import observe, observe_encoder
from mpc_ray.models.synthetic import peer_weights, random_bert
from mpc_ray.protocols.aby3.convert import add_gates, add_rounds
from mpc_ray.protocols.aby3.maximum import maximum_gates, maximum_rounds
from mpc_ray.protocols.aby3.range_check import MIDDLE, MOST_BITS
from mpc_ray.protocols.aby3.thresholds import compare_rounds, threshold_gates


@pytest.fixture(scope="module")
def trio(make_trios: Callable[..., Any]) -> Any:
    return make_trios(make=executor)


@pytest.mark.parametrize(
    "shape",
    [
        {"hidden": 64, "heads": 2, "ffn": 256},
        {"hidden": 48, "heads": 12, "ffn": 32},
        {"hidden": 16, "heads": 1, "ffn": 16, "layers": 1, "activation": "relu"},
        {"activation": "silu", "pooling": "cls", "normalize": False},
    ],
    ids=lambda shape: " ".join(f"{k}={v}" for k, v in shape.items()),
)
def test_embeddings_equal_the_plain_ones(trio: Any, shape: dict[str, Any]) -> None:
    model = random_bert(**shape)
    export = exported(model)
    trio.load(export)
    got = query.embeddings(model, ROWS, trio.run(query.embedding_secrets(model, export, ROWS, 16)))
    turned, error = far(got, plain(model, ROWS))
    assert turned < 2e-6 and error < 2e-3


@pytest.mark.parametrize(
    "factors",
    [
        {"q_weight": 5.0},
        {"ffn1_weight": 30.0},
        {"ffn2_weight": 0.01, "o_weight": 0.01},
    ],
    ids=str,
)
def test_weights_of_other_sizes(trio: Any, factors: dict[str, float]) -> None:
    model = scaled(random_bert(layers=1, seed=1), **factors)
    export = exported(model)
    trio.load(export)
    got = query.embeddings(model, ROWS, trio.run(query.embedding_secrets(model, export, ROWS, 16)))
    turned, error = far(got, plain(model, ROWS))
    assert turned < 1e-5 and error < 5e-3


@pytest.mark.parametrize("length", [1, 2, 9, 65])
def test_a_bare_encoder_on_embedded_input(trio: Any, length: int) -> None:
    encoder, x = peer_weights(2, 32, 4, 48, length)
    export = export_encoder(encoder, observe_encoder(encoder, x), (length,))
    trio.load(export)
    got = query.result(trio.run(query.hidden_secrets(x[None]), "hidden"))
    assert np.abs(got[0] - encoder_float(encoder, x)).mean() < 1e-3


def test_every_layer_is_near_float(trio: Any) -> None:
    """The same trace, for the same places, as under semi_honest_3pc."""
    from mpc_ray.models.clear import float_input
    from mpc_ray.models.fold import fold

    model = random_bert(seed=2)
    export = exported(model)
    trio.load(export)
    answers = trio.run(query.embedding_secrets(model, export, ROWS, 16), trace=True)
    given = float_input(model, ROWS, 16)
    folded = fold(model.encoder, model.embeddings.norm_gain, model.embeddings.norm_bias)
    program = bert.Program(model.config.layers, True, "embedding")
    wanted = float_rows(folded, model.config, program, given)
    found = drifts(query.traced(answers), wanted, given.real.numpy())
    assert all(drift.ok for drift in found) and max(drift.mean for drift in found) < 1e-3


def test_an_input_outside_the_calibrated_range_is_named(trio: Any) -> None:
    model = random_bert(seed=3)
    observed = observe(model, SAMPLE)
    narrow = dataclasses.replace(observed.layers[1], ffn_input=(50.0, 54.0))
    observed = dataclasses.replace(observed, layers=(observed.layers[0], narrow))
    tables = model.embeddings
    export = export_encoder(
        model.encoder, observed, (16,), gain=tables.norm_gain, bias=tables.norm_bias, normalize=True
    )
    trio.load(export)
    answers = trio.run(query.embedding_secrets(model, export, ROWS, 16))
    assert query.outside(answers)[0] == f"{bert.layer_name(1)}/activation"
    with pytest.raises(RangeExceeded, match="layer 1/activation"):
        query.result(answers)


def test_jobs_of_two_clients_share_a_run_and_are_judged_apart(trio: Any) -> None:
    """The second client's rows lie far outside: only its own checks strike."""
    model = random_bert(seed=4)
    export = exported(model)
    trio.load(export)
    wild = query.embedding_secrets(model, export, ROWS[3:4], 16)
    wild["x"] = dataclasses.replace(wild["x"], value=wild["x"].value * 64)
    jobs = [query.embedding_secrets(model, export, ROWS[:2], 16), wild]
    single = [query.run_messages(job, "m", bytes(16), 0, "embedding") for job in jobs]
    job = bytes(range(16))
    head = {
        "cmd": "run",
        "model": "m",
        "job": job.hex(),
        "attempt": 0,
        "output": "embedding",
        "range_check": True,
    }
    messages = [parcels.join(head, [three[i] for three in single]) for i in range(3)]
    answers = trio._all(lambda i: trio.executors[i].run(messages[i]))
    first, second = zip(*(parcels.answers(answer) for answer in answers), strict=True)
    turned, _ = far(query.embeddings(model, ROWS[:2], first), plain(model, ROWS[:2]))
    assert turned < 2e-6
    assert query.outside(second)


def test_parties_compare_the_numbers_that_they_derive(
    make_trios: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A party whose fit came out otherwise is an error at load, never garbage."""
    from mpc_ray.errors import HelloMismatch
    from mpc_ray.execute_aby3 import ABY3

    trio = make_trios(make=executor)
    export = exported(random_bert(seed=5, layers=1))
    other = dataclasses.replace(ABY3, digest=lambda plan: bytes(32))
    monkeypatch.setattr(trio.executors[1], "_body", other)
    with pytest.raises(HelloMismatch):
        trio.load(export)


# -- costs ---------------------------------------------------------------------------------------------

LENGTH, WIDTH, HEADS, FFN, BATCH = 16, 32, 4, 64, 5


def padded(count: int) -> int:
    return -(-count // 64) * 64


def truncation(count: int, f: int) -> int:
    return 4 * -(-f // 8) * padded(count)


def gates(count: int, number: int) -> int:
    """Bytes of ``number`` gates on every element."""
    return 3 * number * padded(count) // 8


def row_function(count: int, f: Piecewise, scale: int) -> int:
    knots = len(f.knots)
    found = gates(count, add_gates(f.n) + threshold_gates(f.n, f.knots))
    found += padded(count) * (24 + 8 * (knots + 6) + 24)
    found += truncation(count, f.square_shift) if f.square_shift else 0
    return found + truncation(count, f.t - 4) + truncation(count, f.out_scale - scale)


def row_function_rounds(f: Piecewise) -> int:
    return add_rounds(f.n) + compare_rounds(f.n) + 2 + 1 + 2


def check(count: int, bits: int, *bounds: int) -> int:
    return gates(count, add_gates(bits) + threshold_gates(bits, [b for b in bounds if b]))


def norm(rows: int, width: int, f: Piecewise, plan: Any, scale: int) -> int:
    f_bits = scale - plan.centre_scale
    found = truncation(rows * width, f_bits) if f_bits else 0
    return found + 24 * rows + row_function(rows, f, plan.rsqrt.scale) + 24 * rows * width


def test_bytes_and_rounds_are_the_documented_ones(make_trios: Callable[..., Any]) -> None:
    trio = make_trios(make=executor)
    model = random_bert(layers=1, hidden=WIDTH, heads=HEADS, ffn=FFN)
    export: Export = exported(model)
    trio.load(export)
    answers: list[Message] = trio.run(query.embedding_secrets(model, export, ROWS, LENGTH))
    counted: Counter[str] = Counter()
    for answer in answers:
        for _, label, count in answer.header["split"]:  # type: ignore[union-attr,misc]
            counted[str(label).split("/")[0]] += int(count)  # type: ignore[arg-type]
    plan, p = export.plan, export.plan.layers[0]
    assert plan.embedding_norm is not None and plan.pool is not None
    rows = BATCH * LENGTH
    elements, scores, lines = rows * WIDTH, rows * HEADS * LENGTH, rows * HEADS
    softmax = plan.softmax(0, LENGTH, True)
    n = max(softmax.buckets).bit_length() - 1 + 1 + softmax.bucket_log
    levels = [(1 << (n - 2)) - LEVELS + j for j in range(LEVELS)]
    sums, a = reciprocal(LENGTH), activation_of(p.activation)
    norms = {
        "norm": (rows, WIDTH, plan.embedding_norm, plan.embedding_norm.centre_scale),
        "attention out": (rows, WIDTH, p.attention_norm, p.out_scale - 1),
        "ffn out": (rows, WIDTH, p.ffn_norm, p.down_scale - 1),
        "l2 norm": (BATCH, WIDTH, plan.pool, 39),
    }
    wanted = {
        name: norm(count, width, row_function_of(q.rsqrt), q, scale)
        for name, (count, width, q, scale) in norms.items()
    }
    wanted["attention out"] += 24 * elements
    wanted["ffn out"] += 24 * elements
    wanted["bias"] = truncation(3 * WIDTH + WIDTH + FFN + WIDTH, 1)
    wanted["qkv"] = 72 * elements + truncation(2 * elements, p.qkv_scale - 1 - 16)
    wanted["qkv"] += truncation(elements, p.qkv_scale - 1 - p.value_scale)
    wanted["softmax"] = (
        24 * scores
        + LENGTH * gates(lines, add_gates(n))
        + gates(lines, maximum_gates(n, LENGTH))
        + 8 * (n + 2) * padded(lines)
        + LENGTH * gates(lines, add_gates(n - 2) + threshold_gates(n - 2, levels))
        + LENGTH * padded(lines) * 8 * (LEVELS + 3)
        + LENGTH * truncation(lines, 32)
        + 24 * elements
        + truncation(elements, 27 + p.value_scale - softmax.context_scale)
        + row_function(lines, sums, softmax.scale - softmax.context_scale)
        + 24 * elements
    )
    count, scale = rows * FFN, p.up_scale - 1
    wanted["activation"] = (
        24 * count
        + truncation(count, scale - ARGUMENT_SCALE)
        + padded(count) * (24 + 24 + 8 * (len(a.knots) + 8) + 24)
        + truncation(count, 4 * ARGUMENT_SCALE - FOURTH_SCALE)
        + gates(count, add_gates(a.n) + threshold_gates(a.n, a.knots))
    )
    wanted["pool"] = 24 * BATCH * WIDTH + truncation(BATCH * WIDTH, 52 - 20)
    wanted["gain"] = 24 * BATCH * WIDTH
    headers = counted.pop("frame headers")
    checks = {name: counted.pop(name) for name in list(counted) if name.endswith(" check")}
    assert counted == wanted
    assert headers == sum(60 * c.meter.frames_sent for c in trio.channels)
    m = softmax.score_scale + softmax.bucket_log + max(softmax.buckets).bit_length() - 1
    assert checks["softmax check"] == check(scores, min(67 - m, 10), MIDDLE) + check(elements, 5, MIDDLE)
    assert checks["qkv check"] == check(3 * elements, 5, MIDDLE)
    assert checks["activation check"] == check(count, 67 - a.t - a.n, MIDDLE)

    def norm_rounds(q: Any, scale: int) -> int:
        return (2 if scale > q.centre_scale else 0) + 1 + row_function_rounds(row_function_of(q.rsqrt)) + 1

    rounds = sum(norm_rounds(q, scale) for _, _, q, scale in norms.values())
    rounds += 2 + 1 + 2  # biases; qkv
    rounds += 1 + add_rounds(n) + maximum_rounds(n, LENGTH) + 2
    rounds += add_rounds(n - 2) + compare_rounds(n - 2) + 2 + 2
    rounds += row_function_rounds(sums) + 1
    rounds += 1 + 1  # the two projections before a norm
    rounds += 1 + add_rounds(a.n) + compare_rounds(a.n) + 2 + 1
    rounds += 1 + 2 + 1  # pool, gain
    rounds += add_rounds(MOST_BITS) + compare_rounds(MOST_BITS)
    assert max(int(answer.header["rounds"]) for answer in answers) == rounds + 2  # type: ignore[arg-type]


def test_hidden_states_after_the_embedding_norm(trio: Any) -> None:
    model = random_bert(seed=2)
    export = exported(model, (16,))
    trio.load(export)
    shared = query.embedding_secrets(model, export, [SAMPLE[4]], 16)
    got = query.result(trio.run({"x": shared["x"]}, "hidden"))
    assert np.abs(got - forward(model, [SAMPLE[4]])[-1]).mean() < 1e-3
