"""Starting and ending three parties: threads, processes, or (launch_ray.py) Ray actors.

A launcher carries control only: addresses and certificates. Each party makes its own key and keeps it; the
client makes a throw-away authority for each triple, signs the parties' public keys, and dials each party
over mutual TLS. Shares travel on those links and never through a launcher.

A *triple* is never repaired. ``Triple.close`` ends all three parties at once; the next one has new keys and
new seeds.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from mpc_ray.all_three import all_three
from mpc_ray.channel import Link, dial_party, local_channels, local_link
from mpc_ray.commands import Party, error_of, executor_of
from mpc_ray.errors import PeerLost
from mpc_ray.party import PartyServer
from mpc_ray.party_settings import PartySettings, check_device, prepare_process
from mpc_ray.trust.certs import SessionAuthority, install, make_request

LEAVING_S = 1.0  # how long a party's thread may take to notice that the session is over


class Control(Protocol):
    """The control line to one party: one JSON object there, one back. Addresses and certificates, never shares."""

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]: ...


@dataclass
class Triple:
    """Three running parties and the client's links to them.

    ``close`` ends the parties whatever they do; ``leave`` lets go of a healthy triple, which ends it too
    unless it is detached. Both may be repeated.
    """

    links: tuple[Link, Link, Link]
    end: Callable[[], None]
    part: Callable[[], None] | None = None
    _over: bool = field(default=False, repr=False)

    def close(self) -> None:
        self._finish(self.end)

    def leave(self) -> None:
        self._finish(self.part or self.end)

    def _finish(self, how: Callable[[], None]) -> None:
        if self._over:
            return
        self._over = True
        for link in self.links:
            link.close()
        how()


class Launcher(Protocol):
    """Starts triples. ``start`` raises DeviceError, PlacementError or PeerLost within ``timeout_s``: it
    never hangs.

    ``trust`` says in one line where the parties of the last triple run, and who could put their shares together.
    """

    trust: str

    def start(self, settings: PartySettings, timeout_s: float) -> Triple: ...

    def close(self) -> None: ...


def introduce(
    controls: Sequence[Control], settings: PartySettings, timeout_s: float
) -> tuple[Link, Link, Link]:
    """Make three started parties known to one another and dial them: certificates, channels, links.

    A throw-away authority, which exists only in this call, signs the parties' three requests and the
    client's. Raises what the party to blame said, or PeerLost, within about ``timeout_s`` in all.
    """
    end = time.monotonic() + timeout_s

    def ask_all(doing: str, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        left = max(0.1, end - time.monotonic())

        def ask(party: int) -> dict[str, Any]:
            answer = controls[party].ask(requests[party], left)
            if "error" in answer:
                raise error_of(party, answer)
            return answer

        return all_three([partial(ask, party) for party in range(3)], left, doing)

    authority = SessionAuthority()
    opened = ask_all(
        "starting", [{"do": "open", "settings": replace(settings, me=i).to_json()} for i in range(3)]
    )
    signed = [
        authority.sign(str(answer["request"]).encode(), f"party-{i}") for i, answer in enumerate(opened)
    ]
    root = authority.certificate.decode()
    heard = ask_all(
        "opening ports", [{"do": "listen", "certificate": c.decode(), "authority": root} for c in signed]
    )
    addresses = [(str(answer["host"]), int(answer["port"])) for answer in heard]
    ask_all("connecting", [{"do": "connect", "addresses": addresses}] * 3)
    with tempfile.TemporaryDirectory(prefix="mpc-ray-key-") as folder:
        request = make_request(Path(folder), "client")
        me = install(Path(folder), "client", authority.sign(request, "client"), authority.certificate)
        left = max(0.1, end - time.monotonic())
        dials = [
            partial(
                dial_party,
                i,
                addresses[i],
                me,
                settings.hello,
                timeout=left,
                max_bytes=settings.max_message_bytes,
            )
            for i in range(3)
        ]
        a, b, c = all_three(dials, left + 1, "dialling")
    return a, b, c


def triple_of(
    controls: Sequence[Control], settings: PartySettings, timeout_s: float, ends: Sequence[Callable[[], None]]
) -> Triple:
    """``introduce`` started parties; ``ends`` end them, also when the introduction fails."""
    try:
        return Triple(introduce(controls, settings, timeout_s), partial(_each, ends))
    except BaseException:
        _each(ends)
        raise


def _each(calls: Sequence[Callable[[], None]]) -> None:
    for call in calls:
        call()


class ThreadsLauncher:
    """Three parties as threads of this process: for tests. One process holds all shares, so it protects
    nothing.

    Without ``tls`` frames go through queues in memory; with it through sockets on the loopback, as in
    earnest.
    """

    def __init__(self, *, tls: bool = False) -> None:
        self.tls = tls
        self.trust = "three threads of one process, which holds all shares: for tests only"

    def start(self, settings: PartySettings, timeout_s: float) -> Triple:
        check_device(settings.device)
        executor_of(settings)
        prepare_process(settings)
        if self.tls:
            servers = [PartyServer() for _ in range(3)]
            ends = [*(server.stop for server in servers), *(server.join for server in servers)]
            return triple_of(servers, settings, timeout_s, ends)
        channels = local_channels(settings.step_timeout_s, bytes.fromhex(settings.session))
        makes = [partial(Party, replace(settings, me=i), channel) for i, channel in enumerate(channels)]
        parties = all_three(makes, timeout_s, "starting")
        pairs = [local_link(i, max_bytes=settings.max_message_bytes) for i in range(3)]
        threads = [
            threading.Thread(
                target=_serve, args=(party, theirs), name=f"party-{party.settings.me}", daemon=True
            )
            for party, (_, theirs) in zip(parties, pairs, strict=True)
        ]
        lost = PeerLost("client", "ended the session")
        ends = [partial(channel.fail, lost) for channel in channels]
        joins = [partial(thread.join, LEAVING_S) for thread in threads]
        for thread in threads:
            thread.start()
        return Triple((pairs[0][0], pairs[1][0], pairs[2][0]), partial(_each, [*ends, *joins]))

    def close(self) -> None:
        """Nothing outlives a triple."""


def _serve(party: Party, link: Link) -> None:
    party.serve(link)
    party.close()
    link.close()


class ProcessesLauncher:
    """Three parties as processes of this machine, without Ray. They end when this process does, however it
    ends.

    Control goes through a pipe to each; a party that reads its end exits. Logs go to ``party-N.log`` in
    ``logs``, or to a private temporary folder that is removed with the launcher, at the latest when this
    interpreter exits.
    """

    def __init__(self, *, logs: str | os.PathLike[str] | None = None) -> None:
        self.trust = (
            "three processes of one machine: whoever controls it can read all shares; for development only"
        )
        self._logs = Path(tempfile.mkdtemp(prefix="mpc-ray-") if logs is None else logs)
        self._clean: Callable[[], object] = lambda: None
        if logs is None:
            self._clean = weakref.finalize(self, shutil.rmtree, self._logs, ignore_errors=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        self._children: list[_Child] = []

    @property
    def pids(self) -> list[int]:
        """Process ids of the parties of the last triple, by party."""
        return [child.process.pid for child in self._children]

    def start(self, settings: PartySettings, timeout_s: float) -> Triple:
        self._children = children = [_Child(i, settings.threads, self._logs) for i in range(3)]

        return triple_of(children, settings, timeout_s, [child.kill for child in children])

    def close(self) -> None:
        for child in self._children:
            child.kill()
        self._clean()


class _Child:
    """One party's process and the control line to it: a JSON object a line, over its stdin and stdout."""

    def __init__(self, party: int, threads: int, logs: Path) -> None:
        self.party = party
        one = {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
        with (logs / f"party-{party}.log").open("ab") as log:
            self.process = (
                subprocess.Popen(  # -P: the working directory's modules do not shadow installed ones
                    [sys.executable, "-P", "-m", "mpc_ray.party", "--index", str(party)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=os.environ | one,
                )
            )
        self._log = logs / f"party-{party}.log"

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """The party's answer. Raises PeerLost when its process ends; the caller keeps the deadline and kills it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({**request, "timeout_s": timeout_s}).encode() + b"\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:
            line = b""
        if not line:
            code = self.process.wait()
            raise PeerLost(
                f"party {self.party}",
                f"its process ended with code {code}",
                remedy=f"see the end of {self._log}",
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # an unsent request: nobody is there to read it
                    pipe.close()
