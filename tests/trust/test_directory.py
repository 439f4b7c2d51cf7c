"""The directory: whoever changes a byte of it, or shows an old one, is found out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from federation import Federation, make_federation

from mpc_ray.errors import CertificateError, ConfigError
from mpc_ray.trust import canonical, certs
from mpc_ray.trust.directory import Directory, Entry
from mpc_ray.trust.folder import install, rotate
from mpc_ray.trust.hpke import CLASSIC, OVERLAP_S, PrivateKeys
from mpc_ray.trust.records import PartyRecord, Request

DAY = 86400


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return make_federation(tmp_path_factory.mktemp("federation"))


def resigned(made: Federation, **changes: Any) -> Directory:
    """What the authority would sign if it were dishonest or careless."""
    d = made.directory
    fields = {
        name: getattr(d, name) for name in ("federation", "serial", "issued", "expires", "ca", "entries")
    }
    return Directory.signed(made.authority._key, **(fields | changes))


def with_record(made: Federation, place: str, **changes: Any) -> tuple[Entry, ...]:
    """The entries, one of them described otherwise than by its owner."""
    return tuple(
        replace(entry, record=replace(entry.record, **changes)) if entry.record.place == place else entry
        for entry in made.directory.entries
    )


def test_an_honest_one(made: Federation) -> None:
    d = made.directory
    assert d.verify() is d
    assert d.verify((made.root / "ca" / "ca.pem").read_bytes(), made.authority.fingerprint) is d
    assert d.verify(fingerprint=":".join(d.fingerprint[i : i + 2].upper() for i in range(0, 64, 2))) is d
    assert d.sets() == ("eu",) and [r.index for r in d.parties("eu")] == [0, 1, 2]
    assert [r.operator for r in d.parties("eu")] == ["alpha", "beta", "gamma"]
    assert Directory.from_json(json.dumps(d.to_json(), indent=2)) == d == Directory.from_json(d.to_json())
    assert Directory.from_json(json.dumps(d.to_json())).digest == d.digest and len(d.digest) == 32
    assert d.verify(pins=d.pins_of("eu")) is d
    assert d.verify(least_serial=d.serial) is d


def test_nothing_secret_is_in_it(made: Federation) -> None:
    text = json.dumps(made.directory.to_json())
    assert "PRIVATE" not in text
    for party in made.parties:
        for key in party.keys().keys:
            assert key.private.reveal().hex() not in text


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path


def test_no_leaf_may_be_changed(made: Federation) -> None:
    whole = json.dumps(made.directory.to_json())
    paths = list(leaves(json.loads(whole)))
    assert len(paths) > 50
    for path in paths:
        value = json.loads(whole)
        inner = value
        for key in path[:-1]:
            inner = inner[key]
        old = inner[path[-1]]
        inner[path[-1]] = (
            old + 1 if isinstance(old, int) else old[:-2] + ("a" if old[-2] != "a" else "b") + old[-1]
        )
        with pytest.raises((CertificateError, ConfigError)):
            Directory.from_json(value).verify(fingerprint=made.authority.fingerprint)


def test_no_entry_may_be_left_out_or_moved(made: Federation) -> None:
    for change in (lambda e: e[1:], lambda e: e[::-1], lambda e: (*e, e[0]), lambda e: ()):
        with pytest.raises(CertificateError, match="not signed by its authority"):
            replace(made.directory, entries=change(made.directory.entries)).verify()


@pytest.mark.parametrize(
    "value",
    [
        b"", b"[]", b"{", b'{"format":"x"}', b"[" * 100_000, "null", {"a": 1}, [], 3, None, {"format": 1.0},
        b"[" * ((1 << 20) + 1),
    ],
)  # fmt: skip
def test_what_is_no_directory(value: Any) -> None:
    with pytest.raises(CertificateError):
        Directory.from_json(value)


@pytest.mark.parametrize(
    "change",
    [
        {"serial": "2"}, {"serial": 0}, {"serial": True}, {"issued": 1.5}, {"extra": 1}, {"federation": "A B"},
        {"parties": {}}, {"parties": [1]}, {"signature": "!!"}, {"signature": ""}, {"ca": "none"},
        {"format": "mpc-ray directory v2"}, {"gateways": [{"record": {}, "certificate": "", "signature": ""}]},
    ],
)  # fmt: skip
def test_wrong_types_and_unknown_fields(made: Federation, change: dict[str, Any]) -> None:
    with pytest.raises(CertificateError):
        Directory.from_json(made.directory.to_json() | change).verify()


def test_a_party_in_the_list_of_gateways(made: Federation) -> None:
    value = made.directory.to_json()
    value["gateways"].append(value["parties"].pop())
    with pytest.raises(CertificateError, match="wrong list"):
        Directory.from_json(value)


def test_another_authority(made: Federation, tmp_path: Path) -> None:
    other = make_federation(tmp_path).directory
    other.verify()
    with pytest.raises(CertificateError, match="another federation's authority"):
        other.verify(fingerprint=made.authority.fingerprint)
    with pytest.raises(CertificateError, match="another federation's authority"):
        other.verify(made.directory.ca)
    with pytest.raises(CertificateError, match="not signed by its authority"):
        replace(other, ca=made.directory.ca).verify(fingerprint=made.authority.fingerprint)
    with pytest.raises(CertificateError, match="another federation's"):
        made.directory.verify(fingerprint="")


@pytest.mark.parametrize(
    "change",
    [
        {"peer": "10.6.6.6:1"}, {"gateway": "10.6.6.6:1"}, {"region": "elsewhere"}, {"jurisdiction": "US"},
        {"operator": "mallory"}, {"not_after": 1 << 33}, {"hpke": PrivateKeys.generate([CLASSIC]).publics},
    ],
)  # fmt: skip
def test_an_authority_that_describes_a_party_otherwise(made: Federation, change: dict[str, Any]) -> None:
    """Keys to seal to, above all: the party's own signature is over them."""
    lying = resigned(made, entries=with_record(made, "eu/1", **change))
    with pytest.raises(CertificateError, match="eu/1 is not signed by its own key"):
        lying.verify(fingerprint=made.authority.fingerprint)


def test_an_authority_that_moves_a_party(made: Federation) -> None:
    for change in ({"index": 2}, {"set": "us"}):
        with pytest.raises(CertificateError, match="another name"):
            resigned(made, entries=with_record(made, "eu/1", **change)[:2]).verify()


def test_an_authority_that_swaps_certificates_or_signatures(made: Federation) -> None:
    a, b, *rest = made.directory.entries
    for pair in (
        (replace(a, certificate=b.certificate), b),
        (replace(a, signature=b.signature), b),
        (replace(a, signature=b""), b),
        (replace(a, certificate=made.directory.ca), b),
    ):
        with pytest.raises(CertificateError):
            resigned(made, entries=(*pair, *rest)).verify()


def test_a_certificate_of_its_own_making(made: Federation) -> None:
    """A record and a certificate that somebody signed who is not the authority."""
    key = certs.new_key()
    record = replace(made.records[0], peer="10.6.6.6:1")
    request = Request.make(record, key)
    until = made.authority.certificate.not_valid_after_utc
    false = certs.issue(
        key, made.authority.certificate, key.public_key(), "party-0", until,
        now=made.authority.certificate.not_valid_before_utc, uri=record.uri("test"),
    )  # fmt: skip
    pem = false.public_bytes(serialization.Encoding.PEM).decode()
    entries = (Entry(record, pem, request.signature), *made.directory.entries[1:])
    with pytest.raises(CertificateError, match="not issued by its authority"):
        resigned(made, entries=entries).verify()


def test_a_place_twice(made: Federation) -> None:
    with pytest.raises(CertificateError, match="place twice"):
        resigned(made, entries=(*made.directory.entries, made.directory.entries[0])).verify()


def test_times(made: Federation) -> None:
    now = time.time()
    with pytest.raises(CertificateError, match="expired on"):
        made.directory.verify(now=made.directory.expires)
    made.directory.verify(now=made.directory.expires - 1)
    with pytest.raises(CertificateError, match="in the future"):
        resigned(made, issued=int(now) + 3600).verify()
    with pytest.raises(CertificateError, match="authority has expired"):
        resigned(made, expires=1 << 40).verify(now=now + 3651 * DAY)
    with pytest.raises(CertificateError, match="clock"):
        made.directory.verify(now=now - 2 * DAY)


def test_an_older_serial(made: Federation) -> None:
    with pytest.raises(CertificateError, match=f"serial {made.directory.serial}"):
        made.directory.verify(least_serial=made.directory.serial + 1)


def test_a_set_that_is_not_whole_or_out_of_date(made: Federation) -> None:
    part = resigned(made, entries=made.directory.entries[1:])
    part.verify()
    assert part.sets() == ()
    with pytest.raises(CertificateError, match="no eu/0"):
        part.parties("eu")
    with pytest.raises(CertificateError, match="no us/0"):
        made.directory.parties("us")
    with pytest.raises(CertificateError, match="eu/0 has expired"):
        made.directory.parties("eu", now=time.time() + 91 * DAY)


def pair(made: Federation, change: Callable[[PartyRecord], PartyRecord]) -> Directory:
    """The set with party 1's record as it was never meant; check_apart does not look at signatures."""
    a, b, *rest = made.directory.entries
    assert isinstance(b.record, PartyRecord)
    return replace(made.directory, entries=(a, replace(b, record=change(b.record)), *rest))


def test_two_shares_in_one_hand(made: Federation) -> None:
    first = made.records[0]
    with pytest.raises(CertificateError, match="one operator, alpha"):
        pair(made, lambda r: replace(r, operator="alpha")).parties("eu")
    with pytest.raises(CertificateError, match="key in common"):
        pair(made, lambda r: replace(r, hpke=(*r.hpke, first.hpke[1]))).parties("eu")
    a, b, *rest = made.directory.entries
    with pytest.raises(CertificateError, match="key in common"):
        replace(made.directory, entries=(a, replace(b, certificate=a.certificate), *rest)).parties("eu")


def test_pins(federation: Federation) -> None:
    pins = federation.directory.pins_of("eu")
    newer = federation.authority.sign([rotate(federation.parties[1].path)])
    newer.verify(pins={place: pin for place, pin in pins.items() if place != "eu/1"})
    with pytest.raises(CertificateError, match="eu/1 has another key"):
        newer.verify(pins=pins)


def certificate(folder: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / "tls.pem").read_bytes())


def test_whose_certificate_it_is(federation: Federation) -> None:
    d, now = federation.directory, time.time()
    beta = federation.parties[1].path
    old = certificate(beta)
    assert d.recognise(old).record.place == "eu/1"
    assert d.recognise(old.public_bytes(serialization.Encoding.DER)).record.place == "eu/1"
    assert d.recognise(certificate(federation.gateway.path)).record.place == "gateway/gw"
    newer = federation.authority.sign([rotate(beta, now=now + 100)], now=now + 100)
    install(beta, newer, now=now + 100)
    new = certificate(beta)
    assert d.recognise(new, now=now + 100).record.place == "eu/1", "we may be a little behind"
    assert newer.recognise(old, now=now + 100).record.place == "eu/1", "and so may the other"
    with pytest.raises(CertificateError, match="eu/1 shows a certificate that was replaced"):
        newer.recognise(old, now=now + 101 + OVERLAP_S)
    gone = federation.authority.sign([], remove=["gateway/gw"], now=now + 200)
    with pytest.raises(CertificateError, match="no place"):
        gone.recognise(certificate(federation.gateway.path), now=now + 200)


def test_a_certificate_of_another_set_or_of_none(federation: Federation, tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="no place"):
        federation.directory.recognise(federation.authority.certificate)
    us = make_federation(tmp_path / "us", set="us")
    with pytest.raises(CertificateError, match="no place"):
        federation.directory.recognise(certificate(us.parties[0].path))


def test_keys_are_chosen_by_what_this_machine_can_do(
    made: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = made.records[0]
    assert record.key() == record.hpke[0]
    monkeypatch.setattr("mpc_ray.trust.records.supported", lambda: (CLASSIC,))
    assert record.key().suite == CLASSIC
    with pytest.raises(CertificateError, match="no key of a suite"):
        replace(record, hpke=record.hpke[:1]).key()


@pytest.mark.parametrize(
    "change",
    [
        {"index": 3}, {"index": True}, {"set": "EU"}, {"peer": "nowhere"}, {"gateway": "h:0"}, {"jurisdiction": "ie"},
        {"hpke": ()}, {"not_after": -1}, {"operator": ""}, {"region": "a b"},
    ],
)  # fmt: skip
def test_records_out_of_form(made: Federation, change: dict[str, Any]) -> None:
    with pytest.raises(canonical.Malformed):
        replace(made.records[0], **change)


def test_it_is_read_from_a_file_of_any_mode(made: Federation, tmp_path: Path) -> None:
    made.directory.save(tmp_path / "d.json")
    (tmp_path / "d.json").chmod(0o644)
    assert Directory.load(tmp_path / "d.json").verify() == made.directory
    with pytest.raises(ConfigError):
        Directory.load(tmp_path / "none.json")
