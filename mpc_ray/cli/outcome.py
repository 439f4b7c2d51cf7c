"""What a demo found, for the terminal, the report and the JSON object alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mpc_ray

if TYPE_CHECKING:
    from mpc_ray.config import Config
    from mpc_ray.model import Model
    from mpc_ray.models.shadow import ShadowReport
    from mpc_ray.models.weights import Array
    from mpc_ray.report import Report

DRIFT_BOUND = 5e-6  # 1 - cosine to plaintext; working models stay below 2e-6


@dataclass(frozen=True)
class Setting:
    """Who computed what, and whom one has to trust. ``parameters`` counts the encoder's weights, and
    ``public_weights`` says whether the parties see them."""

    model: str
    digest: str
    layers: int
    hidden: int
    heads: int
    parameters: int
    protocol: str
    launcher: str
    device: str
    tls: bool
    range_check: bool
    trust: str
    public_weights: bool = False
    version: str = mpc_ray.__version__


@dataclass(frozen=True)
class FunctionCost:
    """One function's part: ``seconds`` of computing (mean of a party), bytes of all three, rounds where counted."""

    name: str
    seconds: float | None
    nbytes: int
    rounds: int | None


@dataclass(frozen=True)
class Near:
    """A text's nearest other text, or None for a single text; ``drift`` is 1 - cosine to the plaintext result."""

    neighbour: int | None
    cosine: float | None
    drift: float


@dataclass(frozen=True, eq=False)
class Outcome:
    """A run over ``texts``: vectors of the shares and of the plaintext model (texts, hidden), costs and times."""

    setting: Setting
    texts: tuple[str, ...]
    private: Array
    plain: Array
    report: Report
    seconds: dict[str, float]  # of the whole steps, as the client saw them: start, load, embed, plaintext
    shadow: ShadowReport | None = None

    def near(self) -> list[Near]:
        """For each text, in order."""
        import numpy as np

        unit = _unit(self.private)
        drifts = np.maximum(0.0, 1.0 - (unit * _unit(self.plain)).sum(1))
        found = []
        for i, row in enumerate(unit):
            cosines = unit @ row
            cosines[i] = -np.inf
            best = int(cosines.argmax())
            alone = len(unit) == 1
            found.append(
                Near(None if alone else best, None if alone else float(cosines[best]), float(drifts[i]))
            )
        return found

    @property
    def worst(self) -> float:
        """The largest 1 - cosine to the plaintext result."""
        return max(near.drift for near in self.near())

    def cosines(self) -> Array:
        """Cosine of each pair (texts, texts)."""
        unit = _unit(self.private)
        return unit @ unit.T

    def as_json(self) -> dict[str, Any]:
        """JSON-ready."""
        near = [
            {"text": text, "neighbour": one.neighbour, "cosine": one.cosine, "one_minus_cosine": one.drift}
            for text, one in zip(self.texts, self.near(), strict=True)
        ]
        return {"command": "demo", **asdict(self.setting), **costs_json(self.report)} | {
            "texts": near,
            "max_one_minus_cosine": self.worst,
            "seconds": self.seconds,
            "shadow": shadow_json(self.shadow),
        }


def setting_of(model: str, config: Config, trust: str, loaded: Model) -> Setting:
    """From a running session's configuration and a loaded model; ``model`` is what the user called it."""
    bert = loaded.bert
    c = bert.config
    return Setting(
        model=c.name if Path(model).expanduser().exists() else model,
        digest=bert.digest,
        layers=c.layers,
        hidden=c.hidden,
        heads=c.heads,
        parameters=c.layers * (4 * c.hidden * (c.hidden + 1) + c.ffn * (2 * c.hidden + 1) + 5 * c.hidden),
        protocol=config.protocol,
        launcher=config.launcher,
        device=config.device,
        tls=config.tls,
        range_check=config.range_check,
        trust=trust.removeprefix("trust: "),
        public_weights=loaded.weights == "public",
    )


def function_costs(report: Report) -> list[FunctionCost]:
    """Functions by bytes, largest first. A round in which two functions sent counts for both."""
    seconds = report.seconds_by_function()
    rounds = report.rounds_by_function()
    return [
        FunctionCost(name, seconds[name] / 3 if name in seconds else None, nbytes, rounds.get(name))
        for name, nbytes in report.bytes_by_function().items()
    ]


def waiting(report: Report) -> float:
    """Seconds that a party spent in exchanges: its peers' computing, and the network."""
    return sum(job.waiting for job in report.jobs)


def remainder(report: Report) -> float:
    """Seconds that no function claims: matrix products with shared weights, which send nothing, and the rest."""
    claimed = sum(report.seconds_by_function().values()) / 3 + waiting(report)
    return max(0.0, report.seconds - claimed)


def layer_table(report: Report, what: str) -> dict[str, dict[str, float]]:
    """layer → function → ``bytes`` of all three, ``seconds`` of a party (mean) or ``rounds``."""
    counted: dict[str, Callable[[], Mapping[str, Mapping[str, float]]]] = {
        "bytes": report.bytes_by_layer,
        "seconds": report.seconds_by_layer,
        "rounds": report.rounds_by_layer,
    }
    parties = 3 if what == "seconds" else 1
    return {
        layer: {name: value / parties for name, value in row.items()}
        for layer, row in counted[what]().items()
    }


def costs_json(report: Report) -> dict[str, Any]:
    """Costs of a call; bytes are all phases, frame headers included, before TLS."""
    offline = [sum(job.bytes_sent_offline[party] for job in report.jobs) for party in range(3)]
    return {
        "seconds_on_shares": report.seconds,
        "rounds": report.rounds,
        "bytes_sent": list(report.bytes_sent),
        "bytes_sent_offline": offline,
        "seconds_waiting": waiting(report),
        "functions": [
            {"name": cost.name, "seconds": cost.seconds, "bytes": cost.nbytes, "rounds": cost.rounds}
            for cost in function_costs(report)
        ],
        "bytes_by_layer": report.bytes_by_layer(),
        "jobs": [{"batch": job.batch, "length": job.length, "rounds": job.rounds} for job in report.jobs],
    }


def shadow_json(shadow: ShadowReport | None) -> dict[str, Any] | None:
    """Drift by place, and the first place outside its bound; None when shadow mode was off."""
    if shadow is None:
        return None
    first = shadow.first_outside
    return {
        "ok": shadow.ok,
        "first_outside": None if first is None else first.place,
        "outside_range": list(shadow.outside),
        "drifts": [asdict(drift) for drift in shadow.drifts],
    }


def _unit(vectors: Array) -> Array:
    import numpy as np

    unit: Array = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def mb(nbytes: float) -> str:
    """Bytes as megabytes (10^6), to three digits or so."""
    value = nbytes / 1e6
    return (
        f"{value:,.0f} MB" if value >= 100 else f"{value:.1f} MB" if value >= 1 else f"{value * 1000:,.1f} kB"
    )


def count(number: int, what: str) -> str:
    """1 round, 2 rounds."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Seconds for people."""
    return (
        f"{seconds:.1f} s"
        if seconds >= 10
        else f"{seconds:.2f} s"
        if seconds >= 0.1
        else f"{seconds * 1000:.0f} ms"
    )


def shown(texts: Sequence[str], index: int | None, width: int = 60) -> str:
    """A text on one line, cut to ``width``; a dash for none."""
    if index is None:
        return "–"
    line = " ".join(texts[index].split())
    return line if len(line) <= width else line[: width - 1] + "…"
