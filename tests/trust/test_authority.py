"""The federation's authority: what it signs, and what it refuses to."""

from __future__ import annotations

import base64
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from federation import Federation

from mpc_ray.errors import CertificateError, ConfigError, InputError
from mpc_ray.trust import certs
from mpc_ray.trust.authority import MAX_DAYS, FederationAuthority, load_request
from mpc_ray.trust.folder import open_folder, request_party
from mpc_ray.trust.records import PartyRecord, Request

DAY = 86400


def ask(folder: Path, index: int, operator: str, **changes: Any) -> Request:
    given = {
        "set": "eu", "region": "r", "jurisdiction": "IE", "peer": "h:1", "gateway": "h:2",
    } | changes  # fmt: skip
    return request_party(folder, index=index, operator=operator, **given)


def test_its_files(tmp_path: Path) -> None:
    made = FederationAuthority.init(tmp_path / "ca", "demo")
    assert stat.S_IMODE((tmp_path / "ca").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "ca" / "ca.key").stat().st_mode) == 0o600
    loaded = FederationAuthority.load(tmp_path / "ca")
    assert (loaded.fingerprint, loaded.federation) == (made.fingerprint, "demo")
    assert loaded.directory().verify(fingerprint=made.fingerprint).serial == 1
    with pytest.raises(ConfigError, match="already"):
        FederationAuthority.init(tmp_path / "ca", "demo")
    with pytest.raises(InputError):
        FederationAuthority.init(tmp_path / "b", "De mo")
    with pytest.raises(ConfigError):
        FederationAuthority.load(tmp_path / "nothing")
    (tmp_path / "ca" / "ca.key").chmod(0o640)
    with pytest.raises(ConfigError, match="0640"):
        FederationAuthority.load(tmp_path / "ca")


def test_a_certificate_says_who_and_in_which_federation(federation: Federation) -> None:
    for index, entry in enumerate(federation.directory.party_entries("eu")):
        certificate = entry.parsed[0]
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [name.value for name in names] == [f"party-{index}", f"spiffe://test/eu/party/{index}"]
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert entry.not_after == entry.record.not_after
    gateway = federation.directory.entry("gateway/gw").parsed[0]
    assert certs.uri_of(gateway) == "spiffe://test/gateway/gw"


def test_tls_between_the_folders(federation: Federation) -> None:
    """The contexts of certs take a folder's identity as it is."""
    server = certs.server_context(federation.parties[0].identity)
    client = certs.client_context(federation.gateway.identity)
    from test_certs import handshake

    there, here = handshake(server, client, "party-0")
    assert there.version() == "TLSv1.3"
    der = here.getpeercert(binary_form=True)
    assert der is not None and federation.directory.recognise(der).record.place == "gateway/gw"


def test_serials_only_grow(federation: Federation) -> None:
    first = federation.directory.serial
    assert [federation.authority.sign([]).serial for _ in range(3)] == [first + 1, first + 2, first + 3]
    assert FederationAuthority.load(federation.root / "ca").sign([]).serial == first + 4


def test_one_operator_twice_in_a_set(tmp_path: Path) -> None:
    authority = FederationAuthority.init(tmp_path / "ca", "demo")
    requests = [ask(tmp_path / "a", 0, "alpha"), ask(tmp_path / "b", 1, "alpha")]
    with pytest.raises(CertificateError, match="one operator, alpha"):
        authority.sign(requests)
    assert authority.directory().serial == 1, "nothing was written"
    authority.sign([requests[0], ask(tmp_path / "c", 1, "alpha", set="us")])


def test_an_index_taken_twice(tmp_path: Path) -> None:
    authority = FederationAuthority.init(tmp_path / "ca", "demo")
    requests = [ask(tmp_path / "a", 0, "alpha"), ask(tmp_path / "b", 0, "beta")]
    with pytest.raises(CertificateError, match="two requests are for eu/0"):
        authority.sign(requests)
    authority.sign(requests[:1])
    with pytest.raises(CertificateError, match="eu/0 is alpha's, and beta asks"):
        authority.sign(requests[1:])
    taken = authority.sign(requests[1:], replace=True).entry("eu/0").record
    assert isinstance(taken, PartyRecord) and taken.operator == "beta"


def test_places_are_taken_out(federation: Federation) -> None:
    assert federation.authority.sign([], remove=["eu/2", "gateway/gw"]).sets() == ()
    with pytest.raises(CertificateError, match="no eu/2"):
        federation.authority.sign([], remove=["eu/2"])


def test_requests_changed_on_the_way(tmp_path: Path) -> None:
    authority = FederationAuthority.init(tmp_path / "ca", "demo")
    good = ask(tmp_path / "a", 0, "alpha")
    other = ask(tmp_path / "b", 1, "beta")
    for bad in (
        replace(good, record=replace(good.record, peer="10.6.6.6:1")),
        replace(good, record=replace(good.record, index=1)),
        replace(good, record=replace(good.record, hpke=other.record.hpke)),
        replace(good, csr=other.csr),
        replace(good, csr="none"),
        replace(good, signature=b""),
        replace(good, signature=base64.b64decode("AAAA")),
    ):
        with pytest.raises(CertificateError):
            authority.sign([bad])
    assert authority.sign([good]).serial == 2


def test_lifetimes(tmp_path: Path) -> None:
    authority, now = FederationAuthority.init(tmp_path / "ca", "demo"), time.time()
    with pytest.raises(ConfigError, match="399 days"):
        ask(tmp_path / "a", 0, "alpha", days=MAX_DAYS + 1)
    with pytest.raises(CertificateError, match="asks for a certificate until"):
        authority.sign([ask(tmp_path / "b", 0, "alpha", days=MAX_DAYS, now=now + 10 * DAY)])
    with pytest.raises(CertificateError, match="asks for a certificate until"):
        authority.sign([ask(tmp_path / "c", 0, "alpha", days=1, now=now - 2 * DAY)])


def test_what_is_no_request(tmp_path: Path) -> None:
    ask(tmp_path / "a", 0, "alpha")
    good = (tmp_path / "a" / "request.json").read_text()
    load_request(tmp_path / "a" / "request.json").check()
    bad = tmp_path / "bad.json"
    for text in (
        "",
        "{}",
        good[:-9],
        good.replace("request v1", "request v2"),
        good.replace('"set"', '"sex"'),
    ):
        bad.write_text(text)
        with pytest.raises(InputError, match=r"bad\.json"):
            load_request(bad)


@pytest.mark.parametrize(
    "change", [{"set": "E U"}, {"jurisdiction": "Ireland"}, {"peer": "host"}, {"gateway": "host:99999"}, {"region": ""}]
)  # fmt: skip
def test_a_request_out_of_form_leaves_nothing_behind(tmp_path: Path, change: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        ask(tmp_path / "a", 0, "alpha", **change)
    ask(tmp_path / "a", 0, "alpha")
    assert open_folder(tmp_path / "a").record.place == "eu/0"


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    ask(tmp_path / "a", 0, "alpha")
    before = (tmp_path / "a" / "hpke.keys").read_bytes()
    with pytest.raises(ConfigError, match="holds keys already"):
        ask(tmp_path / "a", 1, "beta")
    assert (tmp_path / "a" / "hpke.keys").read_bytes() == before
