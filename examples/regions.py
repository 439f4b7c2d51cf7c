"""Three regions on one machine: residency first, then the caller's order, then fail-over that says where to go.

    .venv/bin/python examples/regions.py

Three sets of three operators, nine endpoints, each behind a relay that adds the distance of its region, and a European
gateway's view of them. One European caller may compute anywhere, another in the European Union only. Then the European
set loses an operator: the first caller is told which set to seal to instead, the second that there is none, and both
are served at home again once the operator is back. It takes about a minute; the tiny model has random weights.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import logging
import sys
import tempfile
import time
from pathlib import Path

from mpc_ray.bench.operators import Operators, Place, make_operators
from mpc_ray.client.bundle import Bundle
from mpc_ray.client.request import Terms, opened, seal
from mpc_ray.client.share import prepare as share
from mpc_ray.errors import MpcError
from mpc_ray.model import prepare
from mpc_ray.models.synthetic import random_bert, save_bert
from mpc_ray.serve.interface import Job, Triples
from mpc_ray.serve.regions import RegionPolicy, SetUnavailable, regional
from mpc_ray.serve.triple import TripleLeader, leader

UNION = ("IE", "DE", "FR")
PLACES = {
    "eu": Place("europe", UNION, far_s=0.005, apart_s=0.002),
    "us": Place("americas", ("US-NY", "US-CA", "US"), far_s=0.040, apart_s=0.004),
    "ap": Place("apac", ("JP", "SG", "AU"), far_s=0.080, apart_s=0.006),
}
ORDER = ("eu", "us", "ap")


class Caller:
    """A European client: it seals to one set, and seals again where it is told to, if it may."""

    def __init__(
        self, name: str, operators: Operators, sets: dict[str, Triples], allowed: tuple[str, ...]
    ) -> None:
        self.name = name
        self._operators = operators
        self._sets = sets
        self._terms = Terms(jurisdictions=allowed)
        (self._batch,) = share(Bundle.load(operators.bundle), ["where is this computed"])

    async def ask(self) -> bool:
        """One text; prints where and how fast it was computed, or why not. Whether it was."""
        began = time.monotonic()
        target, tried = ORDER[0], []
        while True:
            tried.append(target)
            sealed = seal(self._batch, self._operators.directory, target, self._terms, self._operators.client)
            body = json.loads(sealed.body)
            a, b, c = (base64.b64decode(one) for one in body["envelopes"])
            job = Job(body["authorisation"], base64.b64decode(body["signature"]), (a, b, c), 30.0)
            try:
                answers = await self._sets[target].infer(job)
            except SetUnavailable as error:
                target = next((name for name in error.sets if name not in tried), "")
                if target:
                    continue
                print(f"  {self.name:28} not computed: {error.cause}")
                return False
            texts = [base64.b64encode(one).decode() for one in answers.sealed]
            answer = json.dumps({"job": answers.job, "answers": texts, "timing": {}}).encode()
            vectors, _ = opened(sealed, answer, self._batch)
            seconds = time.monotonic() - began
            path = " then ".join(tried)
            print(f"  {self.name:28} {path:10} {vectors.shape[1]} numbers in {1000 * seconds:6.0f} ms")
            return True


async def ready(leaders: dict[str, TripleLeader], operators: Operators, limit: float = 180.0) -> None:
    """Wait until every set has a triple."""
    end = time.monotonic() + limit
    while not all(one.ready for one in leaders.values()):
        operators.check()
        if time.monotonic() > end:
            raise MpcError("the endpoints were not ready in time", remedy="see party.log in their folders")
        await asyncio.sleep(0.2)


async def show(operators: Operators) -> int:
    """The story; the exit code: 0 if every caller got what it should."""
    leaders = {
        name: leader(operators.gateway, operators.directory, name) for name in operators.directory.sets()
    }
    order = tuple(name for name in ORDER if name in leaders)
    policy = RegionPolicy.of(
        operators.directory, prefer={"europe": order}, healing={"failures": 2, "pause_s": 1}
    )
    sets = regional(policy, leaders, "europe")
    anywhere = Caller("may go anywhere", operators, sets, ())
    at_home = Caller("European Union only", operators, sets, UNION)
    right = True
    try:
        await asyncio.gather(*(one.start(wait_s=1.0) for one in leaders.values()))
        await ready(leaders, operators)
        print(f"the sets of {len(leaders)} regions are up")
        right &= await anywhere.ask() and await at_home.ask()
        print("the European set loses an operator")
        await asyncio.to_thread(operators.stop, "eu", 1)
        right &= await anywhere.ask() and not await at_home.ask()
        print("the operator is back")
        operators.start("eu", 1)
        await ready(leaders, operators)
        await asyncio.sleep(3.0)  # the policy leaves a set that failed alone for a moment
        right &= await anywhere.ask() and await at_home.ask()
    finally:
        await asyncio.gather(*(one.stop(2.0) for one in leaders.values()))
    return 0 if right else 1


def main(arguments: list[str] | None = None) -> int:
    """Set up, show, take down; the exit code."""
    parser = argparse.ArgumentParser(description="Emulated regions, residency and fail-over.")
    parser.add_argument("--sets", nargs="*", default=ORDER, choices=ORDER, help="fewer sets start sooner")
    given = parser.parse_args(arguments)
    places = {name: PLACES[name] for name in ORDER if name in ("eu", *given.sets)}
    logging.getLogger("mpc_ray").setLevel(
        logging.ERROR
    )  # what the leaders say while endpoints start and stop
    try:
        with tempfile.TemporaryDirectory() as folder:
            model = prepare(save_bert(random_bert(), Path(folder) / "tiny"), (16,))
            with make_operators(model, places, name="tiny") as operators:
                operators.start_all()
                return asyncio.run(show(operators))
    except MpcError as error:  # one line: the cause, and what to do about it
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
