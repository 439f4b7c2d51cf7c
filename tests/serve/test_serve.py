"""The gateway on Ray Serve: one scenario in a Ray of its own, and what needs no Ray."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from gateways import Federation, api_key, authorisation, federation

from mpc_ray import errors
from mpc_ray.errors import ConfigError, MpcError
from mpc_ray.serve import cluster
from mpc_ray.serve.apikeys import Claim
from mpc_ray.serve.cluster import joined, refuse_proxy
from mpc_ray.serve.config import GatewayConfig, RaySettings, SetSettings
from mpc_ray.serve.idempotency import Conflict
from mpc_ray.serve.interface import Job
from mpc_ray.serve.limits import QuotaExceeded, RateExceeded
from mpc_ray.serve.state import Ask
from mpc_ray.serve.wire import Failed, error_of, failed

with warnings.catch_warnings():  # Ray's own, about its own
    warnings.simplefilter("ignore")
    from ray.serve.exceptions import BackPressureError, ReplicaUnavailableError
    from ray.serve.schema import ServeDeploySchema

    from mpc_ray.serve import actor
    from mpc_ray.serve.deployments import Arguments, build, triple
    from mpc_ray.serve.handle import HandleTriples

pytestmark = pytest.mark.timeout(330)  # the scenario, on a busy machine
HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / "configs"


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``serve_scenario.py`` found: a gateway of two replicas and one leader, over HTTPS."""
    folder = tmp_path_factory.mktemp("scenario")
    ran = subprocess.run(
        [sys.executable, str(HERE / "serve_scenario.py"), str(folder)],
        env=os.environ | {"PYTHONPATH": str(HERE), "RAY_SERVE_ENABLE_HA_PROXY": "0"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    assert "canary" not in ran.stdout + ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_errors_of_a_replica_are_ours(scenario: dict[str, Any]) -> None:
    first = scenario["first"]
    assert first["search"] == "ok"
    assert first["refused"] == "403 retention", "a party's refusal keeps its code through Ray"
    assert first["lost"] == "503 set_unavailable" and first["retry_after"] == "1"
    assert first["bug"] == "502 party_failed"
    assert first["deadline"] == "504 deadline"
    assert first["no_key"] == "401 bad_key" and first["large"] == "413 too_large"


def test_an_idempotent_request_is_computed_once_by_all_replicas(scenario: dict[str, Any]) -> None:
    assert scenario["first"]["idempotent"] == {"words": ["ok"], "bodies": 1, "stored": 5}


def test_back_pressure_is_429(scenario: dict[str, Any]) -> None:
    pressed = scenario["first"]["pressed"]
    assert set(pressed) == {"ok", "429 overloaded"} and pressed["ok"] >= 4, pressed


def test_a_rate_holds_across_replicas(scenario: dict[str, Any]) -> None:
    limited = scenario["first"]["limited"]
    assert set(limited) == {"ok", "429 rate"} and 5 <= limited["ok"] <= 8, limited


def test_a_dead_leader_is_replaced(scenario: dict[str, Any]) -> None:
    assert scenario["killed"]["word"] == "503 set_unavailable"
    assert scenario["killed"]["back_s"] < 30


def test_a_dead_replica_of_the_gateway_costs_only_what_it_held(scenario: dict[str, Any]) -> None:
    """Serve's own proxy answers those six at most with a bare 500; the other replica goes on as if nothing were."""
    seen = scenario["replica_killed"]["seen"]
    assert seen.pop("ok") > 20
    assert sum(seen.values()) <= 6 and set(seen) <= {"500 Internal Server Error"}, seen


def test_uvicorn_with_triples_on_serve(scenario: dict[str, Any]) -> None:
    driver = scenario["driver"]
    assert (driver["word"], driver["during"], driver["after"]) == ("ok", ["mpc-ray-eu"], [])


def test_triples_grow_with_the_load_and_shrink_after_it(scenario: dict[str, Any]) -> None:
    driver = scenario["driver"]
    assert driver["counts"] == [1, 2, 1], driver
    assert driver["leaders"] == 2, "the second one gets jobs"
    assert set(driver["seen"]) == {"ok"}, "no job is lost while triples come and go"


def test_a_rolling_update_fails_no_request(scenario: dict[str, Any]) -> None:
    assert set(scenario["update"]["seen"]) == {"ok"}, scenario["update"]
    assert scenario["update"]["seen"]["ok"] > 20
    assert scenario["updated"] == [32]


@pytest.mark.parametrize(
    "error",
    [
        errors.Refused("no", remedy="ask", code="purpose"),
        errors.AuthorisationError("no", code="expired"),
        errors.Overloaded("full", retry_after_s=7),
        errors.PeerLost("party 2", "died", remedy="wait"),
        errors.CheatingDetected("party 2: a false claim", (2,), second_hand=True),
        errors.CheatingDetected("party 0 or party 1: a false check", (0, 1)),
        errors.DeadlineExceeded("late"),
        Conflict("in use"),
        RateExceeded("too fast", retry_after_s=3),
        QuotaExceeded("too much", retry_after_s=4),
    ],
)
def test_errors_cross_processes_as_values(error: MpcError) -> None:
    sent = failed(error)
    json.dumps(sent.fields)
    again = error_of(sent)
    assert type(again) is type(error) and str(again) == str(error)
    assert {k: v for k, v in vars(again).items() if k != "args"} == {
        k: v for k, v in vars(error).items() if k != "args"
    }


def test_a_strangers_error_crosses_without_its_text() -> None:
    sent = failed(RuntimeError("canary"))
    assert "canary" not in str(sent) and type(error_of(sent)) is MpcError
    assert type(error_of(Failed({"error": "SystemExit", "cause": "x"}))) is MpcError


class Response:
    """What a handle gives: awaitable, and it can be cancelled."""

    def __init__(self, outcome: Any) -> None:
        self.outcome, self.cancelled = outcome, False

    def cancel(self) -> None:
        self.cancelled = True

    def __await__(self) -> Any:
        async def wait() -> Any:
            if self.outcome is None:
                await asyncio.sleep(10)
            if isinstance(self.outcome, BaseException):
                raise self.outcome
            return self.outcome

        return wait().__await__()


class Handle:
    def __init__(self, outcome: Any) -> None:
        self.response = Response(outcome)

    @property
    def infer(self) -> Any:
        return self

    def remote(self, *_: Any) -> Response:
        return self.response


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (BackPressureError(1, 2), errors.Overloaded),
        (ReplicaUnavailableError("r"), errors.Unavailable),
        (failed(errors.Refused("no", code="x")), errors.Refused),
        (None, errors.DeadlineExceeded),
    ],
)
def test_what_ray_says_is_said_in_our_words(outcome: Any, expected: type[MpcError]) -> None:
    handle = Handle(outcome)
    with pytest.raises(expected):
        asyncio.run(HandleTriples("eu", handle).infer(Job({}, b"", (b"", b"", b""), timeout_s=0.05)))  # type: ignore[arg-type]
    assert handle.response.cancelled == (outcome is None)


def test_a_caller_that_leaves_cancels_the_replicas_work() -> None:
    async def test() -> bool:
        handle = Handle(None)
        job = Job({}, b"", (b"", b"", b""))
        task = asyncio.create_task(HandleTriples("eu", handle).infer(job))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return handle.response.cancelled

    assert asyncio.run(test())


class Direct:
    """An actor's handle that calls the object itself; ``dead`` loses every call."""

    def __init__(self, of: Federation) -> None:
        self.actor = actor.StateActor(GatewayConfig(folder=of.folder).model_dump_json())
        self.dead = False
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        direct = self

        class Method:
            @staticmethod
            def remote(*arguments: Any) -> Any:
                from ray.exceptions import ActorDiedError

                async def call() -> Any:
                    direct.calls.append(name)
                    if direct.dead:
                        raise ActorDiedError()
                    return await getattr(direct.actor, name)(*arguments)

                return asyncio.ensure_future(call())

        return Method


def test_a_replica_asks_little_and_counts_all(tmp_path: Path) -> None:
    made = federation(tmp_path, ("eu",))
    claim = Claim.of(api_key(made, per_minute=3, tokens_per_day=1000))
    assert claim is not None

    async def test() -> None:
        direct = Direct(made)
        one, two = actor.ActorState(direct), actor.ActorState(direct)
        key = await one.identify(claim)
        assert key is not None and await one.identify(claim) == key
        assert direct.calls == ["identify"], "it remembers a key for a moment"
        assert await two.identify(Claim(claim.id, bytes(32))) is None

        def ask(tokens: int = 16, **more: Any) -> Ask:
            signed = authorisation(made)
            return Ask(key, signed.job, signed.expires_ms, tokens, "t", 5.0, **more)

        first = ask()
        assert await one.admit(first) is None
        with pytest.raises(errors.AuthorisationError, match="sent before"):
            await one.admit(first)
        await one.finish(first, None)
        assert await one.admit(first) is None, "one that failed is no replay"
        with pytest.raises(QuotaExceeded):
            await one.admit(ask(1001))
        assert await two.admit(ask()) is None
        for state in (one, two):
            await state.request(key)
            await state.request(key)
        await asyncio.sleep(3 * actor.REPORT_S)
        refused = 0
        for state in (one, two):
            try:
                await state.request(key)
            except RateExceeded:
                refused += 1
        assert refused >= 1, "together they let four pass, and three are allowed"

        direct.dead = True
        with pytest.raises(errors.Unavailable, match="restarted"):
            await one.admit(ask(idempotency="k", digest=b"d"))
        await asyncio.sleep(2 * actor.REPORT_S)
        for state in (one, two):
            if state._reporting:
                state._reporting.cancel()

    asyncio.run(test())


def test_hosting_that_would_drop_tls_is_refused() -> None:
    refuse_proxy({})
    refuse_proxy({"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0"})
    with pytest.raises(ConfigError, match="plain HTTP"):
        refuse_proxy({"RAY_SERVE_ENABLE_HA_PROXY": "1"})
    for environ in ({"RAY_SERVE_ENABLE_DIRECT_INGRESS": "1"}, {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}):
        with pytest.raises(ConfigError, match="direct ingress"):
            refuse_proxy(environ)


def test_a_ray_that_is_not_there_or_not_named_rightly() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (
        pytest.raises(errors.ChannelError, match="no Ray cluster answers"),
        joined(RaySettings(address=address)),
    ):
        pass
    with pytest.raises(ConfigError, match="host:port"), joined(RaySettings(address="auto")):
        pass


def test_an_open_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_open(address: str, token: str) -> None:
        raise ConfigError(f"the Ray cluster at {address} is open")

    monkeypatch.setattr(cluster, "probe", is_open)
    with pytest.raises(ConfigError, match="is open"), joined(RaySettings(address="127.0.0.1:1")):
        pass


@pytest.mark.parametrize("name", ["serve.yaml", "serve.eu.yaml", "serve.all-regions.yaml"])
def test_the_configurations_for_serve_are_what_serve_and_we_accept(name: str) -> None:
    content = yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8"))
    read = ServeDeploySchema.model_validate(content)
    (application,) = read.applications
    assert application.import_path == "mpc_ray.serve.deployments:build"
    arguments = Arguments.model_validate(application.args)
    assert arguments.replicas >= 2 and arguments.config.is_absolute()
    assert content["http_options"]["ssl_certfile"] and content["http_options"]["ssl_keyfile"]
    assert content["http_options"]["request_timeout_s"] > GatewayConfig(folder="x").limits.max_timeout_s
    assert not content["logging_config"]["enable_access_log"]


def test_arguments_of_serve_run_are_texts() -> None:
    read = Arguments.model_validate({"config": "gw.yaml", "sets": "us,eu", "replicas": "3"})
    assert read.sets == ("us", "eu") and read.replicas == 3
    with pytest.raises(ValueError, match="extra"):
        Arguments.model_validate({"config": "gw.yaml", "replica": "3"})


def test_building_names_what_is_wrong(tmp_path: Path) -> None:
    made = federation(tmp_path, ("eu",))
    file = tmp_path / "gateway.yaml"
    file.write_text(json.dumps({"folder": str(made.folder), "sets": [{"name": "eu", "max_triples": 3}]}))
    assert build(Arguments(config=file))
    assert build({"config": str(file), "replicas": "2"}), "as Serve calls it"
    for most, router in ((1, "PowerOfTwoChoicesRequestRouter"), (3, "PlanRouter")):
        bound = triple(GatewayConfig.load(file), SetSettings(name="eu", max_triples=most))
        chosen = bound._bound_deployment._deployment_config.request_router_config
        assert chosen.get_request_router_class().__name__ == router
    assert chosen.request_router_kwargs["set_name"] == "eu"
    assert len(set(chosen.request_router_kwargs["trusts"])) == 3, "three operators"
    scaling = bound._bound_deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (1, 3)
    assert scaling.target_ongoing_requests == 16, "a quarter of the queue"
    assert scaling.downscale_delay_s >= 60 > scaling.upscale_delay_s, "quick to grow, slow to shrink"
    fixed = triple(GatewayConfig.load(file), SetSettings(name="eu", min_triples=2, max_triples=2))
    assert fixed._bound_deployment._deployment_config.autoscaling_config is None
    assert fixed._bound_deployment._deployment_config.num_replicas == 2
    with pytest.raises(ConfigError, match="replica: Extra inputs"):
        build({"config": str(file), "replica": "2"})
    with pytest.raises(ConfigError, match="no whole set mars"):
        build(Arguments(config=file, sets=("mars",)))


def test_a_set_with_an_expired_certificate_fails_no_deployment(tmp_path: Path) -> None:
    made = federation(tmp_path, expired=("eu/0",))
    file = tmp_path / "gateway.yaml"
    sets = [{"name": "eu", "max_triples": 2}, {"name": "us"}]
    file.write_text(json.dumps({"folder": str(made.folder), "sets": sets}))
    assert build(Arguments(config=file))
    bound = triple(GatewayConfig.load(file), SetSettings(name="eu", max_triples=2))
    chosen = bound._bound_deployment._deployment_config.request_router_config
    assert chosen.request_router_kwargs["regions"] == ("eu-0", "eu-1", "eu-2"), (
        "where its parties are is known"
    )


def test_the_example_has_every_setting_with_its_default() -> None:
    text = (CONFIGS / "gateway.example.yaml").read_text(encoding="utf-8")
    read = GatewayConfig.load(CONFIGS / "gateway.example.yaml")
    assert read == GatewayConfig(folder=CONFIGS / "gw")
    for part in (
        GatewayConfig,
        *(type(getattr(read, name)) for name in ("limits", "batching", "ray", "regions")),
    ):
        for name in part.model_fields:
            assert f"{name}:" in text, name
