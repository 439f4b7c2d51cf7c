"""A party's folder: installing, rotating with an overlap, and what a lying authority or a crash cannot do."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from federation import Federation, make_federation

from mpc_ray.errors import CertificateError, ConfigError, SealError
from mpc_ray.trust import certs, files
from mpc_ray.trust.authorisation import open_envelope, seal_envelopes
from mpc_ray.trust.directory import Directory, Entry
from mpc_ray.trust.folder import Folder, install, open_folder, request_party, rotate
from mpc_ray.trust.hpke import OVERLAP_S, PrivateKeys
from mpc_ray.trust.records import Request

CONTENTS = [os.urandom(64) for _ in range(3)]


def forge(made: Federation, entries: tuple[Entry, ...], serial: int = 99) -> Directory:
    """A directory that a dishonest authority signs."""
    d = made.directory
    return Directory.signed(
        made.authority._key, federation=d.federation, serial=serial, issued=d.issued, expires=d.expires, ca=d.ca,
        entries=entries,
    )  # fmt: skip


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_a_folder_before_and_after(tmp_path: Path) -> None:
    request_party(
        tmp_path / "a", set="eu", index=0, operator="alpha", region="r", jurisdiction="IE", peer="h:1", gateway="h:2"
    )  # fmt: skip
    folder = open_folder(tmp_path / "a")
    assert folder.record.place == "eu/0"
    with pytest.raises(ConfigError, match=r"no ca\.pem yet"):
        folder.directory()
    with pytest.raises(ConfigError, match="not the folder of a party"):
        open_folder(files.make_folder(tmp_path / "empty"))
    with pytest.raises(ConfigError):
        open_folder(tmp_path / "none")


def test_what_is_installed(federation: Federation) -> None:
    alpha = federation.parties[0]
    assert alpha.directory() == federation.directory
    assert alpha.identity.name == "party-0" and federation.gateway.identity.name == "gateway"
    again = install(alpha.path, federation.directory)
    assert (again.place, again.trusted_first_use, again.rotated, again.pending) == (
        "eu/0",
        False,
        False,
        False,
    )


def test_first_use_is_said(federation: Federation) -> None:
    for name in ("ca.pem", "directory.json", "tls.pem"):
        (federation.parties[0].path / name).unlink()
    done = install(federation.parties[0].path, federation.directory)
    assert done.trusted_first_use and done.authority == federation.authority.fingerprint
    with pytest.raises(CertificateError, match="another federation's"):
        install(federation.parties[1].path, federation.directory, fingerprint="00" * 32)


def test_a_folder_or_key_that_others_may_read(federation: Federation) -> None:
    alpha = federation.parties[0]
    for name in ("tls.key", "hpke.keys"):
        (alpha.path / name).chmod(0o640)
        with pytest.raises(ConfigError, match="0640"):
            _ = (alpha.identity, alpha.keys())
        (alpha.path / name).chmod(0o600)
    alpha.path.chmod(0o750)
    for use in (open_folder, rotate, lambda path: install(path, federation.directory)):
        with pytest.raises(ConfigError, match="0750"):
            use(alpha.path)  # type: ignore[operator]


def test_an_older_directory_and_a_second_one_of_the_same_serial(federation: Federation) -> None:
    alpha = federation.parties[0].path
    newer = federation.authority.sign([])
    install(alpha, newer)
    before = snapshot(alpha)
    with pytest.raises(CertificateError, match="serial 2, and serial 3 is installed"):
        install(alpha, federation.directory)
    with pytest.raises(CertificateError, match="both have serial 3"):
        install(alpha, forge(federation, federation.directory.entries[1:] + newer.entries[:1], 3))
    assert snapshot(alpha) == before


def test_an_authority_that_gives_the_place_to_another_key(federation: Federation, tmp_path: Path) -> None:
    """The party sees that the directory holds another's keys under its own name, and refuses to take part."""
    other = make_federation(tmp_path / "other").parties[0].record
    alpha = federation.parties[0].path
    before = snapshot(alpha)
    request = request_party(
        tmp_path / "mallory", set="eu", index=0, operator="alpha", region="eu-west-1", jurisdiction="IE",
        peer=other.peer, gateway=other.gateway,
    )  # fmt: skip
    lying = federation.authority.sign([request])
    with pytest.raises(CertificateError, match="eu/0 has a certificate for a key that is not in this folder"):
        install(alpha, lying)
    with pytest.raises(CertificateError, match="no eu/0"):
        install(alpha, federation.authority.sign([], remove=["eu/0"]))
    assert snapshot(alpha) == before


def test_an_authority_that_shows_an_older_record_of_ours(federation: Federation) -> None:
    """Each of our records is signed by us for ever: one that we have replaced must not come back."""
    alpha = federation.parties[0].path
    old = federation.directory.entries
    install(alpha, federation.authority.sign([rotate(alpha)]))
    with pytest.raises(CertificateError, match="not in this folder"):
        install(alpha, forge(federation, old))
    changed = replace(old[1], record=replace(old[1].record, peer="10.6.6.6:1"))
    with pytest.raises(CertificateError, match="eu/1 is not signed by its own key"):
        install(alpha, forge(federation, (old[0], changed, *old[2:])))


def test_a_record_that_our_key_signed_but_this_folder_did_not_make(federation: Federation) -> None:
    alpha = federation.parties[0]
    record = replace(alpha.record, peer="10.6.6.6:1")
    lying = federation.authority.sign([Request.make(record, alpha.tls_key())])
    with pytest.raises(CertificateError, match="eu/0 is not described as its own record says"):
        install(alpha.path, lying)


def test_rotation_with_overlap(federation: Federation) -> None:
    alpha, now = federation.parties[0], time.time()
    job = federation.authorise(CONTENTS)
    old_envelope = federation.seal(job, CONTENTS)[0]
    request = rotate(alpha.path)
    assert alpha.directory() == federation.directory and alpha.identity.name == "party-0"
    assert open_envelope(job, 0, old_envelope, alpha.keys()) == CONTENTS[0], "nothing changes before install"
    with pytest.raises(ConfigError, match="under way"):
        rotate(alpha.path)
    newer = federation.authority.sign([request])
    to = [record.key() for record in newer.parties("eu")]
    assert to[0] != federation.records[0].key() and to[1:] == [r.key() for r in federation.records[1:]]
    new_envelope = seal_envelopes(job, CONTENTS, to)[0]
    assert open_envelope(job, 0, new_envelope, alpha.keys()) == CONTENTS[0], "clients may be ahead of us"
    done = install(alpha.path, newer)
    assert done.rotated and not done.pending
    for envelope in (old_envelope, new_envelope):
        assert open_envelope(job, 0, envelope, alpha.keys()) == CONTENTS[0]
    with pytest.raises(SealError, match="not one of ours now"):
        open_envelope(job, 0, old_envelope, alpha.keys(), now=now + OVERLAP_S + 60)
    certificate = x509.load_pem_x509_certificate((alpha.path / "tls.pem").read_bytes())
    assert certificate.public_key() == alpha.tls_key().public_key()
    certs.server_context(alpha.identity)
    assert not list(alpha.path.glob("tls.next*")) and not list(alpha.path.glob("tls.previous*"))


def test_a_directory_that_does_not_know_the_rotation_yet(federation: Federation) -> None:
    alpha = federation.parties[0]
    rotate(alpha.path)
    pending = alpha.keys().publics
    done = install(alpha.path, federation.authority.sign([]))
    assert done.pending and not done.rotated
    assert alpha.keys().publics == pending, "keys that wait for their certificate do not retire"
    assert rotate(alpha.path, again=True).record != done
    assert alpha.keys().publics != pending


def test_enrolled_clients_stay_through_a_rotation(federation: Federation) -> None:
    alpha = federation.parties[0]
    running = alpha.clients()  # a party that runs all the time
    install(alpha.path, federation.authority.sign([rotate(alpha.path)]))
    for keys in (running, alpha.clients()):
        assert keys.find(federation.client.id) == federation.client.public
    running.revoke("app")
    assert alpha.clients().list()[0].revoked


STEPS = ("previous", "key", "tls.pem", "record.json", "directory.json", "ca.pem", "hpke.keys", "clients.json")


@pytest.mark.parametrize("step", range(len(STEPS)), ids=STEPS)
def test_install_cut_short_at_any_point(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """After a crash the enrolled clients are still known, and running it again ends where it should."""
    alpha = federation.parties[0]
    newer = federation.authority.sign([rotate(alpha.path)])
    done = []

    class CrashError(Exception):
        pass

    def counted(write: object) -> object:
        def call(*arguments: object) -> object:
            if len(done) == step:
                raise CrashError
            done.append(arguments[0])
            return write(*arguments)  # type: ignore[operator]

        return call

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_public", counted(files.write_public))
        patch.setattr(files, "write_private", counted(files.write_private))
        patch.setattr(Path, "rename", counted(Path.rename))
        with pytest.raises(CrashError):
            install(alpha.path, newer)
    assert len(done) == step
    assert alpha.clients().find(federation.client.id) == federation.client.public
    install(alpha.path, newer)
    assert alpha.directory() == newer and alpha.record == newer.entry("eu/0").record
    assert alpha.keys().publics == newer.parties("eu")[0].hpke
    certs.server_context(alpha.identity)
    assert alpha.clients().find(federation.client.id) == federation.client.public
    assert {path.name for path in alpha.path.iterdir()} >= {"tls.key", "tls.pem"}
    assert not list(alpha.path.glob("tls.next*")) and not list(alpha.path.glob("tls.previous*"))


def test_a_previous_certificate_that_is_not_ours_helps_nobody(federation: Federation) -> None:
    """Whoever can write the folder but has no key cannot enrol a client through that file."""
    alpha, beta = federation.parties[0], federation.parties[1]
    shutil.copy(beta.path / "clients.json", alpha.path / "clients.json")
    shutil.copy(beta.path / "tls.pem", alpha.path / "tls.previous.pem")
    with pytest.raises(CertificateError):
        alpha.clients()
    (alpha.path / "tls.previous.pem").unlink()
    with pytest.raises(ConfigError, match="not signed by this party's key"):
        alpha.clients()


def test_a_directory_changed_on_disk(federation: Federation) -> None:
    path = federation.parties[0].path / "directory.json"
    value = json.loads(path.read_text())
    value["parties"][1]["record"]["peer"] = "10.6.6.6:1"
    path.write_text(json.dumps(value))
    with pytest.raises(CertificateError, match="not signed by its authority"):
        federation.parties[0].directory()


def test_keys_are_where_they_were_made(federation: Federation) -> None:
    """No private key of a party is anywhere but in its own folder."""
    for party in federation.parties:
        secrets = [key.private.reveal().hex().encode() for key in party.keys().keys]
        secrets.append((party.path / "tls.key").read_bytes())
        for file in federation.root.rglob("*"):
            if file.is_file() and file.parent != party.path:
                content = file.read_bytes()
                assert not any(secret in content for secret in secrets), file
        assert any(s in (party.path / "hpke.keys").read_bytes() for s in secrets)


def test_folders_do_not_print_keys(federation: Federation) -> None:
    folder: Folder = federation.parties[0]
    keys: PrivateKeys = folder.keys()
    assert keys.keys[0].private.reveal().hex() not in repr((folder, keys, federation))
