"""The proxy's connections are bounded, on the loopback and beyond it."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID
from direct import Direct  # type: ignore[import-not-found]

from mpc_ray.client.proxy import host
from mpc_ray.client.proxy.app import make_app
from mpc_ray.client.proxy.settings import ProxySettings
from mpc_ray.errors import NotNow
from mpc_ray.listening.http import Bounds
from mpc_ray.trust import certs


def self_signed(folder: Path) -> tuple[Path, Path]:
    key, now = certs.new_key(), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "proxy")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "proxy.pem", folder / "proxy.key"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(certs.key_pem(key))
    return files


def closed_after(line: socket.socket) -> float:
    begun = time.monotonic()
    line.settimeout(10)
    try:
        while line.recv(65536):
            pass
    except TimeoutError:
        pytest.fail("it was not closed")
    except OSError:
        pass
    return time.monotonic() - begun


@pytest.fixture(params=["plain", "tls"])
def settings(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ProxySettings:
    monkeypatch.setattr(host, "BOUNDS", Bounds(header_s=0.5, connections=8))
    if request.param == "plain":
        return ProxySettings(port=0, drain_s=1)
    certificate, key = self_signed(tmp_path)
    return ProxySettings(port=0, drain_s=1, certificate=certificate, certificate_key=key)


def test_who_sends_no_headers_is_cut(direct: Direct, settings: ProxySettings) -> None:
    with host.hosted(make_app(direct, settings), settings) as server:
        place = ("127.0.0.1", int(server.url.rpartition(":")[2]))

        def line() -> socket.socket:
            raw = socket.create_connection(place, timeout=5)
            if settings.certificate is None:
                return raw
            context = ssl.create_default_context(cafile=str(settings.certificate))
            return context.wrap_socket(raw, server_hostname="localhost")

        with line() as silent:
            assert closed_after(silent) < 5
        with line() as slow:
            stop = threading.Event()

            def drip() -> None:
                try:
                    slow.sendall(b"GET /health HTTP/1.1\r\n")
                    while not stop.wait(0.05):
                        slow.sendall(b"x-a: y\r\n")
                except OSError:
                    pass

            thread = threading.Thread(target=drip)
            thread.start()
            assert closed_after(slow) < 5
            stop.set()
            thread.join()
        with socket.create_connection(place, timeout=5) as before_tls:
            assert closed_after(before_tls) < 5
        trusts: Any = True
        if settings.certificate is not None:
            trusts = ssl.create_default_context(cafile=str(settings.certificate))
        url = server.url.replace("127.0.0.1", "localhost")
        assert httpx.get(f"{url}/health", verify=trusts).status_code < 500


def test_a_port_in_use_may_be_free_later(direct: Direct) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = ProxySettings(port=taken.getsockname()[1], drain_s=1)
        with (
            pytest.raises(NotNow, match="the proxy cannot listen"),
            host.hosted(make_app(direct, settings), settings),
        ):
            pass
