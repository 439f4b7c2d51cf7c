"""``mpc-ray model``: an owner's and an operator's commands, from a folder to a store."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "models"))

from owners import Federation, federation  # type: ignore[import-not-found]

from mpc_ray.client import Bundle
from mpc_ray.trust.folder import request_gateway


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return federation(tmp_path_factory.mktemp("federation"))


@pytest.fixture
def empty(parties: Federation) -> Iterator[Federation]:
    yield parties
    for folder in parties.folders:
        for path in (folder / "store").glob("*.model"):
            path.unlink()


def test_from_folder_to_store(cli: Any, tiny: Path, empty: Federation, tmp_path: Path) -> None:
    pin = empty.authority.fingerprint
    said = cli(
        "model", "share", tiny, "--to", empty.directory, "--set", "eu", "--out", "out", "--name", "demo",
        "--fingerprint", pin, "--json",
    ).json  # fmt: skip
    assert (said["model"], said["federation"], said["set"], said["authority"]) == ("demo", "test", "eu", pin)
    assert [share["operator"] for share in said["shares"]] == ["alpha", "beta", "gamma"]
    assert [Path(share["path"]).stat().st_size for share in said["shares"]] == [
        s["bytes"] for s in said["shares"]
    ]
    bundle = Bundle.load(said["bundle"]["path"], said["bundle"]["digest"])
    assert (bundle.name, bundle.model_digest) == ("demo", said["digest"])
    assert (
        said["bundle"]["digest"]
        == hashlib.sha256(Path("out/demo.client/client.json").read_bytes()).hexdigest()
    )
    for folder, share in zip(empty.folders, said["shares"], strict=True):
        info = cli("model", "import", share["path"], "--party", folder, "--json").json
        assert (info["name"], info["digest"]) == ("demo", said["digest"])
        listed = cli("model", "list", "--party", folder, "--json").json["models"]
        assert listed == [
            {key: info[key] for key in ("name", "digest", "lengths", "hidden", "bytes", "weights")}
        ]
        assert info["weights"] == "secret"
    cli("model", "import", said["shares"][0]["path"], "--party", empty.folders[0]).one_line_error(
        2, "has a model demo"
    )
    assert (
        cli("model", "import", said["shares"][0]["path"], "--party", empty.folders[0], "--replace").code == 0
    )
    cli("model", "import", said["shares"][1]["path"], "--party", empty.folders[0]).one_line_error(
        5, "party eu/1"
    )
    assert cli("model", "remove", "demo", "--party", empty.folders[0], "--json").json["model"] == "demo"
    assert cli("model", "list", "--party", empty.folders[0], "--json").json["models"] == []


def test_for_people(cli: Any, tiny: Path, empty: Federation) -> None:
    ended = cli("model", "share", tiny, "--to", empty.directory, "--set", "eu", "--out", "shares")
    assert ended.code == 0
    assert "for alpha (eu-west-1) alone" in ended.out and "tiny.client" in ended.out
    assert empty.authority.fingerprint in ended.err  # not pinned: shown, to be compared
    assert cli("model", "import", "shares/tiny.party2.share", "--party", empty.folders[2]).code == 0
    assert "tiny  " in cli("model", "list", "--party", empty.folders[2]).out
    assert cli("model", "remove", "tiny", "--party", empty.folders[2]).out == "removed tiny\n"
    assert "no model yet" in cli("model", "list", "--party", empty.folders[2]).out


@pytest.mark.parametrize("command", [["list"], ["remove", "demo"]])
def test_a_store_is_a_partys(cli: Any, parties: Federation, tmp_path: Path, command: list[str]) -> None:
    """A folder that is none, or nobody's, or a gateway's, has not "no model yet"."""
    gateway = tmp_path / "gw"
    request_gateway(gateway, name="gateway")
    (tmp_path / "nobody").mkdir(mode=0o700)
    file = tmp_path / "file"
    file.touch(mode=0o600)
    for folder, said in (
        (tmp_path / "none", "No such file"),
        (file, "is not a folder"),
        (tmp_path / "nobody", "not the folder of a party"),
        (gateway, "is a gateway's folder"),
    ):
        cli("model", *command, "--party", folder).one_line_error(2, said)
    ended = cli("model", "remove", "nothing", "--party", parties.folders[0])
    ended.one_line_error(3, "no model nothing")
    assert "mpc-ray model list" in ended.err


def test_public_weights_are_shown_and_stored(cli: Any, tiny: Path, empty: Federation) -> None:
    to = ("--to", empty.directory, "--set", "eu", "--public-weights")
    ended = cli("model", "share", tiny, *to, "--out", "shares")
    assert ended.code == 0 and "public weights: every party sees the model" in ended.err
    assert cli("model", "import", "shares/tiny.party2.share", "--party", empty.folders[2]).code == 0
    assert "public weights" in cli("model", "list", "--party", empty.folders[2]).out
    listed = cli("model", "list", "--party", empty.folders[2], "--json").json["models"]
    assert [model["weights"] for model in listed] == ["public"]
    assert cli("model", "share", tiny, *to, "--out", "again", "--json").json["public_weights"] is True


def test_errors_have_one_line(cli: Any, tiny: Path, parties: Federation, tmp_path: Path) -> None:
    to = ("--to", parties.directory, "--set", "eu", "--out", "out")
    cli("model", "share", tmp_path / "none", *to).one_line_error(3, "no model folder")
    cli("model", "share", tiny, *to, "--name", "a/b").one_line_error(2, "cannot be called 'a/b'")
    cli("model", "share", tiny, *to, "--fingerprint", "00" * 32).one_line_error(
        5, "another federation's authority"
    )
    cli("model", "share", tiny, "--to", parties.directory, "--set", "us", "--out", "out").one_line_error(
        5, "us/0"
    )
    cli("model", "share", tiny, "--to", tmp_path / "no.json", "--set", "eu", "--out", "o").one_line_error(
        2, "no.json"
    )
    cli("model", "share", tiny, *to, "--calibrate", "no.txt").one_line_error(2, "no.txt")
    cli("model", "remove", "m", "--party", parties.folders[0]).one_line_error(3, "no model m")
    cli("model", "import", "no.share", "--party", parties.folders[0]).one_line_error(2, "no.share")
    assert not (tmp_path / "out").exists()


def test_a_changed_directory_is_refused(cli: Any, tiny: Path, parties: Federation, tmp_path: Path) -> None:
    text = parties.directory.read_text().replace("alpha", "delta")
    (tmp_path / "lie.json").write_text(text)
    ended = cli("model", "share", tiny, "--to", "lie.json", "--set", "eu", "--out", "out", "--json")
    assert ended.json["error"] == "CertificateError" and not (tmp_path / "out").exists()
