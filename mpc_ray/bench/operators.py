"""Sets of three operators on this machine: folders, a shared model, an enrolled client, `mpc-ray party` processes.

For benchmarks and examples. What is measured is the real endpoint with its certificates, journals and stores; only
that all operators are one machine and one person is not real, and protects nobody. Slots are plain processes instead of
Ray actors: on a small machine three clusters of Ray would fill it.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from mpc_ray.bench.ports import free_ports
from mpc_ray.bench.relay import Relay
from mpc_ray.channel.interface import Address
from mpc_ray.endpoint.store import ModelStore
from mpc_ray.errors import ChannelError
from mpc_ray.model import Prepared
from mpc_ray.models.shares import share_model
from mpc_ray.trust.authorisation import SigningKey
from mpc_ray.trust.authority import FederationAuthority
from mpc_ray.trust.directory import Directory
from mpc_ray.trust.folder import install, open_folder, request_gateway, request_party

ENDING_S = 10.0
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Place:
    """Where a set is said to be: a region and one jurisdiction an operator. ``far_s``: one way from the gateway to each
    of its operators; ``apart_s``: one way between two of them.
    """

    region: str
    jurisdictions: tuple[str, str, str]
    far_s: float = 0.0
    apart_s: float = 0.0


@dataclass(frozen=True)
class Party:
    """One operator's endpoint: its folder and the ports it listens on."""

    set: str
    index: int
    folder: Path
    peer: int
    gateway: int


@dataclass
class Operators:
    """A federation of one machine; use it in a ``with`` block, which ends every process that it started.

    ``directory`` is signed and installed everywhere; ``gateway`` is the gateway's folder; ``client`` is enrolled with
    all; ``bundle`` what clients of the model get; ``relays`` by (set, party, what) where a place is not near.
    """

    root: Path
    directory: Directory
    parties: tuple[Party, ...]
    gateway: Path
    client: SigningKey
    bundle: Path
    relays: dict[tuple[str, int, str], Relay] = field(default_factory=dict)
    processes: dict[tuple[str, int], subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def party(self, set_name: str, index: int) -> Party:
        """One of them."""
        return next(one for one in self.parties if (one.set, one.index) == (set_name, index))

    def start(self, set_name: str, index: int, *, slots: int = 1) -> None:
        """Start one endpoint; its log goes to party.log in its folder. Returns at once."""
        party = self.party(set_name, index)
        settings = {
            "folder": str(party.folder),
            "host": "process",
            "slots": slots,
            "peer": {"host": HOST, "port": party.peer},
            "gateway": {"host": HOST, "port": party.gateway},
        }
        config = party.folder / "party.yaml"
        config.write_text(yaml.safe_dump(settings))
        with (party.folder / "party.log").open("ab") as log:
            self.processes[set_name, index] = subprocess.Popen(
                [sys.executable, "-P", "-m", "mpc_ray.cli.main", "party", "--config", str(config)],
                cwd=party.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start_all(self, *, slots: int = 1) -> None:
        """Start every endpoint of every set."""
        for party in self.parties:
            self.start(party.set, party.index, slots=slots)

    def check(self) -> None:
        """Raise ChannelError, with the end of its log, for an endpoint that has ended by itself."""
        for (set_name, index), process in self.processes.items():
            if process.poll() is not None:
                log = self.party(set_name, index).folder / "party.log"
                last = " | ".join(log.read_text(errors="replace").splitlines()[-3:])
                raise ChannelError(f"party {index} of set {set_name} ended with {process.returncode}: {last}")

    def stop(self, set_name: str, index: int) -> None:
        """End one endpoint and wait for it."""
        process = self.processes.pop((set_name, index), None)
        if process is not None:
            process.terminate()
            try:
                process.wait(ENDING_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def close(self) -> None:
        """End what was started and remove the folder."""
        for process in self.processes.values():
            process.terminate()
        for set_name, index in list(self.processes):
            self.stop(set_name, index)
        _close(self.relays)
        shutil.rmtree(self.root, ignore_errors=True)


def make_operators(model: Prepared, places: Mapping[str, Place], *, name: str = "") -> Operators:
    """Folders of a whole federation with ``model`` shared among every set's parties; nothing is started yet.

    Seconds and twice the model's size in memory; on disk 8 bytes a weight and party. Raises what sharing raises.
    """
    base = tempfile.gettempdir()  # the paths of sockets end at 107 bytes
    root = Path(tempfile.mkdtemp(prefix="mr-", dir=base if len(base) < 32 else "/tmp"))
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, root, ignore_errors=True)
        ports = iter(free_ports(6 * len(places), HOST))
        parties, requests = [], []
        relays: dict[tuple[str, int, str], Relay] = {}
        undo.callback(_close, relays)
        authority = FederationAuthority.init(root / "ca", "bench")
        for set_name, place in places.items():
            for index in range(3):
                party = Party(set_name, index, root / f"{set_name}-{index}", next(ports), next(ports))
                public: dict[str, Address] = {}
                for what, port, latency in (
                    ("peer", party.peer, place.apart_s),
                    ("gateway", party.gateway, place.far_s),
                ):
                    public[what] = (HOST, port)
                    if latency:
                        relays[set_name, index, what] = Relay((HOST, port), latency)
                        public[what] = relays[set_name, index, what].address
                requests.append(
                    request_party(
                        party.folder,
                        set=set_name,
                        index=index,
                        operator=f"{set_name}-{index}",
                        region=place.region,
                        jurisdiction=place.jurisdictions[index],
                        peer=_text(public["peer"]),
                        gateway=_text(public["gateway"]),
                    )
                )
                parties.append(party)
        gateway = root / "gw"
        requests.append(request_gateway(gateway, name="gw"))
        directory = authority.sign(requests)
        for folder in (*(party.folder for party in parties), gateway):
            install(folder, directory, fingerprint=authority.fingerprint)
        client = SigningKey.generate()
        bundle = root
        for set_name in places:
            made = share_model(
                model.bert, model.export, directory, set_name, root / f"shares-{set_name}", name=name
            )
            bundle = made.bundle
            for party, path in zip([p for p in parties if p.set == set_name], made.shares, strict=True):
                ModelStore(party.folder).import_file(path)
                open_folder(party.folder).clients().enrol("bench", client.public)
        undo.pop_all()
    return Operators(root, directory, tuple(parties), gateway, client, bundle, relays)


def _close(relays: dict[tuple[str, int, str], Relay]) -> None:
    while relays:
        relays.popitem()[1].close()


def _text(address: Address) -> str:
    return f"{address[0]}:{address[1]}"
