"""A trace on a real cluster: three labelled nodes, a process killed in the middle, the same policy code as emulated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("ray")

TRACE: dict[str, Any] = {
    "links": [{"between": ["eu", "eu"], "rtt_ms": 1, "bandwidth_mb_s": 100}],
    "triples": [{"name": "t", "count": 2, "regions": ["eu"] * 3, "trust": ["a", "b", "c"]}],
    "groups": [
        {"name": "g", "model": "m", "work_s": 0.4, "variants": [{"name": "v", "rounds": 100, "megabytes": 0}]}
    ],
    "jobs": [{"group": "g", "count": 8, "per_s": 4}, {"group": "g", "regions": ["mars"]}],
    "events": [
        {"at_s": 0.7, "triple": "t-0", "what": "dies"},
        {"at_s": 2.5, "triple": "t-0", "what": "back"},
    ],
    "batch": 2,
    "seed": 3,
}


@pytest.mark.clusters
@pytest.mark.timeout(400)
def test_the_same_trace_on_ray_and_emulated(tmp_path: Path) -> None:
    file = tmp_path / "trace.yaml"
    file.write_text(yaml.safe_dump(TRACE))
    program = "from mpc_ray.cli.main import main; main()"
    said = subprocess.run(
        [sys.executable, "-P", "-c", program, "plan", "simulate", str(file), "--ray", "--json",
         "--policy", "planner", "--policy", "earliest"],
        capture_output=True, text=True, timeout=380, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert said.returncode == 0, said.stderr[-2000:]
    answer = json.loads(said.stdout)
    rows = {(row["policy"], row["cluster"]): row for row in answer["rows"]}
    assert set(rows) == {(p, c) for p in ("planner", "earliest") for c in ("emulated", "ray")}
    for row in rows.values():
        assert row["done"] == 8 and row["stranded"] == 0 and row["broken"] == []
    for name in ("planner", "earliest"):
        emulated, real = rows[name, "emulated"], rows[name, "ray"]
        assert real["mean_s"] > 0.3 and real["makespan_s"] > 0.8 * emulated["makespan_s"]
        assert real["dollars"] == emulated["dollars"] == 0
    assert len(answer["refused"]) == 1 and "mars" in next(iter(answer["refused"].values()))
