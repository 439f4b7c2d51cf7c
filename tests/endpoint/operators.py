"""A federation of test operators on disk, with a tiny model shared among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpc_ray.bench.ports import free_ports as some_ports
from mpc_ray.endpoint.store import ModelStore
from mpc_ray.models.export import export_encoder
from mpc_ray.models.load import load_bert
from mpc_ray.models.shares import share_model
from mpc_ray.models.statistics import observe
from mpc_ray.models.synthetic import random_bert, save_bert
from mpc_ray.models.tokenize import Tokenizer
from mpc_ray.models.weights import BertModel
from mpc_ray.trust.authorisation import SigningKey
from mpc_ray.trust.authority import FederationAuthority
from mpc_ray.trust.directory import Directory
from mpc_ray.trust.folder import install, open_folder, request_gateway, request_party

OPERATORS = ("alpha", "beta", "gamma")
LENGTHS = (8, 16, 32)


@dataclass(frozen=True)
class FederationFolders:
    """What the federation's authority and its members have on disk."""

    authority: FederationAuthority
    folders: Mapping[str, tuple[Path, Path, Path]]
    gateway: Path
    client_key: SigningKey
    directory: Path

    @property
    def known(self) -> Directory:
        return Directory.load(self.directory).verify()


def make_federation(
    root: Path,
    sets: Sequence[str] = ("eu",),
    ports: Mapping[tuple[str, int], tuple[int, int, int]] | None = None,
    **given: Any,
) -> FederationFolders:
    """A federation with ``sets`` of three parties, one gateway, one client enrolled everywhere."""
    ports = ports or free_ports(sets)
    authority = FederationAuthority.init(root / "ca", "test")
    folders: dict[str, tuple[Path, Path, Path]] = {}
    requests = []
    for set_name in sets:
        made = tuple(root / f"{set_name}-{operator}" for operator in OPERATORS)
        for index, folder in enumerate(made):
            requests.append(
                request_party(
                    folder,
                    set=set_name,
                    index=index,
                    operator=folder.name,
                    region="eu-west-1",
                    jurisdiction="IE",
                    peer=f"127.0.0.1:{ports[set_name, index][0]}",
                    gateway=f"127.0.0.1:{ports[set_name, index][1]}",
                    **given,
                )
            )
        folders[set_name] = made  # type: ignore[assignment]
    gateways = [root / "gw", root / "gw2", root / "gw3"]
    requests += [request_gateway(gateway, name=gateway.name) for gateway in gateways]
    directory = authority.sign(requests)
    path = root / "directory.json"
    directory.save(path)
    client = SigningKey.generate()
    client.save(root / "client.key")
    for folder in (*gateways, *(folder for three in folders.values() for folder in three)):
        install(folder, directory, fingerprint=authority.fingerprint)
        if folder not in gateways:
            open_folder(folder).clients().enrol("test", client.public)
    return FederationFolders(authority, folders, gateways[0], client, path)


def share_tiny(root: Path, federation: FederationFolders, name: str = "tiny") -> tuple[BertModel, Path]:
    """A random model, shared with every set; the model and its client's bundle."""
    bert = load_bert(save_bert(random_bert(seed=10), root / name))
    samples = Tokenizer(root / name).encode(["A quick brown fox, 2 dogs!", "x", "hello world and all"])
    export = export_encoder(
        bert.encoder,
        observe(bert, samples),
        LENGTHS,
        gain=bert.embeddings.norm_gain,
        bias=bert.embeddings.norm_bias,
        normalize=bert.normalize,
    )
    bundle = root
    for set_name, folders in federation.folders.items():
        made = share_model(bert, export, federation.known, set_name, root / f"shares-{set_name}", name=name)
        bundle = made.bundle
        for folder, path in zip(folders, made.shares, strict=True):
            ModelStore(folder).import_file(path)
    return bert, bundle


def free_ports(sets: Sequence[str]) -> dict[tuple[str, int], tuple[int, int, int]]:
    """(peer, gateway, metrics) of every party: ports that nobody listens on now."""
    places = [(set_name, index) for set_name in sets for index in range(3)]
    numbers = iter(some_ports(3 * len(places)))
    return {place: (next(numbers), next(numbers), next(numbers)) for place in places}
