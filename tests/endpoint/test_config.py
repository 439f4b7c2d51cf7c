"""The example has every setting with its default; what does not fit is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpc_ray.endpoint.config import PartyConfig
from mpc_ray.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "configs" / "party.example.yaml"


def test_an_operator_of_the_other_variant_is_told_apart_in_hello(tmp_path: Path) -> None:
    from mpc_ray.party_settings import PartySettings

    path = tmp_path / "party.yaml"
    path.write_text("folder: a\nvariant: rounds\n")
    assert PartyConfig.load(path).variant == "rounds"
    session, digest = "00" * 16, "11" * 32
    plain, other = (
        PartySettings(1, session=session, digest=digest, variant=v).hello for v in ("bytes", "rounds")
    )
    assert plain.digests.configuration != other.digests.configuration
    path.write_text(
        "folder: a\nvariant: auto\n"
    )  # operators agree on one; no cost model decides for all three
    with pytest.raises(ConfigError, match="variant"):
        PartyConfig.load(path)


def test_the_example_is_the_defaults(tmp_path: Path) -> None:
    bare = tmp_path / "party.yaml"
    bare.write_text(f"folder: {EXAMPLE.parent / 'alpha'}\n")
    assert PartyConfig.load(EXAMPLE) == PartyConfig.load(bare)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("folder: a\nslot: 2\n", "slot"),
        ("folder: a\nslots: 0\n", "slots"),
        ("folder: a\npolicy: {purpose: [search]}\n", "policy.purpose"),
        ("folder: a\nray: {address: 'h:1'}\n", "ray.token"),
        ("peer: {port: 1}\n", "folder"),
        ("[1]\n", "no settings"),
        ("a: [\n", "no YAML"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "party.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        PartyConfig.load(path)
