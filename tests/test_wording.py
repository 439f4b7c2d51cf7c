"""What is wrong with a setting is said in plain words, by every program the same, and without what was typed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mpc_ray.client.settings import ClientSettings
from mpc_ray.errors import ConfigError

LIBRARY = ("Input should", "Extra inputs", "Field required", "valid tuple", "pydantic", "Value error")
CLIENT = {"gateway": "https://g", "bundle": "b", "signing_key": "k", "trust": "ca.pem"}


def party(path: Path) -> Any:
    return pytest.importorskip("mpc_ray.endpoint.config").PartyConfig.load(path)


def gateway(path: Path) -> Any:
    return pytest.importorskip("mpc_ray.serve.config").GatewayConfig.load(path)


def client(path: Path) -> Any:
    return ClientSettings.load(path, {})


@pytest.mark.parametrize(
    ("load", "content", "said", "remedy"),
    [
        (party, {"folder": "a", "slotz": 1}, "slotz is not a setting", "did you mean slots?"),
        (party, {"folder": "a", "xyzzy": 1}, "xyzzy is not a setting", "configs/party.example.yaml"),
        (party, {"slots": 1}, "folder is missing", "configs/party.example.yaml"),
        (party, {"folder": "a", "slots": 0}, "slots: must be at least 1", ""),
        (party, {"folder": "a", "slots": "SECRET"}, "slots: must be a whole number", ""),
        (party, {"folder": "a", "slots": 1.5}, "slots: must be a whole number", ""),
        (party, {"folder": "a", "device": "SECRET"}, "device: must be 'cpu' or 'cuda'", ""),
        (party, {"folder": "a", "policy": {"jurisdictions": "SECRET"}}, "policy.jurisdictions: must be a list", ""),
        (party, {"folder": "a", "policy": {"purposes": [3]}}, "policy.purposes.0: must be text", ""),
        (party, {"folder": "a", "policy": {"purposes": ["SECRET!"]}}, "policy.purposes.0: has not the form", ""),
        (party, {"folder": "a", "policy": {"require_range_check": 3}}, "must be true or false", ""),
        (party, {"folder": "a", "peer": "SECRET"}, "peer: must hold `setting: value` lines", ""),
        (party, {"folder": "a", "step_timeout_s": 0}, "step_timeout_s: must be more than 0", ""),
        (party, {"folder": "a", "peer": {"port": 70_000}}, "peer.port: must be at most 65535", ""),
        (party, {"folder": 3}, "folder: must be a path", ""),
        (gateway, {"folder": "a", "prot": 1}, "prot is not a setting", "did you mean port?"),
        (gateway, {"port": 1}, "folder is missing", ""),
        (gateway, {"folder": "a", "sets": "SECRET"}, "sets: must be a list", ""),
        (client, CLIENT | {"retries": "SECRET"}, "retries: must be a whole number", ""),
        (client, CLIENT | {"jurisdictions": 3}, "jurisdictions: must be a list", ""),
    ],
)  # fmt: skip
def test_in_plain_words(
    tmp_path: Path, load: Callable[[Path], Any], content: dict[str, Any], said: str, remedy: str
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert said in caught.value.cause
    assert remedy in caught.value.remedy and caught.value.remedy
    assert not [word for word in (*LIBRARY, "SECRET") if word in str(caught.value)]
