"""A federation made in milliseconds, triples that compute nothing, and honest requests: what the tests here share."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from mpc_ray.serve.apikeys import KeyStore
from mpc_ray.serve.app import create_app
from mpc_ray.serve.config import GatewayConfig
from mpc_ray.serve.interface import Answers, Job, Triples
from mpc_ray.serve.state import LocalState
from mpc_ray.trust import certs
from mpc_ray.trust.authorisation import Authorisation, SigningKey
from mpc_ray.trust.authority import FederationAuthority
from mpc_ray.trust.folder import install, request_gateway, request_party, rotate

FEDERATION = "example"
DAY_S = 86_400
PLACES = {"eu": ("DE", "FR", "IE"), "us": ("US", "US", "CA")}
DIGEST = hashlib.sha256(b"tiny").hexdigest()
MODEL = {"name": "tiny", "digest": DIGEST, "lengths": [16, 32], "hidden": 32}


@dataclass
class Fake:
    """A ``Triples`` that answers at once, or when ``open`` is set, or with an error."""

    set: str
    ready: bool = True
    error: BaseException | None = None
    seconds: float = 0.0
    open: asyncio.Event | None = None
    models: tuple[Mapping[str, Any], ...] = (MODEL,)
    jobs: list[Job] = field(default_factory=list)
    cancelled: int = 0
    done: int = 0

    async def infer(self, job: Job) -> Answers:
        self.jobs.append(job)
        try:
            if self.open is not None:
                await self.open.wait()
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        self.done += 1
        a, b, c = (b"sealed %d " % index + secrets.token_bytes(8) for index in range(3))
        return Answers(job.id, (a, b, c), self.set, {"run_s": self.seconds, "rounds": 1})

    async def status(self) -> Mapping[str, Any]:
        models = self.models if self.ready else ()
        return {
            "set": self.set,
            "ready": self.ready,
            "queue": 0,
            "triples": int(self.ready),
            "models": models,
        }


@dataclass(frozen=True)
class Federation:
    """``folder`` is the gateway's."""

    folder: Path
    key: SigningKey


def federation(
    root: Path, sets: tuple[str, ...] = ("eu", "us"), *, expired: tuple[str, ...] = ()
) -> Federation:
    """Three parties in each of ``sets`` and a gateway, signed by one authority. ``expired``: places (``eu/0``,
    ``gateway/one``) whose certificates ended ten days ago.
    """
    now = time.time() - 40 * DAY_S if expired else None

    def days(place: str) -> int:
        return 30 if place in expired else 90

    authority = FederationAuthority.init(root / "ca", FEDERATION, now=now)
    requests = [request_gateway(root / "gw", name="one", days=days("gateway/one"), now=now)]
    for name in sets:
        for index, jurisdiction in enumerate(PLACES[name]):
            port = 50100 + 10 * index
            requests.append(
                request_party(
                    root / f"{name}{index}",
                    set=name,
                    index=index,
                    operator=f"operator-{name}-{index}",
                    region=f"{name}-{index}",
                    jurisdiction=jurisdiction,
                    peer=f"127.0.0.1:{port}",
                    gateway=f"127.0.0.1:{port + 1}",
                    days=days(f"{name}/{index}"),
                    now=now,
                )
            )
    directory = authority.sign(requests, now=now)
    for folder in (root / "gw", *(root / f"{name}{index}" for name in sets for index in range(3))):
        install(folder, directory, fingerprint=authority.fingerprint, now=now)
    return Federation(root / "gw", SigningKey.generate())


def renew(root: Path, *folders: str) -> None:
    """What operators do when certificates end, and the gateway's after them: rotate, sign, install."""
    authority = FederationAuthority.load(root / "ca")
    directory = authority.sign([rotate(root / name) for name in folders])
    for name in {*folders, "gw"}:
        install(root / name, directory)


def public_certificate(folder: Path, name: str, days: int = 1) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 signed by itself, and its key: what clients of the open Internet would see. It ends
    in ``days`` from now.
    """
    key, now = certs.new_key(), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names = [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost")]
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / f"{name}.pem", folder / f"{name}.key"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(certs.key_pem(key))
    return files


def config(of: Federation, **limits: Any) -> GatewayConfig:
    """A gateway on a free port, with bounds small enough to be reached."""
    small = {"drain_s": 0.0, "body_bytes": 200_000, "header_s": 0.5, "body_s": 0.5, "keep_alive_s": 1}
    return GatewayConfig(folder=of.folder, port=0, limits=small | limits)


def api_key(of: Federation, **settings: Any) -> str:
    return KeyStore(of.folder).create("test", **settings).bearer


def authorisation(of: Federation, **changes: Any) -> Authorisation:
    """A job that any honest client might send, signed just now."""
    now = time.time_ns() // 1_000_000
    a, b, c = (secrets.token_hex(32) for _ in range(3))
    fields = {
        "job": secrets.token_hex(16),
        "federation": FEDERATION,
        "set": "eu",
        "client": of.key.id,
        "model": "tiny",
        "model_digest": DIGEST,
        "protocol": "semi_honest_3pc",
        "batch": 1,
        "length": 16,
        "output": "embedding",
        "range_check": True,
        "purpose": "search",
        "jurisdictions": (),
        "retention": "job",
        "issued_ms": now,
        "expires_ms": now + 30_000,
        "inputs": (a, b, c),
    }
    return Authorisation(**(fields | changes))


def body(of: Federation, *, envelope: int = 100, **changes: Any) -> dict[str, Any]:
    """The JSON of a request."""
    signed = authorisation(of, **changes)
    return {
        "authorisation": signed.to_json(),
        "signature": base64.b64encode(of.key.sign(signed)).decode(),
        "envelopes": [base64.b64encode(secrets.token_bytes(envelope)).decode() for _ in range(3)],
    }


class Running:
    """An application within this event loop, its lifespan and a client of it: ``async with``."""

    def __init__(
        self, of: Federation, triples: Mapping[str, Triples], settings: GatewayConfig | None = None
    ) -> None:
        self.of = of
        self.config = settings or config(of)
        self.state = LocalState.of(self.config)
        self.app = create_app(self.config, triples, self.state)
        self.bearer = api_key(of)
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=True)
        self.client = httpx.AsyncClient(transport=transport, base_url="https://gateway")
        self._lifespan = self.app.router.lifespan_context(self.app)

    async def __aenter__(self) -> Running:
        await self._lifespan.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._lifespan.__aexit__(None, None, None)
        await self.client.aclose()
        self.state.close()

    async def infer(self, sent: Any = None, **headers: str) -> httpx.Response:
        """Post a request, an honest one by default. ``headers`` with _ for -."""
        content = json.dumps(body(self.of) if sent is None else sent) if not isinstance(sent, bytes) else sent
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        given = {"authorization": f"Bearer {self.bearer}", "content-type": "application/json"} | named
        return await self.client.post("/v1/private/infer", content=content, headers=given)


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem of an answer, once it is one, whole, of this status and code."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    said: dict[str, Any] = answer.json()
    assert said["code"] == code and said["status"] == status and said["type"].endswith(code), said
    assert {"title", "detail", "cause", "remedy", "instance"} <= said.keys()
    if status in {429, 503}:
        assert int(answer.headers["retry-after"]) >= 1
    return said
