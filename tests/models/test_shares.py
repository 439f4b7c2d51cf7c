"""The owner's files: each opens at its own party alone, and they go together or not at all."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from owners import Federation, federation, owned, shared  # type: ignore[import-not-found]

from mpc_ray.channel import Message
from mpc_ray.client import Bundle
from mpc_ray.client.share import prepare, vectors
from mpc_ray.endpoint.store import ModelStore
from mpc_ray.errors import CertificateError, ConfigError, HelloMismatch, InputError, MpcError
from mpc_ray.models.bert_float import embed
from mpc_ray.models.load import load_bert
from mpc_ray.models.public import digest, facts
from mpc_ray.models.share_file import ShareHeader
from mpc_ray.models.shares import share_messages, share_model
from mpc_ray.sharing.deal import receive
from mpc_ray.sharing.replicated import reconstruct


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return federation(tmp_path_factory.mktemp("federation"))


def test_what_is_written(parties: Federation, tmp_path: Path) -> None:
    bert, export = owned(tmp_path)
    made = share_model(bert, export, parties.known, "eu", tmp_path / "out", name="my-model")
    names = {"my-model.client", *(f"my-model.party{i}.share" for i in range(3))}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert made.digest == export.digest.hex()
    bundle = Bundle.load(made.bundle, made.bundle_digest)
    assert (bundle.name, bundle.model_digest, bundle.lengths) == ("my-model", made.digest, (8, 16, 32))
    assert [path.stat().st_mode & 0o777 for path in made.shares] == [0o600] * 3
    heads = [path.read_bytes()[:4000] for path in made.shares]
    for index, head in enumerate(heads):
        assert (
            f'"index":{index}'.encode() in head and b'"set":"eu"' in head and b'"federation":"test"' in head
        )


def test_no_weight_nor_digest_of_weights_is_in_the_clear(parties: Federation, tmp_path: Path) -> None:
    bert, _ = owned(tmp_path)
    made = shared(tmp_path, parties)
    for path in made.shares:
        data = path.read_bytes()
        assert bert.digest.encode() not in data and bytes.fromhex(bert.digest) not in data
        assert b"seeds" not in data and b"layer 0" not in data


def test_public_weights_go_to_every_party_alike_and_sealed_too(parties: Federation, tmp_path: Path) -> None:
    _, export = owned(tmp_path, weights="public")
    messages = share_messages(export, "m")
    for message in messages:
        assert set(message.header) == {"cmd", "model", "record"}
        assert message.header == messages[0].header
        held = {k.removeprefix("weights/"): v for k, v in message.tensors.items() if k[:8] == "weights/"}
        assert held.keys() == export.weights.keys()
        assert all(np.array_equal(held[name], weight) for name, weight in export.weights.items())
    made = shared(tmp_path, parties, weights="public")
    secret = shared(tmp_path / "secret", parties)
    sizes = [path.stat().st_size for path in made.shares]
    assert max(sizes) - min(sizes) < 100  # the parties' indices and keys
    assert 2 * sum(sizes) < 3 * sum(path.stat().st_size for path in secret.shares)
    for path in made.shares:
        data = path.read_bytes()
        assert b'"weights":"public"' in data[:4000] and b"layer 0" not in data
        assert export.weights["layer 0/qkv"].tobytes()[:16] not in data


def test_messages_are_three_halves_of_the_weights(tmp_path: Path) -> None:
    _, export = owned(tmp_path)
    messages = share_messages(export, "m")
    assert all("job" not in m.header and m.header["model"] == "m" for m in messages)
    halves = [receive(i, m.header, m.tensors) for i, m in enumerate(messages)]
    for name, secret in export.secrets.items():
        assert np.array_equal(reconstruct([half[name] for half in halves]).numpy(), secret.value)
    tables = {k.removeprefix("public/"): v for k, v in messages[0].tensors.items() if k.startswith("public/")}
    assert digest(export.record, {k: v for k, v in tables.items() if k != "sharing"}) == export.digest
    assert facts(export.record) == (32, (8, 16, 32))


def test_shares_of_two_runs_are_refused_by_the_parties(tmp_path: Path, make_trio: Any) -> None:
    """The records are the same, so without the mark of a run the parties would compute garbage."""
    _, export = owned(tmp_path)
    first, second = share_messages(export, "m"), share_messages(export, "m")
    load(make_trio(), first)
    with pytest.raises(HelloMismatch, match="another public record"):
        load(make_trio(), [first[0], second[1], first[2]])


def load(trio: Any, messages: list[Message]) -> None:
    def one(i: int) -> None:
        header = {**messages[i].header, "job": bytes(16).hex()}
        trio.executors[i].load(Message(header, dict(messages[i].tensors)))

    trio._all(one)


TEXTS = ["Hello, world!", "a", "The 7 quick foxes"]


@pytest.mark.parametrize("weights", ["secret", "public"])
def test_from_the_owners_folder_to_a_clients_vectors(
    parties: Federation, tmp_path: Path, make_trio: Any, weights: Any
) -> None:
    """Shared, imported, loaded; then texts from the bundle alone, run on shares, and compared with float."""
    made = shared(tmp_path, parties, weights=weights, name="tiny")
    stores = [ModelStore(folder) for folder in parties.folders]
    for store, path in zip(stores, made.shares, strict=True):
        assert store.import_file(path, replace=True).weights == weights
    trio = make_trio()
    load(trio, [store.message("tiny") for store in stores])
    bundle = Bundle.load(made.bundle)
    expected = embed(load_bert(tmp_path / "tiny"), TEXTS)
    for number, batch in enumerate(prepare(bundle, TEXTS, max_batch_tokens=32)):
        header = {"cmd": "run", "model": "tiny", "job": f"{number + 1:032x}", "output": "embedding"}
        parcels = batch.deal()
        answers = trio._all(
            lambda i, h=header, p=parcels: trio.executors[i].run(
                Message({**h, **p[i].header}, dict(p[i].tensors))
            )
        )
        assert np.abs(vectors(bundle, batch, answers) - expected[list(batch.indices)]).max() < 0.02


def test_all_files_or_none(parties: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bert, export = owned(tmp_path)
    out = tmp_path / "out"
    calls = []

    def seal(*arguments: Any) -> bytes:
        calls.append(arguments)
        if len(calls) == 3:
            raise ConfigError("disk full")
        return bytes(64)

    with monkeypatch.context() as patched:
        patched.setattr("mpc_ray.models.shares.hpke.seal", seal)
        with pytest.raises(ConfigError, match="disk full"):
            share_model(bert, export, parties.known, "eu", out)
    assert list(out.iterdir()) == []
    share_model(bert, export, parties.known, "eu", out)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    with pytest.raises(InputError, match="exists"):
        share_model(bert, export, parties.known, "eu", out)
    assert before == {path: path.stat().st_mtime_ns for path in out.iterdir()}


def test_what_cannot_be_shared(parties: Federation, tmp_path: Path) -> None:
    bert, export = owned(tmp_path)
    for name in ("../x", "a/b", ".hidden", "-", "x" * 200, "a b"):
        with pytest.raises(InputError, match="cannot be called"):
            share_model(bert, export, parties.known, "eu", tmp_path / "out", name=name)
    with pytest.raises(CertificateError, match="no us/0"):
        share_model(bert, export, parties.known, "us", tmp_path / "out")
    with pytest.raises(MpcError, match="no folder, so no tokenizer"):
        share_model(dataclasses.replace(bert, folder=None), export, parties.known, "eu", tmp_path / "out")
    assert not (tmp_path / "out").exists()


HEADER = ShareHeader("m", "ab" * 32, "test", "eu", 1, 32, (8, 16))


def test_a_header_round_trips() -> None:
    assert ShareHeader.decode(HEADER.encode(), "f") == HEADER and HEADER.place == "eu/1"


@pytest.mark.parametrize(
    "change",
    [
        (b'"index":1', b'"index":3'),
        (b'"index":1', b'"index":true'),
        (b'"hidden":32', b'"hidden":0'),
        (b'"lengths":[8,16]', b'"lengths":[8,"16"]'),
        (b'"name":"m"', b'"name":"../m"'),
        (b'"weights":"secret"', b'"weights":"open"'),
        (b'"weights":"secret"', b'"weights":1'),
        (b'"set":"eu"', b'"set":"EU"'),
        (b"abab", b"ABAB"),
        (b"share v1", b"share v2"),
        (b"{", b'{"more":1,'),
        (b"}", b""),
    ],
)
def test_another_header_is_refused(change: tuple[bytes, bytes]) -> None:
    with pytest.raises(MpcError, match="f: its header"):
        ShareHeader.decode(HEADER.encode().replace(*change, 1), "f")
