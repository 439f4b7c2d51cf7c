"""One request over time: deadlines, callers that leave, callers that ask twice, too many at once, the end."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from gateways import Fake, Federation, Running, api_key, body, config, federation, problem

from mpc_ray.errors import AuthorisationError, Unavailable


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return federation(tmp_path_factory.mktemp("federation"), ("eu",))


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


async def until(condition: Any, seconds: float = 2.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.005)


def test_a_deadline_cancels_what_is_under_way(made: Federation) -> None:
    async def test() -> None:
        fake = Fake("eu", seconds=10)
        async with Running(made, {"eu": fake}) as gateway:
            begun = time.monotonic()
            answer = await gateway.infer(X_Request_Timeout_Ms="100")
            assert time.monotonic() - begun < 1
            problem(answer, 504, "deadline")
            assert fake.cancelled == 1
            assert 0 < fake.jobs[0].timeout_s <= 0.1
            for wrong in ("0", "-1", "60001", "1e3", "ten", "9" * 400):
                problem(await gateway.infer(X_Request_Timeout_Ms=wrong), 422, "invalid")
            assert len(fake.jobs) == 1

    run(test())


def test_a_replay_is_refused_and_a_failed_job_is_not_a_replay(made: Federation) -> None:
    async def test() -> None:
        fake = Fake("eu", error=Unavailable("no triple"))
        async with Running(made, {"eu": fake}) as gateway:
            sent = body(made)
            problem(await gateway.infer(sent), 503, "set_unavailable")
            fake.error = None
            assert (await gateway.infer(sent)).status_code == 200
            problem(await gateway.infer(sent), 409, "replayed")
            sent["envelopes"] = body(made)["envelopes"]
            problem(await gateway.infer(sent), 409, "replayed")
            assert fake.done == 1

    run(test())


def test_the_same_request_twice_under_one_idempotency_key(made: Federation) -> None:
    async def test() -> None:
        fake = Fake("eu", open=asyncio.Event())
        async with Running(made, {"eu": fake}) as gateway:
            sent = json.dumps(body(made)).encode()
            asked = [asyncio.create_task(gateway.infer(sent, idempotency_key="k1")) for _ in range(3)]
            await until(lambda: fake.jobs)
            await asyncio.sleep(0.05)
            problem(await gateway.infer(idempotency_key="k1"), 409, "idempotency_conflict")
            fake.open.set()  # type: ignore[union-attr]
            answers = await asyncio.gather(*asked)
            assert {answer.status_code for answer in answers} == {200}
            assert len({answer.content for answer in answers}) == 1
            assert fake.done == 1
            assert sorted("idempotency-replayed" in answer.headers for answer in answers) == [
                False,
                True,
                True,
            ]
            again = await gateway.infer(sent, idempotency_key="k1")
            assert again.content == answers[0].content and again.headers["idempotency-replayed"] == "true"
            problem(await gateway.infer(idempotency_key="k1"), 409, "idempotency_conflict")
            assert (await gateway.infer(idempotency_key="k2")).status_code == 200
            for wrong in ("", "a" * 129, "a b", "\x01"):
                problem(await gateway.infer(idempotency_key=wrong), 422, "invalid")

    run(test())


def test_after_a_failure_the_same_key_computes_again(made: Federation) -> None:
    async def test() -> None:
        fake = Fake("eu", error=Unavailable("no triple"))
        async with Running(made, {"eu": fake}) as gateway:
            sent = body(made)
            problem(await gateway.infer(sent, idempotency_key="k"), 503, "set_unavailable")
            fake.error = None
            assert (await gateway.infer(sent, idempotency_key="k")).status_code == 200
            assert (await gateway.infer(sent, idempotency_key="k")).status_code == 200
            assert fake.done == 1

    run(test())


def test_a_repeat_that_the_parties_take_for_a_replay_can_be_tried_again(made: Federation) -> None:
    async def test() -> None:
        fake = Fake("eu", error=AuthorisationError("seen", code="replayed"))
        async with Running(made, {"eu": fake}) as gateway:
            problem(await gateway.infer(idempotency_key="k"), 503, "unavailable")
            problem(await gateway.infer(), 409, "replayed")

    run(test())


def test_an_answer_is_given_though_the_state_cannot_be_told(made: Federation) -> None:
    async def test() -> None:
        async with Running(made, {"eu": Fake("eu")}) as gateway:

            async def fails(*_: Any) -> None:
                raise Unavailable("the state is being restarted")

            gateway.state.finish = fails  # type: ignore[method-assign]
            assert (await gateway.infer(idempotency_key="k")).status_code == 200

    run(test())


class Caller:
    """A caller over bare ASGI that can hang up."""

    def __init__(self, gateway: Running, content: bytes, **headers: str) -> None:
        named = {"authorization": f"Bearer {gateway.bearer}", "content-type": "application/json"} | headers
        self.scope: dict[str, Any] = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "https",
            "path": "/v1/private/infer", "raw_path": b"", "query_string": b"", "root_path": "",
            "client": ("127.0.0.1", 1), "server": ("gateway", 443),
            "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        }  # fmt: skip
        self.sent: list[Any] = []
        self._content: bytes | None = content
        self._gone = asyncio.Event()
        self.task = asyncio.create_task(gateway.app(self.scope, self._receive, self._send))

    def hang_up(self) -> None:
        self._gone.set()

    async def _receive(self) -> dict[str, Any]:
        if self._content is not None:
            content, self._content = self._content, None
            return {"type": "http.request", "body": content, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.sent.append(message)


def test_a_caller_that_leaves_cancels_its_job(made: Federation) -> None:
    async def test() -> None:
        fake = Fake("eu", open=asyncio.Event())
        async with Running(made, {"eu": fake}) as gateway:
            caller = Caller(gateway, json.dumps(body(made)).encode())
            await until(lambda: fake.jobs)
            caller.hang_up()
            await asyncio.wait_for(caller.task, 1)
            assert fake.cancelled == 1
            assert gateway.app.state.gateway.inference.under_way == 0

    run(test())


def test_an_idempotent_job_goes_on_when_its_caller_leaves(made: Federation) -> None:
    async def test() -> None:
        fake = Fake("eu", open=asyncio.Event())
        async with Running(made, {"eu": fake}) as gateway:
            content = json.dumps(body(made)).encode()
            caller = Caller(gateway, content, **{"idempotency-key": "k"})
            await until(lambda: fake.jobs)
            caller.hang_up()
            await asyncio.wait_for(caller.task, 1)
            inference = gateway.app.state.gateway.inference
            assert inference.under_way == 1, "it still counts"
            again = asyncio.create_task(gateway.infer(content, idempotency_key="k"))
            await asyncio.sleep(0.02)
            fake.open.set()  # type: ignore[union-attr]
            assert (await again).status_code == 200
            assert (fake.done, fake.cancelled) == (1, 0)
            await until(lambda: inference.under_way == 0)

    run(test())


def test_more_than_fit_are_refused_before_their_body_is_read(made: Federation) -> None:
    async def test() -> None:
        fake = Fake("eu", open=asyncio.Event())
        async with Running(made, {"eu": fake}, config(made, concurrent=2)) as gateway:
            asked = [asyncio.create_task(gateway.infer()) for _ in range(2)]
            await until(lambda: len(fake.jobs) == 2)
            answer = await gateway.infer(b"x" * 1_000_000)
            problem(answer, 429, "overloaded")
            assert answer.headers["connection"] == "close"
            fake.open.set()  # type: ignore[union-attr]
            assert [one.status_code for one in await asyncio.gather(*asked)] == [200, 200]
            assert (await gateway.infer()).status_code == 200, "there is room again"

    run(test())


def test_the_end_waits_for_what_is_under_way(made: Federation) -> None:
    async def test() -> None:
        fake = Fake("eu", seconds=0.2)
        async with Running(made, {"eu": fake}) as gateway:
            asked = asyncio.create_task(gateway.infer(idempotency_key="k"))
            await until(lambda: fake.jobs)
            gateway.app.state.gateway.draining = True
            problem(await gateway.client.get("/v2/health/ready"), 503, "draining")
            assert (await gateway.client.get("/v2/health/live")).status_code == 200
            await gateway.app.state.gateway.inference.drained()
            assert fake.done == 1
            assert (await asked).status_code == 200

    run(test())


def test_chunked_bodies_stop_at_the_limit(made: Federation) -> None:
    async def test() -> None:
        fake, sent = Fake("eu"), 0

        async def endless() -> Any:
            nonlocal sent
            while sent < 50_000_000:
                sent += 10_000
                yield b" " * 10_000

        async with Running(made, {"eu": fake}) as gateway:
            headers = {"authorization": f"Bearer {gateway.bearer}", "content-type": "application/json"}
            answer = await gateway.client.post("/v1/private/infer", content=endless(), headers=headers)
            problem(answer, 413, "too_large")
            assert answer.headers["connection"] == "close"
            assert sent <= 220_000, "reading stopped at once"
            for announced in ("200001", "9" * 30):
                answer = await gateway.infer(b"{}", content_length=announced)
                problem(answer, 413, "too_large")
            problem(await gateway.infer(b"{}", content_encoding="gzip"), 415, "media_type")
            for kind in ("text/plain", "", "application/jsonp", "multipart/form-data; boundary=x"):
                problem(await gateway.infer(b"{}", content_type=kind), 415, "media_type")

    run(test())


def test_who_may_send_no_more_is_told_before_the_body_is_read(made: Federation) -> None:
    async def test() -> None:
        read = 0

        async def content() -> Any:
            nonlocal read
            read += 1
            yield b"{}"

        async with Running(made, {"eu": Fake("eu")}) as gateway:
            gateway.bearer = api_key(made, per_minute=2)
            headers = {"authorization": f"Bearer {gateway.bearer}", "content-type": "application/json"}
            for status, code in ((422, "invalid"), (422, "invalid"), (429, "rate")):
                answer = await gateway.client.post("/v1/private/infer", content=content(), headers=headers)
                problem(answer, status, code)
            assert read == 2, "what is malformed counts too"
            assert answer.headers["connection"] == "close"
            gateway.bearer = api_key(made, tokens_per_day=16)
            assert (await gateway.infer()).status_code == 200
            headers["authorization"] = f"Bearer {gateway.bearer}"
            answer = await gateway.client.post("/v1/private/infer", content=content(), headers=headers)
            problem(answer, 429, "quota")
            assert read == 2

    run(test())


def test_bodies_share_a_budget_and_no_key_has_all_of_it(made: Federation) -> None:
    async def test() -> None:
        fake = Fake("eu", open=asyncio.Event())
        async with Running(made, {"eu": fake}, config(made, bodies_bytes=300_000)) as gateway:
            inference, keys = (
                gateway.app.state.gateway.inference,
                [gateway.bearer, api_key(made), api_key(made)],
            )

            def large(key: int, **headers: str) -> Any:
                gateway.bearer = keys[key]
                return asyncio.create_task(gateway.infer(body(made, envelope=30_000), **headers))

            under_way = [large(0)]
            await until(lambda: len(fake.jobs) == 1)
            assert inference.bodies.taken > 120_000
            assert "API key" in problem(await large(0), 429, "overloaded")["cause"]
            under_way.append(large(1))
            await until(lambda: len(fake.jobs) == 2)
            answer = await large(2)
            assert "all callers" in problem(answer, 429, "overloaded")["cause"]
            assert answer.headers["connection"] == "close"

            async def unannounced() -> Any:
                yield b" " * 50_000
                yield b" " * 50_000

            headers = {"authorization": f"Bearer {keys[2]}", "content-type": "application/json"}
            held = inference.bodies.taken
            answer = await gateway.client.post("/v1/private/infer", content=unannounced(), headers=headers)
            problem(answer, 429, "overloaded")
            assert inference.bodies.taken == held, "what was taken is given back"
            fake.open.set()  # type: ignore[union-attr]
            assert [one.status_code for one in await asyncio.gather(*under_way)] == [200, 200]
            assert inference.bodies.taken == 0
            assert (await large(2)).status_code == 200

    run(test())


def test_a_body_counts_until_its_job_is_done(made: Federation) -> None:
    """Also where the caller of an idempotent job has left."""

    async def test() -> None:
        fake = Fake("eu", open=asyncio.Event())
        async with Running(made, {"eu": fake}) as gateway:
            bodies = gateway.app.state.gateway.inference.bodies
            caller = Caller(gateway, json.dumps(body(made)).encode(), **{"idempotency-key": "k"})
            await until(lambda: fake.jobs)
            caller.hang_up()
            await asyncio.wait_for(caller.task, 1)
            assert bodies.taken > 0
            fake.open.set()  # type: ignore[union-attr]
            await until(lambda: bodies.taken == 0)

    run(test())


def malformed(made: Federation) -> list[tuple[Any, str]]:
    """Bodies that break one rule each, and where."""

    def changed(**fields: Any) -> dict[str, Any]:
        sent = body(made)
        sent["authorisation"] |= fields
        return sent

    whole = body(made)
    two = whole | {"envelopes": whole["envelopes"][:2]}
    return [
        (b"", ""), (b"{", ""), (b"null", ""), (b"[]", ""), (b"\xff\xfe", ""), (b"[" * 100_000, ""),
        (b'{"authorisation": NaN}', "authorisation"), (json.dumps(whole).encode() + b"x", ""),
        ({}, "authorisation"), (whole | {"extra-canary": 1}, "?"), (changed(canary=1), "authorisation.?"),
        (two, "envelopes"), (whole | {"envelopes": ["!!!!"] * 3}, "envelopes.0"),
        (whole | {"envelopes": ["QQ"] * 3}, "envelopes.0"), (whole | {"envelopes": ["QQ=a"] * 3}, "envelopes.0"),
        (whole | {"envelopes": [1, 2, 3]}, "envelopes.0"), (whole | {"envelopes": ["é" * 8] * 3}, "envelopes.0"),
        (whole | {"signature": "AAAA"}, "signature"), (whole | {"signature": None}, "signature"),
        (changed(job="x" * 32), "authorisation.job"), (changed(job="A" * 32), "authorisation.job"),
        (changed(batch="1"), "authorisation.batch"), (changed(batch=1.0), "authorisation.batch"),
        (changed(batch=True), "authorisation.batch"), (changed(batch=0), "authorisation.batch"),
        (changed(batch=10**30), "authorisation.batch"), (changed(range_check=1), "authorisation.range_check"),
        (changed(jurisdictions=["Germany"]), "authorisation.jurisdictions.0"),
        (changed(jurisdictions=["DE"] * 65), "authorisation.jurisdictions"),
        (changed(inputs=["0" * 64] * 2), "authorisation.inputs"), (changed(output="logits"), "authorisation.output"),
        (changed(set="eu\n"), "authorisation.set"), (changed(model="../../etc"), "authorisation.model"),
    ]  # fmt: skip


def test_malformed_bodies_are_named_and_never_repeated(made: Federation) -> None:
    async def test() -> None:
        fake = Fake("eu")
        async with Running(made, {"eu": fake}) as gateway:
            for sent, where in malformed(made):
                answer = await gateway.infer(sent)
                said = problem(answer, 422, "invalid")
                assert said["errors"][0]["at"] == where, (where, said)
                assert "canary" not in answer.text and "Germany" not in answer.text
            assert not fake.jobs
            lifetime = body(made)
            lifetime["authorisation"]["expires_ms"] = lifetime["authorisation"]["issued_ms"] + 60_001
            problem(await gateway.infer(lifetime), 422, "lifetime")

    run(test())


def test_bodies_made_to_be_slow_to_read(made: Federation) -> None:
    """Each is within the limit of bytes, and refused at once."""
    whole = json.dumps(body(made)).encode()
    size = 190_000
    shapes = [
        b'{"authorisation": [' + b"[]," * (size // 3) + b"[]]}",
        b'{"authorisation": {' + b",".join(b'"%d":0' % i for i in range(size // 12)) + b"}}",
        b'{"authorisation": ' + b"9" * size + b"}",
        b'{"authorisation": 1e' + b"9" * size + b"}",
        b'{"authorisation": "' + b"\\u0061" * (size // 6) + b'"}',
        whole[:-1] + b"," + b" " * size + b"}",
        b'{"' + b"a" * size + b'": 1}',
    ]

    async def test() -> None:
        fake = Fake("eu")
        async with Running(made, {"eu": fake}) as gateway:
            for shape in shapes:
                begun = time.monotonic()
                problem(await gateway.infer(shape), 422, "invalid")
                assert time.monotonic() - begun < 0.5, shape[:40]
            assert not fake.jobs

    run(test())


def test_bad_credentials(made: Federation) -> None:
    async def test() -> None:
        async with Running(made, {"eu": Fake("eu")}) as gateway:
            for value, code in [
                ("", "no_key"), ("Basic dTpw", "no_key"), ("Bearer", "no_key"), ("Bearer ", "no_key"),
                ("Bearer x", "bad_key"), ("Bearer " + "x" * 10_000, "bad_key"), ("Bearer mpck_\xff", "bad_key"),
            ]:  # fmt: skip
                answer = await gateway.client.post(
                    "/v1/private/infer", content=b"x", headers={b"authorization": value.encode("latin-1")}
                )
                problem(answer, 401, code)

    run(test())


def test_a_folder_without_a_directory_is_refused(tmp_path: Path) -> None:
    from mpc_ray.errors import ConfigError
    from mpc_ray.serve.app import create_app
    from mpc_ray.serve.config import GatewayConfig

    with pytest.raises(ConfigError):
        create_app(GatewayConfig(folder=tmp_path), {}, None)  # type: ignore[arg-type]
