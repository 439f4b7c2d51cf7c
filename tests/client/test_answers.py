"""What a client does not take: answers that cannot be right, and settings or texts that cannot be used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fake_gateway import BEARER, FakeGateway, Federation, sends  # type: ignore[import-not-found]

from mpc_ray.channel.packed import Message
from mpc_ray.client import AsyncClient
from mpc_ray.errors import (
    AuthorisationError,
    ConfigError,
    InputError,
    ModelError,
    MpcError,
    RangeExceeded,
    SealError,
)

Make = Callable[..., AsyncClient]
TEXTS = ["Hello, world!", "a", "The 7 quick foxes (and 9 dogs)", "b", "c d e f g h i j k l m n"]
TOLERANCE = 1e-4


def run(client: AsyncClient, texts: Any = ("hello",), **settings: Any) -> Any:
    async def work() -> Any:
        async with client:
            return await client.embed(list(texts), **settings)

    return asyncio.run(work())


def _set(messages: list[Message], index: int, name: str, value: Any) -> None:
    messages[index].tensors[name] = value


def _swap(messages: list[Message]) -> None:
    messages[1].tensors["output"] = messages[1].tensors["output"][::-1].copy()


@pytest.mark.parametrize(
    ("change", "kind", "word"),
    [
        (lambda m: m[1].header.update(scale=21), MpcError, "disagree on the answer's scale"),
        (lambda m: m[2].header.update(checks=[]), MpcError, "disagree on the answer's checks"),
        (_swap, MpcError, "add up to no embedding for 2 of 2 texts"),
        (lambda m: _set(m, 0, "output", m[0].tensors["output"] + 1_000_000), MpcError, "no embedding"),
        (lambda m: [x.header.update(scale=25) for x in m], MpcError, "no embedding"),
        (lambda m: _set(m, 0, "output", m[0].tensors["output"][:1]), MpcError, "do not fit"),
        (
            lambda m: [_set(m, i, "output", x.tensors["output"][:1]) for i, x in enumerate(m)],
            MpcError,
            "shape",
        ),
        (lambda m: _set(m, 2, "output", np.full((2, 32), np.nan)), MpcError, "do not fit"),
        (
            lambda m: _set(m, 1, "check 0", m[1].tensors["check 0"] + 1),
            RangeExceeded,
            "range in layer 0/softmax",
        ),
    ],
)
def test_answers_that_cannot_be_right_are_refused_and_never_tried_again(
    client: Make, gateway: FakeGateway, change: Any, kind: type[MpcError], word: str
) -> None:
    gateway.change = change
    with pytest.raises(kind, match=word) as caught:
        run(client(), ["one", "two"])
    assert type(caught.value) is kind and len(gateway.posted) == 1


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda said: said.update(job="0" * 32), "another job"),
        (lambda said: said.update(answers=said["answers"][:2]), "not with three answers"),
        (lambda said: said["answers"].reverse(), "party 0's answer does not open"),
        (lambda said: said["answers"].__setitem__(1, "AAAA"), "party 1's answer is truncated"),
        (lambda said: said["answers"].__setitem__(2, "no base64!"), "party 2's answer is not base64"),
        (lambda said: said["answers"].__setitem__(0, 7), "party 0's answer is not base64"),
        (lambda said: ["a list"], "no JSON object"),
    ],
)
def test_a_gateway_that_changes_answers_is_found_out(
    client: Make, gateway: FakeGateway, change: Any, word: str
) -> None:
    gateway.react = [sends(change)]
    with pytest.raises(SealError, match=word):
        run(client())


def test_an_answer_of_another_job_does_not_open(client: Make, gateway: FakeGateway) -> None:
    run(client())
    old = next(iter(gateway.stored.values()))

    def change(said: dict[str, Any]) -> None:
        import json

        said["answers"] = json.loads(old)["answers"]

    gateway.react = [sends(change)]
    with pytest.raises(SealError, match="does not open"):
        run(client())


# -- what is used wrongly --------------------------------------------------------------------------------------------


def test_texts_that_are_none_are_refused_here(client: Make, gateway: FakeGateway) -> None:
    for texts, word in (
        (["a", ""], "text 1 is empty"),
        (["a " * 90], "text 0 has 92 tokens, the model takes 32"),
    ):
        with pytest.raises(InputError, match=word):
            run(client(), texts)
    assert gateway.posted == []
    assert run(client(), ["a " * 90], truncate=True).shape == (1, 32)


@pytest.mark.parametrize(
    ("change", "kind", "word"),
    [
        ({"url": "http://gateway.example"}, ConfigError, "is not HTTPS"),
        ({"url": "gateway.example"}, ConfigError, "URL is malformed"),
        ({"url": "https://user:secret@gateway.example"}, ConfigError, "URL is malformed"),
        ({"regions": "eu"}, ConfigError, "lists of names"),
        ({"timeout_s": 0}, ConfigError, "above 0"),
        ({"concurrency": 0}, ConfigError, "at least 1"),
        ({"api_key": "two words"}, InputError, "API key is malformed"),
        ({"trust": "tofu"}, ConfigError, "needs a pin file"),
        ({"trust": "nowhere.pem"}, ConfigError, "cannot be read"),
        ({"trust": "a" * 64, "verify": "federation"}, ConfigError, "certificate is not at hand"),
        ({"verify": "nowhere.pem"}, ConfigError, "holds no certificate authority"),
        ({"bundle": "nowhere"}, ModelError, "no client bundle"),
        ({"signing_key": "nowhere"}, ConfigError, "cannot be read"),
        ({"purpose": "Not A Name"}, AuthorisationError, "purpose is not of the form"),
    ],
)
def test_settings_that_cannot_be_used_are_named(
    made: Any, federation: Federation, change: dict[str, Any], kind: type[MpcError], word: str
) -> None:
    settings: dict[str, Any] = {"bundle": made.bundle, "signing_key": federation.key, "trust": federation.ca}
    settings |= {"transport": FakeGateway(federation, made), "api_key": BEARER} | change
    with pytest.raises(kind, match=word):
        run(AsyncClient(settings.pop("url", "https://gateway.test"), **settings))


def test_nothing_secret_is_in_an_object_s_text(
    client: Make, gateway: FakeGateway, federation: Federation
) -> None:
    from mpc_ray.client.request import Terms, seal
    from mpc_ray.client.share import prepare

    (batch,) = prepare(gateway.owned.bundle, ["a"])
    sealed = seal(batch, federation.directory, "eu", Terms(), federation.key)
    key = sealed._reply_keys[0].reveal().hex()
    assert key not in repr(sealed) and "envelopes" not in repr(sealed) and BEARER not in repr(vars(client()))
    assert key not in sealed.body.decode()


def test_other_questions(client: Make, gateway: FakeGateway) -> None:
    async def work() -> None:
        async with client() as one:
            assert await one.models() == [{"name": "tiny", "hidden": 32}]
            parties = await one.parties()
            assert {name: [r.jurisdiction for r in three] for name, three in parties.items()} == {
                "eu": ["DE", "FR", "IE"],
                "us": ["US", "US-CA", "US"],
            }
            assert await one.ready()
            gateway.down = {"eu", "us"}
            assert not await one.ready()
        async with client(api_key="wrong") as one:
            with pytest.raises(AuthorisationError):
                await one.models()

    asyncio.run(work())
