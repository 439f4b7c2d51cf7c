"""A profile as a file: Chrome's trace format, which chrome://tracing and https://ui.perfetto.dev open.

A process a party, a lane a kind of work (``protocols.timeline``). The first four lanes of a party add up to its time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpc_ray.errors import ConfigError
from mpc_ray.protocols.timeline import LANES, WRITING


def chrome_trace(profiles: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object. ``profiles``: of the three parties' answers, in order; ``facts``: whatever says what ran.

    Times are microseconds from the first party's beginning. Parties on several machines are as far off as their clocks.
    """
    first = min(float(profile["epoch"]) for profile in profiles)
    events: list[dict[str, Any]] = []
    for party, profile in enumerate(profiles):
        events.append(_name("process_name", party, 0, f"party {party}"))
        lanes = [*LANES, *(f"{WRITING}{peer}" for peer in range(3) if peer != party)]
        for number, lane in enumerate(lanes):
            events.append(_name("thread_name", party, number, lane))
            events.append(_named("thread_sort_index", party, number, {"sort_index": number}))
        shift = round((float(profile["epoch"]) - first) * 1e6)
        for lane, name, layer, begin, end in profile["spans"]:
            where = {"layer": layer} if layer else {}
            events.append(
                {"ph": "X", "pid": party, "tid": lanes.index(lane), "cat": lane, "name": name, "args": where}
                | {"ts": begin + shift, "dur": end - begin}
            )
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": dict(facts)}


def lane_seconds(profiles: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Seconds by lane, for each party."""
    found = []
    for profile in profiles:
        total = dict.fromkeys(LANES, 0.0)
        for lane, _, _, begin, end in profile["spans"]:
            total[lane] = total.get(lane, 0.0) + (end - begin) / 1e6
        found.append(total)
    return found


def write_trace(path: Path, trace: Mapping[str, Any]) -> None:
    """Raises ConfigError if the file cannot be written."""
    try:
        path.write_text(json.dumps(trace, allow_nan=False))
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", remedy="name another file") from None


def _name(kind: str, party: int, lane: int, name: str) -> dict[str, Any]:
    return _named(kind, party, lane, {"name": name})


def _named(kind: str, party: int, lane: int, args: Mapping[str, Any]) -> dict[str, Any]:
    return {"ph": "M", "pid": party, "tid": lane, "name": kind, "args": dict(args)}
