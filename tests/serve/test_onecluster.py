"""Development mode: three endpoints as actors on labelled nodes of one Ray cluster, and a leader that uses them."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "endpoint"))

from mpc_ray.errors import ConfigError
from mpc_ray.serve.onecluster import OneCluster, find_folders

PROGRAM = """
import asyncio, json, os, sys
from pathlib import Path
sys.path += json.loads(os.environ["TEST_PATHS"])
import ray
from ray.cluster_utils import Cluster
import numpy as np
from cluster import Three, free_ports, make_federation, share_tiny
from mpc_ray.models.bert_float import embed
from mpc_ray.serve.config import GatewayConfig, SetSettings
from mpc_ray.serve.interface import Job
from mpc_ray.serve.onecluster import leader
root = Path(os.environ["TMPDIR"])
ports = free_ports(("eu",))
federation = make_federation(root, ("eu",), ports)
bert, bundle = share_tiny(root, federation)
three = Three(root, federation, ports, {}, bert, bundle)
small = dict(object_store_memory=78 << 20, include_dashboard=False, temp_dir=str(root / "r"))
cluster = Cluster(initialize_head=True, head_node_args=dict(num_cpus=0, **small))
for party in (2, 0, 1):
    cluster.add_node(num_cpus=1, object_store_memory=78 << 20, labels={"party": str(party)}, wait=False)
cluster.wait_for_nodes()
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")

async def main():
    triples = leader(GatewayConfig(folder=federation.gateway), SetSettings(name="eu"), triples=1)
    await triples.start()
    try:
        said = {"labels": [one.get("party") for one in triples._cluster.labels], "worst": 0.0}
        for text in ("hello world", "a quick fox"):
            made = three.job((text,))
            job = Job(made.authorisation.to_json(), made.signature, made.envelopes, 30.0)
            answers = await triples.infer(job)
            said["worst"] = max(said["worst"], float(np.abs(made.read(answers.sealed) - embed(bert, [text])).max()))
        said["ready"] = (await triples.status())["ready"]
    finally:
        await triples.stop()
    print(json.dumps(said), file=out)

out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # Ray prints to standard output
asyncio.run(main())
out.flush()
ray.shutdown()
cluster.shutdown()
"""


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Ray's sockets live there, and their paths end at 107 bytes."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="oc-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.mark.clusters
def test_each_endpoint_is_on_its_partys_node_and_a_job_gets_its_numbers(short_folder: Path) -> None:
    (short_folder / "ray").mkdir()  # the cluster's own notes
    token = short_folder / "token"
    token.write_text(secrets.token_hex(32))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    here = Path(__file__).resolve().parents[1]
    environment = clean | {
        "TMPDIR": str(short_folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "TEST_PATHS": json.dumps([str(here / "endpoint"), str(here / "trust")]),
    }
    child = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=150,
        env=environment,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-3000:]
    said = json.loads(child.stdout)
    assert said["labels"] == ["0", "1", "2"]
    assert said["worst"] < 2e-3
    assert said["ready"] is True
    assert not [
        one
        for one in psutil.process_iter(["cmdline"])
        if str(short_folder) in " ".join(one.info["cmdline"] or [])
    ]


def test_folders_that_are_no_set_and_a_process_without_ray_are_named(short_folder: Path) -> None:
    from cluster import make_federation  # type: ignore[import-not-found]

    federation = make_federation(short_folder, ("eu", "us"))
    eu, us = federation.folders["eu"], federation.folders["us"]
    for wrong in (
        (eu[0], eu[1]),
        (eu[0], eu[1], us[2]),
        (eu[0], eu[1], eu[1]),
        (*eu[:2], federation.gateway),
    ):
        with pytest.raises(ConfigError, match="parties 0, 1 and 2 of one set"):
            OneCluster(wrong)
    assert find_folders(short_folder, "us") == list(us)
    with pytest.raises(ConfigError, match="in no Ray cluster"):
        OneCluster((eu[2], eu[0], eu[1])).start()
