"""``make rehearsal``: three operators in three Ray clusters, a gateway, a proxy, real clients, then everything hostile.

Prints progress to standard error, a table, and one JSON line {"passed", "failed", "figures"}; exit code 0 only if all
passed and nothing is left running. ``--full`` sends 10,000 hostile requests instead of 700; ``--patience`` is how long
service may stay away after a kill, for machines that have something else to do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import canary
import deploy
import httpx
import numpy as np
import openai
import psutil
from hostile import Hostile, slow_loris
from jobs import maker
from kill import BACK_S, Load, kill
from world import MODEL, OPERATORS, SET, World

from mpc_ray.client import Client
from mpc_ray.client.bundle import Bundle
from mpc_ray.errors import ChannelError, DeadlineExceeded, Unavailable
from mpc_ray.model import model_folder
from mpc_ray.models.bert_float import embed
from mpc_ray.models.load import load_bert
from mpc_ray.trust.authorisation import SigningKey

TEXTS = [
    "A man is eating food.",
    "Someone is having lunch.",
    "The stock market fell sharply today.",
    "How do I reset my password?",
]


class Rehearsal:
    """Runs steps one after another; a step that fails does not keep the next from running."""

    def __init__(self, full: bool, patience: float) -> None:
        self.full, self.patience = full, patience
        self.began = time.monotonic()
        self.results: list[tuple[str, bool, str]] = []
        self.figures: dict[str, Any] = {}
        self.bert = load_bert(model_folder(MODEL))
        self.world = World(self.say)

    def say(self, line: str) -> None:
        print(f"[{time.monotonic() - self.began:6.1f} s] {line}", file=sys.stderr, flush=True)

    def check(self, name: str, passed: bool, detail: str = "") -> None:
        self.results.append((name, passed, detail))
        self.say(f"{'ok  ' if passed else 'FAIL'} {name}  {detail}")

    def step(self, name: str, work: Callable[[], None]) -> bool:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - the rehearsal goes on and says so at its end
            self.check(name, False, f"{type(error).__name__}: {error}"[:3000])
            return False
        return True

    # -- steps -----------------------------------------------------------------------------------------------------

    def deployment(self) -> None:
        began = time.monotonic()
        deploy.make_federation(self.world)
        self.figures |= {k: round(v, 1) for k, v in deploy.start_services(self.world).items()}
        ai = self.openai()
        got = np.array([d.embedding for d in ai.embeddings.create(model=MODEL, input=TEXTS).data])
        took = time.monotonic() - began
        off = float(np.abs(got - embed(self.bert, TEXTS)).max())
        self.figures |= {
            "from nothing to an answer, s": round(took, 1),
            "largest difference from plaintext": off,
        }
        self.check(
            "three operators answer the openai client",
            off < 5e-3 and took < 600,
            f"{took:.0f} s, off by {off:.1e}",
        )

    def canary(self) -> None:
        world = self.world
        blind = canary.controls(world.home / "t" / "c", "control-" + os.urandom(8).hex())
        with_packets = canary.packet_control(world.home / "control.cap", "control-" + os.urandom(8).hex())
        blind += [] if with_packets else ["captured packets"]
        self.check("canary: every control is found in its place", not blind, ", ".join(blind))
        text, bundle = canary.CANARY + " " + os.urandom(4).hex(), Bundle.load(deploy.bundle(world))
        ids = bundle.tokenizer.encode([text])[0]
        capture = canary.Capture(world.home / "wire.cap")
        made = maker(
            deploy.bundle(world), world.home / "ca" / "directory.json", world.home / "client.key", SET
        )
        with self.client() as client:
            vector = client.embed([text])[0]
        authorisation, plaintexts = made.unsealed(text)
        sent = made.sealed(authorisation, plaintexts, made.key)
        answer = httpx.post(
            f"{world.url}/v1/private/infer", json=sent, headers={"Authorization": f"Bearer {world.api_key}"},
            verify=deploy.verify(world), timeout=60,
        )  # fmt: skip
        self.accepted = sent
        time.sleep(1)
        capture.close()
        weights = self.bert.encoder.layers[1].ffn1_weight[3, :8]
        # Shares are searched for on disk and on the wire; in memory each party may have its own.
        wanted = canary.needles(text, ids[2:12], vector, weights, [])
        shares = dict(
            canary.byte_needles("reply key", bytes.fromhex(json.loads(_head(plaintexts[0]))["reply_key"]))
        )
        for party in (1, 2):
            shares |= canary.byte_needles(f"share of party {party}", plaintexts[party][-512:])
        files = canary.search(wanted | shares, [world.home], [], capture.path, self.clients_own())
        servers = [
            p for p in world.processes() if not any(w in " ".join(_words(p)) for w in ("proxy", "rehearsal"))
        ]
        memory = canary.search(canary.raw(wanted), [], servers, capture.path, [])
        found = files.found + memory.found
        self.figures |= {
            "canary: server processes searched": memory.places,
            "canary: GB of memory searched": round(memory.bytes_of_memory / 1e9, 1),
            "canary: packets captured": capture.packets,
        }
        self.check("canary: the request was answered", answer.status_code == 200, str(answer.status_code))
        self.check(
            "canary: text, ids, embedding, weights and shares are nowhere", not found, canary.summary(found)
        )

    def hostile(self) -> None:
        world = self.world
        made = maker(
            deploy.bundle(world), world.home / "ca" / "directory.json", world.home / "client.key", SET
        )
        gateway = world.processes("gateway", "--standalone")
        before = sum(p.memory_info().rss for p in gateway)
        pids = {p.pid for p in world.processes("mpc_ray.cli.main")}
        attacks = Hostile(made, world.url, world.api_key, deploy.verify(world), self.accepted)
        began = time.monotonic()
        outcome = asyncio.run(attacks.run(10_000 if self.full else 700))
        still = slow_loris(world.url, deploy.verify(world), 30, 40.0)
        after = sum(p.memory_info().rss for p in gateway)
        grown = (after - before) / 2**20
        self.figures |= {
            "hostile: requests": outcome.sent,
            "hostile: seconds": round(time.monotonic() - began, 1),
            "hostile: statuses": {str(k): v for k, v in sorted(outcome.statuses.items())},
            "hostile: gateway grew by MiB": round(grown, 1),
        }
        wrong = sorted(set(outcome.wrong))
        self.check("hostile: every answer is a refusal", not wrong, "; ".join(wrong[:8]))
        self.check("hostile: who dribbles is cut off", not still, "; ".join(still[:3]))
        self.check("hostile: no process died", pids <= {p.pid for p in world.processes("mpc_ray.cli.main")})
        self.check("hostile: memory comes back", grown < 150, f"{grown:+.0f} MiB")
        with self.client() as client:
            self.check(
                "hostile: an honest client is served afterwards", client.embed(TEXTS[:1]).shape == (1, 384)
            )

    def killing(self) -> None:
        world, gamma = self.world, OPERATORS[2][0]
        expected = embed(self.bert, TEXTS)
        client, ai = self.client(), self.openai()

        def by_proxy(i: int) -> np.ndarray:
            return np.array(ai.embeddings.create(model=MODEL, input=[TEXTS[i]]).data[0].embedding)

        load = Load(
            [lambda i: client.embed([TEXTS[i]])[0], by_proxy],
            expected,
            (
                Unavailable,
                ChannelError,
                DeadlineExceeded,
                openai.APIConnectionError,
                openai.InternalServerError,
                openai.RateLimitError,
            ),
        )
        victims: list[tuple[str, Callable[[], list[psutil.Process]]]] = [
            ("a slot", lambda: _slots(world)[:1]),
            ("a party's front", lambda: _leaves(world, f"{gamma}-party.yaml")),
            ("the gateway", lambda: _leaves(world, "--standalone")),
            ("the proxy", lambda: _leaves(world, "proxy.yaml")),
            ("a party's raylet", lambda: world.processes("/raylet/raylet", "--raylet_socket_name")[:1]),
            ("a party's Ray head", lambda: world.processes("/gcs/gcs_server")[:1]),
        ]
        load.start()
        try:
            load.back_after(time.monotonic(), self.patience)
            for name, find in victims:
                moment = time.monotonic()
                count = kill(find())
                back = load.back_after(moment, 90)
                self.figures[f"back after {name} was killed, s"] = round(back, 1)
                self.check(
                    f"kill {name}: service is back",
                    count > 0 and back <= self.patience,
                    f"{count} killed, {back:.1f} s",
                )
        finally:
            load.stop()
            client.close()
        self.figures |= {"kill: answered": load.answered, "kill: retriable errors": len(load.refused)}
        self.check(
            "kill: no answer is wrong", not load.wrong and load.answered > 0, "; ".join(load.wrong[:5])
        )
        self.check("kill: only retriable errors", not load.unexpected, "; ".join(load.unexpected[:5]))

    def once(self) -> None:
        """The same bytes under the same key, twice: one run, one answer."""
        world = self.world
        made = maker(
            deploy.bundle(world), world.home / "ca" / "directory.json", world.home / "client.key", SET
        )
        body = made.body()
        headers = {"Authorization": f"Bearer {world.api_key}", "Idempotency-Key": os.urandom(8).hex()}
        with httpx.Client(
            base_url=world.url, verify=deploy.verify(world), timeout=60, headers=headers
        ) as http:
            first, second = (http.post("/v1/private/infer", json=body) for _ in range(2))
            other = http.post("/v1/private/infer", json=body, headers={"Idempotency-Key": "another"})
        same = (
            first.status_code == second.status_code == 200
            and first.json()["answers"] == second.json()["answers"]
        )
        self.check(
            "an idempotent request is answered once", same, f"{first.status_code}, {second.status_code}"
        )
        self.check(
            "its replay under another key is refused", other.status_code == 409, str(other.status_code)
        )

    # -- inside ------------------------------------------------------------------------------------------------------

    def client(self) -> Client:
        world = self.world
        return Client(
            world.url,
            bundle=Bundle.load(deploy.bundle(world)),
            signing_key=SigningKey.load(world.home / "client.key"),
            trust=world.home / "ca" / "ca.pem",
            api_key=world.api_key,
            verify="federation",
        )

    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.world.proxy_url}/v1", api_key="none", max_retries=4, timeout=60)

    def clients_own(self) -> list[Path]:
        """What belongs to the client or the model's owner, and may hold what it likes."""
        return [self.world.home / "shares"]

    def run(self) -> int:
        try:
            if self.step("deployment", self.deployment):
                self.accepted: dict[str, Any] = {}
                self.step("canary", self.canary)
                self.step("idempotency", self.once)
                self.step("hostile", self.hostile)
                self.step("kill", self.killing)
        finally:
            self.world.close()
        self.check("nothing is left running", not self.world.left_over, "; ".join(self.world.left_over[:5]))
        failed = [name for name, passed, _ in self.results if not passed]
        self.table()
        passed = len(self.results) - len(failed)
        print(json.dumps({"passed": passed, "failed": len(failed), "figures": self.figures}), flush=True)
        if failed:
            self.say(f"logs are in {self.world.logs}")
            return 1
        self.world.remove()
        return 0

    def table(self) -> None:
        print(f"\n{'figure':52} value")
        for name, value in self.figures.items():
            print(f"{name:52} {value}")
        print()
        for name, passed, detail in self.results:
            print(f"{'ok' if passed else 'FAILED':7} {name}" + ("" if passed else f": {detail}"))


def _head(packed: bytes) -> str:
    """The JSON header of a packed message, from its first brace to the end of the object."""
    text = packed[packed.index(b"{") :]
    value, _ = json.JSONDecoder().raw_decode(text[: 1 << 16].decode("latin-1"))
    return json.dumps(value["header"])


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _slots(world: World) -> list[psutil.Process]:
    return world.processes("SlotActor")


def _leaves(world: World, word: str) -> list[psutil.Process]:
    """The service itself, not its supervisor."""
    return [p for p in world.processes("mpc_ray.cli.main", word) if "supervise" not in _words(p)]


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt  # so that the world is closed


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="10,000 hostile requests")
    parser.add_argument("--patience", type=float, default=BACK_S, metavar="S", help="default: %(default)g")
    given = parser.parse_args()
    sys.exit(Rehearsal(given.full, given.patience).run())
