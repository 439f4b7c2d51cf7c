"""Slots as actors of the operator's own Ray: one that is started here, or one that runs already.

Ray is told which program to run and where the front's socket is, nothing else: commands, shares and keys go over Unix
sockets, so no object, task event or span of Ray ever holds one. Actors are never restarted by Ray, and run on this
machine, where the socket is.

A Ray of our own is closed and small: token authentication, a private folder with a short path, no dashboard, no usage
reports. One that is joined must demand a token: whoever can submit a job to a cluster can read the memory of what it
runs, so an open one is refused.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpc_ray.errors import ChannelError, ConfigError, DeviceError

NAMESPACE = "mpc-ray"
OBJECT_STORE_BYTES = 78 << 20  # Ray's least is 75 MiB, and nothing of ours goes in
PROBE_S = 3.0
JOIN_S = 40.0
ANSWER_S = 8.0  # a joined cluster that does not answer a question for so long is broken
_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
_CORE = ("gcs_server", "raylet")


class SlotActor:
    """An actor that is a slot: the program runs in a thread; nothing is ever asked of the actor itself."""

    def __init__(self, path: str, *words: str) -> None:
        threading.Thread(target=self._serve, args=(path, *words), daemon=True).start()

    def _serve(self, path: str, *words: str) -> None:
        from mpc_ray.endpoint.slot import serve
        from mpc_ray.telemetry import traces

        status = 1
        try:
            serve(Path(path), *words)
            traces.shutdown()
            status = 0
        finally:
            os._exit(status)  # the front let go: Ray gets the process's CPUs back


class RayHost:
    """Starts or joins Ray as ``settings`` say; see ``host.Host``."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self._ours = not settings["address"]
        self._actors: dict[str, Any] = {}
        address = self._start() if self._ours else self._join(settings["address"])
        self.said = f"{'its own Ray' if self._ours else 'the Ray'} at {address}"
        self._address = address
        self._check_room()
        self._answered = time.monotonic()
        self._core = _core_processes(Path(settings["folder"])) if self._ours else []
        if not self._ours:
            threading.Thread(target=self._ask, name="watch Ray", daemon=True).start()

    def start(self, name: str) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = ray.get_runtime_context().get_node_id()
        settings = self._settings
        threads = str(settings["threads"])
        options: dict[str, Any] = {
            "num_cpus": settings["threads"],
            "num_gpus": settings["num_gpus"],
            "max_restarts": 0,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False),
        }
        if not self._ours:  # workers of our own Ray have them from us, and one that waits can be taken
            options["runtime_env"] = {"env_vars": {"NUMBA_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}}
        make = ray.remote(SlotActor).options(**options)
        words = [settings[key] for key in ("protocol", "executor", "trace_file")]
        self._actors[name] = make.remote(settings["socket"], name, *words)

    def kill(self, name: str) -> None:
        import ray

        actor = self._actors.pop(name, None)
        if actor is not None:
            ray.kill(actor)

    def check(self) -> None:
        for process in self._core:
            if not process.is_running() or process.status() == "zombie":
                raise ChannelError(f"Ray's {process.name()} has died", remedy="it is started again")
        if not self._ours and time.monotonic() - self._answered > ANSWER_S:
            raise ChannelError(
                f"the Ray cluster at {self._address} does not answer",
                remedy="see whether its head still runs",
            )

    def stop(self) -> None:
        import ray

        for name in list(self._actors):
            self.kill(name)
        ray.shutdown()  # ends a Ray of our own, and leaves one that was joined

    def _start(self) -> str:
        import ray

        settings = self._settings
        slots = int(settings["slots"])
        context = ray.init(
            address="local",
            # Room for a slot that starts while the one it replaces is still ending.
            num_cpus=settings["num_cpus"] or (slots + 1) * int(settings["threads"]),
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level="ERROR",
            namespace=NAMESPACE,
            labels={"party": str(settings["party"]), "set": str(settings["set"])},
            _temp_dir=str(Path(settings["folder"]) / "r"),
        )
        return str(context.address_info["gcs_address"])

    def _join(self, address: str) -> str:
        probe(address, os.environ.get("RAY_AUTH_TOKEN_PATH", ""))
        import ray

        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", namespace=NAMESPACE)
        except (ConnectionError, RuntimeError, ValueError):
            raise ChannelError(
                f"could not join the Ray cluster at {address}",
                remedy="a node of it must run on this machine; check ray.address and ray.token",
            ) from None
        return address

    def _check_room(self) -> None:
        """What the slots ask for can be had at all: Ray itself would wait for ever."""
        import ray

        have = ray.cluster_resources()
        for name, each in (("CPU", self._settings["threads"]), ("GPU", self._settings["num_gpus"])):
            need = each * int(self._settings["slots"])
            if have.get(name, 0) < need:
                raise DeviceError(
                    f"the slots need {need:g} {name}, and Ray has {have.get(name, 0):g}",
                    remedy="give the party fewer slots or threads, or Ray more",
                )

    def _ask(self) -> None:
        """Whether a joined cluster still answers; a call that hangs is what a lost head looks like."""
        import ray

        while True:
            here = ray.get_runtime_context().get_node_id()
            if any(node["NodeID"] == here and node["Alive"] for node in ray.nodes()):
                self._answered = time.monotonic()
            time.sleep(1)


def _core_processes(folder: Path) -> list[Any]:
    """GCS and raylet of the Ray whose session is in ``folder``. Ray itself notices their death late or never."""
    import psutil

    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.name() in _CORE and any(str(folder) in word for word in process.cmdline()):
                found.append(process)
        except psutil.Error:  # ended while we looked
            continue
    if {process.name() for process in found} != set(_CORE):
        raise ChannelError("Ray started without GCS or raylet", remedy="see the session's logs")
    return found


def make_token(path: Path) -> None:
    """A new token for a Ray of our own: 64 hexadecimal digits, no newline, readable by us alone."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))


def probe(address: str, token_path: str) -> None:
    """The cluster at ``address`` answers, demands a token, and takes ours. Milliseconds; Ray itself takes 20 s to say.

    Raises ChannelError if nobody answers or the token is wrong, ConfigError for an open cluster.
    """
    import grpc

    def ask(metadata: tuple[tuple[str, str], ...]) -> grpc.StatusCode:
        with grpc.insecure_channel(address) as channel:
            try:
                channel.unary_unary(_ALIVE)(b"", timeout=PROBE_S, metadata=metadata)
            except grpc.RpcError as error:
                return error.code()
        return grpc.StatusCode.OK

    without = ask(())
    if without is grpc.StatusCode.OK:
        raise ConfigError(
            f"the Ray cluster at {address} is open: it demands no token, so anybody who reaches it can read this "
            "party's shares",
            remedy="start it with RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH",
        )
    if without is not grpc.StatusCode.UNAUTHENTICATED:
        raise ChannelError(
            f"no Ray cluster answers at {address} ({without.name.lower()})",
            remedy="start it, or correct ray.address",
        )
    try:
        token = Path(token_path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(
            f"there is no token in {token_path or 'ray.token'}", remedy="give ray.token"
        ) from None
    if ask((("authorization", f"Bearer {token}"),)) is not grpc.StatusCode.OK:
        raise ChannelError(
            f"the Ray cluster at {address} does not take our token", remedy="give ray.token the cluster's own"
        )
