"""Residency first, then order, then health: over many fleets, and in detail."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import pytest
from fake_fronts import job
from pydantic import ValidationError

from mpc_ray.errors import ConfigError, DeadlineExceeded, MpcError, Overloaded, PeerLost, Refused, Unavailable
from mpc_ray.serve.interface import Answers, Job
from mpc_ray.serve.null import NullTriple
from mpc_ray.serve.regions import RegionPolicy, RegionRequest, Regions, SetUnavailable, lies_in, regional

COUNTRIES = ("IE", "DE", "FR", "US", "US-CA", "US-NY", "JP", "SG", "AU")
THREE = {
    "eu": {"region": "europe", "jurisdictions": ["IE", "DE", "FR"]},
    "us": {"region": "americas", "jurisdictions": ["US-CA", "US-NY", "US"]},
    "ap": {"region": "apac", "jurisdictions": ["JP", "SG", "AU"]},
}


def policy(**more: Any) -> RegionPolicy:
    return RegionPolicy(**({"sets": THREE} | more))


def test_no_choice_of_100_000_leaves_where_data_may_be() -> None:
    """Random fleets, policies, health and requests, against an oracle that knows only sets and lists."""
    rng = random.Random(4)
    chosen = refused = down = 0
    codes = set()
    for _ in range(500):
        names = [f"s{i}" for i in range(rng.randint(1, 8))]
        places = {name: rng.sample(COUNTRIES, rng.randint(1, 3)) for name in names}
        areas = ("europe", "americas", "apac")
        home = {area: rng.sample(COUNTRIES, rng.randint(1, 6)) for area in areas if rng.random() < 0.6}
        rules = RegionPolicy(
            sets={n: {"region": rng.choice(areas), "jurisdictions": places[n]} for n in names},
            prefer={a: rng.sample(names, rng.randint(0, len(names))) for a in areas if rng.random() < 0.5},
            fail_over=rng.sample(names, rng.randint(0, len(names))),
            residency=home,
        )
        now = [0.0]
        regions = Regions(rules, lambda now=now: now[0])
        for _ in range(200):
            now[0] += rng.random()
            area = rng.choice((*areas, "elsewhere"))
            allows = tuple(rng.sample(COUNTRIES, rng.randint(1, 8))) if rng.random() < 0.8 else ()
            sealed = rng.choice(names) if rng.random() < 0.5 else ""
            try:
                found = regions.choose(RegionRequest(area, allows, sealed))
                chosen += 1
                assert found == sealed or not sealed
                named = [found]
            except SetUnavailable as error:
                down += 1
                named = list(error.sets)
                assert sealed not in named
            except Refused as error:
                refused += 1
                named = []
                codes.add(error.code)
            for name in named:
                for country in places[name]:
                    whole = country.split("-")[0]
                    assert not allows or country in allows or whole in allows
                    assert area not in home or country in home[area] or whole in home[area]
            if named and rng.random() < 0.9:
                regions.report(named[0], ok=rng.random() < 0.5)
    assert chosen + refused + down == 100_000
    assert codes == {"jurisdiction"}
    assert min(chosen, refused, down) > 5_000  # each outcome was met often


def test_a_region_prefers_its_own_set_then_its_order_then_the_common_one() -> None:
    assert policy().order("apac") == ("ap", "eu", "us")
    rules = policy(prefer={"europe": ["eu", "us"]}, fail_over=["ap", "us"])
    assert rules.order("europe") == ("eu", "us", "ap")
    assert rules.order("americas") == ("us", "ap")  # eu is in no order of theirs
    assert rules.order("moon") == ("ap", "us")


def test_fail_over_follows_the_order_and_never_leaves_the_jurisdictions() -> None:
    regions = Regions(policy(prefer={"europe": ["eu", "us", "ap"]}, healing={"failures": 1}))
    anywhere = RegionRequest("europe")
    assert regions.choose(anywhere) == "eu"
    regions.report("eu", ok=False)
    assert regions.choose(anywhere) == "us"
    with pytest.raises(SetUnavailable) as down:
        regions.choose(RegionRequest("europe", set="eu"))
    assert down.value.sets == ("us", "ap") and down.value.code == "set_unavailable"
    assert "seal it to set us" in down.value.remedy
    assert down.value.extra == {"sets": ["us", "ap"]}
    with pytest.raises(SetUnavailable) as stuck:  # only Europe may see it, and Europe is down
        regions.choose(RegionRequest("europe", ("IE", "DE", "FR"), "eu"))
    assert stuck.value.sets == () and "every other that the job may go to" in stuck.value.cause
    with pytest.raises(SetUnavailable, match="all sets"):
        regions.choose(RegionRequest("europe", ("IE", "DE", "FR")))


def test_a_refusal_gives_the_reason() -> None:
    regions = Regions(policy(residency={"europe": ["IE", "DE", "FR"]}))
    with pytest.raises(
        Refused, match="set us has an operator in US-CA, and its region keeps data in IE, DE, FR"
    ) as no:
        regions.choose(RegionRequest("europe", set="us"))
    assert no.value.remedy == "seal it to set eu"
    with pytest.raises(Refused, match=r"no set may compute this job: .*set ap has an operator in SG"):
        regions.choose(RegionRequest("europe", ("JP",)))
    with pytest.raises(Refused, match="there is no set xx"):
        regions.choose(RegionRequest("europe", set="xx"))


def test_a_part_lies_in_the_whole_and_not_the_reverse() -> None:
    assert lies_in("US-CA", ["US"]) and lies_in("US-CA", ["US-CA"])
    assert not lies_in("US", ["US-CA"]) and not lies_in("US-NY", ["US-CA", "DE"])


def test_a_failing_set_is_left_alone_for_longer_and_longer_and_tried_by_one_job() -> None:
    now = [0.0]
    regions = Regions(policy(healing={"failures": 2, "pause_s": 4, "max_pause_s": 10}), lambda: now[0])
    eu = RegionRequest("europe", set="eu")

    def failing(times: int) -> None:
        for _ in range(times):
            regions.choose(eu)
            regions.report("eu", ok=False)

    failing(2)
    for pause in (4, 8, 10, 10):
        now[0] += pause - 0.1
        with pytest.raises(SetUnavailable) as down:
            regions.choose(eu)
        assert down.value.retry_after_s == pytest.approx(0.5)
        now[0] += 0.1
        assert regions.choose(eu) == "eu"  # one may try
        with pytest.raises(SetUnavailable):
            regions.choose(eu)  # the others wait for what it finds
        regions.report("eu", ok=False)
    now[0] += 10
    regions.choose(eu)
    regions.abandon("eu")  # cancelled: it found nothing out
    regions.choose(eu)
    regions.report("eu", ok=True)
    failing(1)
    assert regions.choose(eu) == "eu"  # healthy again: one failure is forgiven
    regions.report("eu", ok=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sets": {}},
        {"prefer": {"europe": ["xx"]}},
        {"fail_over": ["eu", "eu"]},
        {"fail_over": ["eu "]},
        {"residency": {"europe": ["Ireland"]}},
        {"residency": {"europe": []}},
        {"colour": "red"},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        policy(**wrong)


class Failing(NullTriple):
    """Fails with ``error`` while it is set."""

    error: MpcError | None = None

    async def infer(self, job: Job) -> Answers:
        if self.error is not None:
            raise self.error
        return await super().infer(job)


def test_triples_behind_a_policy_fail_over_by_name_and_heal() -> None:
    async def main() -> None:
        sets: Mapping[str, Failing] = {name: Failing(name) for name in THREE}
        guarded = regional(policy(healing={"failures": 2, "pause_s": 0.05}), sets, "europe")
        assert (await guarded["eu"].infer(job())).set == "eu"
        assert (await guarded["eu"].status())["set"] == "eu"

        for error in (Overloaded("full"), Refused("no", code="purpose"), DeadlineExceeded("late")):
            sets["eu"].error = error
            for _ in range(4):  # none of these says that the set is ill
                with pytest.raises(type(error)):
                    await guarded["eu"].infer(job())

        sets["eu"].error = PeerLost("party 1", "lost")
        with pytest.raises(SetUnavailable, match="party 1: lost") as first:
            await guarded["eu"].infer(job())
        assert first.value.sets == ("us", "ap")
        sets["eu"].error = Unavailable("no triple", retry_after_s=9.0)
        with pytest.raises(SetUnavailable) as second:
            await guarded["eu"].infer(job(jurisdictions=("DE", "FR", "IE", "JP", "SG", "AU")))
        assert second.value.sets == ("ap",) and second.value.retry_after_s == 9.0
        asked = sets["eu"].answered
        sets["eu"].error = None
        with pytest.raises(SetUnavailable, match="is down"):
            await guarded["eu"].infer(job())
        assert sets["eu"].answered == asked  # it is left alone
        await asyncio.sleep(0.06)
        assert (await guarded["eu"].infer(job())).set == "eu"

        with pytest.raises(Refused):
            await guarded["us"].infer(job(jurisdictions=("DE",)))
        with pytest.raises(ConfigError, match="does not say where set xx is"):
            regional(policy(), {"xx": sets["eu"]}, "europe")

    asyncio.run(main())
