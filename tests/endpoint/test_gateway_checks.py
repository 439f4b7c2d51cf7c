"""``mpc-ray doctor --gateway`` against three running parties."""

from __future__ import annotations

import yaml
from cluster import Three  # type: ignore[import-not-found]

from mpc_ray.cli import gateway_checks


def test_all_is_well_with_three_running_parties(endpoints: Three) -> None:
    path = endpoints.root / "gateway.yaml"
    path.write_text(yaml.safe_dump({"folder": str(endpoints.gateway), "sets": [{"name": "eu"}]}))
    found = {check.name: check for check in gateway_checks.looked_at(path)}
    assert {name: check.status for name, check in found.items() if name != "API keys"} == {
        "settings": "ok",
        "certificate": "ok",
        "folder": "ok",
        "directory": "ok",
        "party eu/0": "ok",
        "party eu/1": "ok",
        "party eu/2": "ok",
        "set eu": "ok",
    }
    assert "release" in found["party eu/0"].detail and "tiny" in found["set eu"].detail
    assert endpoints.status("eu", 0)["ready"]  # asking took nobody's place
