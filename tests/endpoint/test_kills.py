"""Whatever is killed, the endpoint is whole again by itself, nothing is left over, and no job is lost or run twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest
from cluster import (  # type: ignore[import-not-found]
    Job,
    Three,
    agreed,
    ask,
    at_all,
    open_triple,
    run,
    sealed,
    wait_until,
)

from mpc_ray.channel import Link, Message
from mpc_ray.errors import MpcError, PeerLost
from mpc_ray.models.bert_float import embed

TEXTS = ["hello world"]
BACK_S = 30.0


@pytest.fixture
def links(endpoints: Three) -> Iterator[list[Link]]:
    made = endpoints.links()
    yield made
    for link in made:
        link.close()
    whole(endpoints)


def whole(three: Three) -> None:
    """All three are ready, each with a free slot."""

    def holds() -> bool:
        try:
            found = [three.status("eu", index) for index in range(3)]
        except MpcError:
            return False
        return all(status["ready"] and status["slots"]["free"] == 1 for status in found)

    assert wait_until(holds, BACK_S), [three.tail("eu", index) for index in range(3)]


def right(three: Three, job: Job, answers: list[Message]) -> None:
    wanted = embed(three.bert, TEXTS)[list(job.batch.indices)]
    assert np.abs(job.read(sealed(answers, job)) - wanted).max() < 2e-3


def test_a_killed_slot_costs_its_triple_and_no_job(endpoints: Three, links: list[Link]) -> None:
    triple = open_triple(links)
    job = endpoints.job(TEXTS)
    agreed(at_all(links, job.submit))
    (slot,) = endpoints.slot_pids("eu", 1)
    os.kill(slot, signal.SIGKILL)
    began = time.monotonic()
    found = run(links, triple, [job])
    assert time.monotonic() - began < 3
    assert all(isinstance(outcome, MpcError) for outcome in found), found
    assert isinstance(found[0], PeerLost) and "party 1" in str(found[0])
    whole(endpoints)
    assert endpoints.slot_pids("eu", 1) != [slot]
    right(endpoints, job, agreed(run(links, open_triple(links), [job], 1)))


def test_a_slot_that_dies_within_a_run(endpoints: Three, links: list[Link]) -> None:
    """Party 2 is never asked, so the two others wait for it; then one of them dies."""
    triple = open_triple(links)
    job = endpoints.job(TEXTS)
    agreed(at_all(links, job.submit))
    head: dict[str, Any] = {"cmd": "run", "triple": triple, "jobs": [job.id], "attempt": 0}
    for link in links[:2]:
        link.send(Message(dict(head)))
    time.sleep(0.3)
    (slot,) = endpoints.slot_pids("eu", 0)
    os.kill(slot, signal.SIGKILL)
    lost = links[0].receive(3).header
    assert (lost["error"], lost["peer"]) == ("PeerLost", "party 0")
    other = endpoints.link("eu", 1)  # it waits for party 2, which was never asked: its gateway ends that
    ask(other, Message({"cmd": "abort", "triple": triple}), 5)
    assert links[1].receive(3).header["code"] in ("aborted", "peerlost")
    ask(links[2], Message({"cmd": "close", "triple": triple}), 5)
    whole(endpoints)
    right(
        endpoints, job, agreed(run(links, open_triple(links), [job], 1))
    )  # also at party 2, which begins with it


def test_a_killed_host_takes_nothing_with_it(endpoints: Three, links: list[Link]) -> None:
    front = psutil.Process(endpoints.pid("eu", 2))
    (host,) = [p for p in front.children() if "mpc_ray.endpoint.host" in " ".join(p.cmdline())]
    slots = endpoints.slot_pids("eu", 2)
    began = time.monotonic()
    host.kill()
    assert wait_until(lambda: not endpoints.status("eu", 2)["ready"], 5)
    whole(endpoints)
    assert time.monotonic() - began < BACK_S
    assert not set(slots) & {p.pid for p in endpoints.processes()}
    assert front.is_running()
    job = endpoints.job(TEXTS)
    agreed(at_all(links, job.submit))
    right(endpoints, job, agreed(run(links, open_triple(links), [job])))


def test_a_killed_front_leaves_nothing_running_and_forgets_no_job(endpoints: Three) -> None:
    links = endpoints.links()
    job = endpoints.job(TEXTS)
    agreed(at_all(links, job.submit))
    triple = open_triple(links)
    mine = {p.pid for p in psutil.Process(endpoints.pid("eu", 1)).children(recursive=True)}
    assert len(mine) >= 2
    endpoints.kill("eu", 1)
    assert wait_until(lambda: not any(psutil.pid_exists(pid) for pid in mine), 10), "something still runs"
    found = run([links[0], links[2]], triple, [job])
    assert all(isinstance(outcome, PeerLost) for outcome in found), found
    assert wait_until(lambda: not endpoints.status("eu", 0)["ready"], 10)
    assert "party 1" in ", ".join(endpoints.status("eu", 0)["waiting"])
    endpoints.start("eu", 1)
    endpoints.wait_for("eu", 1, BACK_S)
    whole(endpoints)
    fresh = endpoints.link("eu", 1)
    with pytest.raises(MpcError) as caught:  # its journal is on disk
        ask(fresh, job.submit(1), 5)
    assert caught.value.code == "replayed"  # type: ignore[attr-defined]
    fresh.close()
    another = endpoints.job(TEXTS)
    links = endpoints.links()
    agreed(at_all(links, another.submit))
    right(endpoints, another, agreed(run(links, open_triple(links), [another])))
    for link in links:
        link.close()
    whole(endpoints)


def test_sigterm_ends_all_of_it_well(endpoints: Three) -> None:
    mine = {p.pid for p in psutil.Process(endpoints.pid("eu", 0)).children(recursive=True)}
    began = time.monotonic()
    assert endpoints.kill("eu", 0, signal.SIGTERM) == 0
    assert time.monotonic() - began < 10
    assert not any(psutil.pid_exists(pid) for pid in mine)
    endpoints.start("eu", 0)
    endpoints.wait_for("eu", 0, BACK_S)
    homes = list((endpoints.root / "t").glob("m??????????????"))
    assert len(homes) == 3, "what a killed front left behind is removed by the next one"
    whole(endpoints)
