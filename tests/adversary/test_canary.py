"""What a party keeps, says and logs: never two things that together give a secret, and no tensor in a text.

The canaries are the secrets themselves: weights, biases and embedded rows of the small model. After a job, everything
that is reachable from a party's program is searched for them, alone and as sums of two.
"""

from __future__ import annotations

import gc
import json
import logging
import re
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from encoders import LENGTH, TEXTS, Parties, embedding_messages, loaded, small_model

from mpc_ray.channel import Message
from mpc_ray.commands import failure
from mpc_ray.correlation.prf import Correlation
from mpc_ray.errors import InputError, MpcError
from mpc_ray.models import query
from mpc_ray.sharing.deal import Parcel, Secret, deal, receive
from mpc_ray.sharing.replicated import Shared, Summand

TEXT = "all different"
RUN = 4  # numbers of a secret that are looked for: 256 bits do not appear by chance


@pytest.fixture(scope="module")
def after() -> Iterator[tuple[Parties, list[Message]]]:
    """Parties that have just answered one job."""
    parties = loaded()
    answers = parties.run(embedding_messages(TEXT))
    yield parties, answers
    for channel in parties.channels:
        channel.close()


def reachable(root: object) -> list[np.ndarray]:
    """All int64 numbers that can be reached from ``root``, flat; code, modules and classes are not data."""
    seen: set[int] = set()
    found: list[np.ndarray] = []
    waiting = [root]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, types.ModuleType | type | types.CodeType):
            continue
        seen.add(id(thing))
        if isinstance(thing, torch.Tensor) and thing.dtype == torch.int64:
            found.append(thing.detach().reshape(-1).numpy())
        elif isinstance(thing, np.ndarray) and thing.dtype in (np.int64, np.uint8) and thing.nbytes % 8 == 0:
            found.append(np.ascontiguousarray(thing).reshape(-1).view(np.int64))
        if isinstance(thing, types.FunctionType):
            waiting += thing.__closure__ or ()
        else:
            waiting += gc.get_referents(thing)
    return [array for array in found if len(array) >= RUN]


def finds(held: list[np.ndarray], secret: torch.Tensor) -> bool:
    """Whether the beginning of ``secret`` lies somewhere in what is held, or is the sum or difference of the
    beginnings of two tensors."""
    key = secret.reshape(-1)[:RUN].numpy()
    everything = np.concatenate(held)
    (places,) = np.nonzero(everything == key[0])
    if any(np.array_equal(everything[i : i + RUN], key) for i in places):
        return True
    heads = np.unique(np.stack([array[:RUN] for array in held]), axis=0)
    known = {head.tobytes() for head in heads}
    return any((key - head).tobytes() in known or (key + head).tobytes() in known for head in heads)


def secrets() -> dict[str, torch.Tensor]:
    model, export = small_model()
    rows = query.embedding_secrets(model, export, TEXTS[TEXT], LENGTH)
    found = {name: torch.from_numpy(secret.value) for name, secret in {**export.secrets, **rows}.items()}
    return {name: value for name, value in found.items() if len(set(value.reshape(-1)[:RUN].tolist())) == RUN}


def test_no_party_holds_a_secret_or_two_parts_that_give_one(after: tuple[Parties, list[Message]]) -> None:
    canaries = secrets()
    assert {"x", "layer 0/qkv", "layer 0/down bias", "head/gain"} <= canaries.keys()
    for executor in after[0].executors:
        held = reachable(executor)
        assert len(held) > 20
        assert [name for name, value in canaries.items() if finds(held, value)] == []


def test_the_search_would_find_them(after: tuple[Parties, list[Message]]) -> None:
    """The control: one more summand at a party, and there the secret is."""
    canaries = secrets()
    export = small_model()[1]
    parcels = deal(export.secrets)
    halves = [receive(i, p.header, p.tensors) for i, p in enumerate(parcels)]
    name = "head/gain"
    two = [halves[0][name], halves[1][name]]
    assert not finds(reachable(two[0]), canaries[name])
    combined = [two[0].own + two[0].next, two[1].next]
    assert finds(reachable({"deep": [combined]}), canaries[name])
    assert finds(reachable([canaries[name]]), canaries[name])


def test_an_answers_header_holds_counts_and_names_only(after: tuple[Parties, list[Message]]) -> None:
    """Whoever logs a header logs no share: numbers are sizes, times and counts, strings are labels of the program."""
    for answer in after[1]:
        json.dumps(answer.header)
        assert set(answer.header) <= {
            "ok", "scale", "checks", "seconds", "waiting", "compute", "rounds", "bytes_sent",
            "bytes_sent_offline", "unattributed", "split", "trace", "rounds_split",
        }  # fmt: skip
        numbers = [x for x in _leaves(answer.header) if isinstance(x, int | float)]
        assert max(numbers) < 1e8  # a share's numbers are near 2^63
        for word in (x for x in _leaves(answer.header) if isinstance(x, str)):
            assert len(word) < 40
            assert not re.search(r"[0-9a-f]{9}", word)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def test_a_run_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        parties = loaded()
        parties.run(embedding_messages(TEXT))
    assert [r.getMessage() for r in caplog.records if r.name.startswith("mpc_ray")] == []


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (lambda m: m.tensors.update(x=m.tensors["x"][:, :-1]), InputError),
        (lambda m: m.tensors.update(x=m.tensors["x"].astype(np.float64)), InputError),
        (lambda m: m.header["shares"]["x"].update(scale=3), InputError),
        (lambda m: m.header["shares"]["mask"].update(shape=[1, 1]), InputError),
        (lambda m: m.tensors.pop("pooling"), InputError),
        (lambda m: m.header.update(model="another"), MpcError),
        (lambda m: m.header.update(trace=True), MpcError),
    ],
)
def test_errors_inside_a_party_carry_no_tensor(spoil: Any, kind: type[MpcError]) -> None:
    parties = loaded()
    messages = embedding_messages(TEXT)
    for message in messages[1:]:  # P0 gets no tensors
        spoil(message)
    with pytest.raises(kind) as caught:
        parties.run(messages)
    _assert_plain(str(caught.value), messages)
    _assert_plain(json.dumps(failure(caught.value)), messages)


def test_an_unexpected_error_is_told_by_its_name_alone() -> None:
    error = RuntimeError(f"shape mismatch: {torch.arange(5)}")
    assert failure(error) == {
        "error": "MpcError",
        "cause": "RuntimeError inside the party's program",
        "remedy": "run with --debug, or see the party's log",
    }
    with pytest.raises(RuntimeError) as raised:
        raise error
    assert "tensor" not in json.dumps(failure(raised.value, debug=True))


def test_what_holds_shares_or_seeds_prints_neither() -> None:
    """A repr ends up in assertion texts, in logs and in Ray's task events."""
    numbers = torch.tensor([1234567890123])
    seed = bytes.fromhex("ab" * 32)
    parcel = deal({"x": Secret(numbers.numpy(), 4)}, (seed, seed))[1]
    things = [
        Secret(numbers.numpy(), 4),
        Shared(numbers, numbers, 4),
        Summand(numbers, 4),
        parcel,
        Parcel(parcel.header, parcel.tensors),
        Message(parcel.header, parcel.tensors),
        Correlation(0, {0: seed, 1: seed}, seed),
    ]
    for thing in things:
        text = repr(thing)
        assert "1234567890123" not in text
        assert "tensor(" not in text and "array(" not in text
        assert "ab" * 8 not in text and repr(seed)[2:-1] not in text


def _assert_plain(text: str, messages: list[Message]) -> None:
    """No share and no seed of any message, in any of the ways in which they print."""
    assert "tensor(" not in text and "array(" not in text
    for message in messages:
        for seed in message.header["seeds"].values():  # type: ignore[union-attr,call-overload]
            assert str(seed)[:16] not in text
        for value in message.tensors.values():
            assert not any(str(int(n)) in text for n in value.reshape(-1)[:64])
