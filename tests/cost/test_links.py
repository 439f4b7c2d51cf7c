"""Schedules over links: against times worked out by hand, and against a channel that is really held back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mpc_ray.config import Config
from mpc_ray.cost.links import Link, link_of, predict
from mpc_ray.cost.schedule import Schedule, Step
from mpc_ray.cost.tables import cached_file, choose, fastest, read, references, write
from mpc_ray.errors import ConfigError, InputError

REST = Step(0.0, 0.0, 0.0, (0, 0), (False, False), ())


def step(
    compute: float = 0.0,
    sent: tuple[int, int] = (0, 0),
    awaits: tuple[bool, bool] = (False, False),
    function: str = "f",
    meanwhile: float = 0.0,
    transport: float = 0.0,
) -> Step:
    return Step(compute, meanwhile, transport, sent, awaits, (function,))


def schedule(*parties: tuple[Step, ...], variant: str = "bytes") -> Schedule:
    longest = max(map(len, parties))
    whole = tuple(party + (REST,) * (longest - len(party)) for party in parties)
    return Schedule("semi_honest_3pc", variant, "s", 8, 1, "random", 2, longest, whole, {"cpu": "any"})


def seconds(made: Schedule, rtt: float = 0.0, rate: float | None = None, cores: int | None = None) -> float:
    return predict(made, Link(rtt, rate), cores).seconds


# Party 0 sends to party 1 (its first peer), which answers party 0 (its second).
THERE = schedule(
    (step(1.0, (1000, 0)), step(0.0, awaits=(True, False))),
    (step(0.0, awaits=(False, True)), step(2.0, (0, 500))),
    (REST, REST),
)


def test_a_message_and_its_answer_are_a_round_trip_and_two_computations() -> None:
    assert seconds(THERE) == pytest.approx(3.0)
    assert seconds(THERE, rtt=0.5) == pytest.approx(3.5)
    assert seconds(THERE, rtt=0.5, rate=8000.0) == pytest.approx(3.5 + 1.0 + 0.5)


def test_rounds_whose_messages_do_not_wait_cost_one_latency() -> None:
    """Ten frames in ten rounds one way: only the last one's way is waited for."""
    ten = schedule((step(0.1, (100, 0)),) * 10, (step(awaits=(False, True)),) * 10, (REST,) * 10)
    assert seconds(ten, rtt=1.0) == pytest.approx(10 * 0.1 + 0.5)


def test_frames_of_one_direction_follow_one_another_and_links_do_not_share() -> None:
    both = (True, True)
    exchange = schedule(*((step(0.0, (1000, 1000), both), step(0.0, (1000, 1000), both)),) * 3)
    assert seconds(exchange, rate=8000.0) == pytest.approx(2.0)
    early = schedule(
        (step(0.0, (1000, 0)), step(0.0, (1000, 0))), (step(), step(awaits=(False, True))), (REST, REST)
    )
    assert seconds(early, rate=8000.0) == pytest.approx(2.0)


def test_what_nobody_waits_for_is_done_while_messages_travel() -> None:
    both = (True, True)
    idle = schedule(*((step(0.5, (1, 1), both, meanwhile=0.3, transport=0.1),),) * 3)
    assert seconds(idle, rtt=2.0) == pytest.approx(0.5 + 1.0 + 0.1)
    assert seconds(idle) == pytest.approx(0.5 + 0.3 + 0.1)


def test_parties_on_one_machine_share_its_cores() -> None:
    three = schedule(*((step(1.0),),) * 3)
    assert seconds(three) == pytest.approx(1.0)
    assert seconds(three, cores=3) == pytest.approx(1.0)
    assert seconds(three, cores=2) == pytest.approx(1.5)
    uneven = schedule((step(3.0),), (step(1.0),), (step(1.0),))
    assert seconds(uneven, cores=2) == pytest.approx(1.5 + 2.0)  # 1.5 s at two thirds, then alone


def test_seconds_by_function_are_the_slowest_partys_and_add_up() -> None:
    made = schedule(
        (step(1.0, (10, 0), function="a"), step(0.5, function="b")),
        (step(awaits=(False, True)), REST),
        (REST, REST),
    )
    found = predict(made, Link(0.2))
    assert found.by_function == {"a": pytest.approx(1.0), "b": pytest.approx(0.5)}
    assert sum(found.by_function.values()) == pytest.approx(found.seconds)
    assert found.bytes_sent == (10, 0, 0)


def test_a_schedule_that_waits_for_nobody_is_refused() -> None:
    with pytest.raises(InputError, match="nobody sends"):
        seconds(schedule((step(awaits=(True, False)),), (REST,), (REST,)))


@pytest.mark.parametrize(("rtt_ms", "mbit"), [(-1.0, None), (60_000.0, None), (1.0, 0.0), (1.0, -5.0)])
def test_links_that_there_are_not(rtt_ms: float, mbit: float | None) -> None:
    with pytest.raises(InputError):
        link_of(rtt_ms, mbit)


def test_schedules_are_kept_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = cached_file("semi_honest_3pc", "bytes", "1x32x2x64", 8, 1, "random")
    assert path.is_relative_to(tmp_path)
    assert read(path) is None
    write(path, THERE)
    assert read(path) == THERE
    for broken in ("{", "[]", "{}", json.dumps({**THERE.to_json(), "steps": [[], []]})):
        path.write_text(broken)
        with pytest.raises(ConfigError, match="schedule"):
            read(path)


def test_the_variant_that_is_done_first_depends_on_the_link() -> None:
    few = schedule((step(0.0, (10_000, 0)),), (step(0.0, awaits=(False, True)),), (REST,), variant="rounds")
    many = replace(THERE, steps=schedule(
        (step(0.0, (100, 0)), step(0.0, awaits=(True, False)), step(0.0, (100, 0))),
        (step(0.0, awaits=(False, True)), step(0.0, (0, 100)), step(0.0, awaits=(False, True))),
        (REST,) * 3,
    ).steps)  # fmt: skip
    assert fastest([many, few], Link(0.1)).variant == "rounds"
    assert fastest([many, few], Link(0.1, 1e5)).variant == "bytes"
    assert fastest([many, few], Link()).variant == "bytes"  # equal: the first


# -- the reference schedules, and what settings do with them -------------------------------------------------


def test_reference_schedules_are_minilms() -> None:
    known = references()
    for name, rounds in (("bytes", 132), ("rounds", 108)):
        one = known["semi_honest_3pc", name]
        assert (one.shape, one.seq, one.batch, one.weights, one.rounds) == ("minilm", 128, 1, "real", rounds)
    fewer, more = (sum(known["semi_honest_3pc", name].bytes_sent) for name in ("bytes", "rounds"))
    assert 1.1 * fewer < more < 1.4 * fewer


def test_auto_follows_distance_and_bandwidth() -> None:
    assert choose("semi_honest_3pc", Link()) == "bytes"
    assert choose("semi_honest_3pc", Link(0.05)) == "rounds"
    assert choose("semi_honest_3pc", Link(0.05, 20e6)) == "bytes"
    assert choose("no protocol of ours", Link(0.05)) == "bytes"


def test_settings_decide_auto_once() -> None:
    far = Config(variant="auto", rtt_ms=100.0)
    assert far.chosen().variant == "rounds"
    assert Config(variant="auto").chosen().variant == "bytes"
    assert Config(variant="auto", rtt_ms=100.0, mbit=10.0).chosen().variant == "bytes"
    assert Config(variant="rounds").chosen().variant == "rounds"
    assert far.chosen().digest() == Config(variant="rounds").digest() != Config().digest()
