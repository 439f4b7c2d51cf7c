"""Three party endpoints as their operators run them, in three processes; how a gateway and a client see them.

    with three_endpoints(tmp_path, host="process") as three:
        link = three.link("eu", 0)
        ask(link, Message({"cmd": "status"}), 5.0)

``three.job(...)`` is what a client makes: it shares, authorises, signs and seals, and reads the answers.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from operators import (  # type: ignore[import-not-found]
    FederationFolders,
    free_ports,
    make_federation,
    share_tiny,
)

from mpc_ray.channel import Link, Message, pack, unpack
from mpc_ray.client.bundle import Bundle
from mpc_ray.client.share import Batch, prepare, vectors
from mpc_ray.endpoint.dial import ask, dial_endpoint
from mpc_ray.models.weights import BertModel
from mpc_ray.trust.answer import new_reply_key, open_answer
from mpc_ray.trust.authorisation import Authorisation, SigningKey, input_digest, seal_envelopes
from mpc_ray.trust.folder import open_folder
from mpc_ray.trust.records import PartyRecord
from mpc_ray.trust.secret import Secret

READY_S = 90.0
PROGRAM = [sys.executable, "-P", "-m", "mpc_ray.cli.main"]


@dataclass
class Job:
    """One job as a client made it: what it sends, and how it reads what comes back."""

    authorisation: Authorisation
    signature: bytes
    envelopes: tuple[bytes, bytes, bytes]
    batch: Batch
    bundle: Bundle
    reply_keys: tuple[Secret, ...] = field(repr=False)

    @property
    def id(self) -> str:
        return self.authorisation.job

    def submit(self, party: int, **changes: Any) -> Message:
        """The command that hands party ``party`` its envelope."""
        header: dict[str, Any] = {
            "cmd": "submit",
            "authorisation": self.authorisation.to_json(),
            "signature": base64.b64encode(self.signature).decode(),
        }
        return Message(header | changes, {"envelope": np.frombuffer(self.envelopes[party], np.uint8)})

    def read(self, sealed: Sequence[bytes]) -> Any:
        """The embeddings in three sealed answers."""
        digest = self.authorisation.digest()
        opened = [
            unpack(open_answer(data, key, digest, i), 1 << 28)
            for i, (data, key) in enumerate(zip(sealed, self.reply_keys, strict=True))
        ]
        return vectors(self.bundle, self.batch, opened)


class Three:
    """Three endpoints of each set, in processes of their own."""

    def __init__(
        self,
        root: Path,
        federation: FederationFolders,
        ports: Mapping[tuple[str, int], tuple[int, int, int]],
        settings: Mapping[str, Any],
        bert: BertModel | None,
        bundle: Path | None,
    ) -> None:
        self.root = root
        self.federation = federation
        self.bert = bert
        self.bundle = bundle  # type: ignore[assignment]
        self._ports, self._settings = ports, settings
        self._processes: dict[tuple[str, int], subprocess.Popen[bytes]] = {}
        self._links: list[Link] = []

    # -- what is there ---

    @property
    def folders(self) -> Mapping[str, tuple[Path, Path, Path]]:
        return self.federation.folders

    @property
    def gateway(self) -> Path:
        return self.federation.gateway

    @property
    def client_key(self) -> SigningKey:
        return self.federation.client_key

    @property
    def directory(self) -> Path:
        return self.federation.directory

    def records(self, set_name: str = "eu") -> tuple[PartyRecord, PartyRecord, PartyRecord]:
        return self.federation.known.parties(set_name)

    # -- processes ---

    def config(self, set_name: str, index: int, **changes: Any) -> Path:
        """The settings of one party as a file."""
        peer, gateway, _ = self._ports[set_name, index]
        values: dict[str, Any] = {
            "folder": str(self.folders[set_name][index]),
            "peer": {"host": "127.0.0.1", "port": peer},
            "gateway": {"host": "127.0.0.1", "port": gateway},
            "metrics_port": self.metrics_port(set_name, index),
            "trace_file": str(self.trace_file),
        }
        path = self.root / f"{set_name}-{index}.yaml"
        path.write_text(yaml.safe_dump(values | dict(self._settings) | changes))
        return path

    def start(self, set_name: str, index: int, **changes: Any) -> None:
        """Start one endpoint; returns at once."""
        ready = self._ready_file(set_name, index)
        ready.unlink(missing_ok=True)
        words = [*PROGRAM, "party", "--config", str(self.config(set_name, index, **changes))]
        with self.log(set_name, index).open("ab") as log:
            self._processes[set_name, index] = subprocess.Popen(
                [*words, "--ready-file", str(ready), "--json"],
                cwd=self.root,
                env=environ(self.root),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self, timeout_s: float = READY_S) -> float:
        """Seconds until all that were started are ready."""
        began = time.monotonic()
        for set_name, index in self._processes:
            self.wait_for(set_name, index, timeout_s - (time.monotonic() - began))
        return time.monotonic() - began

    def wait_for(self, set_name: str, index: int, timeout_s: float = READY_S) -> None:
        process = self._processes[set_name, index]

        def ready() -> bool:
            assert process.poll() is None, f"{set_name}/{index} ended: {self.tail(set_name, index)}"
            return self._ready_file(set_name, index).exists()

        assert wait_until(ready, timeout_s), f"{set_name}/{index} is not ready: {self.tail(set_name, index)}"

    def metrics_port(self, set_name: str, index: int) -> int:
        return self._ports[set_name, index][2]

    @property
    def trace_file(self) -> Path:
        """Where all endpoints write their spans."""
        return self.root / "spans.jsonl"

    def pid(self, set_name: str, index: int) -> int:
        return self._processes[set_name, index].pid

    def kill(self, set_name: str, index: int, how: int = signal.SIGKILL) -> int:
        """End one front and wait for it; its exit code."""
        process = self._processes.pop((set_name, index))
        process.send_signal(how)
        return process.wait(20)

    def log(self, set_name: str, index: int) -> Path:
        return self.root / f"{set_name}-{index}.log"

    def tail(self, set_name: str, index: int) -> str:
        return "\n".join(self.log(set_name, index).read_text(errors="replace").splitlines()[-15:])

    def processes(self) -> list[psutil.Process]:
        """All that runs for these endpoints, whoever started it."""
        return processes_of(self.root)

    def slot_pids(self, set_name: str, index: int) -> list[int]:
        """The processes of one endpoint that are slots (under ``process``)."""
        front = psutil.Process(self.pid(set_name, index))
        return [
            p.pid for p in front.children(recursive=True) if "mpc_ray.endpoint.slot" in " ".join(_cmdline(p))
        ]

    def close(self) -> None:
        for link in self._links:
            link.close()
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        for left in self.processes():
            with contextlib.suppress(psutil.Error):
                left.kill()

    # -- as the gateway and its clients ---

    def link(self, set_name: str, index: int, timeout: float = 10.0, gateway: str = "gw") -> Link:
        """A new link as the gateway, or as another one (``gw2``)."""
        known = self.federation.known
        record = known.parties(set_name)[index]
        identity = open_folder(self.gateway.with_name(gateway)).identity
        link = dial_endpoint(record, identity, federation=known.federation, timeout=timeout)
        self._links.append(link)
        return link

    def links(self, set_name: str = "eu") -> list[Link]:
        return [self.link(set_name, index) for index in range(3)]

    def status(self, set_name: str, index: int) -> dict[str, Any]:
        link = self.link(set_name, index)
        try:
            return dict(ask(link, Message({"cmd": "status"}), 5.0).header)
        finally:
            link.close()

    def job(self, texts: Sequence[str] = ("hello world",), set_name: str = "eu", **changes: Any) -> Job:
        """A job of the enrolled client for ``texts``, which must fit one batch."""
        assert self.bundle is not None
        bundle = Bundle.load(self.bundle)
        (batch,) = prepare(bundle, list(texts))
        keys = tuple(new_reply_key() for _ in range(3))
        contents = [
            pack(Message({"v": 1, "reply_key": key.reveal().hex(), **parcel.header}, dict(parcel.tensors)))
            for key, parcel in zip(keys, batch.deal(), strict=True)
        ]
        return self.authorised(contents, bundle, batch, keys, set_name, **changes)

    def authorised(
        self,
        contents: Sequence[bytes],
        bundle: Bundle,
        given: Batch,
        keys: tuple[Secret, ...],
        set_name: str = "eu",
        signer: SigningKey | None = None,
        **changes: Any,
    ) -> Job:
        """The same for given envelope contents; ``changes`` are fields of the authorisation."""
        signer = signer or self.client_key
        now = time.time_ns() // 1_000_000
        fields: dict[str, Any] = {
            "job": os.urandom(16).hex(),
            "federation": self.federation.known.federation,
            "set": set_name,
            "client": signer.id,
            "model": bundle.name,
            "model_digest": bundle.model_digest,
            "protocol": "semi_honest_3pc",
            "batch": given.size,
            "length": given.length,
            "output": "embedding",
            "range_check": True,
            "purpose": "search",
            "jurisdictions": (),
            "retention": "job",
            "issued_ms": now,
            "expires_ms": now + 30_000,
            "inputs": tuple(map(input_digest, contents)),
        }
        authorisation = Authorisation(**(fields | changes))
        envelopes = seal_envelopes(authorisation, contents, [r.key() for r in self.records(set_name)])
        return Job(authorisation, signer.sign(authorisation), envelopes, given, bundle, keys)

    def _ready_file(self, set_name: str, index: int) -> Path:
        return self.root / f"{set_name}-{index}.ready"


def at_all(links: Sequence[Link], make: Callable[[int], Message], timeout_s: float = 30.0) -> list[Any]:
    """One command at each party at once; each one's answer, or the error that it raised."""
    found: list[Any] = [None] * len(links)

    def one(index: int) -> None:
        try:
            found[index] = ask(links[index], make(index), timeout_s)
        except Exception as error:  # noqa: BLE001 - judged by the test
            found[index] = error

    threads = [threading.Thread(target=one, args=(index,)) for index in range(len(links))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def agreed(outcomes: Sequence[Any]) -> list[Message]:
    """The answers, where no party refused."""
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return list(outcomes)


def open_triple(links: Sequence[Link], models: Sequence[str] = ("tiny",), timeout_s: float = 20.0) -> str:
    """A triple over these links; its id."""
    triple = os.urandom(16).hex()
    header: dict[str, Any] = {"cmd": "open", "triple": triple, "models": list(models), "timeout_s": timeout_s}
    agreed(at_all(links, lambda i: Message(dict(header)), timeout_s + 5))
    return triple


def run(links: Sequence[Link], triple: str, jobs: Sequence[Job], attempt: int = 0) -> list[Any]:
    """Run held jobs; each party's answer or error."""
    header: dict[str, Any] = {
        "cmd": "run",
        "triple": triple,
        "jobs": [job.id for job in jobs],
        "attempt": attempt,
    }
    return at_all(links, lambda i: Message(dict(header)))


def sealed(answers: Sequence[Message], job: Job) -> list[bytes]:
    """A job's three sealed answers."""
    return [answer.tensors[f"answer {job.id}"].tobytes() for answer in answers]


def wait_until(holds: Callable[[], bool], timeout_s: float, every_s: float = 0.05) -> bool:
    """Whether ``holds()`` within ``timeout_s``."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(every_s)
    return holds()


def environ(root: Path) -> dict[str, str]:
    """What an endpoint's process has in its environment; TMPDIR keeps what it writes within ``root``."""
    tmp = root / "t"
    tmp.mkdir(exist_ok=True)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return clean | {"TMPDIR": str(tmp), "MPC_TEST_WORLD": str(root), "RAY_USAGE_STATS_ENABLED": "0"}


def processes_of(root: Path) -> list[psutil.Process]:
    """Processes that were started, directly or not, by those whose environment names ``root``."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("MPC_TEST_WORLD") == str(root) and process.status() != "zombie":
                found.append(process)
    return found


@contextlib.contextmanager
def three_endpoints(
    tmp_path: Path,
    *,
    host: str = "process",
    sets: Sequence[str] = ("eu",),
    slots: int = 1,
    model: bool = True,
    start: bool = True,
    **settings: Any,
) -> Iterator[Three]:
    """A federation in a short folder below ``tmp_path``'s system folder, and its endpoints, ready."""
    del tmp_path  # pytest's folders are longer than the path of a Unix socket may be
    root = Path(tempfile.mkdtemp(prefix="ep-", dir="/tmp"))
    ports = free_ports(sets)
    federation = make_federation(root, sets, ports)
    bert, bundle = share_tiny(root, federation) if model else (None, None)
    three = Three(root, federation, ports, {"host": host, "slots": slots, **settings}, bert, bundle)
    try:
        if start:
            for set_name in sets:
                for index in range(3):
                    three.start(set_name, index)
            three.wait()
        yield three
    finally:
        three.close()
        shutil.rmtree(root, ignore_errors=True)


def events(path: Path) -> list[dict[str, Any]]:
    """The JSON objects among the lines of a log."""
    found = []
    for line in path.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
