"""The client against a gateway and parties that are honest, slow, broken or lying."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fake_gateway import (  # type: ignore[import-not-found]
    BEARER,
    FakeGateway,
    Federation,
    fails,
    loses,
    loses_behind_a_proxy,
    says,
)

from mpc_ray.client import AsyncClient
from mpc_ray.errors import (
    AuthorisationError,
    ChannelError,
    CheatingDetected,
    ConfigError,
    DeadlineExceeded,
    InputError,
    ModelError,
    MpcError,
    Overloaded,
    Refused,
    SealError,
    Unavailable,
)
from mpc_ray.models.bert_float import embed
from mpc_ray.trust.authorisation import Authorisation

Make = Callable[..., AsyncClient]
TEXTS = ["Hello, world!", "a", "The 7 quick foxes (and 9 dogs)", "b", "c d e f g h i j k l m n"] * 3
# sqrt(hidden) halves of the output's last bit, and what the client rounds of its input
TOLERANCE = 1e-4


def run(client: AsyncClient, texts: Any = ("hello",), **settings: Any) -> Any:
    async def work() -> Any:
        async with client:
            return await client.embed(list(texts), **settings)

    return asyncio.run(work())


def test_vectors_are_the_models_in_the_order_of_the_texts(client: Make, gateway: FakeGateway) -> None:
    found = run(client(), TEXTS)
    wanted = embed(gateway.owned.bert, TEXTS)
    assert found.shape == wanted.shape and found.dtype == np.float64
    assert np.abs(found - wanted).max() < TOLERANCE
    assert gateway.fetched == 1 and gateway.closed
    assert len({body["authorisation"]["job"] for body in gateway.posted}) == len(gateway.posted) > 1
    rows = gateway.owned.bundle.tokenizer.encode(TEXTS)
    assert np.abs(run(client(), rows) - wanted).max() < TOLERANCE
    assert run(client(), []).shape == (0, 32)


def test_what_is_sent_is_what_was_agreed(client: Make, gateway: FakeGateway, federation: Federation) -> None:
    run(client(purpose="search", jurisdictions=["DE", "FR", "IE"], protocol="aby3"), ["a b c"])
    (body,), (headers,) = gateway.posted, gateway.headers
    a = Authorisation.from_json(body["authorisation"])
    assert (a.set, a.purpose, a.jurisdictions) == ("eu", "search", ("DE", "FR", "IE"))
    assert (a.retention, a.protocol) == ("job", "aby3")
    assert (a.model, a.model_digest) == ("tiny", gateway.owned.export.digest.hex())
    assert (a.batch, a.length, a.output, a.range_check) == (1, 8, "embedding", True)
    assert a.expires_ms - a.issued_ms <= 60_000 and a.client == federation.key.id
    assert headers["idempotency-key"] == a.job
    assert headers["traceparent"].startswith("00-") and len(headers["traceparent"]) == 55
    assert 1 <= int(headers["x-request-timeout-ms"]) <= 20_000


def test_the_trace_is_the_callers(client: Make, gateway: FakeGateway) -> None:
    from opentelemetry import trace
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

    caller = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1))
    with trace.use_span(NonRecordingSpan(caller)):
        run(client())
    assert gateway.headers[0]["traceparent"].split("-")[1] == f"{0xABC:032x}"


def test_jobs_run_at_once_within_a_bound(client: Make, gateway: FakeGateway) -> None:
    running, most = 0, 0

    async def slow(fake: FakeGateway, request: httpx.Request) -> httpx.Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        return fake.infer(request)

    gateway.react = [slow] * 20
    run(client(concurrency=3, max_batch_tokens=8), ["a"] * 8)
    assert most == 3 and len(gateway.posted) == 8


# -- trying again ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "no",
    [
        says(429, "overloaded", {"Retry-After": "0"}),
        says(503, "unavailable", {"Retry-After": "0"}),
        says(503, "draining"),
        says(502, "party_failed"),
        says(504, "deadline"),
        says(408, "slow_body"),
        says(503, "unknown_job"),
        says(502, ""),
    ],
)
def test_after_a_definite_no_the_job_is_made_anew(client: Make, gateway: FakeGateway, no: Any) -> None:
    gateway.react = [no, no]
    found = run(client(set="eu"))
    assert found.shape == (1, 32) and gateway.computed == 1
    first, second, _ = gateway.posted
    jobs = {body["authorisation"]["job"] for body in gateway.posted}
    inputs = {text for body in gateway.posted for text in body["authorisation"]["inputs"]}
    assert len(jobs) == 3 and len(inputs) == 9, "shares must be fresh at every attempt"
    assert len({headers["idempotency-key"] for headers in gateway.headers}) == 3
    assert not set(first["envelopes"]) & set(second["envelopes"])


@pytest.mark.parametrize(
    "error",
    [httpx.ReadError("x"), httpx.RemoteProtocolError("x"), httpx.ReadTimeout("x"), httpx.WriteError("x")],
)
def test_after_a_lost_connection_the_same_bytes_are_sent(
    client: Make, gateway: FakeGateway, error: Exception
) -> None:
    gateway.react = [loses(error), loses(error)]
    assert run(client()).shape == (1, 32)
    assert gateway.computed == 1, "answered once"
    assert gateway.posted[0] == gateway.posted[1] == gateway.posted[2]
    assert len({headers["idempotency-key"] for headers in gateway.headers}) == 1


def test_a_gateway_that_died_with_the_answer_is_asked_anew(client: Make, gateway: FakeGateway) -> None:
    gateway.react = [loses(httpx.ReadError("x"), forgets=True)]
    assert run(client()).shape == (1, 32)
    first, second, third = (body["authorisation"]["job"] for body in gateway.posted)
    assert first == second != third  # sent again, refused as replayed, made anew
    assert gateway.computed == 2


@pytest.mark.parametrize("forgets", [False, True])
def test_a_proxy_that_lost_the_gateway_is_a_lost_connection(
    client: Make, gateway: FakeGateway, forgets: bool
) -> None:
    gateway.react = [loses_behind_a_proxy(forgets=forgets)]
    assert run(client()).shape == (1, 32)
    assert gateway.posted[0] == gateway.posted[1] and gateway.computed == 1 + forgets


def test_replayed_without_a_lost_connection_is_final(client: Make, gateway: FakeGateway) -> None:
    gateway.react = [says(409, "replayed")]
    with pytest.raises(AuthorisationError) as caught:
        run(client())
    assert caught.value.code == "replayed" and len(gateway.posted) == 1


def test_a_job_that_expired_while_the_gateway_was_away_is_made_anew(
    client: Make, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mpc_ray.client.request import Sealed

    monkeypatch.setattr(Sealed, "expired", lambda self, now_ms=None: len(gateway.posted) == 1)
    gateway.react = [loses(httpx.ReadError("x"))]
    assert run(client()).shape == (1, 32)
    assert gateway.posted[0]["authorisation"]["job"] != gateway.posted[1]["authorisation"]["job"]


def test_a_gateway_that_is_not_reached_is_tried_again(client: Make, gateway: FakeGateway) -> None:
    gateway.react = [fails(httpx.ConnectError("refused")), fails(httpx.ConnectTimeout("slow"))]
    assert run(client()).shape == (1, 32)
    gateway.react = [fails(httpx.ConnectError("refused"))] * 9
    with pytest.raises(Unavailable, match=r"https://gateway\.test is not reached"):
        run(client(retries=2))


def test_a_certificate_that_is_not_accepted_is_no_matter_of_patience(
    client: Make, gateway: FakeGateway
) -> None:
    error = httpx.ConnectError("x")
    error.__cause__ = ssl.SSLCertVerificationError("self-signed")
    gateway.react = [fails(error)]
    with pytest.raises(ConfigError, match=r"HTTPS certificate of https://gateway\.test is not accepted"):
        run(client())
    assert len(gateway.posted) == 1


@pytest.mark.parametrize(
    ("status", "code", "kind", "word"),
    [
        (401, "bad_key", AuthorisationError, "cause of bad_key"),
        (403, "purpose", Refused, "cause of purpose"),
        (403, "unknown_key", Refused, "unknown_key"),
        (404, "unknown_model", ModelError, "unknown_model"),
        (404, "unknown_set", ConfigError, "unknown_set"),
        (409, "wrong_model", ModelError, "wrong_model"),
        (413, "too_large", InputError, "too_large"),
        (422, "invalid", InputError, "invalid"),
        (422, "bad_envelope", SealError, "bad_envelope"),
        (500, "internal", MpcError, "internal"),
        (302, "", MpcError, "the gateway: "),
    ],
)
def test_what_will_not_change_is_not_tried_again(
    client: Make, gateway: FakeGateway, status: int, code: str, kind: type[MpcError], word: str
) -> None:
    gateway.react = [says(status, code)] * 9
    with pytest.raises(kind, match=word) as caught:
        run(client(set="eu"))
    assert type(caught.value) is kind and len(gateway.posted) == 1
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("no", "kind"),
    [
        (says(429, "rate", {"Retry-After": "0"}), Overloaded),
        (says(503, "unavailable"), Unavailable),
        (says(504, "deadline"), DeadlineExceeded),
        (says(502, "party_failed"), ChannelError),
        (loses(httpx.ReadError("x")), ChannelError),
    ],
)
def test_patience_has_an_end(client: Make, gateway: FakeGateway, no: Any, kind: type[MpcError]) -> None:
    gateway.react = [no] * 9
    with pytest.raises(kind) as caught:
        run(client(set="eu", retries=3))
    assert type(caught.value) is kind and len(gateway.posted) == 4


def test_cheating_is_told_and_never_asked_again(client: Make, gateway: FakeGateway) -> None:
    """At any status: each repetition would be one more try for whoever cheats."""
    for status in (500, 502, 503):
        gateway.posted.clear()
        gateway.react = [says(status, "cheating")] * 3
        with pytest.raises(CheatingDetected) as caught:
            run(client(set="eu", retries=3))
        assert len(gateway.posted) == 1 and caught.value.second_hand and caught.value.exit_code == 8


def test_retry_after_beyond_the_deadline_is_not_waited_for(client: Make, gateway: FakeGateway) -> None:
    gateway.react = [says(429, "quota", {"Retry-After": "3600"})]
    began = time.monotonic()
    with pytest.raises(Overloaded) as caught:
        run(client(timeout_s=5.0))
    assert caught.value.retry_after_s == 3600 and time.monotonic() - began < 2


def test_the_deadline_holds_for_a_gateway_that_hangs(client: Make, gateway: FakeGateway) -> None:
    async def hangs(fake: FakeGateway, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        return fake.infer(request)

    gateway.react = [hangs] * 3
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.3 s"):
        run(client(timeout_s=0.3))
    assert time.monotonic() - began < 3


def test_the_first_error_ends_the_other_jobs(client: Make, gateway: FakeGateway) -> None:
    cancelled = 0

    async def slow(fake: FakeGateway, request: httpx.Request) -> httpx.Response:
        nonlocal cancelled
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled += 1
            raise
        return fake.infer(request)

    async def late(fake: FakeGateway, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.05)
        return await says(403, "purpose")(fake, request)

    gateway.react = [slow, slow, late]
    with pytest.raises(Refused):
        run(client(max_batch_tokens=8), ["a", "b", "c"])
    assert cancelled == 2


def test_a_clock_that_is_off_is_named(client: Make, gateway: FakeGateway) -> None:
    gateway.react = [says(403, "expired", {"Date": "Wed, 01 Jan 2200 00:00:00 GMT"})]
    with pytest.raises(Refused, match=r"set the clock: the gateway's is \d+ s ahead of this machine's"):
        run(client())


# -- other sets ------------------------------------------------------------------------------------------------------


def test_another_set_takes_over_and_it_is_said(
    client: Make, gateway: FakeGateway, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> Any:
        async with client(regions=["eu", "us"]) as one:
            gateway.down = {"eu"}
            first = await one.embed_reported(["a"])
            second = await one.embed_reported(["a"])
            return first, second

    with caplog.at_level(logging.INFO, "mpc_ray.client"):
        first, second = asyncio.run(work())
    assert [note.set for note in first.jobs] == ["us"] and first.jobs[0].retries == 1
    assert [note.set for note in second.jobs] == ["us"] and second.jobs[0].retries == 0, "eu is left alone"
    assert [body["authorisation"]["set"] for body in gateway.posted] == ["eu", "us", "us"]
    assert "set eu answers no jobs (unavailable)" in caplog.text
    assert first.jobs[0].timing == {"queue_s": 0.001, "run_s": 0.5}


def test_residency_is_stronger_than_what_the_gateway_names(client: Make, gateway: FakeGateway) -> None:
    gateway.down = {"eu"}
    with pytest.raises(Unavailable):
        run(client(jurisdictions=["DE", "FR", "IE"], retries=2))
    assert {body["authorisation"]["set"] for body in gateway.posted} == {"eu"}
    gateway.posted.clear()
    with pytest.raises(Unavailable):
        run(client(set="eu", retries=1))
    assert {body["authorisation"]["set"] for body in gateway.posted} == {"eu"}


def test_a_set_that_lacks_the_model_is_passed_over(client: Make, gateway: FakeGateway) -> None:
    gateway.react = [says(404, "unknown_model")]
    assert run(client(regions=["eu", "us"])).shape == (1, 32)
    assert [body["authorisation"]["set"] for body in gateway.posted] == ["eu", "us"]


def test_no_set_in_the_jurisdictions_is_said_before_anything_is_sealed(
    client: Make, gateway: FakeGateway
) -> None:
    with pytest.raises(Refused, match="no set of parties lies wholly in SG"):
        run(client(jurisdictions=["SG"]))
    with pytest.raises(ConfigError, match=r"has no set mars \(it has eu, us\)"):
        run(client(set="mars"))
    assert gateway.posted == []


def test_a_party_that_rotated_its_keys_is_found_again(tmp_path: Path, made: Any, quick: None) -> None:
    federation = Federation(tmp_path, ("eu",))
    gateway = FakeGateway(federation, made)

    async def work() -> Any:
        settings = {"bundle": made.bundle, "signing_key": federation.key, "trust": federation.ca}
        async with AsyncClient("https://g.test", api_key=BEARER, transport=gateway, **settings) as one:
            await one.embed(["a"])
            federation.rotate("eu", 1)
            gateway.directory = federation.directory
            one._parties._asked = -100.0
            return await one.embed(["a"])

    assert asyncio.run(work()).shape == (1, 32)
    assert gateway.fetched == 2 and len(gateway.posted) == 3
