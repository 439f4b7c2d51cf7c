"""What a front knows of the models in its store, and when."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster import FederationFolders, make_federation, share_tiny  # type: ignore[import-not-found]

from mpc_ray.endpoint.models import Models
from mpc_ray.endpoint.store import ModelStore
from mpc_ray.errors import ModelError, SealError, Unavailable


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[FederationFolders, Path]:
    root = tmp_path_factory.mktemp("models")
    federation = make_federation(root)
    share_tiny(root, federation)
    return federation, root


def test_nothing_is_refused_for_good_before_the_store_was_read(made: tuple[FederationFolders, Path]) -> None:
    """A party that starts again must not tell a client that its model is gone."""
    federation, _ = made
    models = Models(federation.folders["eu"][0])
    with pytest.raises(Unavailable) as early:
        models.find("tiny")
    assert early.value.code == "starting" and early.value.retry_after_s > 0  # type: ignore[attr-defined]
    models.look()
    assert models.find("tiny").plan.hidden == 32
    with pytest.raises(ModelError) as late:
        models.find("other")
    assert late.value.code == "unknown_model"  # type: ignore[attr-defined]


def test_a_file_that_cannot_be_read_is_not_offered(
    made: tuple[FederationFolders, Path], caplog: pytest.LogCaptureFixture
) -> None:
    federation, root = made
    folder = federation.folders["eu"][1]
    path = folder / "store" / "tiny.model"
    models = Models(folder)
    models.look()
    known = models.find("tiny")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    models.look()
    assert models.list() == [] and "is not offered" in caplog.text
    with pytest.raises(SealError):
        models.message("tiny")
    path.unlink()
    ModelStore(folder).import_file(next((root / "shares-eu").glob("*.party1.share")))
    models.look()
    assert models.find("tiny").info.digest == known.info.digest
    digest, message = models.message("tiny")
    assert digest == known.info.digest and message.header["cmd"] == "load"
