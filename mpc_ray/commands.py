"""What a party answers: commands of its client, one ``Message`` in, one ``Message`` out.

``load``, ``run`` and ``forget`` go to the Executor; ``ping``, ``stats`` and ``shutdown`` are answered here.
While a job runs, messages with ``progress`` in their header may come before its answer. The answer to a
command that failed has ``header["error"]`` (a class of ``mpc_ray.errors``), ``cause`` and ``remedy``. It
never holds data: an exception that is not one of ours is answered with its class name alone, since its text
might quote a tensor.

A failed ``load`` or ``run`` ends the party's channel: its peers see it within milliseconds, and the client
builds a new triple with new seeds. A party is never repaired, so no randomness can be used twice.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from mpc_ray import errors
from mpc_ray.channel import Channel, Link, Message
from mpc_ray.channel.wrappers import Delayed, Reckoned
from mpc_ray.errors import ChannelError, CheatingDetected, ConfigError, MpcError, PeerLost, Unavailable
from mpc_ray.party_settings import PartySettings

log = logging.getLogger("mpc_ray.party")

EXECUTORS = {  # one line for each protocol
    "semi_honest_3pc": "mpc_ray.execute:Executor",
    "aby3": "mpc_ray.execute_aby3:executor",
    "malicious_3pc": "mpc_ray.execute_malicious:executor",
}


class Executor(Protocol):
    """What a party runs; ``mpc_ray.execute.Executor`` is the real one.

    ``progress``, where it is set, may be called between rounds with what is being done and how much of it
    (0.0 to 1.0). ``allow_trace`` is the party's own setting: whether a job may ask for its hidden states.
    """

    progress: Callable[[str, float], None] | None
    allow_trace: bool

    def load(self, message: Message) -> Message: ...

    def run(self, message: Message) -> Message: ...

    def forget(self, message: Message) -> Message: ...


def executor_of(settings: PartySettings) -> Callable[..., Executor]:
    """The Executor class of the protocol asked for. Raises ConfigError when there is none."""
    path = settings.executor or EXECUTORS.get(settings.protocol, "")
    if not path:
        names = ", ".join(sorted(EXECUTORS))
        raise ConfigError(f"unknown protocol {settings.protocol!r}", remedy=f"one of: {names}")
    module, _, attribute = path.partition(":")
    found: Callable[..., Executor] = getattr(importlib.import_module(module), attribute)
    return found


def failure(error: BaseException, *, debug: bool = False) -> dict[str, Any]:
    """An error as the header of an answer: class, cause, remedy; ``peer``, ``code``, ``retry_after_s`` where it has
    them; never data."""
    if isinstance(error, MpcError):
        header: dict[str, Any] = {"error": type(error).__name__, "cause": error.cause, "remedy": error.remedy}
        if peer := getattr(error, "peer", ""):
            header |= {"peer": peer, "cause": error.cause.removeprefix(f"{peer}: ")}
        if error.code:
            header["code"] = error.code
        if isinstance(error, Unavailable):
            header["retry_after_s"] = error.retry_after_s
        if isinstance(error, CheatingDetected):
            header |= {"culprits": list(error.culprits), "second_hand": error.second_hand}
    else:
        header = {
            "error": "MpcError",
            "cause": f"{type(error).__name__} inside the party's program",
            "remedy": "run with --debug, or see the party's log",
        }
    if debug:  # lines of code only: the exception's own text might quote a tensor
        header["trace"] = "".join(traceback.format_tb(error.__traceback__))
    return header


def error_of(party: int | None, header: Mapping[str, Any]) -> MpcError:
    """The inverse of ``failure``, at the client: an error that names the party. The header is not trusted.

    ``party`` None: what this party's own process said, with no party named.
    """
    kind = getattr(errors, str(header.get("error")), None)
    cause, remedy, peer = (_plain(header.get(key, "")) for key in ("cause", "remedy", "peer"))
    told = cause if party is None else f"{cause} (says party {party})"
    if kind is PeerLost and peer:
        return PeerLost(peer, told, remedy=remedy)
    if kind is CheatingDetected:
        given = header.get("culprits")
        culprits = tuple(i for i in range(3) if isinstance(given, list) and i in given)
        second_hand = header.get("second_hand") is True
        cheating = CheatingDetected(told, culprits, remedy=remedy, second_hand=second_hand)
        if header.get("code") == errors.UNEQUAL_COPIES:
            cheating.code = errors.UNEQUAL_COPIES
        return cheating
    if not (isinstance(kind, type) and issubclass(kind, MpcError)) or kind is PeerLost:
        kind = MpcError
    error: MpcError = kind(cause if party is None else f"party {party}: {cause}", remedy=remedy)
    code, retry = header.get("code"), header.get("retry_after_s")
    if isinstance(code, str) and code.isidentifier() and len(code) <= 40:
        error.code = code
    if isinstance(error, Unavailable) and isinstance(retry, int | float) and 0 <= retry <= 3600:
        error.retry_after_s = float(retry)
    return error


def _plain(value: object, limit: int = 500) -> str:
    """One printable line of what a party said."""
    return "".join(c if c.isprintable() else " " for c in str(value)[:limit])


def peak_rss_bytes() -> int:
    """Largest resident set of this process so far; ``ru_maxrss`` would count its launcher's too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ConfigError("this system does not count peak memory in /proc/self/status", remedy="run on Linux")


class Party:
    """Answers a client's commands with an Executor over a channel. Not thread-safe: one thread serves.

    ``failed`` is the error that made the party unusable, or None.
    """

    def __init__(self, settings: PartySettings, channel: Channel) -> None:
        self.settings = settings
        if settings.emulate:
            slow = Reckoned if settings.emulate == "processor" else Delayed
            channel = slow(channel, settings.rtt_ms / 2e3, settings.mbit * 1e6 or None)
        self.channel = channel
        self.failed: BaseException | None = None
        make = executor_of(settings)
        self._executor = make(
            channel,
            digest=settings.agreed,
            threads=settings.threads,
            device=settings.device,
            **settings.device_options,
        )
        self._executor.allow_trace = settings.shadow
        if settings.variant != "bytes":
            if not hasattr(self._executor, "use"):
                raise ConfigError(
                    f"{settings.executor} has no variant {settings.variant!r}", remedy="use variant bytes"
                )
            self._executor.use(settings.variant)

    def serve(self, link: Link) -> None:
        """Answer commands until the client leaves or says ``shutdown``."""
        if self.settings.me == 0:  # one party tells how far all are
            self._executor.progress = lambda what, part: link.send(Message({"progress": what, "part": part}))
        while True:
            try:
                message = link.receive(None)
            except ChannelError:
                return
            answer = self.answer(message)
            with contextlib.suppress(ChannelError):  # a client that left: the next receive says so
                link.send(answer)
            if message.header.get("cmd") == "shutdown":
                return

    def answer(self, message: Message) -> Message:
        """The answer to one command; every failure becomes an answer with ``error`` in its header."""
        command = message.header.get("cmd")
        try:
            if self.failed is not None and command in ("load", "run", "forget"):
                if isinstance(self.failed, PeerLost):  # not this party's own fault
                    peer = self.failed.peer
                    cause = self.failed.cause.removeprefix(f"{peer}: ")
                    raise PeerLost(peer, cause, remedy="build a new triple")
                raise ChannelError(
                    f"party {self.settings.me} stopped after an earlier failure", remedy="build a new triple"
                )
            match command:
                case "ping":
                    return Message({"ok": True, "party": self.settings.me, "usable": self.failed is None})
                case "stats":
                    return Message(self.stats())
                case "shutdown":
                    return Message({"ok": True})
                case "load":
                    return self._in_step(self._executor.load, message)
                case "forget":
                    return self._executor.forget(message)
                case "run":
                    self._relink(message.header.get("link"))
                    return self._in_step(self._executor.run, message)
            raise ConfigError(f"unknown command {str(command)[:32]!r}", remedy="use one version everywhere")
        except Exception as error:  # noqa: BLE001 - whatever fails becomes an answer
            if not isinstance(error, MpcError):
                trace = "".join(traceback.format_tb(error.__traceback__))
                log.error("party %d: %s in %s\n%s", self.settings.me, type(error).__name__, command, trace)
            return Message(failure(error, debug=self.settings.debug))

    def _relink(self, link: Any) -> None:
        """Another emulated link, [rtt_ms, mbit], from this job on; of parties that emulate none it is no setting."""
        if isinstance(link, list) and isinstance(self.channel, Delayed | Reckoned):
            rtt_ms, mbit = (float(number) for number in link)
            self.channel.change(rtt_ms / 2e3, mbit * 1e6 or None)

    def _in_step(self, work: Callable[[Message], Message], message: Message) -> Message:
        """What all three do together: a party that fails ends its channel, so that its peers stop at once."""
        try:
            answer = work(message)
        except BaseException as error:
            self.fail(error)
            raise
        if isinstance(self.channel, Reckoned):
            answer.header["seconds"] = self.channel.seconds
        answer.header["worn"] = self.channel.worn()
        return answer

    def fail(self, error: BaseException) -> None:
        """End the channel: peers see EOF, and this party refuses further work. The first error wins."""
        if self.failed is None:
            self.failed = error
            self.channel.fail(error)

    def stats(self) -> dict[str, Any]:
        return {
            "ok": True,
            "party": self.settings.me,
            "pid": os.getpid(),
            "peak_rss_bytes": peak_rss_bytes(),
            "channel": json.loads(json.dumps(self.channel.meter.snapshot())),
        }

    def close(self) -> None:
        self.channel.close()
