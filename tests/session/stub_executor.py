"""An executor that is told by its messages what to do: add up three vectors, wait, die, or fail in a chosen way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import numpy as np

from mpc_ray.channel import Channel, Message
from mpc_ray.errors import InputError


class StubExecutor:
    """Each party sends its vector to both peers and answers the sum of all three, plus its model's offset."""

    def __init__(self, channel: Channel, *, digest: bytes, threads: int = 1, device: str = "cpu") -> None:
        self.progress: Callable[[str, float], None] | None = None
        self.channel = channel
        self.digest = digest
        self.offsets: dict[str, np.ndarray] = {}

    def load(self, message: Message) -> Message:
        self.offsets[str(message.header["model"])] = message.tensors["offset"]
        if message.header.get("die") == self.channel.me:
            os.kill(os.getpid(), signal.SIGKILL)
        return Message({"ok": True, "digest": self.digest.hex()})

    def forget(self, message: Message) -> Message:
        del self.offsets[str(message.header["model"])]
        return Message({"ok": True})

    def run(self, message: Message) -> Message:
        job, attempt = bytes.fromhex(str(message.header["job"])), message.header["attempt"]
        assert isinstance(attempt, int)
        x = np.ascontiguousarray(message.tensors["x"], np.int64)
        for step in range(1, 1 + int(str(message.header.get("rounds", 1)))):
            total = self._round(x, job, attempt, step)
            if self.progress is not None:
                self.progress("adding", 0.5)
            self._misbehave(message, attempt)
        name = message.header.get("model")
        return Message({"ok": True}, {"y": total + self.offsets[str(name)] if name else total})

    def _round(self, x: np.ndarray, job: bytes, attempt: int, step: int) -> np.ndarray:
        me = self.channel.me
        self.channel.begin(job, attempt)
        others = {peer: np.empty_like(x) for peer in range(3) if peer != me}
        for peer in others:
            self.channel.send(peer, step, step, [memoryview(x.view(np.uint8))])
        for peer, y in others.items():
            self.channel.receive(peer, step, [memoryview(y.view(np.uint8))])
        self.channel.flush()
        return np.asarray(x + sum(others.values()))

    def _misbehave(self, message: Message, attempt: int) -> None:
        who, how = message.header.get("who"), message.header.get("how")
        if who != self.channel.me or (message.header.get("once") and attempt):
            return
        match how:
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "sleep":
                time.sleep(float(str(message.header["seconds"])))
            case "refuse":
                raise InputError("the stub refuses", remedy="ask for less")
            case "crash":
                raise RuntimeError("SECRET-CANARY")


class StillbornExecutor(StubExecutor):
    """Kills party 1 while the others wait for it."""

    def __init__(self, channel: Channel, *, digest: bytes, threads: int = 1, device: str = "cpu") -> None:
        super().__init__(channel, digest=digest, threads=threads)
        if channel.me == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        self._round(np.zeros(1, np.int64), bytes(16), 0, 1)
