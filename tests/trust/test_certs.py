"""Certificates of a session: names, file modes, and whom the contexts accept."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from certificates import NAMES, issue, make_session_certificates
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mpc_ray.errors import CertificateError, ConfigError
from mpc_ray.trust.certs import (
    Identity,
    SessionAuthority,
    client_context,
    install,
    make_request,
    server_context,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Identity]:
    return make_session_certificates(tmp_path_factory.mktemp("certificates") / "keys")


def handshake(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """TLS between two contexts in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(3):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends


def test_files_and_modes(made: dict[str, Identity]) -> None:
    assert tuple(made) == NAMES == ("party-0", "party-1", "party-2", "client")
    folder = made["client"].key.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name, identity in made.items():
        assert identity.name == name
        assert stat.S_IMODE(identity.key.stat().st_mode) == 0o600
        assert b"PRIVATE" not in identity.certificate.read_bytes() + identity.authority.read_bytes()
    keys = {path.name for path in folder.iterdir() if b"PRIVATE" in path.read_bytes()}
    assert keys == {f"{name}.key" for name in NAMES}, "the authority's key is written nowhere"


def test_what_a_certificate_says(made: dict[str, Identity]) -> None:
    certificate = x509.load_pem_x509_certificate(made["party-1"].certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["party-1"]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    assert certificate.not_valid_before_utc < datetime.now(UTC) < certificate.not_valid_after_utc
    authority = x509.load_pem_x509_certificate(made["party-1"].authority.read_bytes())
    certificate.verify_directly_issued_by(authority)


def test_handshake_is_mutual_and_tls_1_3(made: dict[str, Identity]) -> None:
    client, server = handshake(server_context(made["party-0"]), client_context(made["party-2"]), "party-0")
    assert client.version() == server.version() == "TLSv1.3"
    assert server.getpeercert()["subjectAltName"] == (("DNS", "party-2"),)  # type: ignore[index]
    assert server_context(made["party-0"]).num_tickets == 0


def test_wrong_name_is_refused(made: dict[str, Identity]) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for 'party-1'"):
        handshake(server_context(made["party-0"]), client_context(made["party-2"]), "party-1")


def test_no_certificate_is_refused(made: dict[str, Identity]) -> None:
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.load_verify_locations(made["client"].authority)
    with pytest.raises(ssl.SSLError, match=r"(?i)peer did not return a certificate"):
        handshake(server_context(made["party-0"]), bare, "party-0")


def test_other_authority_is_refused(made: dict[str, Identity], tmp_path: Path) -> None:
    others = make_session_certificates(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server_context(made["party-0"]), client_context(others["party-1"]), "party-0")


def test_a_key_that_never_leaves_its_party(tmp_path: Path) -> None:
    authority = SessionAuthority()
    request = make_request(tmp_path / "there", "party-1")
    signed = authority.sign(request, "party-1")
    identity = install(tmp_path / "there", "party-1", signed, authority.certificate)
    mine = issue(authority, tmp_path / "here", "client")
    _, server = handshake(server_context(identity), client_context(mine), "party-1")
    assert server.getpeercert()["subjectAltName"] == (("DNS", "client"),)  # type: ignore[index]


def test_the_authority_decides_the_name(tmp_path: Path) -> None:
    signed = SessionAuthority().sign(make_request(tmp_path, "party-0"), "party-2")
    certificate = x509.load_pem_x509_certificate(signed)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert [str(name.value) for name in names.value] == ["party-2"]


def test_forged_request_is_refused(tmp_path: Path) -> None:
    request = x509.load_pem_x509_csr(make_request(tmp_path, "party-0"))
    der = bytearray(request.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(CertificateError, match="party-0"):
        SessionAuthority().sign(forged, "party-0")


def test_other_curves_are_refused() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    with pytest.raises(CertificateError, match="P-256"):
        SessionAuthority().sign(request.public_bytes(serialization.Encoding.PEM), "party-0")


def test_missing_and_unusable_files(made: dict[str, Identity], tmp_path: Path) -> None:
    absent = Identity("party-0", tmp_path / "no.pem", made["party-0"].key, made["party-0"].authority)
    with pytest.raises(ConfigError, match=r"no file .*no.pem for party-0"):
        server_context(absent)
    mixed = Identity("party-0", made["party-0"].certificate, made["party-1"].key, made["party-0"].authority)
    with pytest.raises(ConfigError, match="KEY_VALUES_MISMATCH"):
        client_context(mixed)
