"""A federation on disk and a tiny model shared with it, as its owner and its three operators see them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpc_ray.models.export import Export, Visibility, export_encoder
from mpc_ray.models.load import load_bert
from mpc_ray.models.shares import SharedModel, share_model
from mpc_ray.models.statistics import observe
from mpc_ray.models.synthetic import random_bert, save_bert
from mpc_ray.models.tokenize import Tokenizer
from mpc_ray.models.weights import BertModel
from mpc_ray.trust.authority import FederationAuthority
from mpc_ray.trust.directory import Directory
from mpc_ray.trust.folder import install, request_party

LENGTHS = (8, 16, 32)


@dataclass(frozen=True)
class Federation:
    """``folders``: of the three parties, by index; ``directory``: the signed file."""

    authority: FederationAuthority
    folders: tuple[Path, Path, Path]
    directory: Path

    @property
    def known(self) -> Directory:
        return Directory.load(self.directory).verify()


def federation(root: Path, name: str = "test", party_set: str = "eu") -> Federation:
    root.mkdir(parents=True, exist_ok=True)
    authority = FederationAuthority.init(root / "ca", name)
    folders = tuple(root / operator for operator in ("alpha", "beta", "gamma"))
    requests = [
        request_party(
            folder,
            set=party_set,
            index=index,
            operator=folder.name,
            region="eu-west-1",
            jurisdiction="IE",
            peer=f"127.0.0.1:{50100 + index}",
            gateway=f"127.0.0.1:{50200 + index}",
        )
        for index, folder in enumerate(folders)
    ]
    directory = authority.sign(requests)
    for folder in folders:
        install(folder, directory, fingerprint=authority.fingerprint)
    path = root / "directory.json"
    directory.save(path)
    return Federation(authority, folders, path)  # type: ignore[arg-type]


def owned(
    root: Path, seed: int = 10, weights: Visibility = "secret", **given: Any
) -> tuple[BertModel, Export]:
    """A random model as its owner has it: imported from a folder, and exported."""
    bert = load_bert(save_bert(random_bert(seed=seed, **given), root / "tiny"))
    tables = bert.embeddings
    samples = Tokenizer(root / "tiny").encode(["A quick brown fox, 2 dogs!", "x", "hello world and all"])
    export = export_encoder(
        bert.encoder,
        observe(bert, samples),
        LENGTHS,
        gain=tables.norm_gain,
        bias=tables.norm_bias,
        normalize=bert.normalize,
        weights=weights,
    )
    return bert, export


def shared(
    root: Path, parties: Federation, party_set: str = "eu", weights: Visibility = "secret", **given: Any
) -> SharedModel:
    bert, export = owned(root, weights=weights)
    return share_model(bert, export, parties.known, party_set, root / "shares", **given)
