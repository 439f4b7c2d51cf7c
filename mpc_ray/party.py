"""One party of a triple as a server: the same program under threads, processes and Ray.

It is told three things by its launcher, in this order, each a JSON object that is answered by one (control
only):

    open     settings               it makes its private key, which never leaves it, and answers a
    certificate request listen   its certificate        it listens on one port, and answers the address
    connect  addresses of all three it connects to both peers, makes its Executor (which agrees on seeds),
    and waits for its client

Then it answers its client (``commands.py``) over that client's own link, until the client leaves or the
process is told to end. A detached party outlives its client; the next one begins again at ``open``, with new
keys and new seeds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpc_ray.channel import Link, Listener
from mpc_ray.commands import Party, executor_of, failure
from mpc_ray.errors import ChannelError, ConfigError, PeerLost
from mpc_ray.party_settings import PartySettings, check_device, prepare_process
from mpc_ray.trust.certs import install, make_request

CLIENT_S = 60.0  # how long a connected party waits for its client to dial
LEAVING_S = 2.0  # how long a detached party may take to notice that its client left


class PartyServer:
    """Hosts one party. ``ask`` is its control line; ``ended`` is set when the party has nothing more to do."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self._settings = PartySettings(me=0)
        self._folder: Path | None = None
        self._listener: Listener | None = None
        self._party: Party | None = None
        self._link: Link | None = None
        self._thread: threading.Thread | None = None
        self._control = threading.Lock()

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Answer one control request; a failure is an answer too (``failure``), never an exception."""
        try:
            with self._control:
                match request["do"]:
                    case "open":
                        return self._open(PartySettings.from_json(request["settings"]))
                    case "listen":
                        return self._listen(str(request["certificate"]), str(request["authority"]))
                    case "connect":
                        return self._connect(request["addresses"], timeout_s)
                raise ConfigError(f"unknown request {request['do']!r}", remedy="use one version everywhere")
        except Exception as error:  # noqa: BLE001 - the boundary of the party's program
            return failure(error, debug=self._settings.debug)

    def stop(self) -> None:
        """End at once, whatever the party is doing: peers and client see EOF."""
        if self._party is not None:
            self._party.fail(PeerLost("client", "ended the session"))
        for open_end in (self._link, self._listener):
            if open_end is not None:
                open_end.close()
        self._forget_key()

    def join(self) -> None:
        """Wait for the thread that serves, after ``stop``: a process that hosts parties must not end under it."""
        if self._thread is not None:
            self._thread.join(LEAVING_S)

    def _open(self, settings: PartySettings) -> dict[str, Any]:
        if self._thread is not None:
            self._thread.join(LEAVING_S)  # a client that just left
        if self._thread is not None and self._thread.is_alive():
            raise ChannelError(
                f"party {settings.me} serves another client",
                remedy="close that session, or choose another name",
            )
        self.stop()
        self._party = self._listener = self._link = None
        self._settings = settings
        check_device(settings.device)
        executor_of(settings)  # imports it, which may take seconds: all three at once
        prepare_process(settings)
        self._folder = Path(tempfile.mkdtemp(prefix="mpc-ray-key-"))
        return {"request": make_request(self._folder, f"party-{settings.me}").decode()}

    def _listen(self, certificate: str, authority: str) -> dict[str, Any]:
        if self._folder is None:
            raise ConfigError("listen before open", remedy="use one version everywhere")
        name = f"party-{self._settings.me}"
        identity = install(self._folder, name, certificate.encode(), authority.encode())
        self._listener = Listener(self._settings.me, identity, self._settings.host, self._settings.port)
        self._forget_key()  # it is in memory now
        host, port = self._listener.address
        return {"host": host, "port": port}

    def _connect(self, addresses: Any, timeout_s: float) -> dict[str, Any]:
        if self._listener is None:
            raise ConfigError("connect before listen", remedy="use one version everywhere")
        settings = self._settings
        channel = self._listener.channel(
            [(str(host), int(port)) for host, port in addresses],
            settings.hello,
            timeout_s,
            step_timeout=settings.step_timeout_s,
        )
        try:
            party = self._party = Party(settings, channel)
        except BaseException as error:
            channel.fail(error)
            raise
        self._thread = threading.Thread(
            target=self._serve, args=(party, self._listener), name=f"party-{settings.me}", daemon=True
        )
        self._thread.start()
        return {"ready": True}

    def _serve(self, party: Party, listener: Listener) -> None:
        """Wait for the client, answer it until it leaves, and end."""
        try:
            self._link = listener.accept_client(
                self._settings.hello, CLIENT_S, max_bytes=self._settings.max_message_bytes
            )
            listener.close()  # nobody else is to come
            party.serve(self._link)
        except ChannelError as error:  # no client came, or not the right one
            logging.getLogger("mpc_ray.party").error("%s", error)
        finally:
            party.close()
            if self._link is not None:
                self._link.close()
            if not self._settings.detached:
                self.ended.set()

    def _forget_key(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None


def main() -> None:
    """A party as a process of its own: one JSON request a line on stdin, one answer a line on stdout.

    End of stdin means that the launcher is gone: the process then ends at once, whatever it does.
    """
    parser = argparse.ArgumentParser(prog="mpc_ray.party", description="one party; started by a launcher")
    parser.add_argument("--index", type=int, choices=(0, 1, 2), required=True)
    index = parser.parse_args().index
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s party {index} %(levelname)s %(message)s")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever prints goes to the log, not among the answers
    server = PartyServer()

    def leave_when_told() -> None:
        server.ended.wait()
        os._exit(0)

    threading.Thread(target=leave_when_told, daemon=True).start()
    with contextlib.suppress(BrokenPipeError):
        for line in sys.stdin:
            request = json.loads(line)
            answers.write(json.dumps(server.ask(request, float(request["timeout_s"]))) + "\n")
            answers.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
