"""Reading a request: never more bytes than the limit, chunked or not, and never longer than the deadline."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from mpc_ray.serve.bodies import CLOSE, Room
from mpc_ray.serve.problems import ProblemError


async def read_json(request: Request, limit: int, seconds: float, room: Room) -> bytes:
    """The body of a JSON request, of at most ``limit`` bytes, there within ``seconds``, taken from ``room``.

    Raises ProblemError: ``media_type``, ``too_large`` (as soon as more than the limit was announced or has come),
    ``slow_body``; NoRoom. Memory: at most twice the limit.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ProblemError(
            415,
            "media_type",
            "the body is not declared as JSON",
            remedy="send Content-Type: application/json",
            headers=CLOSE,
        )
    if request.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        raise ProblemError(
            415,
            "media_type",
            "the body is compressed",
            remedy="send it as it is: sealed bytes do not compress",
            headers=CLOSE,
        )
    announced = request.headers.get("content-length", "")
    if len(announced) >= 20 or (announced.isdecimal() and int(announced) > limit):
        raise _too_large(limit)
    if announced.isdecimal():
        room.announced(int(announced))
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                if len(body) + len(chunk) > limit:
                    raise _too_large(limit)
                room.take(len(chunk))
                body += chunk
    except TimeoutError:
        raise ProblemError(
            408,
            "slow_body",
            f"the body was not there within {seconds:g} s",
            remedy="send it at once, or less of it",
            headers=CLOSE,
        ) from None
    return bytes(body)


def _too_large(limit: int) -> ProblemError:
    return ProblemError(
        413,
        "too_large",
        f"the body is larger than {limit:,} bytes",
        remedy="send fewer texts in one request",
        headers=CLOSE,
    )
