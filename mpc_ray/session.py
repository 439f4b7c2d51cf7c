"""A session: three parties, the models they hold shares of, and the client that asks them.

    with mpc_ray.Session() as session:
        model = session.load("path/to/all-MiniLM-L6-v2")
        vectors = model.embed(["Only the client ever sees this sentence."])

The client is also the model's owner here: it imports the folder, splits weights and text into shares, and
sends each party its own over that party's own link. When any party is lost the call ends within seconds with
an error that names it; all three are ended, and the next call starts three new ones with new keys and new
seeds and shares the models afresh.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from mpc_ray.all_three import all_three
from mpc_ray.channel import Link, Message
from mpc_ray.commands import error_of
from mpc_ray.config import Config, warn_if_experimental
from mpc_ray.config import load as load_config
from mpc_ray.errors import ConfigError, PeerLost
from mpc_ray.launch import Launcher, ProcessesLauncher, ThreadsLauncher, Triple
from mpc_ray.party_settings import PartySettings

if TYPE_CHECKING:
    from mpc_ray.model import Model

Progress = Callable[[str, float], None]  # what is being done, and how much of it: 0.0 to 1.0
Three = Sequence[Message]  # one message for, or of, each party
START_TIMEOUT_S = 60.0
JOB_TIMEOUT_S = 600.0


class Session:
    """Three parties and the models they hold; a context manager. Calls from several threads take turns.

    Settings come from ``config`` (a Config, or the path of a YAML file), the environment and the arguments,
    the later winning; see ``mpc_ray.config.Config`` for ``launcher``, ``protocol``, ``device``,
    ``num_gpus``, ``tls``, ``threads``, ``timeout_s``, ``ray_address``, ``name``, ``detached`` and the rest.
    ``progress(what, part)`` is called as work goes on. ``retry`` runs a job once more, on new parties with
    fresh randomness, when one was lost or timed out; a job whose check failed is never run again.
    ``job_timeout_s`` bounds one request to the parties. ``emulate``, for benchmarks: the links between the parties
    are as slow as ``rtt_ms`` and ``mbit`` of the settings say; "clock" or "processor", see ``PartySettings``.

    Raises DeviceError or PlacementError within seconds when what was asked for is not there.
    """

    def __init__(
        self,
        *,
        config: Config | str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
        retry: bool = False,
        job_timeout_s: float = JOB_TIMEOUT_S,
        debug: bool = False,
        executor: str = "",
        emulate: str = "",
        **settings: Any,
    ) -> None:
        self.config = _config(config, settings).chosen()
        warn_if_experimental(self.config.protocol)
        self.retry = (
            retry and self.config.protocol != "malicious_3pc"
        )  # each attempt is one more try for a cheater
        self.progress = progress or (lambda what, part: None)
        self._job_timeout_s = job_timeout_s
        self._settings = PartySettings(
            me=0,
            protocol=self.config.protocol,
            executor=executor,
            digest=self.config.digest().hex(),
            threads=self.config.threads,
            device=self.config.device,
            prf=self.config.stream_cipher,
            gpu_memory_fraction=self.config.gpu_memory_fraction,
            step_timeout_s=self.config.timeout_s,
            detached=self.config.detached,
            shadow=self.config.shadow,
            debug=debug,
            variant=self.config.variant,
            emulate=emulate,
            rtt_ms=self.config.rtt_ms,
            mbit=self.config.mbit or 0.0,
        )
        self._lock = threading.RLock()
        self._loaded: dict[str, Callable[[], Three]] = {}
        self._triple: Triple | None = None
        self._closed = False
        self.progress("starting three parties", 0.0)
        self.launcher: Launcher = _launcher(self.config)
        try:
            self._ready()
        except BaseException:
            self.close()
            raise
        self.progress("starting three parties", 1.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def trust(self) -> str:
        """One line: where the parties run, and who could put their shares together."""
        return self.launcher.trust

    def load(
        self,
        path: str | os.PathLike[str],
        *,
        texts: Sequence[str] | None = None,
        weights: Literal["secret", "public"] = "secret",
    ) -> Model:
        """Import a model, calibrate it, and give each party its shares of it.

        ``path`` is a Hugging Face folder or the name of a packaged model. ``texts`` of the user's own widen the
        calibration. ``weights="public"`` gives the parties the weights themselves instead, for a model that is open
        anyway: two products in place of three, half the memory, and texts as secret as before. Raises ModelError,
        saying which file, tensor or shape does not fit.
        """
        from mpc_ray.model import load

        return load(self, path, texts, weights)

    def request(self, messages: Three, timeout_s: float | None = None) -> list[Message]:
        """Send each party its message and return the three answers.

        The first error or EOF ends it, names the party, and ends the triple; so does ``timeout_s`` (default:
        the session's).
        """
        with self._lock:
            return self._exchange(self._ready(), messages, timeout_s or self._job_timeout_s)

    def share(self, name: str, make: Callable[[], Three]) -> list[Message]:
        """Have the parties load a model, now and on every later triple. ``make`` returns fresh shares at every call."""
        with self._lock:
            triple = self._ready()
            answers = self._exchange(triple, make(), self._job_timeout_s)
            self._loaded[name] = make
            return answers

    def forget(self, name: str) -> None:
        """Have the parties drop a model."""
        with self._lock:
            if self._loaded.pop(name, None) is not None and self._triple is not None:
                self.request([Message({"cmd": "forget", "model": name}, {})] * 3)

    def run(self, make: Callable[[bytes, int], Three]) -> list[Message]:
        """Run a job. ``make(job, attempt)`` returns fresh shares of the input; job is 16 bytes. May be called twice."""
        job = secrets.token_bytes(16)
        with self._lock:
            for attempt in (0, 1):
                try:
                    answers = self._exchange(self._ready(), make(job, attempt), self._job_timeout_s)
                    if any(answer.header.get("worn") for answer in answers):
                        self._drop()  # a TLS key near its bound: the next call starts new parties with new ones
                    return answers
                except PeerLost:
                    if attempt or not self.retry:
                        raise
                    self.progress("running again on new parties", 0.0)
        raise AssertionError("unreachable")

    def stats(self) -> list[dict[str, Any]]:
        """What each party says of its process: pid, peak_rss_bytes and so on."""
        return [answer.header for answer in self.request([Message({"cmd": "stats"}, {})] * 3, 30.0)]

    def stop(self) -> None:
        """End the parties even if they are detached. The next call starts new ones."""
        with self._lock:
            self._drop()

    def close(self) -> None:
        """End the parties (a detached session only lets go of them) and, if this session started it, Ray."""
        if self._closed:
            return
        self._closed = True
        if self._triple is not None:
            self._triple.leave()
            self._triple = None
        if hasattr(self, "launcher"):
            self.launcher.close()

    def _ready(self) -> Triple:
        """The triple, or a new one that holds all models again."""
        if self._closed:
            raise ConfigError("the session is closed", remedy="open a new one")
        if self._triple is None:
            triple = self._triple = self.launcher.start(
                replace(self._settings, session=secrets.token_hex(16)), START_TIMEOUT_S
            )
            for make in self._loaded.values():
                self._exchange(triple, make(), self._job_timeout_s)
        return self._triple

    def _exchange(self, triple: Triple, messages: Three, timeout_s: float) -> list[Message]:
        calls = [partial(self._ask, i, triple.links[i], messages[i]) for i in range(3)]
        try:
            return all_three(calls, timeout_s, str(messages[0].header.get("cmd")))
        except BaseException:  # whatever ended the wait, an answer may still come: this triple is out of step
            self._drop()
            raise

    def _drop(self) -> None:
        if self._triple is not None:
            self._triple.close()
            self._triple = None

    def _ask(self, party: int, link: Link, message: Message) -> Message:
        link.send(message)
        while True:
            answer = link.receive(None)  # the deadline is common to all three; it ends by closing the links
            if "progress" in answer.header:
                part = answer.header.get("part")
                self.progress(str(answer.header["progress"]), part if isinstance(part, float) else 0.0)
                continue
            if "error" in answer.header:
                raise error_of(party, answer.header)
            return answer


def _config(config: Config | str | os.PathLike[str] | None, settings: dict[str, Any]) -> Config:
    if isinstance(config, Config):
        given = {name: value for name, value in settings.items() if value is not None}
        return load_config(environ={}, **(config.model_dump(exclude_unset=True) | given))
    return load_config(config, **settings)


def _launcher(config: Config) -> Launcher:
    match config.launcher:
        case "threads":
            return ThreadsLauncher(tls=config.tls)
        case "processes":
            return ProcessesLauncher()
        case "ray":
            from mpc_ray.launch_ray import RayLauncher  # imports Ray, which the others do without

            return RayLauncher(
                address=config.ray_address,
                device=config.device,
                num_cpus=config.threads,
                num_gpus=config.num_gpus,
                name=config.name,
                detached=config.detached,
            )
