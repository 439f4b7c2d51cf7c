"""Gateways that lie and strangers: each party refuses for itself, and goes on serving honest jobs."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import psutil
import pytest
from cluster import Three, agreed, at_all, open_triple, run, sealed, wait_until  # type: ignore[import-not-found]

from mpc_ray.channel import Link, Message
from mpc_ray.channel.hello import preamble
from mpc_ray.endpoint.dial import ask, dial_endpoint
from mpc_ray.errors import ChannelError, MpcError
from mpc_ray.models.bert_float import embed
from mpc_ray.trust.authorisation import SigningKey
from mpc_ray.trust.folder import open_folder

TEXT = "hello world"


@pytest.fixture
def links(endpoints: Three) -> list[Link]:
    return list(endpoints.links())


def serves(endpoints: Three, links: list[Link]) -> None:
    """A fresh triple answers an honest job rightly."""
    assert wait_until(lambda: all(endpoints.status("eu", i)["slots"]["free"] for i in range(3)), 30)
    triple = open_triple(links)
    job = endpoints.job([TEXT])
    agreed(at_all(links, job.submit))
    got = job.read(sealed(agreed(run(links, triple, [job])), job))
    assert np.abs(got - embed(endpoints.bert, [TEXT])).max() < 2e-3
    agreed(at_all(links, lambda i: Message({"cmd": "close", "triple": triple})))


def refused(link: Link, message: Message) -> str:
    """The code with which a party refuses."""
    with pytest.raises(MpcError) as caught:
        ask(link, message, 10)
    return str(getattr(caught.value, "code", type(caught.value).__name__))


def test_a_job_is_taken_once_by_each_party(endpoints: Three, links: list[Link]) -> None:
    job = endpoints.job([TEXT])
    agreed(at_all(links, job.submit))
    assert {refused(links[i], job.submit(i)) for i in range(3)} == {"replayed"}
    agreed(at_all(links, lambda i: Message({"cmd": "drop", "jobs": [job.id]})))
    assert refused(links[0], job.submit(0)) == "replayed"


def test_an_envelope_is_for_one_party_and_one_job(endpoints: Three, links: list[Link]) -> None:
    job, other = endpoints.job([TEXT]), endpoints.job([TEXT])
    moved = replace(job, envelopes=(job.envelopes[1], job.envelopes[0], other.envelopes[2]))
    for party in range(3):
        assert refused(links[party], moved.submit(party)) == "SealError"
    agreed(at_all(links, job.submit))  # the refusals did not burn the job's id


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("purpose", "other"),
        ("length", 32),
        ("batch", 2),
        ("range_check", False),
        ("output", "hidden"),
        ("retention", "for-ever"),
    ],
)
def test_what_was_signed_cannot_be_changed(
    endpoints: Three, links: list[Link], field: str, value: object
) -> None:
    job = endpoints.job([TEXT])
    changed = {**job.authorisation.to_json(), field: value}
    assert refused(links[1], job.submit(1, authorisation=changed)) == "bad_signature"


def test_a_key_that_is_not_enrolled_is_unknown(endpoints: Three, links: list[Link]) -> None:
    job = endpoints.job([TEXT])
    stranger = SigningKey.generate()
    signed = replace(job.authorisation, client=stranger.id)
    forged = replace(job, authorisation=signed, signature=stranger.sign(signed))
    assert refused(links[2], forged.submit(2)) == "unknown_key"


@pytest.mark.parametrize("bad", [None, 7, [], {}, {"job": 1}, "x" * 9000])
def test_what_is_no_authorisation_is_malformed(endpoints: Three, links: list[Link], bad: object) -> None:
    assert refused(links[0], endpoints.job([TEXT]).submit(0, authorisation=bad)) == "malformed"


def test_parties_given_different_batches_find_out(endpoints: Three, links: list[Link]) -> None:
    """The batch is in the name that frames carry: no answer leaves a party."""
    triple = open_triple(links)
    a, b = endpoints.job([TEXT]), endpoints.job(["a quick fox"])
    for job in (a, b):
        agreed(at_all(links, job.submit))
    orders = ([a.id, b.id], [a.id, b.id], [b.id, a.id])
    outcomes = at_all(
        links, lambda i: Message({"cmd": "run", "triple": triple, "jobs": orders[i], "attempt": 0})
    )
    assert all(isinstance(outcome, MpcError) for outcome in outcomes), outcomes
    serves(endpoints, links)


def test_runs_that_may_not_be(endpoints: Three, links: list[Link]) -> None:
    triple = open_triple(links)
    job = endpoints.job([TEXT])
    agreed(at_all(links, job.submit))

    def ordered(**changes: object) -> Message:
        return Message({"cmd": "run", "triple": triple, "jobs": [job.id], "attempt": 0} | changes)  # type: ignore[arg-type]

    assert refused(links[0], ordered(jobs=[os.urandom(16).hex()])) == "unknown_job"
    assert refused(links[0], ordered(jobs=[job.id, job.id])) == "batch"
    assert refused(links[0], ordered(jobs=[])) == "batch"
    assert refused(links[0], ordered(attempt=2)) == "attempt"
    assert refused(links[0], ordered(triple=os.urandom(16).hex())) == "unknown_triple"
    assert refused(links[0], ordered(triple="zz")) == "InputError"
    assert refused(endpoints.link("eu", 0), ordered()) == "unknown_triple", "a triple belongs to its link"
    agreed(run(links, triple, [job]))
    assert {refused(link, ordered()) for link in links} == {"unknown_job"}, "a job runs once"
    agreed(at_all(links, lambda i: Message({"cmd": "close", "triple": triple})))


def test_a_gateway_that_leaves_takes_its_triples_along(endpoints: Three) -> None:
    links = endpoints.links()
    open_triple(links)
    assert endpoints.status("eu", 1)["slots"]["free"] == 0
    for link in links:
        link.close()
    serves(endpoints, list(endpoints.links()))


def test_a_party_is_no_gateway(endpoints: Three) -> None:
    record = endpoints.records()[0]
    other = open_folder(endpoints.folders["eu"][1])
    with pytest.raises(ChannelError, match="certificate"):
        dial_endpoint(record, other.identity, federation=endpoints.federation.known.federation, timeout=5)


@pytest.mark.parametrize(
    "words",
    [b"", b"GET / HTTP/1.1\r\n\r\n", preamble(os.urandom(16)), preamble(os.urandom(16))[:10]],
    ids=["silent", "HTTP", "unknown session", "half a preamble"],
)
def test_strangers_at_the_peer_port_are_cut_off(endpoints: Three, words: bytes) -> None:
    host, _, port = endpoints.records()[0].peer.rpartition(":")
    with socket.create_connection((host, int(port)), 5) as stranger:
        stranger.sendall(words)
        stranger.settimeout(10)
        try:
            assert stranger.recv(1) == b""
        except ConnectionResetError:
            pass


@pytest.mark.parametrize("victim", [0, 2])
def test_a_killed_slot_is_replaced(endpoints: Three, links: list[Link], victim: int) -> None:
    triple = open_triple(links)
    (pid,) = endpoints.slot_pids("eu", victim)
    psutil.Process(pid).kill()
    job = endpoints.job([TEXT])
    agreed(at_all(links, job.submit))
    outcomes = run(links, triple, [job])
    assert all(isinstance(outcome, MpcError) for outcome in outcomes), "nobody answers for a broken triple"
    fresh: Callable[[], bool] = lambda: all(endpoints.status("eu", i)["slots"]["free"] for i in range(3))  # noqa: E731
    assert wait_until(fresh, 30)
    again = open_triple(links)
    (first,) = {0, 1, 2} - {victim, 1}
    repeated = Message({"cmd": "run", "triple": again, "jobs": [job.id], "attempt": 0})
    assert refused(links[first], repeated) == "attempt", "an attempt is made once"
    got = job.read(sealed(agreed(run(links, again, [job], attempt=1)), job))
    assert np.abs(got - embed(endpoints.bert, [TEXT])).max() < 2e-3
    agreed(at_all(links, lambda i: Message({"cmd": "close", "triple": again})))
