"""What leaders see of their runs, and the forecast that their gateway's metrics compare runs with."""

from __future__ import annotations

from typing import Any

from mpc_ray.dispatch.seen import KINDS, NEWEST, Seen, follow, forecast, runs_of


def add(seen: Seen, rows: int = 4, length: int = 32, seconds: float = 0.5, model: str = "m") -> None:
    seen.add(
        model=model,
        length=length,
        rows=rows,
        jobs=2,
        rounds=100,
        nbytes=rows * length * 1000,
        seconds=seconds,
    )


def test_the_forecast_learns_what_texts_cost() -> None:
    seen = Seen()
    assert seen.forecast("m", 4, 32) is None
    for i in range(60):
        rows, length = 1 + i % 5, (16, 32)[i % 2]
        add(seen, rows, length, 0.2 + 0.003 * rows * length)
    for rows, length in ((2, 16), (5, 32), (8, 32)):
        found = seen.forecast("m", rows, length)
        assert found is not None and abs(found / (0.2 + 0.003 * rows * length) - 1) < 0.05
    assert seen.forecast("m", 4, 64) is None, "no run of that length was seen"


def test_a_set_is_foretold_by_its_newest_leader() -> None:
    seen = Seen()
    add(seen)
    follow("eu", seen)
    assert forecast("eu", "m", 4, 32) == seen.forecast("m", 4, 32)
    assert forecast("us", "m", 4, 32) is None
    follow("eu", Seen())
    assert forecast("eu", "m", 4, 32) is None


def test_the_newest_runs_are_told_once() -> None:
    now = [5.0]
    seen = Seen(lambda: now[0])
    for _ in range(NEWEST + 10):
        add(seen)
    seen.begins(["a", "b"])
    now[0] += 2
    told: dict[str, Any] = seen.told()
    assert told["running"] == ["a", "b"] and told["for_s"] == 2.0
    runs = runs_of(told, 0)
    assert len(runs) == NEWEST and runs[-1].number == NEWEST + 10
    assert runs_of(told, NEWEST + 8) == runs[-2:] and runs_of(told, NEWEST + 10) == []
    assert runs_of(told, 10**6) == runs, "another leader counts from one again"
    seen.ends(["a", "b", "c"])
    assert seen.told()["running"] == [] and runs_of({}, 0) == []


def test_of_many_kinds_the_newest_are_remembered() -> None:
    seen = Seen()
    for i in range(KINDS + 5):
        add(seen, model=f"m{i}")
    assert seen.forecast("m0", 4, 32) is None and seen.forecast(f"m{KINDS}", 4, 32) is not None
    add(seen, seconds=0.0, model="none")
    assert seen.forecast("none", 4, 32) is None
