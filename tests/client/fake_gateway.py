"""A gateway with its parties in one object: a transport for httpx, and an ASGI application for real sockets.

It opens the envelopes with the parties' own keys, puts the shares together, computes the model in the clear, and
answers with fresh sealed shares, as three parties would. What it does wrong is told to it, request by request.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from owned import Owned  # type: ignore[import-not-found]

from mpc_ray.channel.packed import Message, pack, unpack
from mpc_ray.errors import SealError
from mpc_ray.models import bert
from mpc_ray.models.clear import FloatBlocks, run_clear
from mpc_ray.models.fold import fold
from mpc_ray.sharing.integers import to_integers, to_reals
from mpc_ray.sharing.parcel import expanded, seeds_of
from mpc_ray.trust.answer import seal_answer
from mpc_ray.trust.authorisation import Authorisation, SigningKey, open_envelope, verify
from mpc_ray.trust.authority import FederationAuthority
from mpc_ray.trust.directory import Directory
from mpc_ray.trust.folder import install, open_folder, request_gateway, request_party, rotate
from mpc_ray.trust.secret import Secret

PLACES = {"eu": ("DE", "FR", "IE"), "us": ("US", "US-CA", "US"), "jp": ("JP", "SG", "JP")}
SCALE = 20
BEARER = "mpck_0123456789abcdef_test"
Change = Callable[[list[Message]], None]
Reaction = Callable[["FakeGateway", httpx.Request], Awaitable[httpx.Response]]


@dataclass
class Federation:
    """Folders of three parties for each of ``sets``, an authority, and a client's signing key."""

    root: Path
    sets: tuple[str, ...] = ("eu", "us")
    key: SigningKey = field(default_factory=SigningKey.generate)

    def __post_init__(self) -> None:
        self.authority = FederationAuthority.init(self.root / "ca", "example")
        requests: list[Any] = [request_gateway(self.root / "gw", name="one")]
        for name in self.sets:
            for index, jurisdiction in enumerate(PLACES[name]):
                address = f"127.0.0.1:{50100 + index}"
                requests.append(
                    request_party(
                        self.folder(name, index),
                        set=name,
                        index=index,
                        operator=f"operator-{name}-{index}",
                        region=f"{name}-{index}",
                        jurisdiction=jurisdiction,
                        peer=address,
                        gateway=address,
                    )
                )
        self._issued(self.authority.sign(requests))

    def folder(self, name: str, index: int) -> Path:
        return self.root / f"{name}{index}"

    @property
    def ca(self) -> Path:
        return self.root / "ca" / "ca.pem"

    def rotate(self, name: str, index: int) -> None:
        """A party gets new keys, and at once forgets the ones before."""
        self._issued(self.authority.sign([rotate(self.folder(name, index))]), overlap_s=0)

    def _issued(self, directory: Directory, **settings: Any) -> None:
        self.directory = directory
        for name in self.sets:
            for index in range(3):
                install(
                    self.folder(name, index), directory, fingerprint=self.authority.fingerprint, **settings
                )
        install(self.root / "gw", directory, fingerprint=self.authority.fingerprint)


class FakeGateway(httpx.AsyncBaseTransport):
    """``react``: what happens to the next requests of ``/v1/private/infer``, in order; then they are answered.

    ``change``: applied to the three answers before they are sealed. ``posted`` holds all bodies, ``headers`` theirs.
    """

    def __init__(self, federation: Federation, owned: Owned) -> None:
        self.federation, self.owned = federation, owned
        self.directory: Directory = federation.directory
        self.react: list[Reaction] = []
        self.change: Change | None = None
        self.down: set[str] = set()
        self.posted: list[dict[str, Any]] = []
        self.headers: list[httpx.Headers] = []
        self.fetched = 0
        self.computed = 0
        self.journal: set[str] = set()  # what the parties have accepted: never forgotten
        self.stored: dict[str, bytes] = {}  # what the gateway keeps for an Idempotency-Key
        self.closed = False

    async def aclose(self) -> None:
        self.closed = True

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        path = request.url.path
        if path == "/v1/parties":
            self.fetched += 1
            etag = f'"{self.directory.digest.hex()[:16]}"'
            if request.headers.get("if-none-match") == etag:
                return httpx.Response(304, headers={"ETag": etag})
            return httpx.Response(200, json=self.directory.to_json(), headers={"ETag": etag})
        if path == "/v2/health/ready":
            return httpx.Response(200 if len(self.down) < len(self.federation.sets) else 503)
        if request.headers.get("authorization") != f"Bearer {BEARER}":
            return problem(401, "bad_key")
        if path == "/v1/models":
            return httpx.Response(200, json={"data": [{"name": "tiny", "hidden": 32}]})
        if path != "/v1/private/infer":
            return problem(404, "not_found")
        self.posted.append(json.loads(request.content))
        self.headers.append(request.headers)
        if self.react:
            return await self.react.pop(0)(self, request)
        return self.infer(request)

    def infer(self, request: httpx.Request) -> httpx.Response:
        """Answer as an honest gateway with honest parties."""
        key = request.headers.get("idempotency-key", "")
        if key in self.stored:
            return httpx.Response(200, content=self.stored[key], headers={"Idempotency-Replayed": "true"})
        said = json.loads(request.content)
        a = Authorisation.from_json(said["authorisation"])
        if a.set in self.down:
            ready = [name for name in self.federation.sets if name not in self.down]
            return problem(503, "unavailable", {"Retry-After": "0"}, sets=ready)
        now = time.time_ns() // 1_000_000
        if not a.issued_ms - 5000 <= now <= a.expires_ms:
            return problem(403, "expired")
        verify(a, base64.b64decode(said["signature"]), self.federation.key.public)
        if a.job in self.journal:
            return problem(409, "replayed")
        envelopes = [base64.b64decode(text) for text in said["envelopes"]]
        plaintexts = []
        for index, envelope in enumerate(envelopes):
            keys = open_folder(self.federation.folder(a.set, index)).keys()
            try:
                plaintexts.append(open_envelope(a, index, envelope, keys))
            except SealError:
                return problem(422, "bad_envelope")
        self.journal.add(a.job)
        content = self.answer(a, [unpack(text, 1 << 24) for text in plaintexts])
        if key:
            self.stored[key] = content
        return httpx.Response(200, content=content)

    def answer(self, a: Authorisation, parcels: list[Message]) -> bytes:
        self.computed += 1
        rows = self.compute(parcels)
        output, checks = split(to_integers(rows, SCALE)), split(np.zeros(3, np.int64))
        answers = [
            Message(
                {"scale": SCALE, "checks": [["layer 0/softmax", 8]], "rounds": 7},
                {"output": output[i], "check 0": checks[i]},
            )
            for i in range(3)
        ]
        if self.change is not None:
            self.change(answers)
        sealed = [
            seal_answer(pack(answer), Secret(bytes.fromhex(str(p.header["reply_key"]))), a.digest(), i)
            for i, (answer, p) in enumerate(zip(answers, parcels, strict=True))
        ]
        texts = [base64.b64encode(one).decode() for one in sealed]
        timing = {"queue_s": 0.001, "run_s": 0.5}
        return json.dumps({"job": a.job, "answers": texts, "set": a.set, "timing": timing}).encode()

    def compute(self, parcels: list[Message]) -> np.ndarray:
        """The model in the clear, from shares that are put together: (batch, hidden)."""
        assert all(p.header["v"] == 1 and len(str(p.header["reply_key"])) == 64 for p in parcels)
        seeds = seeds_of(0, parcels[0].header)
        assert seeds_of(1, parcels[1].header)[1] == seeds[1] and seeds_of(2, parcels[2].header)[0] == seeds[0]
        values = {}
        for name, public in dict(parcels[0].header["shares"]).items():  # type: ignore[call-overload]
            shape = tuple(public["shape"])
            rest = parcels[1].tensors[name]
            assert np.array_equal(rest, parcels[2].tensors[name])
            whole = rest.reshape(-1) + expanded(seeds[0], name, (rest.size,))
            whole = whole + expanded(seeds[1], name, (rest.size,))
            values[name] = to_reals(whole.reshape(shape), public["scale"])
        model = self.owned.bert
        tables = model.embeddings
        blocks = FloatBlocks(
            fold(model.encoder, tables.norm_gain, tables.norm_bias),
            model.config,
            model.normalize,
            torch.from_numpy(values["mask"] == 0),
            torch.from_numpy(values["pooling"]),
        )
        program = bert.Program(model.config.layers, True, "embedding")
        return np.asarray(run_clear(bert.encode(blocks, program, torch.from_numpy(values["x"]))).numpy())


def problem(status: int, code: str, headers: dict[str, str] | None = None, **extra: Any) -> httpx.Response:
    body = {
        "status": status,
        "code": code,
        "cause": f"cause of {code}",
        "remedy": f"remedy of {code}",
        **extra,
    }
    kind = {"Content-Type": "application/problem+json", **(headers or {})}
    return httpx.Response(status, content=json.dumps(body).encode(), headers=kind)


def split(value: np.ndarray) -> list[np.ndarray]:
    """Three summands in the ring."""
    a, b = (np.frombuffer(os.urandom(value.nbytes), np.int64).reshape(value.shape) for _ in range(2))
    return [a.copy(), b.copy(), value - a - b]


# -- what may happen to a request ------------------------------------------------------------------------------------


def says(status: int, code: str, headers: dict[str, str] | None = None, **extra: Any) -> Reaction:
    """A problem."""

    async def react(gateway: FakeGateway, request: httpx.Request) -> httpx.Response:
        del gateway, request
        return problem(status, code, headers, **extra)

    return react


def fails(error: Exception) -> Reaction:
    """The connection fails before anything arrived."""

    async def react(gateway: FakeGateway, request: httpx.Request) -> httpx.Response:
        del gateway, request
        raise error

    return react


def loses(error: Exception, *, forgets: bool = False) -> Reaction:
    """The job is computed, and the connection ends before the answer. ``forgets``: the gateway died with it."""

    async def react(gateway: FakeGateway, request: httpx.Request) -> httpx.Response:
        gateway.infer(request)
        if forgets:
            gateway.stored.clear()
        raise error

    return react


def loses_behind_a_proxy(*, forgets: bool = False) -> Reaction:
    """As ``loses``, with Ray Serve's proxy in front: it answers 500 in plain text for a replica that died."""

    async def react(gateway: FakeGateway, request: httpx.Request) -> httpx.Response:
        gateway.infer(request)
        if forgets:
            gateway.stored.clear()
        return httpx.Response(500, text="Internal Server Error")

    return react


def sends(change: Callable[[dict[str, Any]], Any]) -> Reaction:
    """An answer changed by the gateway."""

    async def react(gateway: FakeGateway, request: httpx.Request) -> httpx.Response:
        said = json.loads(gateway.infer(request).content)
        return httpx.Response(200, content=json.dumps(change(said) or said).encode())

    return react
