"""A party's store: takes its own share files and no others, gives back what the owner sent, keeps nothing readable."""

from __future__ import annotations

import os
import shutil
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "models"))

from owners import Federation, federation, owned, shared  # type: ignore[import-not-found]

from mpc_ray.channel import Message
from mpc_ray.endpoint.store import ModelInfo, ModelStore
from mpc_ray.errors import BadFrame, ConfigError, InputError, ModelError, MpcError, SealError
from mpc_ray.models import shares
from mpc_ray.models.share_file import ShareHeader
from mpc_ray.models.shares import SharedModel, share_messages
from mpc_ray.trust import atrest
from mpc_ray.trust.stream import CHUNK, TAG


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return federation(tmp_path_factory.mktemp("federation"))


@pytest.fixture(scope="module")
def made(parties: Federation, tmp_path_factory: pytest.TempPathFactory) -> SharedModel:
    return shared(tmp_path_factory.mktemp("owner"), parties, name="tiny")


@pytest.fixture
def stores(parties: Federation) -> Any:
    """Empty stores of the three parties."""
    for folder in parties.folders:
        shutil.rmtree(folder / "store", ignore_errors=True)
        (folder / "at-rest.key").unlink(missing_ok=True)
    return [ModelStore(folder) for folder in parties.folders]


def files(store: ModelStore) -> list[str]:
    folder = store.folder / "store"
    return sorted(p.name for p in folder.iterdir() if p.name != ".lock") if folder.exists() else []


def test_what_comes_out_is_what_the_owner_shared(stores: Any, made: SharedModel) -> None:
    for store, path in zip(stores, made.shares, strict=True):
        info = store.import_file(path)
        assert (info.name, info.digest, info.lengths, info.hidden) == ("tiny", made.digest, (8, 16, 32), 32)
        assert store.list() == [info] == [store.info("tiny")]
        assert files(store) == ["tiny.model"]
    messages = [store.message("tiny") for store in stores]
    assert [set(m.header) for m in messages] == [{"cmd", "model", "record", "shares", "seeds"}] * 3
    assert len({m.tensors["public/sharing"].tobytes() for m in messages}) == 1


def test_the_weights_add_up_after_the_journey(stores: Any, parties: Federation, tmp_path: Path) -> None:
    from mpc_ray.sharing.deal import receive
    from mpc_ray.sharing.replicated import reconstruct

    _, export = owned(tmp_path)
    made = shared(tmp_path, parties)
    for store, path in zip(stores, made.shares, strict=True):
        store.import_file(path)
    messages = [store.message(made.name) for store in stores]
    halves = [receive(i, m.header, m.tensors) for i, m in enumerate(messages)]
    for name, secret in export.secrets.items():
        assert np.array_equal(reconstruct([half[name] for half in halves]).numpy(), secret.value)


def test_another_partys_file_is_refused_by_name(stores: Any, made: SharedModel) -> None:
    for i, store in enumerate(stores):
        for j, path in enumerate(made.shares):
            if i != j:
                with pytest.raises(
                    SealError, match=f"is the share of party eu/{j} of test; this is eu/{i} of test"
                ):
                    store.import_file(path)
        assert files(store) == [] and store.list() == []


def test_another_federations_and_another_sets_file_is_refused(stores: Any, tmp_path: Path) -> None:
    for name, party_set, word in (("other", "eu", "of other"), ("test", "us", "party us/0 of test")):
        made = shared(tmp_path / name, federation(tmp_path / name / "f", name, party_set), party_set)
        with pytest.raises(SealError, match=word):
            stores[0].import_file(made.shares[0])
    # The same names, but other keys: another federation that calls itself the same.
    made = shared(tmp_path / "same", federation(tmp_path / "same" / "f"))
    with pytest.raises(SealError, match="not one of ours"):
        stores[0].import_file(made.shares[0])
    assert files(stores[0]) == []


def big(parties: Federation, root: Path) -> Path:
    """Party 1's share of a model with more than two chunks."""
    bert, export = owned(root, hidden=128, ffn=512, heads=4, layers=2)
    return shares.share_model(bert, export, parties.known, "eu", root / "out", name="big").shares[1]


@pytest.fixture(scope="module")
def long_file(parties: Federation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = big(parties, tmp_path_factory.mktemp("big"))
    assert path.stat().st_size > 3 * CHUNK
    return path


def swapped(data: bytes) -> bytes:
    body = len(data) % (CHUNK + TAG) + (CHUNK + TAG)  # a whole chunk from the end, and the shorter last one
    start = len(data) - body - 2 * (CHUNK + TAG)
    cell = CHUNK + TAG
    return (
        data[:start]
        + data[start + cell : start + 2 * cell]
        + data[start : start + cell]
        + data[start + 2 * cell :]
    )


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda d: b"", "begins otherwise"),
    "another kind of file": (lambda d: b"PK\x03\x04" + d, "begins otherwise"),
    "cut in the head": (lambda d: d[:100], "in its head"),
    "cut by a byte": (lambda d: d[:-1], "does not open at chunk"),
    "cut in the middle": (lambda d: d[: len(d) // 2], "does not open at chunk"),
    "a byte more": (lambda d: d + b"\x00", "does not open at chunk"),
    "a bit of the body": (lambda d: d[:-9] + bytes([d[-9] ^ 1]) + d[-8:], "does not open at chunk"),
    "two chunks swapped": (swapped, "does not open at chunk"),
    "another name": (lambda d: d.replace(b'"name":"big"', b'"name":"bog"', 1), "do not open"),
    "another hidden size": (lambda d: d.replace(b'"hidden":128', b'"hidden":256', 1), "do not open"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_a_file_that_was_changed_is_refused_and_nothing_stays(
    stores: Any, long_file: Path, tmp_path: Path, case: str
) -> None:
    change, word = BAD[case]
    path = tmp_path / "big.party1.share"
    path.write_bytes(change(long_file.read_bytes()))
    with pytest.raises(SealError, match=word):
        stores[1].import_file(path)
    assert files(stores[1]) == [] and stores[1].list() == []


def test_a_model_of_that_name_stays_unless_told_otherwise(
    stores: Any, parties: Federation, made: SharedModel, tmp_path: Path
) -> None:
    store = stores[0]
    store.import_file(made.shares[0])
    before = (store.folder / "store" / "tiny.model").read_bytes()
    again = shared(tmp_path, parties, name="tiny")
    with pytest.raises(ConfigError, match="has a model tiny"):
        store.import_file(again.shares[0])
    with pytest.raises(SealError):
        store.import_file(made.shares[1], replace=True)
    assert (store.folder / "store" / "tiny.model").read_bytes() == before
    old = store.message("tiny").tensors["public/sharing"].tobytes()
    store.import_file(again.shares[0], replace=True)
    assert store.message("tiny").tensors["public/sharing"].tobytes() != old


def forged(parties: Federation, tmp_path: Path, message: Message, head: ShareHeader) -> Path:
    """A file sealed to party 1 that says whatever the test wants."""
    path = tmp_path / "forged.share"
    path.unlink(missing_ok=True)
    shares._write(path, message, head, parties.known.parties("eu")[1])
    return path


def drop(name: str) -> Callable[[Message, ShareHeader], tuple[Message, ShareHeader]]:
    return lambda m, h: (Message(m.header, {k: v for k, v in m.tensors.items() if k != name}), h)


FORGED: dict[str, tuple[Any, str]] = {
    "another record": (
        lambda m, h: (Message({**m.header, "record": {**m.header["record"], "heads": 2}}, m.tensors), h),
        "public record is not the one",
    ),
    "another table": (
        lambda m, h: (Message(m.header, {**m.tensors, "public/table 0": m.tensors["public/table 0"] + 1}), h),
        "public record is not the one",
    ),
    "no mark of the run": (drop("public/sharing"), "public record is not the one"),
    "another digest": (
        lambda m, h: (m, ShareHeader(**{**vars(h), "digest": "ab" * 32})),
        "public record is not the one",
    ),
    "other lengths": (lambda m, h: (m, replace(h, lengths=(8,))), "says other sizes"),
    "another name": (lambda m, h: (Message({**m.header, "model": "x"}, m.tensors), h), "of another model"),
    "no load message": (lambda m, h: (Message({**m.header, "cmd": "run"}, m.tensors), h), "of another model"),
    "a tensor less": (drop("layer 0/qkv"), "lacks a tensor"),
    "a tensor more": (
        lambda m, h: (Message(m.header, {**m.tensors, "x": np.zeros(1, np.int64)}), h),
        "one too many",
    ),
    "another dtype": (
        lambda m, h: (
            Message(m.header, {**m.tensors, "layer 0/qkv": m.tensors["layer 0/qkv"].astype(float)}),
            h,
        ),
        "lacks a tensor",
    ),
}


@pytest.mark.parametrize("case", sorted(FORGED))
def test_a_file_that_is_not_what_it_says_is_refused(
    stores: Any, parties: Federation, tmp_path: Path, case: str
) -> None:
    _, export = owned(tmp_path)
    message = share_messages(export, "tiny")[1]
    head = ShareHeader("tiny", export.digest.hex(), "test", "eu", 1, 32, (8, 16, 32))
    stores[1].import_file(forged(parties, tmp_path, message, head))  # the control: unchanged it goes in
    stores[1].remove("tiny")
    change, word = FORGED[case]
    with pytest.raises(ModelError, match=word):
        stores[1].import_file(forged(parties, tmp_path, *change(message, head)))
    assert files(stores[1]) == []


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    return lambda m, h: (Message(m.header, {**m.tensors, name: change(m.tensors[name])}), h)


QKV = "weights/layer 0/qkv"
FORGED_PUBLIC: dict[str, tuple[Any, str]] = {
    "another number": (
        changed(QKV, lambda w: w ^ np.int32(1)),
        "layer 0/qkv are not those of the public record",
    ),
    "another type": (changed(QKV, lambda w: w.astype(np.int64)), "lacks public weights"),
    "another shape": (changed(QKV, lambda w: w[1:]), "lacks public weights"),
    "a tensor less": (drop(QKV), "lacks public weights"),
    "a tensor more": (
        lambda m, h: (Message(m.header, {**m.tensors, "weights/x": np.zeros(1, np.int32)}), h),
        "has too many",
    ),
    "shares besides": (lambda m, h: (Message({**m.header, "shares": {}}, m.tensors), h), "has too many"),
    "called secret": (lambda m, h: (m, replace(h, weights="secret")), "weights are not secret"),
}


@pytest.mark.parametrize("case", sorted(FORGED_PUBLIC))
def test_a_file_of_public_weights_that_is_not_what_it_says_is_refused(
    stores: Any, parties: Federation, tmp_path: Path, case: str
) -> None:
    _, export = owned(tmp_path, weights="public")
    message = share_messages(export, "tiny")[1]
    head = ShareHeader("tiny", export.digest.hex(), "test", "eu", 1, 32, (8, 16, 32), "public")
    info = stores[1].import_file(forged(parties, tmp_path, message, head))  # the control
    assert info.weights == "public" and stores[1].message("tiny").header == message.header
    stores[1].remove("tiny")
    change, word = FORGED_PUBLIC[case]
    with pytest.raises(ModelError, match=word):
        stores[1].import_file(forged(parties, tmp_path, *change(message, head)))
    assert files(stores[1]) == []


def test_a_file_of_shares_cannot_be_called_public(stores: Any, parties: Federation, tmp_path: Path) -> None:
    _, export = owned(tmp_path)
    message = share_messages(export, "tiny")[1]
    head = ShareHeader("tiny", export.digest.hex(), "test", "eu", 1, 32, (8, 16, 32), "public")
    with pytest.raises(ModelError, match="weights are not public"):
        stores[1].import_file(forged(parties, tmp_path, message, head))


def test_party_1_is_not_given_party_0s_seeds(stores: Any, parties: Federation, tmp_path: Path) -> None:
    _, export = owned(tmp_path)
    other, message = share_messages(export, "tiny")[:2]
    head = ShareHeader("tiny", export.digest.hex(), "test", "eu", 1, 32, (8, 16, 32))
    both = Message({**message.header, "seeds": other.header["seeds"]}, message.tensors)
    with pytest.raises(InputError, match="not party 1's"):
        stores[1].import_file(forged(parties, tmp_path, both, head))


def test_a_body_that_is_no_message_is_refused(
    stores: Any, parties: Federation, tmp_path: Path, monkeypatch: Any
) -> None:
    _, export = owned(tmp_path)
    head = ShareHeader("tiny", export.digest.hex(), "test", "eu", 1, 32, (8, 16, 32))
    monkeypatch.setattr(shares, "parts", lambda message, limit: [memoryview(b"x" * 100)])
    with pytest.raises(BadFrame, match="not a message"):
        stores[1].import_file(forged(parties, tmp_path, Message({}), head))
    assert files(stores[1]) == []


@pytest.fixture
def stored(stores: Any, made: SharedModel) -> ModelStore:
    stores[1].import_file(made.shares[1])
    return stores[1]


def test_the_files_show_nothing_without_the_key(stored: ModelStore) -> None:
    path = stored.folder / "store" / "tiny.model"
    data = path.read_bytes()
    message = stored.message("tiny")
    assert b"layer 0" not in data and b"seeds" not in data
    assert all(
        message.tensors[name].tobytes()[:16] not in data
        for name in message.tensors
        if message.tensors[name].nbytes > 15
    )
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    assert (stored.folder / "at-rest.key").stat().st_mode & 0o777 == 0o600


def test_a_stored_file_that_was_changed_does_not_load(stored: ModelStore) -> None:
    path = stored.folder / "store" / "tiny.model"
    good = path.read_bytes()
    for bad in (good[:-1], good[:-9] + b"\x00" + good[-8:], good + b"x", good[:300]):
        path.write_bytes(bad)
        with pytest.raises(SealError, match="tiny"):
            stored.message("tiny")
    path.write_bytes(good.replace(b'"hidden":32', b'"hidden":64', 1))
    for ask in (stored.list, lambda: stored.info("tiny"), lambda: stored.message("tiny")):
        with pytest.raises(SealError, match="header was changed"):
            ask()
    path.write_bytes(good)
    path.rename(path.with_name("other.model"))
    with pytest.raises(SealError, match="stored model other is the file of tiny"):
        stored.list()


def test_another_key_does_not_open_the_store(stored: ModelStore) -> None:
    key = stored.folder / "at-rest.key"
    kept = key.read_bytes()
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="others on this machine may read it"):
        stored.message("tiny")
    key.unlink()
    with pytest.raises(ConfigError, match=r"at-rest\.key"):
        stored.message("tiny")
    atrest.FileKeys.create(key)
    with pytest.raises(SealError, match=r"no key of .*at-rest\.key wrapped"):
        stored.message("tiny")
    key.write_bytes(kept)
    assert stored.message("tiny").header["model"] == "tiny"


def test_a_lost_key_is_not_made_anew_while_there_are_models(stored: ModelStore, long_file: Path) -> None:
    (stored.folder / "at-rest.key").unlink()
    with pytest.raises(ConfigError, match=r"at-rest\.key cannot be read"):
        stored.import_file(long_file)
    assert files(stored) == ["tiny.model"]


def test_removing(stored: ModelStore, made: SharedModel) -> None:
    path = stored.folder / "store" / "tiny.model"
    link = path.with_name("copy")
    os.link(path, link)
    stored.remove("tiny")
    assert stored.list() == [] and not path.exists()
    link.rename(path)  # what a disk may still hold: its data key is gone
    with pytest.raises(SealError):
        stored.message("tiny")
    stored.remove("tiny")  # a damaged file goes too
    for ask in (stored.remove, stored.info, stored.message):
        with pytest.raises(ModelError, match="has no model tiny"):
            ask("tiny")
    with pytest.raises(ModelError, match="no model is called"):
        stored.remove("../../alpha/record")
    stored.import_file(made.shares[1])
    assert [info.name for info in stored.list()] == ["tiny"]


def test_a_file_that_is_not_there(stores: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        stores[0].import_file(tmp_path / "no.share")


def test_what_a_killed_import_left_is_swept(stored: ModelStore, long_file: Path) -> None:
    left = stored.folder / "store" / ".big.model.abc123"
    left.write_bytes(b"half")
    assert [info.name for info in stored.list()] == ["tiny"]
    stored.import_file(long_file)
    assert files(stored) == ["big.model", "tiny.model"]


def test_a_long_file_is_imported_in_little_memory(stores: Any, parties: Federation, tmp_path: Path) -> None:
    """Only the public tables are kept while it is read, for the digest."""
    bert, export = owned(tmp_path, hidden=448, heads=4, ffn=1792, layers=1)
    path = shares.share_model(bert, export, parties.known, "eu", tmp_path / "out", name="wide").shares[1]
    tables = sum(table.nbytes for table in export.tables.values())
    tracemalloc.start()
    info: ModelInfo = stores[1].import_file(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < tables + (9 << 20) < 0.8 * info.bytes


def test_a_limit_on_what_is_loaded(stored: ModelStore) -> None:
    with pytest.raises(MpcError, match="above the limit"):
        ModelStore(stored.folder, max_bytes=1000).message("tiny")


def test_a_gateways_folder_has_no_store(tmp_path: Path, made: SharedModel) -> None:
    from mpc_ray.trust.folder import request_gateway

    request_gateway(tmp_path / "gw", name="front")
    with pytest.raises(ConfigError, match="gateway's folder"):
        ModelStore(tmp_path / "gw").import_file(made.shares[0])
    with pytest.raises(ConfigError, match="cannot be read"):
        ModelStore(tmp_path / "none").import_file(made.shares[0])
