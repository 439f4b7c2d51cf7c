"""What doctor looks at: one function a check, each with what it found and what to do about it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import resource
import shutil
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Status = Literal["ok", "warn", "fail"]
GIB = 1 << 30

# Distribution -> module. Versions are those of pyproject.toml and constraints.txt (a test compares them).
MODULES = {
    "cryptography": "cryptography",
    "fastapi": "fastapi",
    "httpx": "httpx",
    "limits": "limits",
    "numba": "numba",
    "numpy": "numpy",
    "opentelemetry-api": "opentelemetry",
    "opentelemetry-exporter-otlp-proto-http": "opentelemetry.exporter.otlp.proto.http",
    "opentelemetry-sdk": "opentelemetry.sdk",
    "prometheus-client": "prometheus_client",
    "psutil": "psutil",
    "pydantic": "pydantic",
    "pyyaml": "yaml",
    "ray": "ray",
    "rich": "rich",
    "safetensors": "safetensors",
    "tokenizers": "tokenizers",
    "torch": "torch",
    "typer": "typer",
    "uvicorn": "uvicorn",
}
LEAST = {
    "cryptography": "47",
    "fastapi": "0.115",
    "httpx": "0.27",
    "limits": "4",
    "numba": "0.60",
    "numpy": "1.26",
    "opentelemetry-api": "1.25",
    "opentelemetry-exporter-otlp-proto-http": "1.25",
    "opentelemetry-sdk": "1.25",
    "prometheus-client": "0.20",
    "psutil": "5.9",
    "pydantic": "2.7",
    "pyyaml": "6.0",
    "rich": "13",
    "safetensors": "0.4",
    "tokenizers": "0.19",
    "torch": "2.11",
    "typer": "0.12",
    "uvicorn": "0.30",
}
PINNED_RAY = "2.60.0"
TESTED_TORCH = "2.13.0"
INSTALL = "pip install -c constraints.txt -e '.[server,demo]'"


@dataclass(frozen=True)
class Check:
    """What a check found. ``remedy`` is empty when all is well."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


def python() -> Check:
    """Which one runs; what is older than 3.11 does not get here."""
    return Check("Python", "ok", f"{'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}")


def packages() -> list[Check]:
    """Every package that the library needs: there, new enough, the versions that were tested."""
    versions, missing, old = {}, [], []
    for name in MODULES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if _numbers(versions[name]) < _numbers(LEAST.get(name, "0")):
            old.append(f"{name} {versions[name]} (needs {LEAST[name]})")
    found = []
    if missing:
        found.append(Check("packages", "fail", f"missing: {', '.join(missing)}", INSTALL))
    if old:
        found.append(Check("packages", "fail", f"too old: {', '.join(old)}", INSTALL))
    if not found:
        listed = ", ".join(f"{n} {v}" for n, v in versions.items() if n not in ("torch", "ray"))
        found.append(Check("packages", "ok", listed))
    if "torch" in versions:
        found.append(_torch(versions["torch"]))
    if "ray" in versions:
        found.append(_ray(versions["ray"]))
    return found


def _torch(version: str) -> Check:
    if version.partition("+")[0] != TESTED_TORCH:
        return Check("torch", "warn", f"{version}; the tests ran with {TESTED_TORCH}", INSTALL)
    return Check("torch", "ok", version)


def _ray(version: str) -> Check:
    if version != PINNED_RAY:
        return Check("ray", "warn", f"{version}; the tests ran with {PINNED_RAY}", INSTALL)
    return Check("ray", "ok", version)


def imports() -> Check:
    """Packages with native code load."""
    for name in ("torch", "numba", "cryptography", "tokenizers", "safetensors"):
        try:
            importlib.import_module(name)
        except (ImportError, OSError) as error:
            cause = " ".join(str(error).split())[:200]
            return Check("imports", "fail", f"{name} does not load: {cause}", INSTALL)
    return Check("imports", "ok", "native packages load")


def cpu() -> Check:
    """Cores, and the body that ring products run with here."""
    from mpc_ray.kernels import ring

    cores = len(os.sched_getaffinity(0))
    body = ring.body()
    names = {"ifma": "AVX-512 IFMA", "mullq": "AVX-512 DQ", "torch": "torch's own, without AVX-512"}
    detail = f"{cores} cores; ring products: {names.get(body, body)}"
    if body == "torch":
        return Check(
            "CPU", "warn", detail, "it works, at about half the speed; choose a processor with AVX-512"
        )
    if cores < 2:
        return Check("CPU", "warn", detail, "three parties share one core; give it more")
    return Check("CPU", "ok", detail)


def gpu(device: str, remedy: str = "use --device cpu") -> Check:
    """A CUDA device, where the settings ask for one."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    detail = ", ".join(torch.cuda.get_device_name(i) for i in range(count)) or "none that PyTorch can use"
    if device == "cuda" and not count:
        return Check("GPU", "fail", f"{detail}, and the settings say device cuda", remedy)
    return Check("GPU", "ok", detail)


def memory() -> Check:
    """Free memory, or what the container leaves. MiniLM with three parties and Ray takes about 3 GiB."""
    import psutil

    free = int(psutil.virtual_memory().available)
    limit = Path("/sys/fs/cgroup/memory.max")
    used = Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (most := limit.read_text().strip()) != "max":
        free = min(free, int(most) - int(used.read_text()))
    detail = f"{free / GIB:.1f} GiB free"
    if free < 2 * GIB:
        return Check("memory", "fail", detail, "all-MiniLM-L6-v2 needs about 3 GiB for three parties here")
    if free < 4 * GIB:
        return Check("memory", "warn", detail, "enough for all-MiniLM-L6-v2 alone; larger models need more")
    return Check("memory", "ok", detail)


def disk() -> Check:
    """Room for Ray's session files and the calibration cache."""
    place = tempfile.gettempdir()
    usage = shutil.disk_usage(place)
    detail = f"{usage.free / GIB:.1f} GiB free in {place}"
    if usage.free < GIB // 4:
        return Check("disk", "fail", detail, "free some space, or set TMPDIR to a larger disk")
    if usage.free < 2 * GIB or usage.free < 0.05 * usage.total:
        return Check("disk", "warn", detail, "Ray complains from 95 % full on; free some space")
    return Check("disk", "ok", detail)


def shared_memory() -> Check:
    """/dev/shm, where Ray keeps its object store (nothing of ours goes in)."""
    place = Path("/dev/shm")
    if not place.is_dir() or not os.access(place, os.W_OK):
        return Check(
            "/dev/shm", "warn", "is not there or not writable", "mount a tmpfs there; Ray is slow without"
        )
    free = shutil.disk_usage(place).free
    detail = f"{free / (1 << 20):,.0f} MiB free"
    if free < 100 << 20:
        return Check("/dev/shm", "warn", detail, "give it 100 MiB (docker run --shm-size=256m)")
    return Check("/dev/shm", "ok", detail)


def loopback() -> Check:
    """A port of the loopback can be bound and reached, as parties do."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port), timeout=2):
                server.settimeout(2)
                server.accept()[0].close()
    except OSError as error:
        remedy = "let local connections through the firewall, or free some ports"
        return Check("ports", "fail", f"the loopback refuses: {error.strerror or error}", remedy)
    return Check("ports", "ok", "the loopback takes connections on a free port")


def files() -> Check:
    """Open files: sockets, and Ray's many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < 1024:
        return Check("open files", "warn", f"at most {soft}", "ulimit -n 4096, or Ray may run out of them")
    return Check("open files", "ok", f"at most {soft} ({hard} if raised)")


def tls() -> Check:
    """TLS 1.3, which is all that the parties speak."""
    if not ssl.HAS_TLSv1_3:
        return Check(
            "TLS", "fail", f"{ssl.OPENSSL_VERSION} has no TLS 1.3", "use a Python with OpenSSL 1.1.1 or newer"
        )
    return Check("TLS", "ok", f"1.3, {ssl.OPENSSL_VERSION}")


def clock() -> Check:
    """Certificates are valid from now on, so the clock must not lie in the past."""
    now = time.time()
    installed = Path(__file__).stat().st_mtime
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < installed - 24 * 3600:
        return Check(
            "clock",
            "fail",
            f"{shown} is before this program was written here",
            "set the clock (ntpd, chrony)",
        )
    return Check("clock", "ok", shown)


def model(name: str) -> list[Check]:
    """The model is there and fits, and whether its calibration is stored."""
    from mpc_ray.errors import ModelError
    from mpc_ray.model import model_folder
    from mpc_ray.models.calibrate import BESIDE, default_cache
    from mpc_ray.models.load import load_bert

    try:
        bert = load_bert(model_folder(name))
    except ModelError as error:
        return [Check("model", "warn", error.cause, error.remedy)]
    c = bert.config
    shape = f"{c.layers} layers, {c.hidden} wide, {c.heads} heads"
    found = [Check("model", "ok", f"{name}: {shape}; weights secret unless --public-weights is given")]
    cache = default_cache()
    stored = [bert.folder / BESIDE] if bert.folder is not None and (bert.folder / BESIDE).exists() else []
    stored += sorted(cache.glob(f"{bert.digest}-*.json"))
    if stored:
        found.append(Check("calibration", "ok", f"stored in {stored[0].parent}"))
    elif not any(os.access(place, os.W_OK) for place in (_existing(cache), bert.folder or cache)):
        remedy = "make it writable, or set XDG_CACHE_HOME"
        found.append(Check("calibration", "fail", f"none stored, and {cache} is not writable", remedy))
    else:
        found.append(Check("calibration", "ok", "none stored: the first run computes it (a minute or so)"))
    return found


def settings(load: Callable[[], object]) -> Check:
    """The configuration file and the environment make sense."""
    from mpc_ray.errors import ConfigError

    try:
        load()
    except ConfigError as error:
        return Check("settings", "fail", error.cause, error.remedy)
    return Check("settings", "ok", "the file, if any, and MPC_* in the environment are understood")


def ray_starts(start: Callable[[], str]) -> Check:
    """Three parties start on Ray, as the demo does it."""
    from mpc_ray.errors import MpcError

    began = time.monotonic()
    try:
        trust = start()
    except MpcError as error:
        return Check("Ray", "fail", error.cause, error.remedy or "see Ray's logs in its temporary folder")
    return Check("Ray", "ok", f"started in {time.monotonic() - began:.1f} s; {trust}")


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: 2.13.0+cpu is (2, 13, 0)."""
    numbers = []
    for part in version.partition("+")[0].split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)
