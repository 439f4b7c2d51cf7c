"""The gateway's own Ray: always an explicit address and token authentication, never a party's cluster."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mpc_ray.endpoint.ray_host import probe
from mpc_ray.errors import ChannelError, ConfigError
from mpc_ray.serve.config import RaySettings

OBJECT_STORE_BYTES = 78 << 20  # Ray's least is 75 MiB, and nothing of ours goes in


def refuse_proxy(environ: Mapping[str, str] | None = None) -> None:
    """Raise ConfigError where Serve would open a port that drops TLS or goes past it.

    With HAProxy, Serve ignores its TLS settings without a word; with direct ingress each replica listens on a port
    of its own, which RAY_SERVE_THROUGHPUT_OPTIMIZED switches on unless it is told not to.
    """
    environ = os.environ if environ is None else environ

    def on(name: str, default: str = "0") -> bool:
        return environ.get(name, default) == "1"

    if on("RAY_SERVE_ENABLE_HA_PROXY"):
        raise ConfigError(
            "RAY_SERVE_ENABLE_HA_PROXY=1 makes Serve speak plain HTTP whatever its TLS settings say",
            remedy="unset it where Ray is started; mpc-ray gateway is as fast, with TLS",
        )
    optimized = environ.get("RAY_SERVE_THROUGHPUT_OPTIMIZED", "0")
    if on("RAY_SERVE_ENABLE_DIRECT_INGRESS", optimized):
        raise ConfigError(
            "Serve's direct ingress opens a port at each replica, past the proxy",
            remedy="set RAY_SERVE_ENABLE_DIRECT_INGRESS=0 where Ray is started",
        )


def refuse_open() -> None:
    """Raise ConfigError if the Ray that this process is in demands no token. For a process in Ray; milliseconds."""
    import ray

    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    with contextlib.suppress(ChannelError):  # it demands one: whether the file has it is seen elsewhere
        probe(ray.get_runtime_context().gcs_address, str(token))


@contextlib.contextmanager
def joined(settings: RaySettings, *, cpus: int = 4) -> Iterator[None]:
    """Be in the gateway's Ray for the time of the block: the one at ``address``, or a small one of our own.

    Raises ConfigError, ChannelError.
    """
    refuse_proxy()
    with contextlib.ExitStack() as stack:
        if settings.address is None:
            stack.enter_context(_started(settings, cpus))
        else:
            stack.enter_context(_found(settings))
        yield


@contextlib.contextmanager
def _started(settings: RaySettings, cpus: int) -> Iterator[None]:
    base = tempfile.gettempdir()  # socket paths end at 107 bytes
    home = Path(tempfile.mkdtemp(prefix="mpc-gw-", dir=base if len(base) < 32 else "/tmp"))
    try:
        token = settings.token or home / "token"
        if settings.token is None:
            descriptor = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
        _authenticate(token)
        with _connected(
            address="local",
            num_cpus=max(cpus, os.cpu_count() or 1),  # bookkeeping: Serve's own actors want some
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(home / "ray"),
            namespace=settings.namespace,
        ):
            yield
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _found(settings: RaySettings) -> Iterator[None]:
    assert settings.address is not None
    host, _, port = settings.address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError("ray.address is not host:port", remedy="give host:port of the head node")
    token = settings.token or Path(os.environ.get("RAY_AUTH_TOKEN_PATH", ""))
    probe(settings.address, str(token))
    _authenticate(token)
    with _connected(address=settings.address, namespace=settings.namespace):
        yield


def _authenticate(token: Path) -> None:
    wanted = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        # No event of every request in the head's memory: 100,000 of them, texts of exceptions among them.
        "RAY_task_events_report_interval_ms": "0",
    }
    differs = "RAY_AUTH_TOKEN" in os.environ or any(os.environ.get(k) != v for k, v in wanted.items())
    if "ray" in sys.modules and differs:
        raise ConfigError(
            "Ray was imported before its token was named",
            remedy="let mpc-ray gateway be the first to import it",
        )
    os.environ |= wanted
    os.environ.pop("RAY_AUTH_TOKEN", None)  # Ray would take it in place of the token in the file


@contextlib.contextmanager
def _connected(**settings: Any) -> Iterator[None]:
    import ray

    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **settings)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ChannelError(
            f"could not join the gateway's Ray: {type(error).__name__}",
            remedy="check ray.address, ray.token and the versions of Ray at both ends",
        ) from None
    try:
        yield
    finally:
        ray.shutdown()
