"""Settings: file, then environment; wrong ones are named, keys are never shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mpc_ray import config
from mpc_ray.client.proxy.settings import ProxySettings
from mpc_ray.client.settings import ClientSettings
from mpc_ray.errors import ConfigError

ROOT = Path(__file__).parents[2]
GIVEN = {"gateway": "https://g.test", "bundle": "b", "signing_key": "k", "trust": "a" * 64}


def load(folder: Path, content: dict[str, Any], **environ: str) -> ClientSettings:
    path = folder / "proxy.yaml"
    path.write_text(yaml.safe_dump(content))
    return ClientSettings.load(path, environ)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("x")
    more = {"pin": "pins.json", "gateway_ca": "ca.pem", "trust": "ca.pem", "proxy": {"key_file": "local.key"}}
    settings = load(tmp_path, GIVEN | more)
    assert settings.bundle == tmp_path / "b" and settings.signing_key == tmp_path / "k"
    assert settings.pin == tmp_path / "pins.json" and settings.proxy.key_file == tmp_path / "local.key"
    assert settings.gateway_ca == settings.trust == str(tmp_path / "ca.pem")
    assert load(tmp_path, GIVEN | {"gateway_ca": "federation"}).gateway_ca == "federation"


def test_the_environment_wins(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        GIVEN | {"regions": ["eu"], "proxy": {"port": 1, "drain_s": 5}},
        MPC_GATEWAY_URL="https://other.test",
        MPC_CLIENT_REGIONS="us, eu",
        MPC_CLIENT_TIMEOUT_S="7.5",
        MPC_PROXY_PORT="9",
        MPC_CLIENT_SET="",
        MPC_THREADS="3",
    )
    assert settings.gateway == "https://other.test" and settings.regions == ("us", "eu")
    assert settings.timeout_s == 7.5 and settings.proxy.port == 9 and settings.proxy.drain_s == 5
    assert settings.set is None


def test_a_file_is_not_needed(tmp_path: Path) -> None:
    environ = {
        "MPC_GATEWAY_URL": "https://g.test",
        "MPC_CLIENT_BUNDLE": "b",
        "MPC_CLIENT_SIGNING_KEY": "k",
        "MPC_CLIENT_TRUST": "tofu",
        "MPC_CLIENT_PIN": str(tmp_path / "pins"),
    }
    assert ClientSettings.load(None, environ).bundle == Path("b")
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(GIVEN))
    assert ClientSettings.load(None, {"MPC_CLIENT_CONFIG": str(path)}).bundle == tmp_path / "b"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"gatway": "x"}, r"gatway is not a setting \(did you mean gateway\?\)"),
        ({"proxy": {"prot": 1}}, r"proxy\.prot is not a setting \(did you mean port\?\)"),
        ({"api_key": "mpck_secret"}, "api_key is not a setting"),
        ({"trust": "tofu"}, "trust: tofu needs `pin`"),
        ({"retries": -1}, "retries: must be at least 0"),
        ({"timeout_s": "long"}, "timeout_s: must be a number"),
        ({"proxy": {"host": "0.0.0.0"}}, "reached from other machines, and texts come in plain"),
        ({"proxy": {"certificate": "x"}}, "certificate and certificate_key belong together"),
        ({"bundle": None}, "bundle: "),
    ],
)
def test_what_is_wrong_is_named_and_not_repeated(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word) as caught:
        load(tmp_path, GIVEN | change)
    assert "mpck_secret" not in str(caught.value)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gateway is missing \(set it in the file, or MPC_GATEWAY_URL\)"):
        load(tmp_path, {k: v for k, v in GIVEN.items() if k != "gateway"})
    with pytest.raises(ConfigError, match="or MPC_CLIENT_TRUST"):
        load(tmp_path, {k: v for k, v in GIVEN.items() if k != "trust"})
    with pytest.raises(ConfigError, match=r"MPC_PROXY_PROT \(environment\) .*did you mean MPC_PROXY_PORT"):
        load(tmp_path, GIVEN, MPC_PROXY_PROT="1")
    for content in ("", "[]", "a: [", "\x00"):
        (tmp_path / "bad.yaml").write_text(content)
        with pytest.raises(ConfigError, match=r"bad\.yaml"):
            ClientSettings.load(tmp_path / "bad.yaml", {})
    with pytest.raises(ConfigError, match="No such file"):
        ClientSettings.load(tmp_path / "none.yaml", {})


def test_keys_come_from_their_own_places_and_do_not_print(tmp_path: Path) -> None:
    key = tmp_path / "api.key"
    key.write_text("mpck_0123_secretsecret\n")
    key.chmod(0o600)
    settings = load(tmp_path, GIVEN | {"api_key_file": "api.key"})
    found = settings.api_key({})
    assert found is not None and found.reveal() == b"mpck_0123_secretsecret"
    other = settings.api_key({"MPC_GATEWAY_API_KEY": "mpck_other"})
    assert other is not None and other.reveal() == b"mpck_other"
    assert load(tmp_path, GIVEN).api_key({}) is None
    assert "secretsecret" not in repr(settings) + repr(found) + repr(settings.arguments({}))
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="others on this machine may read it"):
        settings.api_key({})
    key.chmod(0o600)
    key.write_text("two words\n")
    with pytest.raises(ConfigError, match="holds no key") as caught:
        settings.api_key({})
    assert "two words" not in str(caught.value)


def test_a_sessions_settings_do_not_mind_a_clients() -> None:
    environ = {"MPC_GATEWAY_URL": "https://g.test", "MPC_CLIENT_SET": "eu", "MPC_PROXY_PORT": "1"}
    assert config.load(environ=environ).threads == 1


def test_the_example_names_every_setting_with_its_default() -> None:
    text = (ROOT / "configs" / "proxy.example.yaml").read_text(encoding="utf-8")
    shown = yaml.safe_load(text)
    ClientSettings(**shown)
    commented = re.sub(r"^(\s*)# (\w+:)", r"\1\2", text, flags=re.MULTILINE)
    whole = yaml.safe_load(commented)
    assert set(whole) == set(ClientSettings.model_fields)
    assert set(whole["proxy"]) == set(ProxySettings.model_fields)
    required = {name for name, field in ClientSettings.model_fields.items() if field.is_required()}
    for name, value in whole.items():
        if name not in {*required, "proxy", "api_key_file"}:
            assert (value or None) == (ClientSettings.model_fields[name].default or None), name
    for name, value in whole["proxy"].items():
        if name not in {"aliases", "port"}:
            default = ProxySettings.model_fields[name].default
            assert (value or None) == ((list(default) if isinstance(default, tuple) else default) or None), (
                name
            )
