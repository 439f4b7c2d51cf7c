"""How a set is: what a set that answers late, wrongly or not at all counts as."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from gateways import MODEL, Fake

from mpc_ray.errors import Unavailable
from mpc_ray.serve import views
from mpc_ray.serve.views import MISSED, Views


class Moody(Fake):
    """A set whose answer to ``status`` is what ``says`` holds."""

    says: Any = None

    async def status(self) -> Mapping[str, Any]:
        if isinstance(self.says, BaseException):
            raise self.says
        return self.says if self.says is not None else await super().status()


def test_a_set_may_miss_some_answers_but_not_many() -> None:
    async def test() -> None:
        eu = Moody("eu")
        seen = Views({"eu": eu})
        assert not seen.get("eu").ready and not seen.get("eu").models  # type: ignore[union-attr]
        await seen.refresh()
        for says in (Unavailable("restarting"), TimeoutError(), {"models": [{"name": "lacks the rest"}]}):
            eu.says = None
            await seen.refresh()
            assert seen.get("eu").ready  # type: ignore[union-attr]
            eu.says = says
            for _ in range(MISSED - 1):
                await seen.refresh()
                assert seen.get("eu").ready, "busy, perhaps"  # type: ignore[union-attr]
            await seen.refresh()
            assert not seen.get("eu").ready  # type: ignore[union-attr]
            assert seen.get("eu").models, "what models it has is remembered"  # type: ignore[union-attr]
        eu.says, eu.ready = None, False
        await seen.refresh()
        assert not seen.get("eu").ready and "tiny" in seen.get("eu").models  # type: ignore[union-attr]
        assert seen.get("mars") is None

    asyncio.run(test())


def test_the_start_waits_for_the_first_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "START_S", 0.5)

    async def test() -> None:
        eu = Moody("eu")
        eu.says = Unavailable("not yet")
        seen = Views({"eu": eu, "us": Fake("us")})
        starting = asyncio.create_task(seen.start())
        await asyncio.sleep(0.15)
        assert not starting.done()
        eu.says = {"ready": True, "models": [MODEL]}
        await starting
        assert [view.ready for view in seen] == [True, True]
        await seen.stop()
        never = Moody("eu")
        never.says = Unavailable("never")
        late = Views({"eu": never})
        await late.start()
        assert not late.get("eu").ready  # type: ignore[union-attr]
        await late.stop()

    asyncio.run(test())
