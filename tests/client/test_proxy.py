"""Who may come in to the proxy, how much, and what happens when they leave."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import httpx
import pytest
from direct import Direct, call, fault, openai  # type: ignore[import-not-found]

from mpc_ray.client.proxy.app import make_app
from mpc_ray.client.proxy.settings import ProxySettings


def test_a_local_key_is_asked_for(direct: Direct) -> None:
    for path, body in (("/v1/embeddings", {"input": "a", "model": "tiny"}), ("/embed", {"inputs": "a"})):
        for given in (None, "Bearer wrong", "Basic c2VjcmV0", "secret"):
            headers = {} if given is None else {"Authorization": given}
            answer = call(direct, "POST", path, body, key=b"secret", headers=headers)
            assert answer.status_code == 401
        assert (
            call(
                direct, "POST", path, body, key=b"secret", headers={"Authorization": "bearer secret"}
            ).status_code
            == 200
        )
    answer = call(direct, "GET", "/v1/models", key=b"secret")
    assert fault(answer)["code"] == "invalid_api_key" and "secret" not in answer.text
    assert call(direct, "GET", "/health", key=b"secret").status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "127.0.0.1:8089"}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:8089"}, 200),
        ({"Host": "proxy.internal:8089"}, 200),
        ({"Host": "attacker.example:8089"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "https://attacker.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:8089"}, 200),
    ],
)
def test_web_pages_do_not_come_in(direct: Direct, headers: dict[str, str], status: int) -> None:
    settings = {"allowed_hosts": ("proxy.internal",)}
    answer = call(direct, "GET", "/v1/models", headers=headers, settings=settings)
    assert answer.status_code == status


def test_bodies_are_bounded_announced_or_not(direct: Direct) -> None:
    body = {"input": ["a" * 900] * 2, "model": "tiny"}
    settings = {"max_body_bytes": 1024}
    answer = call(direct, "POST", "/v1/embeddings", body, settings=settings)
    assert answer.status_code == 413 and fault(answer)["code"] == "request_too_large"

    async def chunks() -> Any:
        for _ in range(3):
            yield b"x" * 900

    answer = call(direct, "POST", "/embed", settings=settings, content=chunks())  # type: ignore[arg-type]
    assert answer.status_code == 413 and answer.json()["error_type"] == "Validation"


def test_too_many_at_once_are_told_to_come_back(direct: Direct) -> None:
    app = make_app(direct, ProxySettings(max_requests=2))

    async def work() -> list[int]:
        direct.gate = asyncio.Event()
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            body = {"input": "a", "model": "tiny"}
            tasks = [asyncio.create_task(client.post("/v1/embeddings", json=body)) for _ in range(3)]
            while not any(task.done() for task in tasks):
                await asyncio.sleep(0.01)
            health = await client.get("/health")
            direct.gate.set()
            return [health.status_code, *sorted([(await task).status_code for task in tasks])]

    assert asyncio.run(work()) == [200, 200, 200, 429]


def test_a_caller_that_leaves_ends_its_work(direct: Direct) -> None:
    app = make_app(direct, ProxySettings())
    body = json.dumps({"input": "a", "model": "tiny"}).encode()
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def work() -> None:
        direct.gate = asyncio.Event()
        left = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop(0)
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            del message

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/embeddings",
            "raw_path": b"/v1/embeddings",
            "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        }
        task = asyncio.create_task(app(scope, receive, send))
        while not direct.seen:
            await asyncio.sleep(0.01)
        left.set()
        await asyncio.wait_for(task, 5)

    asyncio.run(work())
    assert direct.cancelled == 1


def test_no_text_is_logged(direct: Direct, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        openai(direct, "canarytext")
        openai(direct, ["canarytext", ""])
        direct.error = RuntimeError("canarytext")
        openai(direct, "canarytext")
        call(direct, "POST", "/embed", {"inputs": "canarytext", "canarytext": 1})
    assert "canarytext" not in caplog.text
