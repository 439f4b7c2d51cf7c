"""A session's own certificate authority, one certificate a party and client, and TLS contexts that demand
them.

The authority lives as long as the process that made it: its private key is never written. Certificates are
ECDSA P-256 and carry one name each (``party-0`` … ``client``) as their only subject alternative name. Where
a party runs on another machine its private key need not travel: ``make_request`` there,
``SessionAuthority.sign`` here, ``install`` there. Contexts speak TLS 1.3 only and verify both ends.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mpc_ray.errors import CertificateError, ConfigError

LIFETIME = timedelta(days=30)
_SKEW = timedelta(hours=1)  # clocks of two machines differ


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
        self._key = ec.generate_private_key(ec.SECP256R1())
        # A name of its own: a certificate of another session's authority is then reported as just that.
        self._name = _common_name(f"mpc-ray session {os.urandom(8).hex()}")
        usage = _key_usage(signs_certificates=True)
        self._certificate = (
            self._builder(self._name, self._key.public_key(), LIFETIME * 2)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def certificate(self) -> bytes:
        """The authority's certificate, PEM: public, every end needs it."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def sign(self, request: bytes, name: str, lifetime: timedelta = LIFETIME) -> bytes:
        """A certificate (PEM) for the key in ``request`` (PEM) under ``name``: the request's own name is
        ignored.

        Raises ``CertificateError`` if the request was not signed by the key it holds.
        """
        parsed = x509.load_pem_x509_csr(request)
        public = parsed.public_key()
        p256 = isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1)
        if not parsed.is_signature_valid or not p256:
            raise CertificateError(
                f"the certificate request for {name} is not signed by its own P-256 key",
                remedy="make the request with make_request",
            )
        assert isinstance(public, ec.EllipticCurvePublicKey)
        certificate = (
            self._builder(_common_name(name), public, lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    def _builder(
        self, subject: x509.Name, public: ec.EllipticCurvePublicKey, lifetime: timedelta
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - _SKEW)
            .not_valid_after(self._now + lifetime)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )


def make_request(folder: Path, name: str) -> bytes:
    """Make a key pair for ``name``, write the private key to ``folder`` (mode 0600), return the request
    (PEM).
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / f"{name}.key"
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    request = (
        x509.CertificateSigningRequestBuilder().subject_name(_common_name(name)).sign(key, hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.PEM)


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
