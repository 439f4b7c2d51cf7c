"""What a gateway that lies, a stranger, and a replayed or moved job get from an endpoint: a refusal by name."""

from __future__ import annotations

import base64
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import pytest
from cluster import (  # type: ignore[import-not-found]
    Three,
    agreed,
    ask,
    at_all,
    open_triple,
    run,
    sealed,
    wait_until,
)

from mpc_ray.channel import Link, Message, dial_party, pack
from mpc_ray.channel.hello import Kind, preamble
from mpc_ray.client.bundle import Bundle
from mpc_ray.client.share import prepare
from mpc_ray.endpoint.dial import address_of, endpoint_hello
from mpc_ray.errors import BadFrame, ChannelError, MpcError
from mpc_ray.trust.answer import new_reply_key
from mpc_ray.trust.authorisation import SigningKey
from mpc_ray.trust.folder import open_folder


@pytest.fixture
def links(endpoints: Three) -> Iterator[list[Link]]:
    """Three fresh links as the gateway; what was opened on them ends with them, before the next test."""
    made = endpoints.links()
    yield made
    for link in made:
        link.close()
    assert wait_until(lambda: free(endpoints) == [1, 1, 1], 20), "a slot did not come back"


def free(three: Three) -> list[int]:
    return [three.status("eu", i)["slots"]["free"] for i in range(3)]


def code(outcome: Any) -> str:
    assert isinstance(outcome, MpcError), outcome
    return outcome.code


def refused(link: Link, message: Message) -> str:
    """The code of the refusal."""
    with pytest.raises(MpcError) as caught:
        ask(link, message, 10.0)
    return code(caught.value)


def computes(three: Three, links: list[Link]) -> None:
    """All is well: a job of an honest client is computed."""
    triple = open_triple(links)
    job = three.job()
    agreed(at_all(links, job.submit))
    job.read(sealed(agreed(run(links, triple, [job])), job))
    agreed(at_all(links, lambda i: Message({"cmd": "close", "triple": triple})))


# -- what a job must be ---


def test_a_job_is_taken_once(endpoints: Three, links: list[Link]) -> None:
    job = endpoints.job()
    agreed(at_all(links, job.submit))
    assert [code(found) for found in at_all(links, job.submit)] == ["replayed"] * 3
    assert ask(links[0], Message({"cmd": "drop", "jobs": [job.id]}), 5).header["dropped"] == 1
    assert refused(links[0], job.submit(0)) == "replayed"


def test_an_envelope_cannot_be_moved(endpoints: Three, links: list[Link]) -> None:
    job, other = endpoints.job(), endpoints.job()
    for envelope in (job.envelopes[1], other.envelopes[0], job.envelopes[0][:-1], b"", os.urandom(3000)):
        message = job.submit(0)
        message.tensors["envelope"] = np.frombuffer(envelope, np.uint8)
        with pytest.raises(MpcError) as caught:
            ask(links[0], message, 5)
        assert type(caught.value).__name__ == "SealError"
    ask(links[0], job.submit(0), 5)  # none of these burnt the job's id


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"model": "other"}, "unknown_model"),
        ({"model_digest": "ab" * 32}, "wrong_model"),
        ({"batch": 2}, "wrong_shape"),
        ({"length": 32}, "wrong_shape"),
        ({"output": "hidden"}, "output"),
        ({"set": "us"}, "set"),
        ({"federation": "other"}, "federation"),
        ({"protocol": "malicious_3pc"}, "protocol"),
        ({"jurisdictions": ("US",)}, "jurisdiction"),
        ({"retention": "forever"}, "retention"),
        ({"issued_ms": 1_000_000, "expires_ms": 1_030_000}, "expired"),
        ({"batch": 4096}, "batch"),
    ],
)
def test_each_party_checks_what_was_authorised(
    endpoints: Three, links: list[Link], changes: dict[str, Any], wanted: str
) -> None:
    job = endpoints.job(**changes)
    assert [code(found) for found in at_all(links, job.submit)] == [wanted] * 3


def test_who_signed_it_must_be_enrolled_and_have_signed_this(endpoints: Three, links: list[Link]) -> None:
    job = endpoints.job()
    for changes in ({"batch": 2}, {"purpose": "other"}, {"range_check": False}, {"length": 32}):
        other = replace(job.authorisation, **changes)  # type: ignore[arg-type]
        assert refused(links[0], job.submit(0, authorisation=other.to_json())) == "bad_signature"
    assert refused(links[0], job.submit(0, signature="%%%")) == "malformed"
    assert refused(links[0], job.submit(0, signature=base64.b64encode(bytes(64)).decode())) == "bad_signature"
    for bad in (None, 7, [], {}, {"job": 1}, "x" * 9000):
        assert refused(links[0], job.submit(0, authorisation=bad)) == "malformed"
    bundle = Bundle.load(endpoints.bundle)
    (batch,) = prepare(bundle, ["x"])
    stranger = endpoints.authorised(
        [os.urandom(64)] * 3, bundle, batch, (new_reply_key(),) * 3, signer=SigningKey.generate()
    )
    assert refused(links[0], stranger.submit(0)) == "unknown_key"


def test_what_an_envelope_holds_must_be_a_parcel(endpoints: Three, links: list[Link]) -> None:
    bundle = Bundle.load(endpoints.bundle)
    (batch,) = prepare(bundle, ["x"])
    parcel = batch.deal()[1]
    key = new_reply_key()
    good = {"v": 1, "reply_key": key.reveal().hex(), **parcel.header}
    for header, tensors, wanted in (
        ({**good, "v": 2}, parcel.tensors, "inputs"),
        ({**good, "reply_key": "zz" * 32}, parcel.tensors, "inputs"),
        ({**good, "reply_key": "ab"}, parcel.tensors, "inputs"),
        ({"v": 1, "reply_key": key.reveal().hex()}, parcel.tensors, "inputs wrong_shape"),
        ({**good, "shares": 5}, parcel.tensors, "inputs wrong_shape"),
        ({**good, "seeds": {}}, parcel.tensors, "inputs wrong_shape"),
        (good, {}, "wrong_shape"),
        (good, {**parcel.tensors, "more": np.zeros(4)}, "wrong_shape"),
    ):
        contents = [pack(Message(header, dict(tensors)))] * 3
        job = endpoints.authorised(contents, bundle, batch, (key,) * 3)
        assert refused(links[1], job.submit(1)) in wanted.split()
    raw = endpoints.authorised([os.urandom(500)] * 3, bundle, batch, (key,) * 3)
    assert refused(links[1], raw.submit(1)) == "inputs"


# -- a gateway that lies ---


def test_different_batches_are_found(endpoints: Three, links: list[Link]) -> None:
    first, second = endpoints.job(), endpoints.job()
    for job in (first, second):
        agreed(at_all(links, job.submit))
    triple = open_triple(links)
    orders = [[first, second], [second, first], [first, second]]
    found = at_all(
        links,
        lambda i: Message({"cmd": "run", "triple": triple, "jobs": [j.id for j in orders[i]], "attempt": 0}),
    )
    assert all(isinstance(outcome, ChannelError) for outcome in found), found
    assert any(isinstance(outcome, BadFrame) for outcome in found), found
    assert wait_until(lambda: free(endpoints) == [1, 1, 1], 20)
    fresh = open_triple(links)
    again = run(links, fresh, [first, second], 1)  # who found something wrong takes no second look
    assert any(code(outcome) == "unknown_job" for outcome in again), again


def test_a_job_runs_once(endpoints: Three, links: list[Link]) -> None:
    triple = open_triple(links)
    job = endpoints.job()
    agreed(at_all(links, job.submit))
    head: dict[str, Any] = {"cmd": "run", "triple": triple, "jobs": [job.id], "attempt": 0}
    assert refused(links[0], Message({**head, "attempt": 2})) == "attempt"
    assert refused(links[0], Message({**head, "jobs": [job.id, job.id]})) == "batch"
    assert refused(links[0], Message({**head, "jobs": []})) == "batch"
    assert refused(links[0], Message({**head, "jobs": [job.id, "ab" * 16]})) == "unknown_job"
    assert refused(links[0], Message({**head, "triple": "ab" * 16})) == "unknown_triple"
    assert refused(endpoints.link("eu", 0), Message(dict(head))) == "unknown_triple"  # it belongs to its link
    agreed(run(links, triple, [job]))
    assert [code(outcome) for outcome in run(links, triple, [job])] == ["unknown_job"] * 3
    assert [code(outcome) for outcome in run(links, triple, [job], 1)] == ["unknown_job"] * 3


def test_one_answer_opens_under_its_own_key_only(endpoints: Three, links: list[Link]) -> None:
    triple = open_triple(links)
    jobs = [endpoints.job(["hello world"]), endpoints.job(["all hello"])]
    for job in jobs:
        agreed(at_all(links, job.submit))
    answers = agreed(run(links, triple, jobs))
    with pytest.raises(MpcError):
        jobs[0].read(sealed(answers, jobs[1]))
    first, second = (job.read(sealed(answers, job)) for job in jobs)
    assert first.shape == second.shape and np.abs(first - second).max() > 1e-3


def test_jobs_of_two_lengths_do_not_run_together(endpoints: Three, links: list[Link]) -> None:
    triple = open_triple(links)
    jobs = [endpoints.job(["hello"]), endpoints.job(["hello hello all"])]
    assert jobs[0].batch.length != jobs[1].batch.length
    for job in jobs:
        agreed(at_all(links, job.submit))
    assert [code(outcome) for outcome in run(links, triple, jobs)] == ["batch"] * 3
    for job in jobs:
        job.read(sealed(agreed(run(links, triple, [job])), job))


def test_malformed_commands_end_nothing(endpoints: Three, links: list[Link]) -> None:
    for header in (
        {},
        {"cmd": 5},
        {"cmd": "shutdown"},
        {"cmd": "load", "model": "tiny"},
        {"cmd": "open", "triple": "ab" * 16},
        {"cmd": "open", "triple": "00" * 16, "models": []},
        {"cmd": "open", "triple": 7, "models": []},
        {"cmd": "open", "triple": "ab" * 16, "models": ["nobody"]},
        {"cmd": "open", "triple": "ab" * 16, "models": ["tiny"], "timeout_s": "x"},
        {"cmd": "run", "triple": "zz" * 16, "jobs": []},
        {"cmd": "run", "triple": "ab" * 16, "jobs": "abc"},
        {"cmd": "run", "triple": "ab" * 16, "jobs": [1], "attempt": 0},
        {"cmd": "run", "triple": "ab" * 16, "jobs": ["x"], "attempt": -1},
        {"cmd": "drop", "jobs": 5},
        {"cmd": "abort"},
        {"cmd": "close", "triple": "ab" * 16},
        {"cmd": "submit", "traceparent": {"a": 1}},
    ):
        with pytest.raises(MpcError):
            ask(links[0], Message(dict(header)), 5)  # type: ignore[arg-type]
    assert ask(links[0], Message({"cmd": "status"}), 5).header["ready"] is True


def test_a_message_that_is_too_large_ends_its_link_only(endpoints: Three, links: list[Link]) -> None:
    before = psutil.Process(endpoints.pid("eu", 0)).memory_info().rss
    big = np.zeros(70 << 20, np.uint8)
    with pytest.raises(ChannelError):
        ask(links[0], Message({"cmd": "submit"}, {"envelope": big}), 5)
    assert endpoints.status("eu", 0)["ready"] is True
    assert psutil.Process(endpoints.pid("eu", 0)).memory_info().rss - before < 20 << 20


def test_refused_jobs_leave_no_memory_behind(endpoints: Three, links: list[Link]) -> None:
    bundle = Bundle.load(endpoints.bundle)
    (batch,) = prepare(bundle, ["x"])
    contents = [os.urandom(4 << 20)] * 3

    def refuse(times: int) -> None:
        for _ in range(times):
            job = endpoints.authorised(contents, bundle, batch, (new_reply_key(),) * 3)
            assert refused(links[0], job.submit(0)) == "inputs"

    front = psutil.Process(endpoints.pid("eu", 0))
    refuse(4)
    before = front.memory_info().rss
    refuse(16)
    assert front.memory_info().rss - before < 24 << 20  # 16 of them would be 64 MiB


# -- strangers ---


def test_the_gateway_port_is_for_gateways(endpoints: Three) -> None:
    record, party = endpoints.records()[0], open_folder(endpoints.folders["eu"][1])
    for kind, index in ((Kind.PARTY, 1), (Kind.CLIENT, 0), (Kind.GATEWAY, 0)):
        with pytest.raises(ChannelError, match=r"not for a|certificate is not gateway"):
            dial_party(
                0,
                address_of(record.gateway),
                party.identity,
                endpoint_hello(),
                kind=kind,
                index=index,
                timeout=3,
            )


def test_the_peer_port_is_for_peers(endpoints: Three) -> None:
    record, gateway = endpoints.records()[0], open_folder(endpoints.gateway)
    for session in (bytes(16), os.urandom(16)):
        with pytest.raises(ChannelError):
            dial_party(
                0,
                address_of(record.peer),
                gateway.identity,
                endpoint_hello(),
                kind=Kind.GATEWAY,
                preamble=preamble(session),
                timeout=1,
            )


def test_an_unknown_session_is_hung_up_on(endpoints: Three) -> None:
    for first in (preamble(os.urandom(16)), b"GET / HTTP/1.1\r\n\r\n          ", b"\x16\x03\x01" + bytes(40)):
        with socket.create_connection(address_of(endpoints.records()[0].peer), 2) as sock:
            sock.sendall(first)
            sock.settimeout(3)
            try:
                assert sock.recv(10) == b""
            except ConnectionResetError:  # it had more to say than was read
                pass


def test_silent_strangers_hold_nothing_up(endpoints: Three, links: list[Link]) -> None:
    record = endpoints.records()[0]
    silent = [socket.create_connection(address_of(record.peer), 2) for _ in range(100)]
    silent += [socket.create_connection(address_of(record.gateway), 2) for _ in range(60)]
    try:
        began = time.monotonic()
        assert endpoints.status("eu", 0)["party"] == 0
        computes(endpoints, links)
        assert time.monotonic() - began < 15
    finally:
        for sock in silent:
            sock.close()


def test_a_certificate_of_another_authority_is_refused(endpoints: Three, tmp_path: Any) -> None:
    from federation import make_federation  # type: ignore[import-not-found]

    other = make_federation(tmp_path / "other")
    with pytest.raises(ChannelError, match="another authority"):
        dial_party(
            0,
            address_of(endpoints.records()[0].gateway),
            other.gateway.identity,
            endpoint_hello(),
            kind=Kind.GATEWAY,
            timeout=3,
        )


# -- who owns what ---


def test_a_triple_ends_with_its_link(endpoints: Three, links: list[Link]) -> None:
    open_triple(links)
    assert free(endpoints) == [0, 0, 0]
    with pytest.raises(MpcError) as caught:
        open_triple(endpoints.links())
    assert code(caught.value) == "no_slot" and caught.value.retry_after_s > 0  # type: ignore[attr-defined]
    pids = [endpoints.slot_pids("eu", i) for i in range(3)]
    links[0].close()
    assert wait_until(lambda: free(endpoints)[0] == 1, 3)
    assert (
        endpoints.slot_pids("eu", 0) == pids[0]
    )  # nothing was computed: the slot is good for another triple


def test_abort_ends_a_run_at_once(endpoints: Three, links: list[Link]) -> None:
    triple = open_triple(links)
    job = endpoints.job()
    agreed(at_all(links, job.submit))
    others = endpoints.links()
    head: dict[str, Any] = {"cmd": "run", "triple": triple, "jobs": [job.id], "attempt": 0}
    links[0].send(Message(dict(head)))  # the two others are never asked: it waits for them
    time.sleep(0.3)
    began = time.monotonic()
    ask(others[0], Message({"cmd": "abort", "triple": triple}), 5)
    answer = links[0].receive(5)
    assert answer.header["code"] == "aborted" and time.monotonic() - began < 1
    for i in (1, 2):
        ask(others[i], Message({"cmd": "abort", "triple": triple}), 5)
    assert wait_until(lambda: free(endpoints) == [1, 1, 1], 20)
    fresh = open_triple(links)
    assert refused(links[0], Message({**head, "triple": fresh})) == "attempt"
    found = [ask(links[0], Message({"cmd": "drop", "jobs": [job.id]}), 5).header["dropped"] for _ in range(2)]
    assert found == [1, 0]


def test_another_gateway_has_no_part_in_it(endpoints: Three, links: list[Link]) -> None:
    """It is in the directory too; what the first one opened and brought is none of its business."""
    job = endpoints.job()
    agreed(at_all(links, job.submit))
    triple = open_triple(links)
    other = endpoints.link("eu", 0, gateway="gw2")
    for command in ("abort", "close"):
        assert refused(other, Message({"cmd": command, "triple": triple})) == "unknown_triple"
    head: dict[str, Any] = {"cmd": "run", "triple": triple, "jobs": [job.id], "attempt": 0}
    assert refused(other, Message(head)) == "unknown_triple"
    assert ask(other, Message({"cmd": "drop", "jobs": [job.id]}), 5).header["dropped"] == 0
    agreed(at_all(links, lambda i: Message({"cmd": "close", "triple": triple})))
    mixed = [other, *links[1:]]
    triple = open_triple(mixed)
    assert refused(other, Message({**head, "triple": triple})) == "unknown_job"
    other.close()
