"""Who the parties are: the federation's signed directory, fetched from the gateway, believed as far as it is signed.

The gateway could serve another; so a client must know the federation's authority beforehand, by its
certificate or fingerprint, or keep what it saw first in a pin file. With a pin file it also refuses an older directory
than the newest it has seen, and, where it is told to, a party whose key changed.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mpc_ray.client.gateway import Answer, Gateway
from mpc_ray.client.problems import Problem
from mpc_ray.client.retry import Attempts, Deadline
from mpc_ray.errors import CertificateError, ConfigError, Refused
from mpc_ray.trust import canonical, files
from mpc_ray.trust.canonical import Malformed
from mpc_ray.trust.directory import Directory

FORMAT = "mpc-ray client pins v1"
FIRST_USE = "tofu"
PATH = "/v1/parties"
MAX_BYTES = 1 << 20
FRESH_S = 2.0  # many jobs that fail together ask for the directory once


@dataclass(frozen=True)
class Trust:
    """What is known of the federation's authority before anything is fetched. Make one with ``of``."""

    ca: bytes | None = None
    fingerprint: str | None = None
    pin: Path | None = None
    pin_parties: bool = False

    @staticmethod
    def of(trust: str | Path, pin: str | Path | None = None, *, pin_parties: bool = False) -> Trust:
        """``trust``: PEM file of the authority's certificate, its SHA-256 fingerprint, or ``tofu``: trust on first use.

        ``pin``: file that keeps what was seen; ``tofu`` needs it. ``pin_parties``: keep the parties' keys there too, so
        that not even the authority can put others in their place; an operator's rotation then needs a new file.
        Raises ConfigError for none of these.
        """
        file = None if pin is None else Path(pin).expanduser()
        if pin_parties and file is None:
            raise ConfigError("pin_parties needs a pin file", remedy="name one (pin)")
        digits = str(trust).replace(":", "").strip().lower()
        if re.fullmatch("[0-9a-f]{64}", digits):
            return Trust(fingerprint=digits, pin=file, pin_parties=pin_parties)
        if str(trust) == FIRST_USE:
            if file is None:
                raise ConfigError(
                    "trust on first use needs a pin file, or every use would be the first",
                    remedy="name one (pin)",
                )
            return Trust(pin=file, pin_parties=pin_parties)
        ca = files.read_public(Path(trust).expanduser())
        return Trust(ca=ca, pin=file, pin_parties=pin_parties)


@dataclass(frozen=True)
class Pins:
    """What was seen: the authority, the newest serial, and parties' keys by place."""

    federation: str
    authority: str
    serial: int
    parties: dict[str, str]

    @staticmethod
    def load(path: Path) -> Pins | None:
        """The file's content, None if there is no file. ConfigError if it is damaged: never taken for a first use."""
        if not path.exists():
            return None
        try:
            known = canonical.take(canonical.parse(files.read_public(path), MAX_BYTES), _KINDS)
            if known["format"] != FORMAT or not all(type(pin) is str for pin in known["parties"].values()):
                raise Malformed("is of another format")
        except Malformed as error:
            raise ConfigError(
                f"{path} {error}", remedy="restore it, or remove it and compare the fingerprint anew"
            ) from None
        return Pins(known["federation"], known["authority"], known["serial"], known["parties"])

    def save(self, path: Path) -> None:
        files.write_public(path, canonical.encode({"format": FORMAT, **vars(self)}) + b"\n")


_KINDS: dict[str, type] = {"format": str, "federation": str, "authority": str, "serial": int, "parties": dict}


class Parties:
    """The directory as this client holds it. For one event loop."""

    def __init__(self, gateway: Gateway, trust: Trust, retries: int) -> None:
        self._gateway = gateway
        self._trust = trust
        self._retries = retries
        self._lock = asyncio.Lock()
        self._directory: Directory | None = None
        self._etag = ""
        self._asked = -FRESH_S

    async def current(self, deadline: Deadline) -> Directory:
        """The directory, verified; fetched where there is none yet or it has expired. Raises CertificateError, and what
        an unreachable gateway gives."""
        async with self._lock:
            if self._directory is None or self._directory.expires <= time.time():
                await self._fetch(deadline, self._retries)
            assert self._directory is not None
            return self._directory

    async def refresh(self, deadline: Deadline) -> bool:
        """Ask again, once, unless somebody did a moment ago. True if it changed. Raises as ``current``."""
        before = self._directory
        async with self._lock:
            if self._directory is before and time.monotonic() - self._asked >= FRESH_S:
                await self._fetch(deadline, retries=0)
        return self._directory is not before

    async def _fetch(self, deadline: Deadline, retries: int) -> None:
        attempts = Attempts(retries, deadline)
        while True:
            deadline.check()
            headers = {"If-None-Match": self._etag} if self._etag and self._directory is not None else {}
            reply = await self._gateway.get(PATH, deadline.left, headers)
            if isinstance(reply, Answer):
                self._asked = time.monotonic()
                if reply.status != 304:
                    await asyncio.to_thread(self._take, reply.body)
                    self._etag = reply.etag
                elif self._directory is not None and self._directory.expires <= time.time():
                    self._directory.verify()  # raises: it expired, and the gateway has no newer one
                return
            if isinstance(reply, Problem) and not reply.again:
                raise reply.error()
            error = reply.error() if isinstance(reply, Problem) else reply.error
            if isinstance(error, ConfigError):
                raise error
            after = reply.retry_after_s if isinstance(reply, Problem) else None
            await attempts.again(error, retry_after_s=after)

    def _take(self, body: bytes) -> None:
        """Verify and keep. A directory that does not verify leaves the one before in place."""
        trust = self._trust
        pins = Pins.load(trust.pin) if trust.pin is not None else None
        fingerprint = trust.fingerprint
        if trust.ca is None and fingerprint is None:
            fingerprint = pins.authority if pins is not None else None
        least = max(pins.serial if pins is not None else 0, self._directory.serial if self._directory else 0)
        directory = Directory.from_json(body)
        known = pins.parties if pins is not None and trust.pin_parties else {}
        directory.verify(trust.ca, fingerprint, least_serial=least, pins=known)
        if pins is not None and pins.federation != directory.federation:
            raise CertificateError(
                f"the directory is of federation {directory.federation}, and {pins.federation} is pinned",
                remedy="use one pin file for each federation",
            )
        if trust.pin is not None:
            self._pin(trust.pin, directory, pins)
        if self._directory is None or directory.digest != self._directory.digest:
            self._directory = directory

    def _pin(self, path: Path, directory: Directory, before: Pins | None) -> None:
        parties = dict(before.parties) if before is not None else {}
        if self._trust.pin_parties:
            for name in directory.sets():
                parties = directory.pins_of(name) | parties
        pins = Pins(directory.federation, directory.fingerprint, directory.serial, parties)
        if pins != before:
            pins.save(path)


def allowed_sets(
    directory: Directory,
    *,
    only: str | None = None,
    regions: Sequence[str] = (),
    jurisdictions: Sequence[str] = (),
) -> tuple[str, ...]:
    """Sets that a job may go to, preferred ones first. Residency decides, preference only orders.

    ``only``: this set and no other. ``regions``: names of sets or regions in order of preference; a set counts by the
    first that it, or a party of it, lies in; others come last. ``jurisdictions``: where all three operators must be
    (``US`` includes ``US-CA``); none given: anywhere. Raises Refused if none is left, ConfigError if ``only`` is none.
    """
    whole = directory.sets()
    if only is not None and only not in whole:
        raise ConfigError(
            f"the directory (serial {directory.serial}) has no set {only}",
            remedy=f"it has {', '.join(whole) or 'none'}",
        )
    found: list[tuple[int, str]] = []
    for name in whole if only is None else (only,):
        records = directory.parties(name)
        if all(_lies_in(record.jurisdiction, jurisdictions) for record in records):
            places = {name, *(record.region for record in records)}
            rank = next((i for i, region in enumerate(regions) if region in places), len(regions))
            found.append((rank, name))
    if not found:
        raise Refused(
            f"no set of parties lies wholly in {', '.join(jurisdictions) or 'any jurisdiction'}",
            remedy="allow more jurisdictions, or ask the federation for a set there",
            code="jurisdiction",
        )
    return tuple(name for _, name in sorted(found))


def _lies_in(jurisdiction: str, allowed: Sequence[str]) -> bool:
    return not allowed or jurisdiction in allowed or jurisdiction.partition("-")[0] in allowed


@dataclass
class Sets:
    """Which set to seal to next. One that failed is left alone for a while; all failing, the preferred one is tried."""

    avoid_s: float = 10.0

    def __post_init__(self) -> None:
        self._until: dict[str, float] = {}

    def choose(self, allowed: Sequence[str]) -> str:
        """The first of ``allowed`` that did not fail lately, else the first."""
        now = time.monotonic()
        return next((name for name in allowed if self._until.get(name, 0.0) <= now), allowed[0])

    def failed(self, name: str, named: Sequence[str], allowed: Sequence[str]) -> bool:
        """``name`` answers no jobs now; ``named``: sets that the gateway calls ready, which we believe only among
        ``allowed``. True if there is another to go on with at once."""
        now = time.monotonic()
        self._until[name] = now + self.avoid_s
        for other in named:
            if other in allowed and other != name:
                self._until.pop(other, None)
        return any(self._until.get(other, 0.0) <= now for other in allowed)

    def worked(self, name: str) -> None:
        self._until.pop(name, None)
