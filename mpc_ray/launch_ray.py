"""Three parties as Ray actors, each with a CPU or a GPU of its own, placed by the planner.

Ray carries control only: settings, addresses, public keys, certificates. Shares go over the client's own
links and the sockets between the parties, so that no object store, task event or span of Ray ever holds one.
A party is never restarted by Ray (``max_restarts=0``): a restarted actor would come back empty under the
same handle.

A Ray of our own is small and closed: token authentication with a token of this process, no dashboard, no
usage reports, a private temporary folder. One that is running already, or is reached by address, is used as
it is and never shut down.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any, TextIO

from mpc_ray.errors import ChannelError, ConfigError, PeerLost
from mpc_ray.launch import Triple, introduce
from mpc_ray.party import PartyServer
from mpc_ray.party_settings import PartySettings, check_device
from mpc_ray.scheduler import Placement, gpus_for_each, place

NAMESPACE = "mpc-ray"
OBJECT_STORE_BYTES = 78 << 20  # Ray's least is 75 MiB, and nothing of ours goes in
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "namespace": NAMESPACE}
PREFLIGHT_S = 2.0
PLACE_S = 15.0


class PartyActor:
    """The party program inside an actor. Its serving thread computes; these methods answer meanwhile."""

    def __init__(self) -> None:
        self._server = PartyServer()

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """One control request. Failures are answers: Ray would keep an exception's text in its task events."""
        if request["do"] == "open" and not request["settings"]["host"]:
            import ray

            address = ray.util.get_node_ip_address()
            request = {**request, "settings": {**request["settings"], "host": address}}
        return self._server.ask(request, timeout_s)

    def gpus(self) -> list[str]:
        """The GPUs that Ray reserved for this party."""
        import ray

        return list(map(str, ray.get_gpu_ids()))

    def labels(self) -> dict[str, str]:
        """The labels of the node that this party is on."""
        import ray

        return dict(ray.get_runtime_context().get_node_labels())


class _ActorControl:
    """The control line to one actor."""

    def __init__(self, party: int, actor: Any) -> None:
        self.party = party
        self.actor = actor

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        import ray
        from ray.exceptions import GetTimeoutError, RayActorError

        name = f"party {self.party}"
        try:
            answer: dict[str, Any] = ray.get(
                self.actor.ask.remote(dict(request), timeout_s), timeout=timeout_s
            )
        except GetTimeoutError:
            raise PeerLost(
                name, f"its actor did not answer within {timeout_s:g} s", remedy="see Ray's logs"
            ) from None
        except RayActorError:  # dead, or unavailable because its node is
            raise PeerLost(name, "its actor died", remedy="the next call starts new parties") from None
        return answer


class RayLauncher:
    """Starts triples of actors on a Ray cluster.

    ``address`` joins that cluster; without it a Ray that this process runs already is used, else one of our
    own is started here. ``num_gpus`` are reserved for each party; 0 with device ``cuda`` means one, or a
    third of the only one. ``name`` with ``detached``: the actors ``party-0`` to ``party-2`` in the namespace
    ``name`` outlive this process.
    """

    def __init__(
        self,
        *,
        address: str | None = None,
        device: str = "cpu",
        num_cpus: float = 1.0,
        num_gpus: float = 0.0,
        name: str | None = None,
        detached: bool = False,
    ) -> None:
        self.trust = ""
        self._num_cpus = num_cpus
        self._num_gpus = num_gpus
        self._device = device
        self._name = name
        self._detached = detached
        if detached and address is None and not _running():
            raise ConfigError(
                "detached parties need a Ray cluster that outlives this process", remedy="give ray_address"
            )
        self._ours = _connect(address, device, num_cpus)
        self._actors: list[Any] = []

    @property
    def actors(self) -> list[Any]:
        """Handles of the parties of the last triple, by party."""
        return self._actors

    def start(self, settings: PartySettings, timeout_s: float) -> Triple:
        import ray

        deadline = time.monotonic() + timeout_s
        gpus = gpus_for_each(self._num_gpus, self._device, float(ray.cluster_resources().get("GPU", 0)))
        placed: Placement | None = None
        actors = self._found() if self._detached else []

        def end() -> None:
            for actor in actors:
                ray.kill(actor)
            if placed is not None:
                placed.release()

        try:
            if not actors:
                placed = place(
                    cpus=self._num_cpus,
                    gpus=gpus,
                    reserve=not self._detached,
                    deadline=min(deadline, time.monotonic() + PLACE_S),
                )
                for party in range(3):
                    actors.append(self._create(party, placed, gpus))
            self._actors = actors
            controls = [_ActorControl(party, actor) for party, actor in enumerate(actors)]
            host = self._host(placed)
            links = introduce(controls, replace(settings, host=host), max(0.1, deadline - time.monotonic()))
        except BaseException as error:
            if placed is not None or isinstance(error, PeerLost):
                end()  # actors that were found alive and busy are another session's
            raise
        return Triple(links, end, (lambda: None) if self._detached else end)

    def _host(self, placed: Placement | None) -> str:
        """Where parties listen: the loopback when all is on this node, else ("") each on its own node's address."""
        import ray

        if placed is None:
            self.trust = trust_line(None)
            return ""
        self.trust = trust_line(placed.plan.distinct_nodes)
        return "127.0.0.1" if set(placed.plan.nodes) == {ray.get_runtime_context().get_node_id()} else ""

    def _found(self) -> list[Any]:
        """The actors that an earlier session left, or none; what is left of a broken triple is killed."""
        import ray

        found = []
        for party in range(3):
            with contextlib.suppress(ValueError):  # Ray's word for: no such actor
                found.append(ray.get_actor(f"party-{party}", namespace=self._name))
        if len(found) == 3:
            return found
        for actor in found:
            ray.kill(actor)
        return []

    def _create(self, party: int, placed: Placement, gpus: float) -> Any:
        import ray

        options: dict[str, Any] = {
            "num_cpus": self._num_cpus,
            "num_gpus": gpus,
            "max_restarts": 0,
            "max_concurrency": 4,  # an answer never waits behind another
            "scheduling_strategy": placed.strategy(party),
        }
        if self._name is not None:
            options |= {"name": f"party-{party}", "namespace": self._name}
        if self._detached:
            options["lifetime"] = "detached"
        try:
            return ray.remote(PartyActor).options(**options).remote()
        except ValueError:  # Ray's word for: the name is taken
            raise ConfigError(
                f"a session named {self._name} is running on this cluster", remedy="choose another name"
            ) from None

    def close(self) -> None:
        """Shut Ray down if we started it; leave any other as it is."""
        if self._ours:
            import ray

            ray.shutdown()
            self._ours = False


def _running() -> bool:
    """Whether this process is in a Ray cluster already; does not import Ray."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def trust_line(nodes: int | None) -> str:
    """Who could put the shares together; ``nodes``: how many hold a party, None when an earlier session placed them."""
    where = "three actors" if nodes is None else f"three actors on {nodes} node{'s' * (nodes > 1)}"
    if nodes == 3:
        return (
            f"{where} of one Ray cluster: safe from a break-in at one node, not from the cluster's operator"
        )
    return f"{where} of one Ray cluster: whoever controls it, or a node with two parties, can read all shares"


def _connect(address: str | None, device: str, num_cpus: float) -> bool:
    """Connect this process to Ray. True if that started a Ray of our own."""
    if _running():
        import ray

        if address not in (None, ray.get_runtime_context().gcs_address):
            raise ConfigError(
                "this process is in another Ray cluster already", remedy="leave it, or drop ray_address"
            )
        return False
    if address is not None:
        _preflight(address)
        import ray

        try:
            with _callers_sigterm():
                ray.init(address=address, **_QUIET)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ChannelError(
                f"could not join the Ray cluster at {address}",
                remedy="check the address, and RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH",
            ) from error
        return False
    check_device(device)  # a cluster of this machine has what this machine has
    # Bookkeeping: three must fit on two cores.
    start_own(max(4, ceil(3 * num_cpus), os.cpu_count() or 1))
    return True


def start_own(cpus: int) -> None:
    """Start a small closed Ray in this process: on this machine, with a token, quiet; gone when the process is."""
    home = closed_home()
    import ray

    with _callers_sigterm():
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(home / "ray"),
            **_QUIET,
        )


def closed_home() -> Path:
    """A private folder for a Ray of this process, which asks for the token in it. Call it before Ray is imported."""
    home = _home()
    if "ray" not in sys.modules:  # Ray reads these when it is imported, never again
        token = str(home / "token")
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token}
    return home


@contextlib.contextmanager
def _callers_sigterm() -> Iterator[None]:
    """``ray.init`` takes SIGTERM over, with a handler that calls ``sys.exit``: give it back to who had it."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@functools.cache
def _home() -> Path:
    """This process's private folder for Ray, with its token; one only, since Ray caches the first token it reads."""
    base = tempfile.gettempdir()
    home = Path(
        tempfile.mkdtemp(prefix="mpc-", dir=base if len(base) < 32 else "/tmp")
    )  # socket paths end at 107 bytes
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    descriptor = os.open(home / "token", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    return home


def _preflight(address: str) -> None:
    """Ray takes 20 s to say that nobody listens; a socket takes none."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(
            f"not the address of a Ray cluster: {address!r}", remedy="give host:port of its head node"
        )
    try:
        socket.create_connection((host, int(port)), timeout=PREFLIGHT_S).close()
    except OSError:
        raise ChannelError(
            f"no Ray cluster answers at {address}", remedy="start it, or correct ray_address"
        ) from None


@contextlib.contextmanager
def ray_quiet() -> Iterator[TextIO]:
    """Keep stdout for the caller alone: yields a stream on it, while file descriptor 1 leads to stderr.

    Ray's processes print "A worker died" to stdout whatever its log settings say; ``--json`` output goes
    through the stream that this yields, from before Ray starts until it has ended.
    """
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(saved), "w", encoding="utf-8") as stream:
            yield stream
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)
