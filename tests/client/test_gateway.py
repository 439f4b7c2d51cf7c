"""The client and ``mpc-ray proxy`` against the real gateway over TLS; its triples are played in the clear."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from fake_gateway import FakeGateway, Federation  # type: ignore[import-not-found]

from mpc_ray.channel.packed import unpack
from mpc_ray.client import Client
from mpc_ray.client.proxy.host import application
from mpc_ray.client.proxy.host import hosted as proxy_hosted
from mpc_ray.client.settings import ClientSettings
from mpc_ray.errors import AuthorisationError, ConfigError, Refused, Unavailable
from mpc_ray.models.bert_float import embed
from mpc_ray.serve.apikeys import KeyStore
from mpc_ray.serve.config import GatewayConfig
from mpc_ray.serve.host import Server, hosted
from mpc_ray.serve.interface import Answers, Job
from mpc_ray.trust.authorisation import Authorisation, open_envelope
from mpc_ray.trust.folder import open_folder

ROOT = Path(__file__).parents[2]
TEXTS = ["Hello, world!", "a", "The 7 quick foxes (and 9 dogs)", "c d e f g h i j k l m n"]


@dataclass
class Played:
    """``Triples`` of one set whose parties compute in the clear."""

    fake: FakeGateway
    set: str
    ready: bool = True

    async def infer(self, job: Job) -> Answers:
        import base64

        a = Authorisation.from_json(dict(job.authorisation))
        plain = [
            open_envelope(a, i, envelope, open_folder(self.fake.federation.folder(a.set, i)).keys())
            for i, envelope in enumerate(job.envelopes)
        ]
        content = await asyncio.to_thread(self.fake.answer, a, [unpack(text, 1 << 24) for text in plain])
        one, two, three = (base64.b64decode(text) for text in json.loads(content)["answers"])
        return Answers(a.job, (one, two, three), self.set, {"run_s": 0.25})

    async def status(self) -> Mapping[str, Any]:
        owned = self.fake.owned
        bundle = owned.bundle
        model = {"name": "tiny", "digest": bundle.model_digest, "lengths": list(bundle.lengths), "hidden": 32}
        return {"set": self.set, "ready": self.ready, "queue": 0, "triples": 1, "models": [model]}


@dataclass
class Place:
    """A running gateway, and what a client needs for it."""

    server: Server
    federation: Federation
    bearer: str
    triples: dict[str, Played]
    bundle: Path


@pytest.fixture(scope="module")
def place(made: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    federation = Federation(tmp_path_factory.mktemp("gateway"))
    fake = FakeGateway(federation, made)
    triples = {name: Played(fake, name) for name in federation.sets}
    config = GatewayConfig(folder=federation.root / "gw", port=0, limits={"drain_s": 0.0})
    bearer = KeyStore(federation.root / "gw").create("test").bearer
    with hosted(config, triples) as server:
        yield Place(server, federation, bearer, triples, made.folder)


def client(place: Place, **changed: Any) -> Client:
    settings: dict[str, Any] = {
        "bundle": place.bundle,
        "signing_key": place.federation.key,
        "trust": place.federation.ca,
        "api_key": place.bearer,
        "verify": "federation",
        "retries": 1,
    }
    return Client(place.server.url, **(settings | changed))


def test_the_whole_way(place: Place, made: Any) -> None:
    with client(place) as one:
        done = one.embed_reported(TEXTS)
        assert np.abs(done.vectors - embed(made.bert, TEXTS)).max() < 1e-4
        assert {note.set for note in done.jobs} == {"eu"} and done.jobs[0].timing["run_s"] == 0.25
        assert [model["name"] for model in one.models()] == ["tiny"]
        assert [found["set"] for found in one.sets()] == ["eu", "us"] and one.ready()
        assert set(one.parties()) == {"eu", "us"}


def test_a_fail_over_that_the_gateway_names(place: Place) -> None:
    import time

    place.triples["eu"].ready = False
    try:
        time.sleep(1.2)  # the gateway looks once a second
        with client(place) as one:
            assert one.embed_reported(["a"]).jobs[0].set == "us"
        with client(place, jurisdictions=["DE", "FR", "IE"]) as one, pytest.raises(Unavailable):
            one.embed(["a"])
    finally:
        place.triples["eu"].ready = True
        time.sleep(1.2)


def test_https_is_verified(place: Place, tmp_path: Path) -> None:
    other = Federation(tmp_path / "other", ("eu",))
    for wrong in ({"verify": None}, {"verify": other.ca}, {"verify": place.federation.ca}):
        with client(place, **wrong) as one, pytest.raises(ConfigError, match="HTTPS certificate"):
            one.embed(["a"])
    with client(place, verify=place.federation.ca, server_name="gateway") as one:
        assert one.embed(["a"]).shape == (1, 32)


def test_refusals_of_the_gateway(place: Place) -> None:
    with client(place, api_key="mpck_0123456789abcdef_" + "A" * 43) as one:
        with pytest.raises(AuthorisationError) as caught:
            one.embed(["a"])
        assert caught.value.code == "bad_key"
    limited = KeyStore(place.federation.root / "gw").create("limited", purposes=("search",)).bearer
    with client(place, api_key=limited, purpose="advertising") as one:
        with pytest.raises(Refused) as caught:
            one.embed(["a"])
        assert caught.value.code == "forbidden_purpose"
    with client(place, api_key=limited, purpose="search") as one:
        assert one.embed(["a"]).shape == (1, 32)


SOURCES = {
    name: value for name, value in os.environ.items() if name == "PYTHONPATH"
}  # this checkout's, if it is said


def program(folder: Path, content: dict[str, Any], *words: str, **environ: str) -> subprocess.Popen[str]:
    path = folder / "proxy.yaml"
    path.write_text(yaml.safe_dump(content))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "mpc_ray.cli.main", "proxy", "--config", str(path), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), **SOURCES, **environ},
    )


@pytest.fixture
def settings(place: Place, tmp_path: Path) -> dict[str, Any]:
    place.federation.key.save(tmp_path / "client.key")
    return {
        "gateway": place.server.url,
        "gateway_ca": "federation",
        "bundle": str(place.bundle),
        "signing_key": "client.key",
        "trust": str(place.federation.ca),
        "proxy": {"port": 0},
    }


def test_the_program(place: Place, settings: dict[str, Any], tmp_path: Path, made: Any) -> None:
    running = program(tmp_path, settings, "--json", MPC_GATEWAY_API_KEY=place.bearer)
    try:
        assert running.stdout is not None
        said = json.loads(running.stdout.readline())
        assert said["command"] == "proxy" and said["event"] == "serving"
        body = {"input": TEXTS, "model": "tiny"}
        answer = httpx.post(f"{said['url']}/v1/embeddings", json=body, timeout=30)
        found = np.array([one["embedding"] for one in answer.json()["data"]])
        assert np.abs(found - embed(made.bert, TEXTS)).max() < 1e-4
        assert httpx.get(f"{said['url']}/health").status_code == 200
        running.send_signal(signal.SIGTERM)
        out, err = running.communicate(timeout=20)
        assert running.returncode == 0 and out == ""
        assert TEXTS[0] not in err and place.bearer not in err
    finally:
        running.kill()
        running.communicate()


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        ({"proxy": {"port": "taken"}}, 2, "proxy.port"),
        ({"bundle": "nowhere"}, 3, "no client bundle"),
        ({"signing_key": "nowhere"}, 2, "cannot be read"),
        ({"proxy": {"port": 0, "aliases": {"x": "other"}}}, 2, "stands for another model"),
    ],
)
def test_the_program_says_what_is_wrong(
    settings: dict[str, Any], tmp_path: Path, change: dict[str, Any], code: int, word: str
) -> None:
    running = program(tmp_path, settings | change)
    _, err = running.communicate(timeout=30)
    assert running.returncode == code and word in err


def test_an_address_in_use_is_said(place: Place, settings: dict[str, Any], tmp_path: Path) -> None:
    port = int(place.server.url.rpartition(":")[2])
    running = program(tmp_path, settings | {"proxy": {"port": port}})
    _, err = running.communicate(timeout=30)
    assert running.returncode == 75 and f"cannot listen on 127.0.0.1:{port}" in err


def example(name: str) -> Any:
    """A file of examples/ as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_examples_run(
    place: Place,
    settings: dict[str, Any],
    tmp_path: Path,
    made: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MPC_GATEWAY_API_KEY", place.bearer)
    path = tmp_path / "c.yaml"
    settings["proxy"]["auto_truncate"] = True  # the tiny model takes 32 tokens
    path.write_text(yaml.safe_dump(settings))
    sentences = ["hello world", "hello worlds", "quite another text"]
    assert example("client").main([*sentences, "--config", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    cosines = embed(made.bert, sentences) @ embed(made.bert, sentences).T - 2 * np.eye(3)
    assert lines[0] == "set eu: operator-eu-0 (DE), operator-eu-1 (FR), operator-eu-2 (IE)"
    assert lines[2] == f"{cosines[0].max():.3f}  hello world  ->  {sentences[int(cosines[0].argmax())]}"
    pytest.importorskip("openai")
    loaded = ClientSettings.load(path)
    with proxy_hosted(application(loaded), loaded.proxy) as at:
        assert example("openai_proxy").main(["hello", "--base-url", f"{at.url}/v1"]) == 0
        assert "model tiny" in capsys.readouterr().out
        assert example("openai_proxy").main(["hello", "--base-url", f"{at.url}/nowhere"]) == 1
