"""One operator's expired certificate: its set is not ready and says why, the others serve, and it comes back."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from gateways import Fake, Running, body, config, federation, problem, renew

from mpc_ray.errors import CertificateError, ConfigError, Unavailable
from mpc_ray.serve import awaited
from mpc_ray.serve.awaited import Awaited, led
from mpc_ray.serve.interface import Job, Triples
from mpc_ray.serve.leaders import leaders
from mpc_ray.serve.published import Published
from mpc_ray.serve.triple import TripleLeader
from mpc_ray.trust.folder import open_folder

WHY = "the certificate of party eu/0 has expired"


def test_the_other_sets_are_led(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = federation(tmp_path, expired=("eu/0",))
    with caplog.at_level(logging.WARNING):
        found = leaders(config(made))
    assert isinstance(found["eu"], Awaited) and isinstance(found["us"], TripleLeader)
    assert f"set eu is not led until the directory changes: {WHY}" in caplog.text
    published = Published.load(made.folder)
    assert set(published.places) == {"eu", "us"} and published.places["eu"].jurisdictions == (
        "DE",
        "FR",
        "IE",
    )
    assert (published.why_not("eu"), published.why_not("us")) == (WHY, "")
    assert f"set eu cannot be used: {WHY}" in caplog.text


def test_it_comes_back_with_a_new_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awaited, "LOOK_S", 0.02)
    made = federation(tmp_path, expired=("eu/0",))
    fake, made_leaders = Fake("eu"), 0

    def make() -> Triples:
        nonlocal made_leaders
        open_folder(made.folder).directory().parties("eu")
        made_leaders += 1
        return fake

    async def test() -> None:
        async with Running(made, {"eu": led("eu", made.folder, make), "us": Fake("us")}) as gateway:
            get = gateway.client.get
            eu, us = (await get("/v1/sets")).json()["sets"]
            assert (eu["ready"], eu["why"], eu["regions"]) == (False, WHY, ["eu-0", "eu-1", "eu-2"])
            assert (us["ready"], us["why"]) == (True, "")
            assert (await get("/v2/health/ready")).json() == {"ready": True, "not_ready": {"eu": WHY}}
            assert problem(await gateway.infer(), 503, "set_unavailable")["sets"] == ["us"]
            assert (await gateway.infer(body(made, set="us"))).status_code == 200
            await asyncio.sleep(0.1)
            assert not made_leaders

            renew(tmp_path, "eu0")
            for _ in range(100):
                await asyncio.sleep(0.02)
                await gateway.app.state.gateway.views.refresh()
                if (await get("/v1/sets")).json()["sets"][0]["ready"]:
                    break
            assert (await gateway.infer()).status_code == 200
            assert (await get("/v2/health/ready")).json() == {"ready": True}
            assert made_leaders == 1 and len(fake.jobs) == 1

    asyncio.run(test())


def test_no_set_is_ready_and_the_caller_hears_why(tmp_path: Path) -> None:
    made = federation(tmp_path, expired=("eu/0", "us/2"))

    async def test() -> None:
        async with Running(made, leaders(config(made))) as gateway:
            said = problem(await gateway.client.get("/v2/health/ready"), 503, "unavailable")
            assert f"set eu: {WHY}" in said["cause"] and "party us/2 has expired" in said["cause"]

    asyncio.run(test())


def test_until_it_is_led(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses jobs, tries only when the directory has changed, and a failure of another kind names no file."""
    monkeypatch.setattr(awaited, "LOOK_S", 0.01)
    errors: list[Exception] = [
        CertificateError("first"),
        ConfigError("/secret/place"),
        CertificateError("third"),
    ]

    class Stopped(Fake):
        stopped = False

        async def stop(self) -> None:
            self.stopped = True

        def measured(self) -> dict[str, int]:
            return {"jobs": 1}

    leader = Stopped("eu")

    def make() -> Triples:
        if errors:
            raise errors.pop(0)
        return leader

    async def changed(number: int) -> None:
        (tmp_path / "directory.json").write_text(" " * number)
        await asyncio.sleep(0.1)

    async def test() -> None:
        waits = led("eu", tmp_path, make)
        assert isinstance(waits, Awaited) and waits.measured() == {}
        await waits.start()
        job = Job({}, b"", (b"", b"", b""))
        with pytest.raises(Unavailable, match="first"):
            await waits.infer(job)
        await asyncio.sleep(0.05)
        assert len(errors) == 2, "nothing has changed"
        await changed(1)
        assert (await waits.status())["why"] == awaited.SEE_LOG
        await changed(2)
        assert (await waits.status())["why"] == "third"
        await changed(3)
        assert (await waits.status())["ready"] and (await waits.infer(job)).set == "eu"
        assert waits.measured() == {"jobs": 1}
        await waits.stop()
        assert leader.stopped

    asyncio.run(test())

    def broken() -> Triples:
        raise ConfigError("a setting")

    with pytest.raises(ConfigError):
        led("eu", tmp_path, broken)
