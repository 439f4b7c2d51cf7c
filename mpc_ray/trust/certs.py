"""Certificates: a session's own authority, what every authority does alike, and TLS contexts that demand them.

The authority lives as long as the process that made it: its private key is never written. Certificates are
ECDSA P-256 and carry one name each (``party-0`` … ``client``) as their only DNS name; those of a federation carry their
URI (``spiffe://…``) besides. Where a party runs on another machine its private key need not travel:
``make_request`` there, ``SessionAuthority.sign`` here, ``install`` there. Contexts speak TLS 1.3 only and
verify both ends.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mpc_ray.errors import CertificateError, ConfigError

LIFETIME = timedelta(days=30)
_SKEW = timedelta(hours=1)  # clocks of two machines differ
_PURPOSES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclass(frozen=True)
class Identity:
    """Where one end's certificate, private key and authority lie (PEM files)."""

    name: str
    certificate: Path
    key: Path
    authority: Path


class SessionAuthority:
    """Signs certificates for one session. Its key exists in this process's memory only."""

    def __init__(self, now: datetime | None = None) -> None:
        self._now = now or datetime.now(UTC)
        self._key = new_key()
        # A name of its own: a certificate of another session's authority is then reported as just that.
        name = f"mpc-ray session {os.urandom(8).hex()}"
        self._certificate = make_authority(self._key, name, self._now, LIFETIME * 2)

    @property
    def certificate(self) -> bytes:
        """The authority's certificate, PEM: public, every end needs it."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def sign(self, request: bytes, name: str, lifetime: timedelta = LIFETIME) -> bytes:
        """A certificate (PEM) for the key in ``request`` (PEM) under ``name``: the request's own name is
        ignored.

        Raises ``CertificateError`` if the request was not signed by the key it holds.
        """
        public = requested_key(request, name)
        certificate = issue(self._key, self._certificate, public, name, self._now + lifetime, now=self._now)
        return certificate.public_bytes(serialization.Encoding.PEM)


def make_authority(
    key: ec.EllipticCurvePrivateKey, name: str, now: datetime, lifetime: timedelta
) -> x509.Certificate:
    """An authority's certificate, signed by itself: it may sign certificates of ends and no other authority."""
    subject = _common_name(name)
    return (
        _builder(subject, subject, key.public_key(), now, now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def issue(
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    public: ec.EllipticCurvePublicKey,
    name: str,
    not_after: datetime,
    *,
    now: datetime,
    uri: str | None = None,
) -> x509.Certificate:
    """A certificate for ``public`` under ``name`` (and ``uri``, its identity in a federation), for both ends of TLS."""
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    if uri is not None:
        names.append(x509.UniformResourceIdentifier(uri))
    return (
        _builder(_common_name(name), authority.subject, public, now, not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_PURPOSES), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The private key as it is kept in a file of mode 0600."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def request_pem(key: ec.EllipticCurvePrivateKey, name: str) -> bytes:
    """A request for a certificate, signed by the key it is for."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_common_name(name))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def requested_key(request: bytes, name: str) -> ec.EllipticCurvePublicKey:
    """The key in a request. ``CertificateError`` unless it is P-256 and signed the request itself."""
    try:
        parsed = x509.load_pem_x509_csr(request)
        public, valid = parsed.public_key(), parsed.is_signature_valid
    except (ValueError, UnsupportedAlgorithm):
        public, valid = None, False
    if not valid or not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != "secp256r1":
        raise CertificateError(
            f"the certificate request for {name} is not signed by its own P-256 key",
            remedy="make the request with make_request",
        )
    return public


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate, 64 hexadecimal digits, as ``openssl x509 -fingerprint -sha256`` has it."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def uri_of(certificate: x509.Certificate) -> str | None:
    """The identity in a federation that a certificate states: its only URI, ``spiffe://…``."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uris[0] if len(uris) == 1 else None


def check_issued(certificate: x509.Certificate, authority: x509.Certificate, name: str, uri: str) -> None:
    """``CertificateError`` unless ``authority`` issued this for exactly ``name`` and ``uri``. Dates apart."""
    try:
        certificate.verify_directly_issued_by(authority)
        extensions = certificate.extensions
        names = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        ca = extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        public = certificate.public_key()
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound):
        raise CertificateError(
            f"the certificate of {uri} was not issued by its authority", remedy="ask for the directory anew"
        ) from None
    expected = [x509.DNSName(name), x509.UniformResourceIdentifier(uri)]
    if ca or names != expected or not isinstance(public, ec.EllipticCurvePublicKey):
        raise CertificateError(
            f"the certificate of {uri} is for another name or purpose", remedy="ask for the directory anew"
        )


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def make_request(folder: Path, name: str) -> bytes:
    """Make a key pair for ``name``, write the private key to ``folder`` (mode 0600), return the request
    (PEM).
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = new_key()
    path = folder / f"{name}.key"
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key_pem(key))
    return request_pem(key, name)


def install(folder: Path, name: str, certificate: bytes, authority: bytes) -> Identity:
    """Put a signed certificate and its authority's beside the private key that ``make_request`` wrote."""
    identity = Identity(name, folder / f"{name}.pem", folder / f"{name}.key", folder / f"{name}.ca.pem")
    identity.certificate.write_bytes(certificate)
    identity.authority.write_bytes(authority)
    return identity


def server_context(identity: Identity) -> ssl.SSLContext:
    """TLS 1.3 for the end that accepts. It demands a certificate; the caller compares its name with HELLO's
    claim.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0  # no session tickets: the dialler never has to read to stay in step
    return _demanding(context, identity)


def client_context(identity: Identity) -> ssl.SSLContext:
    """TLS 1.3 for the end that dials. It checks the acceptor's name against ``server_hostname``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = True
    return _demanding(context, identity)


def _demanding(context: ssl.SSLContext, identity: Identity) -> ssl.SSLContext:
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    remedy = "make certificates anew, or check the paths in the configuration"
    for path in (identity.certificate, identity.key, identity.authority):
        if not path.is_file():
            raise ConfigError(f"no file {path} for {identity.name}'s certificate", remedy=remedy)
    try:
        context.load_cert_chain(identity.certificate, identity.key)
        context.load_verify_locations(identity.authority)
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(
            f"{identity.name}'s certificate, key or authority in {identity.certificate.parent} is unusable: {reason}",
            remedy=remedy,
        ) from None
    return context


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
