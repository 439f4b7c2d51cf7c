"""The routes, in this process, over triples that compute nothing."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from gateways import DIGEST, Fake, Federation, Running, api_key, body, config, federation, problem

from mpc_ray import errors
from mpc_ray.errors import MpcError
from mpc_ray.serve.config import GatewayConfig
from mpc_ray.trust.authority import FederationAuthority
from mpc_ray.trust.directory import Directory


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return federation(tmp_path_factory.mktemp("federation"))


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


def test_an_honest_request_is_answered(made: Federation) -> None:
    async def test() -> None:
        eu, us = Fake("eu"), Fake("us")
        async with Running(made, {"eu": eu, "us": us}) as gateway:
            sent = body(made)
            answer = await gateway.infer(sent, traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
            assert answer.status_code == 200, answer.text
            said = answer.json()
            assert said["job"] == sent["authorisation"]["job"] and said["set"] == "eu"
            assert [base64.b64decode(one)[:8] for one in said["answers"]] == [
                b"sealed %d" % i for i in range(3)
            ]
            assert said["timing"]["rounds"] == 1
            assert answer.headers["x-content-type-options"] == "nosniff"
            (job,) = eu.jobs
            assert not us.jobs
            assert dict(job.authorisation) == sent["authorisation"]
            assert [base64.b64encode(one).decode() for one in job.envelopes] == sent["envelopes"]
            assert base64.b64encode(job.signature).decode() == sent["signature"]
            assert 0 < job.timeout_s <= 30
            assert (await gateway.infer(body(made, set="us"))).json()["set"] == "us"

    run(test())


def test_what_needs_no_key(made: Federation) -> None:
    async def test() -> None:
        us = Fake("us", ready=False)
        async with Running(made, {"eu": Fake("eu"), "us": us}) as gateway:
            get = gateway.client.get
            answer = await get("/v1/parties")
            directory = Directory.from_json(answer.content)
            directory.verify(ca_pem=(made.folder / "ca.pem").read_bytes())
            assert (await get("/v1/parties", params={"set": "eu"})).content == answer.content
            problem(await get("/v1/parties", params={"set": "mars"}), 404, "unknown_set")
            again = await get("/v1/parties", headers={"if-none-match": answer.headers["etag"]})
            assert again.status_code == 304 and not again.content

            eu, other = (await get("/v1/sets")).json()["sets"]
            assert (eu["set"], eu["ready"], eu["order"]) == ("eu", True, 0)
            assert eu["jurisdictions"] == ["DE", "FR", "IE"] and eu["models"] == ["tiny"]
            assert (other["set"], other["ready"]) == ("us", False)

            assert (await get("/v2/health/live")).json() == {"live": True}
            said = {"ready": True, "not_ready": {"us": "it does not say why"}}
            assert (await get("/v2/health/ready")).json() == said
            assert (await get("/v2/models/tiny/ready")).json() == {"name": "tiny", "ready": True}
            problem(await get("/v2/models/none/ready"), 404, "unknown_model")
            await gateway.infer()
            metrics = (await get("/metrics")).text
            assert (
                'code="ok"' in metrics and "/v1/private/infer" in metrics and 'certificate="https"' in metrics
            ), metrics
            assert (await get("/openapi.json")).json()["openapi"].startswith("3.1")
            problem(await get("/docs"), 404, "not_found")
            problem(await get("/v1/private/infer"), 405, "method")

    run(test())


def test_what_needs_a_key(made: Federation) -> None:
    async def test() -> None:
        async with Running(made, {"eu": Fake("eu"), "us": Fake("us")}) as gateway:
            key = {"authorization": f"Bearer {gateway.bearer}"}
            (model,) = (await gateway.client.get("/v1/models", headers=key)).json()["data"]
            assert model == {
                "name": "tiny", "digest": DIGEST, "lengths": [16, 32], "hidden": 32,
                "sets": ["eu", "us"], "max_batch": 64,
            }  # fmt: skip
            metadata = (await gateway.client.get("/v2/models/tiny", headers=key)).json()
            assert metadata["platform"] == "mpc-ray" and metadata["versions"] == [DIGEST[:16]]
            for path in ("/v1/models", "/v2/models/tiny"):
                answer = await gateway.client.get(path)
                problem(answer, 401, "no_key")
                assert answer.headers["www-authenticate"] == "Bearer"
                wrong = {"authorization": f"Bearer {gateway.bearer[:-2]}xx"}
                problem(await gateway.client.get(path, headers=wrong), 401, "bad_key")

    run(test())


def test_metrics_are_for_our_own_networks(made: Federation) -> None:
    async def test() -> None:
        async with Running(
            made, {"eu": Fake("eu")}, config(made).model_copy(update={"metrics_networks": ()})
        ) as one:
            problem(await one.client.get("/metrics"), 404, "not_found")

    run(test())


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"federation": "other"}, 422, "wrong_federation"),
        ({"set": "mars"}, 404, "unknown_set"),
        ({"model": "none"}, 404, "unknown_model"),
        ({"model_digest": "0" * 64}, 409, "wrong_model"),
        ({"length": 17}, 422, "unknown_length"),
        ({"batch": 65}, 422, "too_many"),
        ({"jurisdictions": ("DE", "FR")}, 403, "jurisdiction"),
        ({"envelope": 40_000}, 413, "too_large"),
        ({"issued_ms": 1_000, "expires_ms": 2_000}, 403, "expired"),
        ({"issued_ms": 1 << 52, "expires_ms": (1 << 52) + 1}, 403, "issued_in_future"),
    ],
)
def test_a_job_that_cannot_be(made: Federation, change: dict[str, Any], status: int, code: str) -> None:
    async def test() -> None:
        fake = Fake("eu", models=({**{"name": "tiny", "digest": DIGEST}, "lengths": [16], "hidden": 1},))
        async with Running(made, {"eu": fake}) as gateway:
            if "envelope" in change:
                change["envelope"] = 66_000 + 16 * 16 * 17
                gateway.config.limits.__dict__["body_bytes"] = 1 << 20
            problem(await gateway.infer(body(made, **change)), status, code)
            assert not fake.jobs

    run(test())


def test_jurisdictions_that_allow_all_three(made: Federation) -> None:
    async def test() -> None:
        async with Running(made, {"eu": Fake("eu")}) as gateway:
            assert (
                await gateway.infer(body(made, jurisdictions=("DE", "FR", "IE", "ES")))
            ).status_code == 200

    run(test())


def test_a_new_directory_is_published_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpc_ray.serve.app.PUBLISHED_AGAIN_S", 0.02)
    own = federation(tmp_path, ("eu",))

    async def test() -> None:
        async with Running(own, {"eu": Fake("eu")}) as gateway:
            before = (await gateway.client.get("/v1/parties")).json()
            (own.folder / "directory.json").write_text("half a fi")
            await asyncio.sleep(0.1)
            assert (await gateway.client.get("/v1/parties")).json() == before, (
                "what is damaged is not published"
            )

            def fails(folder: Path) -> None:
                raise RuntimeError("a fault of our own")

            with monkeypatch.context() as patched:
                patched.setattr("mpc_ray.serve.app.Published.load", fails)
                await asyncio.sleep(0.1)
            FederationAuthority.load(tmp_path / "ca").sign([]).save(own.folder / "directory.json")
            for _ in range(100):
                await asyncio.sleep(0.02)
                if (await gateway.client.get("/v1/parties")).json() != before:
                    break
            assert (await gateway.client.get("/v1/parties")).json()["serial"] == before["serial"] + 1

    run(test())


def test_regions_decide_the_order_and_residency_is_never_widened(made: Federation) -> None:
    async def test() -> None:
        eu, us = Fake("eu"), Fake("us")
        regions = {"here": "us-0", "residency": {"us-0": ["US", "CA"]}}
        near = GatewayConfig.model_validate(config(made).model_dump() | {"regions": regions})
        async with Running(made, {"eu": eu, "us": us}, near) as gateway:
            sets = (await gateway.client.get("/v1/sets")).json()["sets"]
            assert [one["set"] for one in sets] == ["us", "eu"]
            assert (await gateway.infer(body(made, set="us"))).status_code == 200
            problem(await gateway.infer(body(made, set="eu")), 403, "jurisdiction")
            us.ready = False
            await gateway.app.state.gateway.views.refresh()
            answer = problem(await gateway.infer(body(made, set="us")), 503, "set_unavailable")
            assert answer["sets"] == [], "another region's set is ready, but the data must stay"
            assert not eu.jobs
        unknown = config(made).model_copy(
            update={"regions": near.regions.model_copy(update={"fail_over": ("mars",)})}
        )
        with pytest.raises(errors.ConfigError, match="set mars"):
            Running(made, {"eu": eu}, unknown)

    run(test())


def test_an_enrolled_clients_signature_is_verified(tmp_path: Path) -> None:
    from mpc_ray.trust.folder import open_folder

    async def test() -> None:
        own = federation(tmp_path, ("eu",))
        open_folder(own.folder).clients().enrol("client", own.key.public)
        fake = Fake("eu")
        only = config(own).model_copy(update={"known_clients_only": True})
        async with Running(own, {"eu": fake}, only) as gateway:
            assert (await gateway.infer()).status_code == 200
            forged = body(own)
            forged["authorisation"]["purpose"] = "spying"
            problem(await gateway.infer(forged), 403, "bad_signature")
            stranger = Federation(own.folder, type(own.key).generate())
            problem(await gateway.infer(body(stranger)), 403, "unknown_key")
            assert len(fake.jobs) == 1

    run(test())


def test_keys_that_allow_less(made: Federation) -> None:
    async def test() -> None:
        async with Running(made, {"eu": Fake("eu")}) as gateway:
            gateway.bearer = api_key(made, models=("other",))
            problem(await gateway.infer(), 403, "forbidden_model")
            gateway.bearer = api_key(made, purposes=("search",))
            assert (await gateway.infer()).status_code == 200
            problem(await gateway.infer(body(made, purpose="analytics")), 403, "forbidden_purpose")
            gateway.bearer = api_key(made, per_minute=2)
            assert [(await gateway.infer()).status_code for _ in range(2)] == [200, 200]
            answer = await gateway.infer()
            problem(answer, 429, "rate")
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            gateway.bearer = api_key(made, tokens_per_day=40)
            sent = [body(made, batch=2), body(made, batch=2), body(made)]
            answers = [await gateway.infer(one) for one in sent]
            assert answers[0].status_code == 200
            problem(answers[1], 429, "quota")
            problem(answers[2], 429, "quota")
            gateway.bearer = api_key(made)
            assert (await gateway.infer(sent[1])).status_code == 200, "a job that was refused is not a replay"

    run(test())


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.Overloaded("full", retry_after_s=2.5), 429, "overloaded"),
        (errors.Unavailable("no triple"), 503, "set_unavailable"),
        (errors.PeerLost("party 1", "died"), 503, "set_unavailable"),
        (errors.PlacementError("no room"), 503, "unavailable"),
        (errors.DeadlineExceeded("late"), 504, "deadline"),
        (errors.Refused("no", code="purpose"), 403, "purpose"),
        (errors.AuthorisationError("seen", code="replayed"), 409, "replayed"),
        (errors.AuthorisationError("bad"), 403, "forbidden"),
        (errors.SealError("does not open"), 422, "bad_envelope"),
        (errors.InputError("shape"), 422, "invalid"),
        (errors.ModelError("gone"), 404, "unknown_model"),
        (errors.MpcError("inside a party"), 502, "party_failed"),
        (errors.CheatingDetected("party 1: a false claim", (1,)), 500, "cheating"),
        (errors.ConfigError("/secret/path"), 503, "unavailable"),
    ],
)
def test_each_error_has_its_status(made: Federation, error: MpcError, status: int, code: str) -> None:
    async def test() -> None:
        async with Running(made, {"eu": Fake("eu", error=error)}) as gateway:
            answer = await gateway.infer()
            problem(answer, status, code)
            assert "/secret/path" not in answer.text
            assert answer.json().get("culprits") == ([1] if code == "cheating" else None)
            if status == 429:
                assert answer.headers["retry-after"] == "3"

    run(test())


def test_an_unexpected_error_is_an_incident(made: Federation, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with Running(made, {"eu": Fake("eu", error=RuntimeError("canary in a text"))}) as gateway:
            answer = await gateway.infer()
            said = problem(answer, 500, "internal")
            incident = said["instance"].removeprefix("urn:uuid:")
            assert incident in caplog.text and "RuntimeError" in caplog.text
            assert "canary" not in caplog.text + answer.text

    run(test())


def test_a_set_that_is_down_names_others(made: Federation) -> None:
    async def test() -> None:
        eu, us = Fake("eu"), Fake("us")
        async with Running(made, {"eu": eu, "us": us}) as gateway:
            eu.ready = False
            await gateway.app.state.gateway.views.refresh()
            assert problem(await gateway.infer(), 503, "set_unavailable")["sets"] == ["us"]
            bound = body(made, jurisdictions=("DE", "FR", "IE"))
            assert problem(await gateway.infer(bound), 503, "set_unavailable")["sets"] == []
            us.ready = False
            await gateway.app.state.gateway.views.refresh()
            problem(await gateway.client.get("/v2/health/ready"), 503, "unavailable")
            assert not eu.jobs

    run(test())


@pytest.mark.parametrize(
    ("accept", "language", "title"),
    [
        ("de", "de", "Kein solches Modell"),
        ("fr-CA, en;q=0.5", "fr", "Modèle inconnu"),
        ("en;q=0.2, es;q=0.9", "es", "No existe ese modelo"),
        ("ja-JP", "ja", "そのモデルはありません"),
        ("zh-Hans-CN;q=1.0", "zh", "没有此模型"),
        ("xx, *;q=0.1", "en", "No such model"),
        (",;q=;=\x7f" + "a" * 5000, "en", "No such model"),
    ],
)
def test_titles_are_in_the_callers_language(made: Federation, accept: str, language: str, title: str) -> None:
    async def test() -> None:
        async with Running(made, {"eu": Fake("eu")}) as gateway:
            answer = await gateway.client.get("/v2/models/none/ready", headers={"accept-language": accept})
            assert problem(answer, 404, "unknown_model")["title"] == title
            assert answer.headers["content-language"] == language

    run(test())


def test_all_languages_say_the_same_codes() -> None:
    from mpc_ray.serve.messages import LANGUAGES, catalogue

    assert len(LANGUAGES) == 6
    assert len({tuple(catalogue(language)) for language in LANGUAGES}) == 1
    assert all(catalogue(language)["rate"] != catalogue("en")["rate"] for language in LANGUAGES[1:])


def test_the_openapi_document_says_what_is_answered(made: Federation) -> None:
    async def test() -> None:
        async with Running(made, {"eu": Fake("eu")}) as gateway:
            document = (await gateway.client.get("/openapi.json")).json()
            infer = document["paths"]["/v1/private/infer"]["post"]
            assert {"401", "403", "409", "413", "422", "429", "503", "504"} <= infer["responses"].keys()
            example = infer["requestBody"]["content"]["application/json"]["examples"]["one text"]["value"]
            from mpc_ray.serve.schema import InferBody

            InferBody.model_validate_json(json.dumps(example))
            assert {one["name"] for one in infer["parameters"]} == {
                "Idempotency-Key", "X-Request-Timeout-Ms", "traceparent", "Accept-Language"
            }  # fmt: skip
            import schemathesis

            assert schemathesis.openapi.from_dict(document)

    run(test())
