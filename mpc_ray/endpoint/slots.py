"""The front's side of its slots: which are there, which triple each works for, and what becomes of a lost one.

A slot dials the front's socket (in a folder that is ours alone) under the random name that its host was given. Its
death is seen by the kernel closing that connection, in milliseconds, whatever Ray knows.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mpc_ray.channel import Link, Message
from mpc_ray.channel.sockets import Packets, packet_listener, pair, socket_link
from mpc_ray.commands import error_of
from mpc_ray.endpoint.said import coded, unbroken
from mpc_ray.errors import BadFrame, ChannelError, PeerLost, Unavailable

log = logging.getLogger("mpc_ray.endpoint.slots")

INTRODUCTION_S = 5.0
Lost = Callable[[str], None]


class Slot:
    """One slot. ``ask`` takes one command at a time; ``packet`` never waits for it."""

    def __init__(self, me: int, name: str, control: Packets, link: Link) -> None:
        self.me = me
        self.name = name
        self.pid = control.peer()[0]
        self.triple: bytes | None = None
        self.lost = False
        self._control = control
        self._link = link
        self._busy = threading.Lock()

    def ask(self, message: Message, timeout_s: float | None) -> Message:
        """The slot's answer. Raises the error it says, ``PeerLost`` when it died or is silent for ``timeout_s``."""
        with self._busy:
            self.tell(message)
            return self.hear(timeout_s)

    def tell(self, message: Message) -> None:
        """The first half of ``ask``, for what need not stay in memory while the slot works; for who has the slot."""
        try:
            self._link.send(message)
        except ChannelError as error:
            raise self._left(error) from None

    def hear(self, timeout_s: float | None) -> Message:
        """The second half."""
        try:
            answer = self._link.receive(timeout_s)
        except ChannelError as error:
            raise self._left(error) from None
        if "error" in answer.header:
            raise error_of(None, answer.header)
        return answer

    def packet(self, content: Mapping[str, Any], files: tuple[socket.socket, ...] = ()) -> bool:
        """Tell the slot something, and hand connections over. False if it has left."""
        try:
            self._control.send(content, files)
        except (OSError, BadFrame):
            return False
        return True

    def _left(self, error: ChannelError) -> PeerLost:
        """The front's own words for a slot that is gone: to others it is the party that was lost."""
        cause = error.cause.removeprefix("slot: ")
        return PeerLost(f"party {self.me}", f"its slot was lost: {cause}", remedy="open a new triple")

    def close(self) -> None:
        """Let go of it: its process ends itself."""
        self.lost = True
        self._control.close()
        self._link.close()


class Slots:
    """All slots of one front. ``lost(name)`` is called, from another thread, for each that left."""

    def __init__(self, me: int, path: Path, lost: Lost) -> None:
        self.me = me
        self.path = path
        self._lost = lost
        self._expected: dict[str, float] = {}
        self._slots: dict[str, Slot] = {}
        self._change = threading.Condition()
        self._closed = False
        self._server = packet_listener(path)
        threading.Thread(target=self._accept, name="accept slots", daemon=True).start()

    def expect(self) -> str:
        """A name for a slot that is to come."""
        name = secrets.token_hex(16)
        with self._change:
            self._expected[name] = time.monotonic()
        return name

    def overdue(self, after_s: float) -> list[str]:
        """Slots that were to come more than ``after_s`` ago, and did not: they are not expected any more."""
        with self._change:
            late = [name for name, since in self._expected.items() if time.monotonic() - since > after_s]
            for name in late:
                del self._expected[name]
        return late

    def names(self) -> list[str]:
        """The slots that are here."""
        with self._change:
            return list(self._slots)

    def counts(self) -> tuple[int, int]:
        """How many there are, and how many of them are free."""
        with self._change:
            return len(self._slots), sum(slot.triple is None for slot in self._slots.values())

    def wait(self, least: int, timeout_s: float) -> bool:
        """Whether ``least`` slots are here within ``timeout_s``."""
        with self._change:
            return self._change.wait_for(lambda: len(self._slots) >= least, timeout_s)

    def take(self, triple: bytes) -> Slot:
        """A free slot, for ``triple`` from now on. Raises Unavailable."""
        with self._change:
            if any(slot.triple == triple for slot in self._slots.values()):
                raise coded(
                    Unavailable("this triple is open already", remedy="open another under a new name"),
                    "open_already",
                )
            for slot in self._slots.values():
                if slot.triple is None:
                    slot.triple = triple
                    return slot
            total = len(self._slots)
        raise coded(
            Unavailable(
                f"none of this party's {total} slots is free",
                remedy="close a triple, or give the party more slots",
                retry_after_s=2.0,
            ),
            "no_slot",
        )

    def of(self, triple: bytes) -> Slot | None:
        """The slot that works for a triple."""
        with self._change:
            return next((slot for slot in self._slots.values() if slot.triple == triple), None)

    def give_back(self, slot: Slot) -> None:
        """A slot that closed its party well is free again."""
        with self._change:
            slot.triple = None

    def drop(self, slot: Slot) -> None:
        """Let go of a slot that is of no use any more; ``lost`` is called for it."""
        self._gone(slot)

    def drop_all(self) -> None:
        """The host has ended: whatever still runs of it must not serve on."""
        with self._change:
            slots = list(self._slots.values())
            self._expected.clear()
        for slot in slots:
            self._gone(slot)

    def close(self) -> None:
        """Let go of all slots and take no new ones."""
        self._closed = True
        with contextlib.suppress(OSError):  # not connected: this only wakes the accepting thread
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.drop_all()
        self.path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while not self._closed:
            try:
                sock, _ = self._server.accept()
            except OSError:
                time.sleep(0 if self._closed else 0.1)
                continue
            with unbroken(log):
                threading.Thread(target=self._introduce, args=(sock,), name="slot", daemon=True).start()

    def _introduce(self, sock: socket.socket) -> None:
        control = Packets(sock)
        try:
            _, user = control.peer()
            content, _ = control.receive(INTRODUCTION_S)
        except (OSError, EOFError, ChannelError):
            control.close()
            return
        name = str(content.get("slot"))
        with self._change:
            known = name in self._expected and user == os.getuid()
            self._expected.pop(name, None)
        if not known:
            log.warning("a process that is none of our slots dialled the slots' socket")
            control.close()
            return
        ours, theirs = pair()
        slot = Slot(self.me, name, control, socket_link("slot", ours))
        there = slot.packet({"do": "link"}, (theirs,))
        theirs.close()
        if not there:
            slot.close()
            self._lost(name)
            return
        with self._change:
            self._slots[name] = slot
            self._change.notify_all()
        try:
            while True:
                _logged(slot, control.receive()[0])
        except (OSError, EOFError, ChannelError):
            self._gone(slot)

    def _gone(self, slot: Slot) -> None:
        with self._change:
            was_here = self._slots.pop(slot.name, None) is not None
            self._change.notify_all()
        slot.close()
        if was_here and not self._closed:
            self._lost(slot.name)


def _logged(slot: Slot, content: Mapping[str, Any]) -> None:
    """A slot's log record, in the front's log."""
    level, name, text = (content.get(key) for key in ("level", "logger", "log"))
    if isinstance(level, int) and isinstance(name, str) and isinstance(text, str):
        logging.getLogger(name).log(level, "slot %d: %s", slot.pid, text)
