"""One HTTP exchange with the gateway: bounded in time and size, and told apart by what may have happened.

``Answer``, or ``Problem``: the gateway said so. ``NotSent``: nothing reached it. ``Lost``: it may have got the request,
or not; only the same bytes under the same Idempotency-Key may be sent then.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import httpx

import mpc_ray
from mpc_ray.client.problems import Problem, problem_of
from mpc_ray.errors import ChannelError, ConfigError, MpcError, Unavailable
from mpc_ray.trust.secret import Secret

CONNECT_S = 5.0
GRACE_S = 2.0  # beyond the deadline we tell the gateway, so that its own word comes first
MAX_ANSWER = 256 << 20


@dataclass(frozen=True)
class Answer:
    """A success. ``etag``: to ask later whether it changed; 304 comes as an Answer without body."""

    status: int
    body: bytes = field(repr=False)
    etag: str = ""


@dataclass(frozen=True)
class NotSent:
    """The gateway was not reached."""

    error: MpcError


@dataclass(frozen=True)
class Lost:
    """The connection ended, or nothing came in time: the request may have been computed."""

    error: MpcError


Reply: TypeAlias = Answer | Problem | NotSent | Lost

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class Gateway:
    """The connection pool. ``verify``: PEM file of the authority that signed the gateway's HTTPS certificate (None:
    those of this machine). ``server_name``: the name in that certificate, where it is not the URL's host.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: Secret | None = None,
        verify: str | Path | ssl.SSLContext | None = None,
        server_name: str | None = None,
        connections: int = 16,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = checked_url(url)
        self._api_key = api_key
        self._extensions = {} if server_name is None else {"sni_hostname": server_name}
        self._http = httpx.AsyncClient(
            base_url=self.url,
            verify=_context(verify),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            headers={"User-Agent": f"mpc-ray/{mpc_ray.__version__}", "Accept": "application/json"},
            follow_redirects=False,  # a redirect would carry the key elsewhere
            trust_env=True,
            transport=transport,
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def get(self, path: str, timeout_s: float, headers: Mapping[str, str] | None = None) -> Reply:
        """GET ``path``; safe to repeat, so a lost connection is no more than that."""
        return await self._exchange("GET", path, timeout_s, headers or {}, None)

    async def post(self, path: str, body: bytes, timeout_s: float, headers: Mapping[str, str]) -> Reply:
        """POST a JSON body. ``headers`` beside those of the key and the type."""
        return await self._exchange(
            "POST", path, timeout_s, {"Content-Type": "application/json", **headers}, body
        )

    async def _exchange(
        self, method: str, path: str, timeout_s: float, headers: Mapping[str, str], body: bytes | None
    ) -> Reply:
        bound = timeout_s + GRACE_S
        try:
            async with (
                asyncio.timeout(bound),
                self._http.stream(
                    method,
                    path,
                    content=body,
                    headers={**self._authorised(), **headers},
                    timeout=httpx.Timeout(bound, connect=min(CONNECT_S, bound), pool=bound),
                    extensions=dict(self._extensions),
                ) as response,
            ):
                data = await _bounded(response)
        except _NOT_SENT as error:
            return NotSent(self._unreached(error))
        except (httpx.TransportError, httpx.StreamError, TimeoutError) as error:
            what = "did not answer in time" if _is_timeout(error) else "closed the connection"
            return Lost(
                ChannelError(
                    f"{self.url} {what}",
                    remedy="the job may have run: send it again, or see the gateway's health",
                )
            )
        except _TooLong:
            return Problem(502, "too_long", f"its answer has more than {MAX_ANSWER} bytes")
        if response.is_success or response.status_code == 304:
            return Answer(response.status_code, data, response.headers.get("etag", ""))
        said = problem_of(response.status_code, response.headers, data)
        if said.status == 500 and not said.code:  # not ours: a proxy in front (Serve's, say) lost the gateway
            return Lost(
                ChannelError(f"{self.url} lost the gateway behind it", remedy="see the gateway's health")
            )
        return said

    def _authorised(self) -> dict[str, str]:
        return {} if self._api_key is None else {"Authorization": f"Bearer {self._api_key.reveal().decode()}"}

    def _unreached(self, error: httpx.TransportError) -> MpcError:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                why = getattr(cause, "verify_message", "it does not verify")
                return ConfigError(
                    f"the HTTPS certificate of {self.url} is not accepted: {why}",
                    remedy="give the authority that signed it (verify), and its name where that is not the URL's host "
                    "(server_name)",
                )
            cause = cause.__cause__ or cause.__context__
        return Unavailable(
            f"{self.url} is not reached",
            remedy="check the URL, and whether the gateway runs",
            retry_after_s=1.0,
        )


class _TooLong(Exception):
    """An answer above ``MAX_ANSWER``."""


async def _bounded(response: httpx.Response) -> bytes:
    pieces, total = [], 0
    async for piece in response.aiter_bytes():
        total += len(piece)
        if total > MAX_ANSWER:
            raise _TooLong
        pieces.append(piece)
    return b"".join(pieces)


def _is_timeout(error: BaseException) -> bool:
    return isinstance(error, httpx.TimeoutException | TimeoutError)


def checked_url(url: str) -> str:
    """The URL without a slash at its end. ConfigError unless it is HTTPS, or HTTP to this machine (for tests)."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    local = parsed.host in ("localhost", "127.0.0.1", "::1")
    if not parsed.host or parsed.scheme not in ("https", "http") or parsed.userinfo or parsed.query:
        raise ConfigError("the gateway's URL is malformed", remedy="https://HOST[:PORT]")
    if parsed.scheme == "http" and not local:
        raise ConfigError(
            f"the gateway's URL {url} is not HTTPS: the API key would travel in clear", remedy="use https://"
        )
    return url.rstrip("/")


def _context(verify: str | Path | ssl.SSLContext | None) -> ssl.SSLContext:
    if isinstance(verify, ssl.SSLContext):
        return verify
    try:
        context = ssl.create_default_context(cafile=None if verify is None else str(verify))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"{verify} holds no certificate authority: {error.strerror or type(error).__name__}",
            remedy="give the PEM file of the authority that signed the gateway's HTTPS certificate",
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
