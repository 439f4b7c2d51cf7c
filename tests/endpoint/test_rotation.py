"""New certificates, keys, clients and models are taken up by running endpoints; nothing that runs is dropped."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from typing import Any

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

from mpc_ray.channel import Link, Message
from mpc_ray.endpoint.store import ModelStore
from mpc_ray.errors import CertificateError, MpcError, PeerLost
from mpc_ray.trust.authorisation import SigningKey
from mpc_ray.trust.folder import install, open_folder, rotate


@pytest.fixture
def links(endpoints: Three) -> Iterator[list[Link]]:
    made = endpoints.links()
    yield made
    for link in made:
        link.close()
    assert wait_until(lambda: all(endpoints.status("eu", i)["slots"]["free"] for i in range(3)), 20)


def certificate(link: Link) -> bytes:
    stream: Any = link._outgoing
    found: bytes = stream.certificate()
    return found


def publish(three: Three, directory: Any) -> None:
    """A new directory reaches everybody, as its members install it."""
    for folder in (*three.folders["eu"], three.gateway, three.gateway.with_name("gw2")):
        install(folder, directory)
    directory.save(three.directory)


def test_a_rotation_drops_no_session(endpoints: Three, links: list[Link]) -> None:
    triple = open_triple(links)
    sealed_to = endpoints.records()[0].key().id
    early = endpoints.job()  # sealed to the keys before the rotation
    folder = endpoints.folders["eu"][0]
    old = certificate(links[0])
    before = (folder / "tls.pem").read_bytes()
    instance = endpoints.status("eu", 0)["instance"]
    publish(endpoints, endpoints.federation.authority.sign([rotate(folder)], replace=True))
    new = ssl.PEM_cert_to_DER_cert((folder / "tls.pem").read_text())
    assert (folder / "tls.pem").read_bytes() != before

    def renewed() -> bool:
        link = endpoints.link("eu", 0)
        try:
            return certificate(link) == new
        finally:
            link.close()

    assert wait_until(renewed, 5, 0.3), "new connections still see the old certificate"
    assert certificate(links[0]) == old != new
    late = endpoints.job()
    assert endpoints.records()[0].key().id != sealed_to
    for job in (early, late):
        agreed(at_all(links, job.submit))
        job.read(sealed(agreed(run(links, triple, [job])), job))
    agreed(at_all(links, lambda i: Message({"cmd": "close", "triple": triple})))
    triple = open_triple(links)  # the slots meet under the new certificate
    agreed(at_all(links, lambda i: Message({"cmd": "close", "triple": triple})))
    assert wait_until(lambda: endpoints.status("eu", 0)["ready"], 5)
    assert endpoints.status("eu", 0)["instance"] == instance


def test_a_gateway_that_was_removed_is_not_let_in(endpoints: Three) -> None:
    link = endpoints.link("eu", 1, gateway="gw3")
    assert ask(link, Message({"cmd": "status"}), 5).header["ok"]
    directory = endpoints.federation.authority.sign([], remove=["gateway/gw3"])
    publish(endpoints, directory)

    def refused() -> bool:
        try:
            endpoints.link("eu", 1, timeout=1, gateway="gw3").close()
        except MpcError as error:
            return isinstance(error, CertificateError) and "our certificate is not gateway's" in error.cause
        return False

    assert wait_until(refused, 6, 0.3)
    with pytest.raises(PeerLost):  # nor is what it had open
        ask(link, Message({"cmd": "status"}), 5)


def test_clients_come_and_go(endpoints: Three, links: list[Link]) -> None:
    job = endpoints.job()
    newcomer = SigningKey.generate()
    clients = open_folder(endpoints.folders["eu"][2]).clients()

    def submit() -> str:
        made = endpoints.authorised(
            job_contents(endpoints), job.bundle, job.batch, job.reply_keys, signer=newcomer
        )
        with pytest.raises(MpcError) as caught:
            ask(links[2], made.submit(2), 5)
        return str(getattr(caught.value, "code", ""))

    assert submit() == "unknown_key"
    clients.enrol("newcomer", newcomer.public)
    assert submit() == "inputs"  # let in; what it sent is no parcel
    clients.revoke("newcomer")
    assert submit() == "revoked_key"


def job_contents(three: Three) -> list[bytes]:
    return [b"no parcel" * 20] * 3


def test_models_come_and_go(endpoints: Three) -> None:
    store = ModelStore(endpoints.folders["eu"][1])
    share = next((endpoints.root / "shares-eu").glob("*.party1.share"))

    def names() -> list[str]:
        return [model["name"] for model in endpoints.status("eu", 1)["models"]]

    assert names() == ["tiny"]
    store.remove("tiny")
    assert wait_until(lambda: names() == [], 5)
    assert "models: none" in " ".join(endpoints.status("eu", 1)["waiting"])
    store.import_file(share)
    assert wait_until(lambda: names() == ["tiny"] and endpoints.status("eu", 1)["ready"], 5)


def test_certificate_expiry_is_said(endpoints: Three) -> None:
    left = endpoints.status("eu", 0)["certificate_not_after"] - time.time()
    assert 80 * 86_400 < left < 91 * 86_400
