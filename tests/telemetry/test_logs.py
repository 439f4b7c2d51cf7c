"""Logs: what is in a line, and that a canary in an exception, an array or a secret is in none."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mpc_ray.errors import ConfigError, PeerLost
from mpc_ray.telemetry import logs, traces
from mpc_ray.trust.secret import Secret

CANARY = "canary7391"
log = logging.getLogger("mpc_ray.test")


@pytest.fixture
def lines(tmp_path: Path) -> Any:
    """Sets logging up; calling it gives what was logged, parsed."""
    file = tmp_path / "log"
    logs.setup("party", file=file)
    return lambda: [json.loads(line) for line in file.read_text().splitlines()]


def test_a_line_holds_the_job_in_hand(lines: Any) -> None:
    with (
        logs.context(job="ab12", set="eu", party=0),
        logs.context(stage="run"),
        traces.span("party run") as span,
    ):
        log.warning("queue of %s has %d", "eu", 3)
    log.info("after")
    first, second = lines()
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "WARNING",
        "logger": "mpc_ray.test",
        "service": "party",
        "message": "queue of eu has 3",
        "job": "ab12",
        "set": "eu",
        "party": 0,
        "stage": "run",
        "trace": span.trace_id,
    }
    assert "job" not in second


def test_the_job_follows_tasks(lines: Any) -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        log.info("inside")

    async def main() -> None:
        with logs.context(job="ab12"):
            task = asyncio.create_task(work())
        await task
        await work()

    asyncio.run(main())
    assert [line.get("job") for line in lines()] == ["ab12", None]


def test_extra_fields_are_the_same_few(lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    log.info("ran", extra={"rounds": 7, "text": CANARY})
    assert lines()[0]["rounds"] == 7 and CANARY not in str(lines())
    with pytest.raises(ValueError, match="subject"), logs.context(subject="someone"):
        pass
    monkeypatch.delenv("MPC_TEST_STRICT_TELEMETRY")
    with logs.context(subject=CANARY, set=b"x"):
        log.info("on")
    assert "subject" not in lines()[1] and "set" not in lines()[1]


SECRETS: dict[str, Any] = {
    "bytes": CANARY.encode(),
    "bytearray": bytearray(CANARY.encode()),
    "memoryview": memoryview(CANARY.encode()),
    "secret": Secret(CANARY.encode()),
    "array": np.array([CANARY]),
    "numbers": np.array([73917391, 73917391]),
    "tensor": torch.tensor([73917391]),
    "list": [CANARY],
    "tuple": (CANARY,),
    "set": {CANARY},
    "dict in a tuple": ({"text": CANARY},),
    "exception": ValueError(CANARY),
    "object": type("Thing", (), {"__str__": lambda self: CANARY, "__repr__": lambda self: CANARY})(),
}


@pytest.mark.parametrize("form", ["json", "human"])
@pytest.mark.parametrize("what", SECRETS)
def test_a_canary_in_an_argument_is_not_logged(tmp_path: Path, what: str, form: logs.Form) -> None:
    file, value = tmp_path / "log", SECRETS[what]
    logs.setup("party", file=file, form=form)
    logging.getLogger().handlers[:] = [logs._handler]  # pytest's own stumbles over %d
    for template in ("got %s", "got %r", "got %.100s"):
        log.info(template, value)
    log.info("got %s and %s", 5, value)
    log.info("got %(x)s", {"x": value})
    log.info("got %d", value)
    log.info(value)
    log.error("failed: %s", value, exc_info=value if isinstance(value, BaseException) else None)
    text = file.read_text()
    assert len(text.splitlines()) == 8
    assert CANARY not in text and "73917391" not in text and "99, 97, 110" not in text
    logging.getLogger("mpc_ray.test").info(
        "control %s", CANARY
    )  # the control: a plain str is the caller's to answer for
    assert CANARY in file.read_text()


def test_exceptions_of_others_give_class_and_place(lines: Any) -> None:
    def deep() -> None:
        raise ValueError(CANARY)

    try:
        deep()
    except ValueError:
        log.exception("it failed")
    try:
        try:
            deep()
        except ValueError as error:
            raise PeerLost("party 1", "closed the connection", remedy="start it again") from error
    except PeerLost as error:
        log.exception("lost: %s", error)
    first, second = lines()
    assert CANARY not in json.dumps([first, second])
    assert first["error"] == "ValueError" and "cause" not in first
    assert [place.split(" ")[1] for place in first["at"]] == [
        "test_exceptions_of_others_give_class_and_place",
        "deep",
    ]
    assert (second["error"], second["cause"]) == ("PeerLost", "party 1: closed the connection")
    assert second["message"] == "lost: PeerLost: party 1: closed the connection (start it again)"


def test_other_libraries_messages_are_withheld(lines: Any) -> None:
    """They quote exceptions in the message itself, as asyncio does of a task that nobody awaited."""
    logging.getLogger("asyncio").error(f"Task exception was never retrieved: ValueError({CANARY!r})")
    logging.getLogger("uvicorn.error").error(f"Traceback (most recent call last):\n  ValueError: {CANARY}")
    logging.getLogger("mpc_rays").error(CANARY)
    told = [line["message"] for line in lines()]
    assert told[0].startswith("withheld: asyncio at test_logs.py:")
    assert told[1] == "Traceback (most recent call last):"
    assert CANARY not in str(told)


def test_a_line_for_people_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "log"
    logs.setup("gateway", file=file, form="human")
    with logs.context(job="ab12"):
        log.info("hello\nFAKE %s", "a\x1b[31mb\r\nc")
    (line,) = file.read_text().splitlines()
    assert line.endswith("gateway: hello FAKE a [31mb  c job=ab12") and "\x1b" not in line


def test_setup_twice_logs_once(tmp_path: Path) -> None:
    plain = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(plain)  # as basicConfig does
    for name in ("one", "two"):
        logs.setup("party", file=tmp_path / name)
    log.info("once")
    assert not (tmp_path / "one").read_text() and len((tmp_path / "two").read_text().splitlines()) == 1
    assert plain not in logging.getLogger().handlers
    assert (tmp_path / "two").stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="level"):
        logs.setup("party", level="LOUD")
    with pytest.raises(ConfigError, match="cannot be written"):
        logs.setup("party", file=tmp_path / "none" / "log")


def test_uncaught_in_a_thread(lines: Any) -> None:
    def fail() -> None:
        raise ValueError(CANARY)

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    (line,) = lines()
    assert (line["level"], line["error"]) == ("CRITICAL", "ValueError") and CANARY not in str(line)


PROGRAM = """
import sys
from mpc_ray.telemetry import logs
if sys.argv[1] == "ours":
    logs.setup("party")
raise ValueError("canary" + "7391")
"""


@pytest.mark.parametrize("how", ["ours", "plain"])
def test_uncaught_in_a_process(how: str) -> None:
    """``plain`` is the control: Python itself prints the text."""
    answer = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, how], capture_output=True, text=True, check=False, timeout=60
    )
    assert answer.returncode == 1
    assert (CANARY in answer.stderr) == (how == "plain")
    assert "ValueError" in answer.stderr
