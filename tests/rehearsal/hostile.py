"""Hostile requests: nothing crashes, nothing is a 500, nothing is accepted that should not be, memory comes back."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
from jobs import Body, Maker, flipped, with_changed

from mpc_ray.trust.authorisation import SigningKey

INFER = "/v1/private/infer"
CONCURRENT = 8
Attack = Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]


@dataclass
class Outcome:
    """What came back. ``wrong`` holds a line for each answer that must not be."""

    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Hostile:
    """Makes attacks on the gateway at ``url``. ``accepted`` is a body that was answered before: replays use it."""

    def __init__(self, maker: Maker, url: str, bearer: str, verify: ssl.SSLContext, accepted: Body) -> None:
        self.maker, self.url, self.bearer, self.verify, self.accepted = maker, url, bearer, verify, accepted
        self.headers = {"Authorization": f"Bearer {bearer}"}
        self.stranger = SigningKey.generate()
        self._valid = maker.body()
        self._made = time.monotonic()
        self.other = maker.body("Another text, of another job.")
        self.random = random.Random(7)

    @property
    def valid(self) -> Body:
        """A body that is never sent as it is; a younger one now and then, or "expired" would be all that is said."""
        if time.monotonic() - self._made > 20:
            self._valid, self._made = self.maker.body(), time.monotonic()
        return self._valid

    # -- kinds of attack: (name, statuses that may come back, how to send it)

    def kinds(self) -> list[tuple[str, set[int], Callable[[], Attack]]]:
        """409 also comes to who borrows a job's name (``self.valid``) while another attack under it is looked at."""
        return [
            ("malformed JSON", {400, 422}, self._malformed),
            ("wrong sizes", {400, 409, 413, 422}, self._sizes),
            ("changed after signing", {400, 403, 404, 409, 422}, self._changed),
            ("forged signature", {403, 409, 422}, self._forged),
            ("unknown signing key", {403}, self._unknown_key),
            ("expired or too long", {403, 422}, self._expired),
            ("moved envelope", {403, 409, 422, 502}, self._moved),
            ("replay", {403, 409}, self._replayed),
            ("no API key, or a wrong one", {401}, self._bearer),
            ("oversized", {413, 422}, self._oversized),
            ("oversized, in chunks", {413}, self._chunked),
            ("unknown route or method", {404, 405, 422}, self._route),
            ("bad headers", {400, 403, 409, 415, 422, 431}, self._headers_bad),
            ("forbidden purpose or model", {403, 404, 409, 422}, self._forbidden),
        ]

    def _post(self, content: bytes, **headers: str) -> Attack:
        given = self.headers | {"Content-Type": "application/json"} | headers

        async def send(client: httpx.AsyncClient) -> httpx.Response:
            return await client.post(INFER, content=content, headers=given)

        return send

    def _json(self, body: Any, **headers: str) -> Attack:
        return self._post(json.dumps(body).encode(), **headers)

    def _malformed(self) -> Attack:
        whole = json.dumps(self.valid).encode()
        return self._post(
            self.random.choice(
                [
                    b"",
                    b"{",
                    whole[: self.random.randrange(1, len(whole) - 1)],
                    b"[" * 5000 + b"]" * 5000,
                    b'{"a":' * 2000 + b"1" + b"}" * 2000,
                    b"null",
                    b"NaN",
                    b'"' + os.urandom(200) + b'"',
                    whole.replace(b'"batch": 1', b'"batch": 1e999'),
                    whole.replace(b'"batch": 1', b'"batch": ' + b"9" * 5000),
                    os.urandom(1000),
                    b"\xff\xfe" + whole,
                    whole + whole,
                ]
            )
        )

    def _sizes(self) -> Attack:
        body = dict(self.valid)
        envelope = body["envelopes"]
        body["envelopes"] = self.random.choice(
            [
                [],
                envelope[:2],
                envelope * 2,
                [envelope[0], envelope[1], ""],
                [envelope[0][:40]] * 3,
                [e[:-3] for e in envelope],
                ["!" * 400] * 3,
                [1, 2, 3],
                "x",
                None,
                [envelope[0], envelope[1], "A" * 3_000_000],
            ]
        )
        return self._json(body)

    def _changed(self) -> Attack:
        field, value = self.random.choice(
            [
                ("batch", 2),
                ("batch", 0),
                ("batch", -1),
                ("batch", "1"),
                ("batch", 10**9),
                ("length", 17),
                ("length", 512),
                ("job", "00" * 16),
                ("job", "zz"),
                ("set", "moon"),
                ("model", "other"),
                ("model", "../../etc/passwd"),
                ("model_digest", "ab" * 32),
                ("protocol", "none"),
                ("output", "hidden"),
                ("range_check", False),
                ("range_check", "yes"),
                ("purpose", "advertising"),
                ("jurisdictions", ["XX"]),
                ("jurisdictions", "US"),
                ("retention", "forever"),
                ("expires_ms", 1 << 60),
                ("issued_ms", 0.5),
                ("inputs", ["00" * 32] * 3),
                ("inputs", []),
                ("federation", "another"),
                ("client", "0" * 32),
                ("subject", "Alice"),
            ]
        )
        return self._json(with_changed(self.valid, **{field: value}))

    def _forged(self) -> Attack:
        signature = self.random.choice(
            [flipped(self.valid["signature"]), self.other["signature"], "A" * 86 + "==", "", "x"]
        )
        return self._json({**self.valid, "signature": signature})

    def _unknown_key(self) -> Attack:
        return self._json(self.maker.body(key=self.stranger))

    def _expired(self) -> Attack:
        now = int(time.time() * 1000)
        start, end = self.random.choice(
            [
                (now - 120_000, now - 61_000),
                (now - 90_000, now - 31_000),
                (now + 90_000, now + 120_000),
                (now, now + 60_001),
            ]
        )
        if end - start <= 60_000:
            return self._json(self.maker.body(issued_ms=start, expires_ms=end))
        return self._json(with_changed(self.maker.body(), issued_ms=start, expires_ms=end))

    def _moved(self) -> Attack:
        """Every part is genuine, and in the wrong place; a fresh job each time, so that no replay hides it."""
        body = self.maker.body()
        e = body["envelopes"]
        return self._json(
            {
                **body,
                "envelopes": self.random.choice(
                    [
                        [e[1], e[0], e[2]],
                        [e[0], e[0], e[0]],
                        self.other["envelopes"],
                        [e[0], e[1], flipped(e[2])],
                        [self.other["envelopes"][0], e[1], e[2]],
                    ]
                ),
            }
        )

    def _replayed(self) -> Attack:
        return self._json(self.accepted)

    def _bearer(self) -> Attack:
        bad = self.random.choice(
            [
                "",
                "Bearer",
                "Bearer ",
                "Basic YTpi",
                "Bearer " + "x" * 5000,
                self._other_key(),
                "Bearer mpck_" + "0" * 16 + "_" + "A" * 43,
                self.headers["Authorization"] + " x",
                "bearer\t" + self.bearer[:-2],
            ]
        )
        return self._json(self.valid, Authorization=bad)

    def _other_key(self) -> str:
        """The right key with one character in its middle changed."""
        key = self.headers["Authorization"]
        return f"{key[:-20]}{'B' if key[-20] != 'B' else 'C'}{key[-19:]}"

    def _oversized(self) -> Attack:
        return self._post(
            b" " * (33 << 20) if self.random.random() < 0.3 else b'{"x":"' + b"A" * (33 << 20) + b'"}'
        )

    def _chunked(self) -> Attack:
        async def body() -> Any:
            yield b'{"envelopes":["'
            for _ in range(40):
                yield b"A" * (1 << 20)

        async def send(client: httpx.AsyncClient) -> httpx.Response:
            return await client.post(
                INFER, content=body(), headers=self.headers | {"Content-Type": "application/json"}
            )

        return send

    def _route(self) -> Attack:
        method, path = self.random.choice(
            [
                ("GET", INFER),
                ("PUT", INFER),
                ("DELETE", "/v1/models"),
                ("POST", "/v1/parties"),
                ("GET", "/v1/private/../../etc/passwd"),
                ("GET", "/v1/private/infer/x"),
                ("GET", "/%00"),
                ("GET", "/v2/models/" + "a" * 3000),
                ("GET", "/admin"),
                ("TRACE", "/"),
                ("GET", "/v2/models/nobody"),
                ("GET", "/v1/parties?set=moon"),
                ("PROPFIND", "/"),
            ]
        )

        async def send(client: httpx.AsyncClient) -> httpx.Response:
            return await client.request(method, path, headers=self.headers)

        return send

    def _headers_bad(self) -> Attack:
        name, value = self.random.choice(
            [
                ("X-Request-Timeout-Ms", "-1"),
                ("X-Request-Timeout-Ms", "soon"),
                ("X-Request-Timeout-Ms", "9" * 400),
                ("Idempotency-Key", "k" * 5000),
                ("Idempotency-Key", ""),
                ("Content-Type", "text/xml"),
                ("Content-Encoding", "gzip"),
                ("Accept-Language", "x" * 4000),
                ("X-Big", "y" * 60_000),
            ]
        )
        forged = {**self.valid, "signature": flipped(self.valid["signature"])}
        return self._json(forged, **{name: value})

    def _forbidden(self) -> Attack:
        return self._json(
            self.random.choice(
                [
                    self.maker.body(purpose="advertising"),
                    self.maker.body(jurisdictions=("XX",)),
                    self.maker.body(retention="forever"),
                    self.maker.body(model="other"),
                    self.maker.body(model_digest="cd" * 32),
                ]
            )
        )

    # -- sending

    def attacks(self, count: int) -> Iterator[tuple[str, set[int], Attack]]:
        """``count`` attacks in turn of their kinds; the 33 MB ones are rare."""
        kinds = self.kinds()
        for i in range(count):
            name, allowed, make = kinds[i % len(kinds)]
            if name.startswith("oversized") and i // len(kinds) % 10:
                name, allowed, make = kinds[self.random.randrange(9)]
            yield name, allowed, make()

    async def run(self, count: int) -> Outcome:
        """Send ``count`` attacks, ``CONCURRENT`` at a time."""
        outcome = Outcome()
        todo = self.attacks(count)
        async with httpx.AsyncClient(base_url=self.url, verify=self.verify, timeout=60) as client:

            async def worker() -> None:
                for name, allowed, attack in todo:
                    outcome.sent += 1
                    status, said = await self._one(client, attack)
                    outcome.statuses[status] += 1
                    if status not in allowed | {0, 429}:
                        outcome.wrong.append(f"{name}: {status} {said}")

            await asyncio.gather(*(worker() for _ in range(CONCURRENT)))
        return outcome

    async def _one(self, client: httpx.AsyncClient, attack: Attack) -> tuple[int, str]:
        """Status and code; 0 where the server hung up on a body it had refused, or httpx would not send it."""
        for _ in range(50):
            try:
                answer = await attack(client)
            except (
                httpx.ReadError,
                httpx.WriteError,
                httpx.RemoteProtocolError,
                httpx.LocalProtocolError,
                httpx.InvalidURL,
            ):
                return 0, ""
            except (UnicodeEncodeError, ValueError):
                return 0, ""
            if answer.status_code != 429:
                break
            await asyncio.sleep(min(1.0, float(answer.headers.get("retry-after", 1))))
        kind = answer.headers.get("content-type", "")
        if answer.status_code >= 400 and "problem+json" not in kind:
            return answer.status_code, f"not a problem document ({kind})"
        return answer.status_code, str(answer.json().get("code")) if "json" in kind else ""


def slow_loris(url: str, verify: ssl.SSLContext, connections: int, limit_s: float) -> list[str]:
    """Connections that dribble: a handshake never finished, headers never ended, a body that stops.

    Each must be closed by the server within ``limit_s``; returns a line for each that was not.
    """
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None
    address = (parts.hostname, parts.port)
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    openings = {
        "headers never end": head.encode(),
        "a body that stops": (head + "Content-Length: 5000\r\n\r\n{").encode(),
        "chunks that stop": (head + "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n").encode(),
    }
    held: list[tuple[str, ssl.SSLSocket]] = []
    for i in range(connections):
        name = list(openings)[i % len(openings)]
        sock = verify.wrap_socket(socket.create_connection(address, 5), server_hostname=parts.hostname)
        sock.sendall(openings[name])
        held.append((name, sock))
    still = []
    end = time.monotonic() + limit_s
    for name, sock in held:
        sock.settimeout(max(0.1, end - time.monotonic()))
        try:
            while sock.recv(4096):
                pass
        except TimeoutError:
            still.append(f"{name}: still open after {limit_s:g} s")
        except OSError:
            pass
        sock.close()
    return still
