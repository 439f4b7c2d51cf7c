"""docs/deployment.md, part A, step by step, in a ``World``."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import httpx
from world import MODEL, OPERATORS, SET, World


def make_federation(world: World) -> None:
    """Authority, three operators, a gateway; a model shared with them; a client enrolled."""
    world.say("certificates, keys and the signed directory")
    authority = world.run("certs", "init", "--federation", "rehearsal", "--out", "ca")
    requests = []
    for index, (operator, region, law) in enumerate(OPERATORS):
        world.run(
            "certs",
            "request",
            "--party",
            str(index),
            "--set",
            SET,
            "--operator",
            operator,
            "--region",
            region,
            "--jurisdiction",
            law,
            "--peer",
            f"127.0.0.1:{world.ports[f'{operator}-peer']}",
            "--endpoint",
            f"127.0.0.1:{world.ports[f'{operator}-gateway']}",
            "--out",
            operator,
        )
        requests.append(f"{operator}/request.json")
    world.run("certs", "request", "--gateway", "--out", "gw")
    world.run("certs", "sign", "--ca", "ca", *requests, "gw/request.json")
    for folder in (*(operator for operator, _, _ in OPERATORS), "gw"):
        world.run(
            "certs",
            "install",
            "ca/directory.json",
            "--folder",
            folder,
            "--fingerprint",
            authority["fingerprint"],
        )
    world.say(f"sharing {MODEL} among three operators")
    world.run(
        "model",
        "share",
        MODEL,
        "--to",
        "ca/directory.json",
        "--set",
        SET,
        "--out",
        "shares",
        "--fingerprint",
        authority["fingerprint"],
    )
    for index, (operator, _, _) in enumerate(OPERATORS):
        world.run("model", "import", f"shares/{MODEL}.party{index}.share", "--party", operator)
    world.say("enrolling a client")
    public = world.run("keys", "signing", "--out", "client.key")["public"]
    for operator, _, _ in OPERATORS:
        world.run("keys", "enroll", public, "--party", operator, "--name", "rehearsal")
    world.api_key = world.run(
        "keys", "create", "--gateway", "gw", "--name", "rehearsal", "--per-minute", "100000"
    )["bearer"]
    (world.home / "api.key").touch(mode=0o600)
    (world.home / "api.key").write_text(world.api_key + "\n")


def start_services(world: World) -> dict[str, float]:
    """Three parties, each with its own Ray, the gateway and the proxy; seconds until each was ready."""
    for operator, _, _ in OPERATORS:
        path = world.config(
            f"{operator}-party",
            {
                "folder": str(world.home / operator),
                "peer": {"host": "127.0.0.1", "port": world.ports[f"{operator}-peer"]},
                "gateway": {"host": "127.0.0.1", "port": world.ports[f"{operator}-gateway"]},
                "slots": world.slots,
            },
        )
        world.serve(operator, "party", "--config", path)
    gateway = world.config("gateway", {"folder": str(world.home / "gw"), "port": world.ports["https"]})
    world.serve("gateway", "gateway", "--config", gateway, "--standalone")
    took = {"gateway ready": world.wait("the gateway", lambda: ready(world))}
    proxy = world.config(
        "proxy",
        {
            "gateway": world.url,
            "bundle": str(world.home / "shares" / f"{MODEL}.client"),
            "signing_key": str(world.home / "client.key"),
            "api_key_file": str(world.home / "api.key"),
            "trust": str(world.home / "ca" / "ca.pem"),
            "gateway_ca": "federation",
            "proxy": {"port": world.ports["proxy"]},
        },
    )
    world.serve("proxy", "proxy", "--config", proxy)
    took["proxy ready"] = world.wait("the proxy", lambda: answers(f"{world.proxy_url}/health", world))
    return took


def verify(world: World) -> ssl.SSLContext:
    """Trusts the federation's authority alone; the gateway's own certificate is for the name ``gateway``."""
    context = ssl.create_default_context(cafile=str(world.home / "ca" / "ca.pem"))
    context.check_hostname = False
    return context


def ready(world: World) -> bool:
    return answers(f"{world.url}/v2/health/ready", world)


def answers(url: str, world: World) -> bool:
    """Whether a GET is answered with 200."""
    try:
        return httpx.get(url, verify=verify(world), timeout=5).status_code == 200
    except (httpx.HTTPError, ssl.SSLError, OSError):
        return False


def status(world: World) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        httpx.get(f"{world.url}/v1/sets", verify=verify(world), timeout=10).text
    )
    return found


def bundle(world: World) -> Path:
    return world.home / "shares" / f"{MODEL}.client"
