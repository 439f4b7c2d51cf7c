"""``mpc-ray certs`` and ``mpc-ray keys`` as operators and clients type them."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpc_ray.cli import main

OPERATORS = ("alpha", "beta", "gamma")


@pytest.fixture
def mpc_ray(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Runs a command with --json in a folder of its own; (exit code, what it printed as JSON)."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = main.run([*words, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def ask(run: Callable[..., Any], index: int, operator: str, **changed: str) -> tuple[int, dict[str, Any]]:
    given = {
        "--set": "eu", "--operator": operator, "--region": "eu-west-1", "--jurisdiction": "IE",
        "--peer": f"10.0.0.{index}:50051", "--endpoint": f"10.0.0.{index}:50052", "--out": operator,
    } | {f"--{k}": v for k, v in changed.items()}  # fmt: skip
    return run("certs", "request", "--party", str(index), *(word for pair in given.items() for word in pair))


def federation(run: Callable[..., Any]) -> str:
    """Three operators and a gateway, all installed; the authority's fingerprint."""
    fingerprint = run("certs", "init", "--federation", "demo", "--out", "ca")[1]["fingerprint"]
    for index, operator in enumerate(OPERATORS):
        assert ask(run, index, operator)[0] == 0
    assert run("certs", "request", "--gateway", "--out", "gw")[0] == 0
    requests = [f"{name}/request.json" for name in (*OPERATORS, "gw")]
    code, signed = run("certs", "sign", "--ca", "ca", *requests)
    assert (code, signed["serial"], len(signed["records"])) == (0, 2, 4)
    for name in (*OPERATORS, "gw"):
        code, done = run(
            "certs", "install", "ca/directory.json", "--folder", name, "--fingerprint", fingerprint
        )
        assert code == 0 and not done["trusted_first_use"]
    return str(fingerprint)


def test_a_federation_from_nothing(mpc_ray: Callable[..., Any]) -> None:
    fingerprint = federation(mpc_ray)
    code, shown = mpc_ray("certs", "show", "alpha")
    assert code == 0 and shown["fingerprint"] == fingerprint
    assert set(shown["ends"]) == {"eu/0", "eu/1", "eu/2", "gateway/gateway", "the directory"}
    for name in OPERATORS:
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o700
        for key in ("tls.key", "hpke.keys"):
            assert stat.S_IMODE(Path(name, key).stat().st_mode) == 0o600
    assert not list(Path("ca").glob("*/*.key")), "the authority holds somebody else's key"


def test_rotation_takes_over_at_install(mpc_ray: Callable[..., Any]) -> None:
    federation(mpc_ray)
    before = Path("alpha/tls.pem").read_bytes()
    assert mpc_ray("certs", "rotate", "--folder", "alpha")[0] == 0
    assert Path("alpha/tls.pem").read_bytes() == before
    code, refused = mpc_ray("certs", "rotate", "--folder", "alpha")
    assert code == 2 and "under way" in refused["cause"]
    assert mpc_ray("certs", "sign", "alpha/request.json")[1]["serial"] == 3
    assert mpc_ray("certs", "install", "ca/directory.json", "--folder", "alpha")[1]["rotated"]
    assert Path("alpha/tls.pem").read_bytes() != before


def test_an_older_directory_is_refused(mpc_ray: Callable[..., Any]) -> None:
    federation(mpc_ray)
    Path("old.json").write_bytes(Path("ca/directory.json").read_bytes())
    assert mpc_ray("certs", "sign")[1]["serial"] == 3
    assert mpc_ray("certs", "install", "ca/directory.json", "--folder", "beta")[0] == 0
    code, refused = mpc_ray("certs", "install", "old.json", "--folder", "beta")
    assert code == 5 and "serial" in refused["cause"]


def test_another_authority_is_refused(mpc_ray: Callable[..., Any]) -> None:
    federation(mpc_ray)
    mpc_ray("certs", "init", "--federation", "demo", "--out", "other")
    assert mpc_ray("certs", "sign", "--ca", "other", "alpha/request.json")[0] == 0
    code, refused = mpc_ray("certs", "install", "other/directory.json", "--folder", "alpha")
    assert code == 5 and "authority" in refused["cause"]


def test_what_has_expired_or_soon_will(
    mpc_ray: Callable[..., Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    federation(mpc_ray)
    code, shown = mpc_ray("certs", "show", "alpha")
    assert (code, shown["expired"], shown["renew"], shown["pending"]) == (0, [], [], False)
    assert set(shown["keys"]) == {"eu/0", "eu/1", "eu/2", "gateway/gateway"}
    now = time.time()
    monkeypatch.setattr("mpc_ray.cli.certs_show.time.time", lambda: now + 61 * 86400)
    assert main.run(["certs", "show", "ca/directory.json"]) == 0
    said = capsys.readouterr()
    assert said.out.count("29 days left") == 5 and "ends within 30 days: eu/0, eu/1, eu/2" in said.err
    assert shown["keys"]["eu/0"][:16] in said.out
    monkeypatch.setattr("mpc_ray.cli.certs_show.time.time", lambda: now + 91 * 86400)
    code, shown = mpc_ray("certs", "show", "gw")
    assert code == 1 and len(shown["expired"]) == 5 and not shown["ok"]


def test_a_folder_is_judged_by_its_own_place(
    mpc_ray: Callable[..., Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another operator that forgot to rotate is shown, and is no failure of this one's."""
    federation(mpc_ray)
    assert ask(mpc_ray, 0, "delta", days="10", set="us")[0] == 0
    assert mpc_ray("certs", "sign", "delta/request.json")[0] == 0
    for name in ("alpha", "delta"):
        assert mpc_ray("certs", "install", "ca/directory.json", "--folder", name)[0] == 0
    now = time.time()
    monkeypatch.setattr("mpc_ray.cli.certs_show.time.time", lambda: now + 11 * 86400)
    code, shown = mpc_ray("certs", "show", "alpha")
    assert (code, shown["ok"], shown["own"], shown["expired"]) == (0, True, "eu/0", ["us/0"])
    assert mpc_ray("certs", "show", "delta")[0] == 1
    assert mpc_ray("certs", "show", "ca")[0] == 1
    assert mpc_ray("certs", "show", "ca/directory.json")[0] == 1
    capsys.readouterr()
    assert main.run(["certs", "show", "alpha"]) == 0
    said = capsys.readouterr().out
    assert said.count("this folder") == 1 and "expired" in said
    monkeypatch.setattr("mpc_ray.cli.certs_show.time.time", lambda: now + 91 * 86400)
    assert mpc_ray("certs", "show", "gw")[0] == 1


def test_the_authority_sees_who_asks(mpc_ray: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    federation(mpc_ray)
    code, asked = mpc_ray("certs", "show", "alpha/request.json")
    assert code == 0 and asked["request"]["place"] == "eu/0"
    assert asked["record"]["operator"] == "alpha" and asked["record"]["peer"] == "10.0.0.0:50051"
    assert asked["request"]["key"] == mpc_ray("certs", "show", "alpha")[1]["keys"]["eu/0"]
    capsys.readouterr()
    assert main.run(["certs", "show", "alpha/request.json"]) == 0
    said = capsys.readouterr()
    for word in ("eu/0", "alpha", "10.0.0.0:50051", asked["request"]["key"], "x25519"):
        assert word in said.out
    assert "another channel" in said.err
    assert mpc_ray("certs", "show", "gw/request.json")[1]["request"]["place"] == "gateway/gateway"
    text = Path("alpha/request.json").read_text(encoding="utf-8")
    Path("false.json").write_text(text.replace("10.0.0.0:50051", "10.6.6.6:50051"), encoding="utf-8")
    code, refused = mpc_ray("certs", "show", "false.json")
    assert code == 5 and "not signed by its own key" in refused["cause"]


@pytest.mark.parametrize(
    ("path", "said", "remedy"),
    [
        ("alpha/tls.key", "private key", "show alpha shows"),
        ("alpha/hpke.keys", "private keys", "show alpha shows"),
        ("alpha/tls.pem", "a certificate alone", "show alpha shows"),
        ("new", "no directory.json yet", "new/request.json"),
        ("alpha/nothing.pem", "No such file", "check the path"),
        ("alpha/clients.json", "directory", ""),
    ],
)
def test_what_certs_show_does_not_show(
    mpc_ray: Callable[..., Any], path: str, said: str, remedy: str
) -> None:
    federation(mpc_ray)
    assert mpc_ray("certs", "request", "--gateway", "--out", "new")[0] == 0
    made = mpc_ray("keys", "signing", "--out", "app.key")[1]
    assert mpc_ray("keys", "enroll", made["public"], "--party", "alpha", "--name", "app")[0] == 0
    code, refused = mpc_ray("certs", "show", path)
    assert code in (2, 5) and said in refused["cause"] and remedy in refused["remedy"] and refused["remedy"]


def test_a_client_is_enrolled_again_without_harm(mpc_ray: Callable[..., Any]) -> None:
    """Step 3 of the deployment guide can be typed twice."""
    federation(mpc_ray)
    once, twice = (mpc_ray("keys", "signing", "--out", "app.key")[1] for _ in range(2))
    assert once["public"] == twice["public"] and (once["made"], twice["made"]) == (True, False)
    done = [mpc_ray("keys", "enroll", once["public"], "--party", "alpha", "--name", "app") for _ in range(2)]
    assert done[0] == done[1] and done[0][0] == 0
    assert len(mpc_ray("keys", "list", "--party", "alpha")[1]["keys"]) == 1
    assert mpc_ray("keys", "revoke", "app", "--party", "alpha")[0] == 0
    code, refused = mpc_ray("keys", "enroll", once["public"], "--party", "alpha", "--name", "app")
    assert code == 2 and "revoked" in refused["cause"]


def test_show_believes_nothing_that_is_not_signed(mpc_ray: Callable[..., Any]) -> None:
    federation(mpc_ray)
    text = Path("ca/directory.json").read_text(encoding="utf-8")
    Path("false.json").write_text(text.replace("10.0.0.1:50051", "10.6.6.6:50051"), encoding="utf-8")
    code, refused = mpc_ray("certs", "show", "false.json")
    assert code == 5 and "not signed" in refused["cause"]


def test_a_place_is_not_given_away_by_mistake(mpc_ray: Callable[..., Any]) -> None:
    federation(mpc_ray)
    assert ask(mpc_ray, 0, "mallory", peer="10.0.0.9:50051", endpoint="10.0.0.9:50052")[0] == 0
    code, refused = mpc_ray("certs", "sign", "mallory/request.json")
    assert code == 5 and "alpha's" in refused["cause"] and "--replace" in refused["remedy"]
    assert mpc_ray("certs", "sign", "mallory/request.json", "--replace")[0] == 0


def test_a_folder_that_others_may_enter_is_refused(mpc_ray: Callable[..., Any]) -> None:
    federation(mpc_ray)
    Path("alpha").chmod(0o755)
    for words in (["rotate", "--folder", "alpha"], ["show", "alpha"]):
        code, refused = mpc_ray("certs", *words)
        assert code == 2 and "chmod" in refused["remedy"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "x"], "a party or for a gateway"),
        (["--party", "0", "--gateway", "--out", "x"], "a party or for a gateway"),
        (["--party", "0", "--out", "x", "--set", "eu"], "--operator"),
    ],
)
def test_half_a_request_says_what_is_missing(
    mpc_ray: Callable[..., Any], words: list[str], said: str
) -> None:
    code, refused = mpc_ray("certs", "request", *words)
    assert code == 2 and said in refused["cause"]
    assert not Path("x").exists()


def test_signing_keys_are_enrolled_and_revoked(mpc_ray: Callable[..., Any]) -> None:
    federation(mpc_ray)
    made = mpc_ray("keys", "signing", "--out", "app.key")[1]
    assert stat.S_IMODE(Path("app.key").stat().st_mode) == 0o600
    assert made["public"] not in json.dumps(mpc_ray("keys", "list", "--party", "alpha")[1])
    code, enrolled = mpc_ray("keys", "enroll", made["public"], "--party", "alpha", "--name", "app")
    assert code == 0 and enrolled["id"] == made["id"]
    assert mpc_ray("keys", "enroll", made["public"], "--party", "alpha", "--name", "again")[0] == 2
    other = mpc_ray("keys", "signing", "--out", "other.key")[1]["public"]
    assert mpc_ray("keys", "enroll", other, "--party", "alpha", "--name", "app")[0] == 2
    assert mpc_ray("keys", "revoke", "app", "--party", "alpha")[1]["revoked"] > 0
    assert mpc_ray("keys", "list", "--party", "alpha")[1]["keys"][0]["revoked"] > 0


def test_an_api_key_is_shown_once(mpc_ray: Callable[..., Any]) -> None:
    federation(mpc_ray)
    bearer = mpc_ray("keys", "create", "--gateway", "gw", "--name", "a")[1]["bearer"]
    secret = bearer.rpartition("_")[2]
    assert secret not in json.dumps(mpc_ray("keys", "list-api", "--gateway", "gw")[1])
    stored = b"".join(path.read_bytes() for path in Path("gw").iterdir() if path.is_file())
    assert secret.encode() not in stored
