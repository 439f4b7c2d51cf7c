"""Settings of a set's leader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mpc_ray.errors import ConfigError
from mpc_ray.serve.batching import BatchLimits

_KNOWN = ("delay_ms", "max_queue", "max_tokens", "patience_s", "run_timeout_s", "triples", "wait_share")


@dataclass(frozen=True)
class TripleSettings:
    """``triples``: how many to keep open, each with a slot at every party. Times in seconds. ``patience_s``: how long
    jobs that were taken wait for a new triple after one was lost.
    """

    batch: BatchLimits = field(default_factory=BatchLimits)
    triples: int = 1
    submit_links: int = 4
    submit_timeout_s: float = 10.0
    open_timeout_s: float = 60.0
    run_timeout_s: float = 120.0
    status_every_s: float = 1.0
    patience_s: float = 25.0

    def __post_init__(self) -> None:
        times = (self.submit_timeout_s, self.open_timeout_s, self.run_timeout_s, self.status_every_s)
        if self.triples < 1 or self.submit_links < 1 or min(times) <= 0 or self.patience_s < 0:
            raise ConfigError(
                "a leader needs at least one triple, one submit link, and times above 0",
                remedy="correct its settings",
            )

    @staticmethod
    def of(settings: Mapping[str, Any]) -> TripleSettings:
        """From a gateway's ``batching`` section and ``triples``. ConfigError for a name that is not known."""
        if unknown := sorted(set(settings).difference(_KNOWN)):
            raise ConfigError(
                f"a set's leader has no setting {unknown[0]!r}", remedy=f"one of: {', '.join(_KNOWN)}"
            )
        usual = TripleSettings()
        batch = BatchLimits(
            int(settings.get("max_tokens", usual.batch.max_tokens)),
            int(settings.get("max_queue", usual.batch.max_queue)),
            float(settings.get("delay_ms", 1000 * usual.batch.delay_s)) / 1000,
            float(settings.get("wait_share", usual.batch.wait_share)),
        )
        return TripleSettings(
            batch,
            triples=int(settings.get("triples", usual.triples)),
            run_timeout_s=float(settings.get("run_timeout_s", usual.run_timeout_s)),
            patience_s=float(settings.get("patience_s", usual.patience_s)),
        )
