"""Which set of parties computes a job: residency first, then the caller's order, then health.

A *set* is three operators, each in a jurisdiction. A job may go to a set only if all three lie where its authorisation
allows and where the policy keeps the data of the caller's region; no failure ever widens that. Among those sets the
order is the one preferred for the caller's region, then the common fail-over order. A set that failed several times in
a row is left alone for a while, longer each time; then one job at a time may try whether it is back.

A client seals a job to the keys of one set, so a gateway cannot move it. Where that set is down the answer is
``SetUnavailable``, which names the sets the client may seal to instead, in order; where there is none it says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from mpc_ray.errors import ChannelError, ConfigError, MpcError, Overloaded, Refused, Unavailable
from mpc_ray.serve.interface import Answers, Job, Triples
from mpc_ray.trust import canonical
from mpc_ray.trust.directory import Directory

Name = Annotated[str, StringConstraints(pattern=rf"^{canonical.NAME.pattern}$")]
Jurisdiction = Annotated[str, StringConstraints(pattern=rf"^{canonical.JURISDICTION.pattern}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SetPlace(_Part):
    """Where a set is. ``jurisdictions``: of its three operators and of the hosts they use."""

    region: Name = Field(description="the region whose callers are nearest")
    jurisdictions: tuple[Jurisdiction, ...] = Field(min_length=1, max_length=16, description="all of them")


class Healing(_Part):
    """When a set is left alone, and for how long."""

    failures: int = Field(3, ge=1, le=1000, description="failures in a row after which a set is left alone")
    pause_s: float = Field(2.0, gt=0, le=3600, description="first pause; doubled each time")
    max_pause_s: float = Field(60.0, gt=0, le=86_400, description="longest pause")


class RegionPolicy(_Part):
    """Sets, orders and residency. Unknown fields, and orders that name a set that is not there, are errors."""

    sets: Mapping[Name, SetPlace] = Field(min_length=1, description="by name")
    prefer: Mapping[Name, tuple[Name, ...]] = Field(
        default_factory=dict,
        description="by the caller's region: sets to try first; none: those of that region",
    )
    fail_over: tuple[Name, ...] = Field(
        (), description="sets to try next; none: all others in the order of `sets`"
    )
    residency: Mapping[Name, tuple[Jurisdiction, ...]] = Field(
        default_factory=dict,
        description="by the caller's region: where its data must stay, whatever a job allows",
    )
    healing: Healing = Field(
        default_factory=lambda: Healing.model_validate({}), description="how failing sets are left alone"
    )

    @model_validator(mode="after")
    def _check(self) -> RegionPolicy:
        for order in (*self.prefer.values(), self.fail_over):
            if unknown := [name for name in order if name not in self.sets]:
                raise ValueError(f"set {unknown[0]} is named in an order, but is not among the sets")
            if len(set(order)) != len(order):
                raise ValueError("an order names a set twice")
        if empty := [region for region, where in self.residency.items() if not where]:
            raise ValueError(
                f"residency of {empty[0]} names no jurisdiction: leave the region out to allow any"
            )
        return self

    @staticmethod
    def of(directory: Directory, **more: Any) -> RegionPolicy:
        """The sets of a verified directory, each in its party 0's region; ``more``: the other fields."""
        places = {}
        for name in directory.sets():
            records = directory.parties(name)
            where = tuple(dict.fromkeys(record.jurisdiction for record in records))
            places[name] = SetPlace(region=records[0].region, jurisdictions=where)
        return RegionPolicy(sets=places, **more)

    def order(self, region: str) -> tuple[str, ...]:
        """Sets in the order in which a caller of ``region`` should try them, residency and health aside."""
        near = tuple(name for name, place in self.sets.items() if place.region == region)
        return tuple(dict.fromkeys((*self.prefer.get(region, near), *(self.fail_over or self.sets))))

    def why_not(self, name: str, request: RegionRequest) -> str:
        """Why a job must not go to a set, for people; "" if it may."""
        place = self.sets.get(name)
        if place is None:
            return f"there is no set {name}"
        limits = {
            "the job allows": request.jurisdictions,
            "its region keeps": self.residency.get(request.region, ()),
        }
        for who, allowed in limits.items():
            outside = [one for one in place.jurisdictions if allowed and not lies_in(one, allowed)]
            if outside:
                return (
                    f"set {name} has an operator in {outside[0]}, and {who} data in {', '.join(allowed)} only"
                )
        return ""

    def allowed(self, request: RegionRequest) -> tuple[str, ...]:
        """The sets a job may go to, in order."""
        return tuple(name for name in self.order(request.region) if not self.why_not(name, request))


@dataclass(frozen=True)
class RegionRequest:
    """What decides: the caller's ``region``, the ``jurisdictions`` its authorisation allows (empty: any), and the set
    it is sealed to ("": not sealed yet).
    """

    region: str = ""
    jurisdictions: tuple[str, ...] = ()
    set: str = ""


class SetUnavailable(Unavailable):
    """The set that a job is sealed to computes nothing now. ``sets``: where it may be sealed to instead, in order."""

    code = "set_unavailable"

    def __init__(self, cause: str, sets: tuple[str, ...], *, retry_after_s: float) -> None:
        remedy = f"seal it to set {sets[0]}, under a new authorisation" if sets else "wait, and send it again"
        super().__init__(cause, remedy=remedy, retry_after_s=retry_after_s)
        self.sets = sets
        self.extra: Mapping[str, Any] = {"sets": list(sets)}


@dataclass
class Health:
    """How a set has done. ``until``: left alone before then. ``trying``: one job is finding out whether it is back."""

    failures: int = 0
    pauses: int = 0
    until: float = 0.0
    trying: bool = False


class Regions:
    """A policy and the health of its sets. ``clock`` in seconds; not for several threads."""

    def __init__(self, policy: RegionPolicy, clock: Callable[[], float] = time.monotonic) -> None:
        self.policy = policy
        self.health = {name: Health() for name in policy.sets}
        self._clock = clock

    def choose(self, request: RegionRequest) -> str:
        """The set for a job; whoever gets it calls ``report`` or ``abandon`` afterwards.

        Raises Refused (code ``jurisdiction``) where it may not go to the set it is sealed to, or nowhere;
        ``SetUnavailable`` where it might, but not now.
        """
        allowed = self.policy.allowed(request)
        if request.set and (why := self.policy.why_not(request.set, request)):
            raise _refused(why, allowed)
        if not allowed:
            why = "; ".join(self.policy.why_not(name, request) for name in self.policy.sets)
            raise _refused(f"no set may compute this job: {why}", ())
        for name in (request.set,) if request.set else allowed:
            if self.usable(name):
                health = self.health[name]
                health.trying = health.trying or health.failures >= self.policy.healing.failures
                return name
        others = tuple(name for name in allowed if name != request.set and self.usable(name))
        down = (
            f"set {request.set} is down"
            if request.set
            else f"all sets that may compute this job are down: {allowed}"
        )
        nearest = min(self.health[name].until for name in ((request.set,) if request.set else allowed))
        raise SetUnavailable(
            down if others or not request.set else f"{down}, and so is every other that the job may go to",
            others,
            retry_after_s=max(0.5, nearest - self._clock()),
        )

    def usable(self, name: str) -> bool:
        """Whether a job may be sent to a set now, as far as its health goes."""
        health = self.health[name]
        if health.failures < self.policy.healing.failures:
            return True
        return self._clock() >= health.until and not health.trying

    def report(self, name: str, *, ok: bool) -> None:
        """What became of a job at a set. Only failures of the set count, not what it rightly refused."""
        health, healing = self.health[name], self.policy.healing
        if ok:
            self.health[name] = Health()
            return
        health.failures += 1
        health.trying = False
        if health.failures >= healing.failures:
            pause = min(healing.pause_s * 2.0 ** min(health.pauses, 32), healing.max_pause_s)
            health.pauses += 1
            health.until = self._clock() + pause

    def abandon(self, name: str) -> None:
        """A job ended without telling anything of its set: cancelled, refused for its own sake, or too many."""
        self.health[name].trying = False


class RegionalTriples:
    """The triples of one set behind the policy: a ``Triples`` as well. ``region``: where this gateway's callers are."""

    def __init__(self, regions: Regions, name: str, triples: Triples, region: str) -> None:
        self._regions = regions
        self._name = name
        self._triples = triples
        self._region = region

    async def start(self) -> None:
        """Start the triples, where they want to be started."""
        if start := getattr(self._triples, "start", None):
            await start()

    async def stop(self) -> None:
        """Stop the triples, where they want to be stopped."""
        if stop := getattr(self._triples, "stop", None):
            await stop()

    async def infer(self, job: Job) -> Answers:
        """As the triples', or ``Refused`` and ``SetUnavailable`` before anything is sent to the parties."""
        listed = job.authorisation.get("jurisdictions")
        jurisdictions = tuple(map(str, listed)) if isinstance(listed, list | tuple) else ()
        request = RegionRequest(self._region, jurisdictions, self._name)
        self._regions.choose(request)
        try:
            answers = await self._triples.infer(job)
        except (Unavailable, ChannelError) as error:
            if isinstance(error, Overloaded):
                self._regions.abandon(self._name)
                raise
            self._regions.report(self._name, ok=False)
            raise self._elsewhere(request, error) from None
        except BaseException:
            self._regions.abandon(self._name)
            raise
        self._regions.report(self._name, ok=True)
        return answers

    async def status(self) -> Mapping[str, Any]:
        """The triples'."""
        return await self._triples.status()

    def _elsewhere(self, request: RegionRequest, error: MpcError) -> SetUnavailable:
        others = tuple(
            name
            for name in self._regions.policy.allowed(request)
            if name != self._name and self._regions.usable(name)
        )
        after = error.retry_after_s if isinstance(error, Unavailable) else 1.0
        return SetUnavailable(error.cause, others, retry_after_s=after)


def regional(policy: RegionPolicy, triples: Mapping[str, Triples], region: str) -> dict[str, Triples]:
    """The triples of each set behind one policy, for callers of ``region``. ConfigError for a set without a place."""
    regions = Regions(policy)
    if missing := [name for name in triples if name not in policy.sets]:
        raise ConfigError(
            f"the policy does not say where set {missing[0]} is", remedy="add it to the policy's sets"
        )
    return {name: RegionalTriples(regions, name, one, region) for name, one in triples.items()}


def lies_in(jurisdiction: str, allowed: Iterable[str]) -> bool:
    """``US-CA`` lies in ``US-CA`` and in ``US``; ``US`` does not lie in ``US-CA``."""
    return any(entry in (jurisdiction, jurisdiction.partition("-")[0]) for entry in allowed)


def _refused(why: str, allowed: tuple[str, ...]) -> Refused:
    remedy = (
        f"seal it to set {allowed[0]}"
        if allowed
        else "allow more jurisdictions, if that is right, or add a set there"
    )
    return Refused(why, remedy=remedy, code="jurisdiction")
