"""How a request's work runs: its body read as JSON, long computing in threads, all ended when the caller leaves."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from fastapi import Request
from starlette.responses import Response

from mpc_ray.client.proxy.faults import Fault

P = ParamSpec("P")
T = TypeVar("T")
GONE = 499  # what nginx logs for a caller that left; nobody reads it


async def json_body(request: Request) -> Any:
    """The body as JSON. NaN and the like are no JSON. Raises Fault 400, and what reading the body raises."""
    data = await request.body()
    try:
        return json.loads(data, parse_constant=_refused)
    except (ValueError, RecursionError):
        raise Fault(
            400,
            "We could not parse the JSON body of your request.",
            tei=(422, "Tokenizer"),
        ) from None


def _refused(name: str) -> Any:
    raise ValueError(name)


async def in_thread(call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """``call`` in a thread: the event loop goes on answering others."""
    return await asyncio.to_thread(call, *arguments, **named)


async def while_connected(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The answer of ``work``, which is cancelled when the caller closes its connection."""
    doing = asyncio.create_task(work)
    leaving = asyncio.create_task(_left(request))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        return Response(status_code=GONE)
    finally:
        for task in (doing, leaving):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leaving
        if not doing.done():
            await asyncio.wait({doing})


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
