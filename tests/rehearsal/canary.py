"""A canary text goes through the whole system; then it is looked for everywhere that is not the client's.

Every kind of place is also given a canary of its own on purpose (a *control*): a search that cannot find that one
proves nothing. The controls go into a Ray of the control's own, of the same kind as the parties'.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from search import (
    Capture,
    Found,
    byte_needles,
    id_needles,
    in_bytes,
    in_files,
    in_process,
    number_needles,
    text_needles,
)

CANARY = "The heron kestrel 7f3a91c4 ate seventeen violet umbrellas near Ouagadougou"
Needles = Mapping[str, Sequence[bytes]]

# Run in a Ray of its own: prints, raises, puts, spills and keeps the canary, then waits to be searched.
CONTROL = """
import os, sys, time
import ray
canary, home = sys.argv[1].encode(), sys.argv[2]
token = home + "/token"
with open(token, "w") as file:
    file.write(os.urandom(32).hex())
ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=78 << 20, _temp_dir=home + "/ray",
         log_to_driver=False, logging_level="ERROR")
@ray.remote(max_retries=0)
def leak(words):
    print("printed", words.decode(), flush=True)
    raise ValueError("raised " + words.decode())
try:
    ray.get(leak.remote(canary))
except ray.exceptions.RayTaskError:
    pass
kept = [ray.put(canary * 2 + os.urandom(1 << 20))]
full = [ray.put(canary * 2 + bytes(30 << 20)) for _ in range(5)]
time.sleep(3)
print("ready", flush=True)
sys.stdin.read()
"""


@dataclass
class Outcome:
    """``found``: where the canary was and must not be. ``blind``: controls that the search did not find."""

    places: int = 0
    bytes_of_memory: int = 0
    packets: int = 0
    found: list[Found] = field(default_factory=list)
    blind: list[str] = field(default_factory=list)


def needles(
    text: str,
    ids: Sequence[int],
    embedding: np.ndarray,
    weights: np.ndarray,
    shares: Sequence[tuple[str, bytes]],
) -> dict[str, list[bytes]]:
    """Everything that would betray this one question, its answer, the model, or a share of them."""
    found = text_needles("text", text) | id_needles("token ids", ids) | number_needles("embedding", embedding)
    found |= number_needles("weights", weights)
    for name, raw in shares:
        found |= byte_needles(name, raw)
    return found


def raw(wanted: Needles) -> dict[str, list[bytes]]:
    """The first two forms of each secret, which are how a program itself holds it: for gigabytes of memory."""
    return {secret: list(group[:2]) for secret, group in wanted.items()}


def controls(home: Path, canary: str) -> list[str]:
    """Which kinds of place the search is blind in; empty when each control was found in its place."""
    blind = []
    wanted = text_needles("control", canary)
    home.mkdir(parents=True)
    (home / "ray").mkdir()
    environ = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(home / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", CONTROL, canary, str(home)],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdout is not None and child.stdin is not None
    try:
        if not any(line == b"ready\n" for line in child.stdout):  # until it is ready, or has ended
            return ["the control's own Ray did not start"]
        files = in_files([home], wanted)
        kinds = {
            "worker log": any("/logs/" in f.place and "worker" in f.place for f in files),
            "spill file": any("spilled" in f.place for f in files),
        }
        store, head = False, False
        for process in [p for p in psutil.process_iter() if _mentions(p, str(home))]:
            for hit in in_process(process, wanted):
                store |= "plasma" in hit.place
                head |= "gcs_server" in hit.place and hit.place.startswith("memory")
        kinds |= {"object store (unlinked)": store, "task events in the head's memory": head}
        blind += [kind for kind, seen in kinds.items() if not seen]
    finally:
        child.stdin.close()
        child.wait(30)
    return blind


def packet_control(path: Path, canary: str) -> bool:
    """Whether a canary sent in the clear over the loopback is found in the capture."""
    capture = Capture(path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname())
        receiver, _ = server.accept()
        sender.sendall(canary.encode())
        receiver.recv(1 << 16)
        sender.close()
        receiver.close()
    threading.Event().wait(0.5)
    capture.close()
    seen = bool(in_bytes([path.read_bytes()], text_needles("control", canary)))
    path.unlink()
    return seen


def search(
    wanted: Needles,
    roots: Sequence[Path],
    processes: Sequence[psutil.Process],
    capture: Path,
    leave_out: Sequence[Path],
) -> Outcome:
    """All files, all memory of the servers, all packets."""
    outcome = Outcome()
    outcome.found += in_files(roots, wanted, [*leave_out, capture])
    for process in processes:
        try:
            outcome.bytes_of_memory += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
        outcome.found += in_process(process, wanted)
        outcome.places += 1
    outcome.found += [Found(secret, "captured packets") for secret in in_bytes(_chunks(capture), wanted)]
    return outcome


def _chunks(path: Path):  # type: ignore[no-untyped-def]
    with path.open("rb") as file:
        while chunk := file.read(8 << 20):
            yield chunk


def _mentions(process: psutil.Process, word: str) -> bool:
    try:
        return word in " ".join(process.cmdline())
    except psutil.Error:
        return False


def summary(found: Sequence[Found]) -> str:
    return json.dumps(sorted({f"{f.secret}: {f.place}" for f in found})[:20], indent=1)
