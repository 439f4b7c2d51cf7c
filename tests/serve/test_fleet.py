"""What three parties' answers to `status` say together."""

from __future__ import annotations

from fake_fronts import MODEL

from mpc_ray.serve.fleet import agreed, read_status


def test_models_are_agreed_by_digest() -> None:
    a, b = dict(MODEL), dict(MODEL, digest="00" * 32)
    models, differing = agreed([{"m": a}, {"m": a}, {"m": a, "n": b}], frozenset())
    assert list(models) == ["m"] and differing == {"n": ["missing", "missing", "0" * 12]}
    models, differing = agreed([{"m": a}, {"m": b}, {"m": a}], frozenset())
    assert not models and list(differing) == ["m"]
    assert agreed([{"m": a, "n": a}] * 3, frozenset({"n"}))[0].keys() == {"n"}


def test_a_status_that_makes_no_sense_is_not_ready() -> None:
    assert not read_status(0, "eu", {}).ready
    assert not read_status(0, "eu", {"party": 1, "set": "eu", "ready": True}).ready
    odd = {"party": 0, "set": "eu", "ready": True, "models": [3, {"name": 4}], "certificate_not_after": "x"}
    state = read_status(0, "eu", odd)
    assert state.ready and state.models == {} and state.certificate_not_after == 0
    for ends in (10**400, float("nan"), float("inf"), True, None):  # what JSON can say and no clock shows
        assert read_status(0, "eu", odd | {"certificate_not_after": ends}).certificate_not_after == 0
