"""A leader for replicas of Serve whose behaviour the purpose of a job says. Imported by them from this folder."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from typing import Any

from mpc_ray.errors import PeerLost, Refused
from mpc_ray.serve.config import GatewayConfig, SetSettings
from mpc_ray.serve.interface import Answers, Job

MODEL = {"name": "tiny", "digest": "0" * 64, "lengths": [16], "hidden": 8}


class Scripted:
    """``slow`` takes half a second, ``refused`` is refused, ``lost`` loses a party, ``bug`` is one, ``dies`` kills."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def infer(self, job: Job) -> Answers:
        match job.authorisation["purpose"]:
            case "slow":
                await asyncio.sleep(0.5)
            case "refused":
                raise Refused("the policy forbids it", code="retention")
            case "lost":
                raise PeerLost("party 1", "went away")
            case "bug":
                raise RuntimeError("canary in the text of an exception")
            case "dies":
                os.kill(os.getpid(), signal.SIGKILL)
        return Answers(job.id, (b"a" + job.envelopes[0], b"b", b"c"), self.name, {"pid": os.getpid()})

    async def status(self) -> Mapping[str, Any]:
        return {"set": self.name, "ready": True, "queue": 0, "triples": 1, "models": (MODEL,)}


def leader(config: GatewayConfig, one: SetSettings, *, triples: int) -> Scripted:
    return Scripted(one.name)
