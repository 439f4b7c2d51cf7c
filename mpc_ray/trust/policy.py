"""What one party agrees to compute. Each party has its own, and checks every authorisation against it.

It refuses by a word for machines (``Refused.code``): ``federation``, ``set``, ``protocol``, ``model``, ``output``,
``purpose``, ``retention``, ``jurisdiction``, ``batch``, ``length``, ``size``; and, as ``AuthorisationError``,
``expired`` and ``issued_in_future``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from mpc_ray.errors import AuthorisationError, Refused
from mpc_ray.trust import canonical
from mpc_ray.trust.authorisation import Authorisation
from mpc_ray.trust.directory import PartyRecord

ANY = "*"


Name = Annotated[str, StringConstraints(pattern=rf"^(?:\*|{canonical.NAME.pattern})$")]
Model = Annotated[str, StringConstraints(pattern=rf"^(?:\*|{canonical.MODEL.pattern})$")]
Jurisdiction = Annotated[str, StringConstraints(pattern=rf"^(?:\*|{canonical.JURISDICTION.pattern})$")]


class Policy(BaseModel):
    """Lists of what is allowed; ``*`` allows all, an empty list nothing. Unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    protocols: tuple[Model, ...] = Field(("semi_honest_3pc",), strict=False)
    models: tuple[Model, ...] = Field(
        (ANY,), strict=False, description="names of models; * is all in the store"
    )
    outputs: tuple[Literal["embedding", "hidden", "*"], ...] = Field(("embedding",), strict=False)
    purposes: tuple[Name, ...] = Field((ANY,), strict=False, description="purposes that a client may state")
    retention: tuple[Name, ...] = Field(("job",), strict=False, description="classes of what may be kept")
    jurisdictions: tuple[Jurisdiction, ...] = Field(
        (ANY,), strict=False, description="where all three operators of the set must be"
    )
    require_range_check: bool = Field(False, description="refuse jobs that switch the range check off")
    max_batch: int = Field(256, ge=1, le=1 << 16, description="texts in one job")
    max_length: int = Field(512, ge=1, le=1 << 16, description="tokens of the padded length")
    max_tokens: int = Field(32768, ge=1, le=1 << 24, description="batch times length")
    clock_skew_s: float = Field(
        5.0, ge=0, le=60, strict=False, description="how far clocks may differ, seconds"
    )

    def check(
        self,
        authorisation: Authorisation,
        records: Sequence[PartyRecord],
        now_ms: int,
        *,
        federation: str,
    ) -> None:
        """``Refused`` or ``AuthorisationError`` unless this party agrees. ``records``: the three of its own set, of its
        own directory. The signature and the journal are checked apart.
        """
        a, skew = authorisation, round(self.clock_skew_s * 1000)
        if now_ms > a.expires_ms + skew:
            raise AuthorisationError(
                f"the authorisation expired {(now_ms - a.expires_ms) / 1000:.1f} s ago",
                remedy="sign a new one; if it is new, set the clocks",
                code="expired",
            )
        if a.issued_ms > now_ms + skew:
            raise AuthorisationError(
                f"the authorisation was issued {(a.issued_ms - now_ms) / 1000:.1f} s in the future",
                remedy="set the clocks",
                code="issued_in_future",
            )
        _require(a.federation == federation, "federation", "it is for another federation")
        _require(all(a.set == record.set for record in records), "set", "it is for another set of parties")
        _require(
            _allowed(a.protocol, self.protocols), "protocol", f"protocol {a.protocol} is not allowed here"
        )
        _require(_allowed(a.model, self.models), "model", f"model {a.model} is not allowed here")
        _require(_allowed(a.output, self.outputs), "output", f"output {a.output} is not allowed here")
        _require(
            a.range_check or not self.require_range_check,
            "range_check",
            "jobs without range check are refused",
        )
        _require(_allowed(a.purpose, self.purposes), "purpose", f"purpose {a.purpose} is not allowed here")
        _require(
            _allowed(a.retention, self.retention), "retention", f"retention {a.retention} is not offered here"
        )
        _require(a.batch <= self.max_batch, "batch", f"batch {a.batch}, at most {self.max_batch} here")
        _require(a.length <= self.max_length, "length", f"length {a.length}, at most {self.max_length} here")
        tokens = a.batch * a.length
        _require(tokens <= self.max_tokens, "size", f"{tokens} tokens, at most {self.max_tokens} here")
        for record in records:
            where = f"party {record.index} is in {record.jurisdiction}"
            asked = not a.jurisdictions or _lies_in(record.jurisdiction, a.jurisdictions)
            _require(asked, "jurisdiction", f"{where}, which the authorisation does not allow")
            ours = _lies_in(record.jurisdiction, self.jurisdictions)
            _require(ours, "jurisdiction", f"{where}, which this party's policy does not allow")


def _require(holds: bool, code: str, cause: str) -> None:
    if not holds:
        raise Refused(f"the job is refused: {cause}", remedy="ask this operator for its policy", code=code)


def _allowed(value: str, allowed: Sequence[str]) -> bool:
    return ANY in allowed or value in allowed


def _lies_in(jurisdiction: str, allowed: Sequence[str]) -> bool:
    """``US-CA`` lies in ``US-CA`` and in ``US``."""
    return any(entry in (ANY, jurisdiction, jurisdiction.partition("-")[0]) for entry in allowed)
