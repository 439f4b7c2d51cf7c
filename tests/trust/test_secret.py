"""A secret shows itself to nobody who does not ask for it by name."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import pickle
import resource
import traceback

import pytest

from mpc_ray.trust.secret import Secret, no_core_dumps

VALUE = b"canary-canary-canary-canary-key!"


@dataclasses.dataclass(frozen=True)
class Holder:
    key: Secret


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        lambda secret: f"{secret}",
        lambda secret: f"{secret!r:>40}",
        lambda secret: f"{secret:x}",
        lambda secret: repr([secret]),
        lambda secret: repr(Holder(secret)),
    ],
)
def test_no_way_of_printing_shows_it(show: object) -> None:
    shown = show(Secret(VALUE))  # type: ignore[operator]
    assert "canary" not in shown and VALUE.hex() not in shown
    assert "32 bytes" in shown


def test_neither_pickled_nor_copied_nor_listed() -> None:
    secret = Secret(VALUE)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps, bytes, list):
        with pytest.raises(TypeError):
            attempt(secret)  # type: ignore[operator]
    with pytest.raises(TypeError):
        dataclasses.asdict(Holder(secret))
    assert not hasattr(secret, "__dict__")


def test_not_in_a_log_or_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret(VALUE)
    try:
        raise ValueError(secret)
    except ValueError:
        logging.getLogger("x").exception("with %s", secret)
        text = traceback.format_exc()
    assert "canary" not in caplog.text + text


def test_equality_and_revelation() -> None:
    assert Secret(VALUE) == Secret(VALUE) != Secret(VALUE[::-1])
    assert Secret(VALUE) != VALUE
    assert Secret(VALUE).reveal() == VALUE and len(Secret(VALUE)) == 32
    with pytest.raises(TypeError):
        hash(Secret(VALUE))


def test_no_core_dumps() -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    try:
        no_core_dumps()
        assert resource.getrlimit(resource.RLIMIT_CORE) == (0, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
