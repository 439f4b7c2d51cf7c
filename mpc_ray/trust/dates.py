"""When a certificate is valid, by this machine's clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from mpc_ray.errors import CertificateError, ConfigError
from mpc_ray.trust import files

RENEW = "mpc-ray certs rotate, then sign and install"


def dates(path: Path, whose: str) -> tuple[float, float]:
    """POSIX seconds between which the first certificate (PEM, of any key) of a file is valid.

    ``ConfigError`` if the file is missing or holds none; ``whose`` certificate it is goes into the error.
    """
    data = files.read_public(path)
    try:
        certificate = x509.load_pem_x509_certificate(data)
    except ValueError:
        raise ConfigError(f"{path} holds no certificate", remedy=f"put {whose} there, in PEM") from None
    return certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()


def check_dates(path: Path, whose: str, renew: str = RENEW, now: float | None = None) -> float:
    """When the certificate ends, POSIX seconds. ``CertificateError`` unless it is valid now; also as ``dates``."""
    now = time.time() if now is None else now
    begin, end = dates(path, whose)
    if begin <= now < end:
        return end
    how = "is not valid before" if now < begin else "expired at"
    raise CertificateError(
        f"{whose} {how} {_time(begin if now < begin else end)}; this machine's clock says {_time(now)}",
        remedy=f"set the clock, if it is wrong; else {renew}",
    )


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
