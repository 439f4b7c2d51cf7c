"""The directory is believed as far as it is signed by the authority that is known, and never backwards."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_gateway import FakeGateway, Federation  # type: ignore[import-not-found]

from mpc_ray.client import AsyncClient, Trust
from mpc_ray.client.parties import Pins, Sets, allowed_sets
from mpc_ray.errors import CertificateError, ConfigError, Refused
from mpc_ray.trust.directory import Directory

Make = Callable[..., AsyncClient]


def embed(client: AsyncClient) -> Any:
    async def work() -> Any:
        async with client:
            return await client.embed(["a"])

    return asyncio.run(work())


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """A federation that somebody else made, with the same names."""
    return Federation(tmp_path_factory.mktemp("other"))


def forged(directory: Directory, change: Callable[[dict[str, Any]], None]) -> Directory:
    said = json.loads(json.dumps(directory.to_json()))
    change(said)
    return Directory.from_json(said)


def test_another_authoritys_directory_is_refused(
    client: Make, gateway: FakeGateway, other: Federation
) -> None:
    gateway.directory = other.directory
    with pytest.raises(CertificateError, match="another federation's authority"):
        embed(client())
    with pytest.raises(CertificateError, match="another federation's authority"):
        embed(client(trust=gateway.federation.authority.fingerprint))
    assert gateway.posted == []


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(serial=d["serial"] + 1),
        lambda d: d.update(expires=d["expires"] + 1),
        lambda d: d["parties"][0]["record"].update(gateway="10.0.0.1:50052"),
        lambda d: d["parties"][0]["record"].update(hpke=d["parties"][1]["record"]["hpke"]),
        lambda d: d["parties"].pop(),
        lambda d: d.update(signature=d["parties"][0]["signature"]),
    ],
)
def test_a_changed_directory_is_refused(client: Make, gateway: FakeGateway, change: Any) -> None:
    gateway.directory = forged(gateway.federation.directory, change)
    with pytest.raises(CertificateError):
        embed(client())
    assert gateway.posted == []


def test_a_party_that_the_authority_did_not_certify_is_refused(
    client: Make, gateway: FakeGateway, other: Federation
) -> None:
    """Signed by the right authority's key, but with another's certificate inside."""
    own = gateway.federation.directory
    mixed = replace(own, entries=(other.directory.entries[0], *own.entries[1:]))
    gateway.directory = mixed
    with pytest.raises(CertificateError):
        embed(client())


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"<html>", b'{"format": "mpc-ray directory v1"}'])
def test_what_is_no_directory_is_refused(
    client: Make, gateway: FakeGateway, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    async def said(request: httpx.Request) -> httpx.Response:
        del request
        return httpx.Response(200, content=body)

    monkeypatch.setattr(gateway, "handle_async_request", said)
    with pytest.raises(CertificateError, match="the directory"):
        embed(client())


def test_a_fingerprint_is_enough(client: Make, gateway: FakeGateway) -> None:
    digits = gateway.federation.authority.fingerprint
    pairs = ":".join(digits[i : i + 2] for i in range(0, 64, 2)).upper()
    for written in (digits, pairs):
        assert embed(client(trust=written)).shape == (1, 32)


def test_first_use_is_kept_and_compared_ever_after(
    client: Make, gateway: FakeGateway, other: Federation, tmp_path: Path
) -> None:
    pin = tmp_path / "pins.json"
    assert embed(client(trust="tofu", pin=pin)).shape == (1, 32)
    pins = Pins.load(pin)
    assert pins is not None and pins.authority == gateway.federation.authority.fingerprint
    assert pins.federation == "example" and pins.parties == {}
    assert stat.S_IMODE(pin.stat().st_mode) == 0o644
    assert embed(client(trust="tofu", pin=pin)).shape == (1, 32)
    gateway.directory = other.directory
    with pytest.raises(CertificateError, match="another federation's authority"):
        embed(client(trust="tofu", pin=pin))
    assert Pins.load(pin) == pins


def test_a_damaged_pin_file_is_no_first_use(client: Make, tmp_path: Path) -> None:
    pin = tmp_path / "pins.json"
    for content in ("", "{}", '{"format": 1}'):
        pin.write_text(content)
        with pytest.raises(ConfigError, match=r"pins\.json .*remove it and compare the fingerprint"):
            embed(client(trust="tofu", pin=pin))


def test_an_older_directory_is_refused(tmp_path: Path, made: Any, client: Make) -> None:
    federation = Federation(tmp_path / "f", ("eu",))
    old = federation.directory
    federation.rotate("eu", 0)
    gateway = FakeGateway(federation, made)
    pin = tmp_path / "pins.json"
    settings = {"trust": federation.ca, "pin": pin, "signing_key": federation.key, "transport": gateway}
    assert embed(client(**settings)).shape == (1, 32)
    gateway.directory = old
    with pytest.raises(CertificateError, match=r"serial 2, but serial 3 was seen before"):
        embed(client(**settings))
    assert embed_old(client(trust=federation.ca, signing_key=federation.key, transport=gateway))


def embed_old(client: AsyncClient) -> bool:
    """Without a pin file nobody can know that it is old."""

    async def work() -> bool:
        async with client:
            return "eu" in await client.parties()

    return asyncio.run(work())


def test_pinned_parties_may_not_be_replaced_even_by_the_authority(
    tmp_path: Path, made: Any, client: Make
) -> None:
    federation = Federation(tmp_path / "f", ("eu",))
    gateway = FakeGateway(federation, made)
    settings = {
        "trust": federation.ca,
        "pin": tmp_path / "pins.json",
        "pin_parties": True,
        "signing_key": federation.key,
        "transport": gateway,
    }
    assert embed(client(**settings)).shape == (1, 32)
    federation.rotate("eu", 2)
    gateway.directory = federation.directory
    with pytest.raises(CertificateError, match="party eu/2 has another key than the one pinned"):
        embed(client(**settings))
    with pytest.raises(ConfigError, match="needs a pin file"):
        Trust.of(federation.ca, pin_parties=True)


def test_the_directory_is_asked_for_once_and_then_by_its_etag(client: Make, gateway: FakeGateway) -> None:
    async def work() -> None:
        async with client() as one:
            for _ in range(3):
                await one.embed(["a"])
            assert gateway.fetched == 1
            before = one._parties._directory
            one._parties._asked = -100.0
            from mpc_ray.client.retry import Deadline

            assert not await one._parties.refresh(Deadline(5.0))
            assert gateway.fetched == 2 and one._parties._directory is before
            assert not await one._parties.refresh(Deadline(5.0))
            assert gateway.fetched == 2, "asked a moment ago"

    asyncio.run(work())


def test_sets_are_ordered_by_preference_within_residency(federation: Federation, tmp_path: Path) -> None:
    three = Federation(tmp_path, ("eu", "us", "jp")).directory
    assert allowed_sets(three) == ("eu", "jp", "us")
    assert allowed_sets(three, regions=["us", "jp"]) == ("us", "jp", "eu")
    assert allowed_sets(three, regions=["jp-1"]) == ("jp", "eu", "us")
    assert allowed_sets(three, jurisdictions=["US"]) == ("us",)
    assert allowed_sets(three, jurisdictions=["US", "JP", "SG"], regions=["us"]) == ("us", "jp")
    assert allowed_sets(three, only="jp", regions=["us"]) == ("jp",)
    for wrong in (["JP"], ["US-CA"], ["DE", "FR"]):
        with pytest.raises(Refused) as caught:
            allowed_sets(three, jurisdictions=wrong)
        assert caught.value.code == "jurisdiction"
    with pytest.raises(Refused):
        allowed_sets(three, only="eu", jurisdictions=["US"])


def test_a_set_that_failed_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    import mpc_ray.client.parties as module

    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    sets, allowed = Sets(avoid_s=10.0), ("a", "b")
    assert sets.choose(allowed) == "a"
    assert sets.failed("a", (), allowed) and sets.choose(allowed) == "b"
    assert not sets.failed("b", (), allowed) and sets.choose(allowed) == "a", "all failed: the preferred one"
    assert sets.failed("a", ("b", "elsewhere"), allowed) and sets.choose(allowed) == "b", "named as ready"
    now[0] += 11
    assert sets.choose(allowed) == "a"
    sets.failed("a", (), allowed)
    sets.worked("a")
    assert sets.choose(allowed) == "a"
