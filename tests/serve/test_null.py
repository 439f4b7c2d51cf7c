"""The triple that computes nothing."""

from __future__ import annotations

import asyncio

from fake_fronts import job

from mpc_ray.serve.null import NullTriple


def test_a_null_triple_answers_at_once_with_as_many_bytes_as_asked() -> None:
    async def main() -> None:
        triple = NullTriple("eu", answer_bytes=100)
        first, second = await triple.infer(job()), await triple.infer(job())
        assert [len(one) for one in first.sealed] == [100] * 3
        assert len({*first.sealed, *second.sealed}) == 6
        status = await triple.status()
        assert status["ready"] and status["set"] == "eu"
        assert triple.answered == 2

    asyncio.run(main())
