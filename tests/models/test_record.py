"""The public record: exact both ways, JSON, one digest that everything public changes."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch

from mpc_ray.errors import ModelError
from mpc_ray.models.plan import EncoderPlan, plan_encoder
from mpc_ray.models.record import digest, from_record, to_record
from mpc_ray.models.statistics import observe
from mpc_ray.models.synthetic import random_bert

MODEL = random_bert(layers=1, seed=9)
PLAN = plan_encoder(
    MODEL.config, observe(MODEL, [[2, *range(9, 40), 3], [2, 7, 3]]), (16, 32), normalize=True
)
RECORD, TABLES = to_record(PLAN)


def test_round_trip_through_json_and_bytes() -> None:
    record = json.loads(json.dumps(RECORD))
    tables = {k: np.frombuffer(bytearray(v.tobytes()), np.int64).reshape(v.shape) for k, v in TABLES.items()}
    plan = from_record(record, tables)
    again, again_tables = to_record(plan)
    assert again == RECORD
    assert all(np.array_equal(again_tables[name], table) for name, table in TABLES.items())
    assert digest(again, again_tables) == digest(RECORD, TABLES)
    assert plan.softmax(0, 32, masked=True).buckets == PLAN.softmax(0, 32, masked=True).buckets
    assert torch.equal(plan.reciprocals[16].tables, PLAN.reciprocals[16].tables)
    assert plan.layers[0].attention_norm.rsqrt.window == PLAN.layers[0].attention_norm.rsqrt.window


def test_a_table_for_every_spline() -> None:
    norms = 1 + 2 + 1  # of the embeddings, two a layer, L2; each with its flags
    assert len(TABLES) == 2 * norms + 1 + 2  # and the activation, and two lengths
    assert all(table.dtype == np.int64 for table in TABLES.values())


def test_everything_public_changes_the_digest() -> None:
    original = digest(RECORD, TABLES)
    for name in TABLES:
        tables = {**TABLES, name: TABLES[name].copy()}
        tables[name].reshape(-1)[5] ^= 1
        assert digest(RECORD, tables) != original, name
    layer = dataclasses.replace(PLAN.layers[0], value_scale=PLAN.layers[0].value_scale - 1)
    assert digest(*to_record(dataclasses.replace(PLAN, layers=(layer,)))) != original
    swapped = [*TABLES]
    swapped[0], swapped[1] = swapped[1], swapped[0]
    assert digest(RECORD, dict(zip(swapped, TABLES.values(), strict=True))) != original
    assert digest(RECORD, dict(reversed(TABLES.items()))) == original  # in whatever order they came


def broken(path: list[Any], value: Any) -> dict[str, Any]:
    record = copy.deepcopy(RECORD)
    at: Any = record
    for key in path[:-1]:
        at = at[key]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return record


@pytest.mark.parametrize(
    "record",
    [
        {},
        broken(["heads"], None),
        broken(["surprise"], 1),
        broken(["type"], "Observed"),
        broken(["type"], ["EncoderPlan"]),
        broken(["layers", 0, "qkv_scale"], None),
        broken(["layers", 0, "activation", "window", "n"], 60),
        broken(["layers", 0, "activation", "tables"], {"table": "table 99"}),
        broken(["reciprocals"], {"map": [[16]]}),
        broken(["type"], "Window"),
    ],
)
def test_a_record_of_another_version_is_refused(record: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="public record"):
        from_record(record, TABLES)


def test_a_part_is_not_a_plan() -> None:
    window = RECORD["layers"][0]["activation"]["window"]
    with pytest.raises(ModelError, match="is not an encoder's"):
        from_record(window, TABLES)
    assert isinstance(from_record(RECORD, TABLES), EncoderPlan)
