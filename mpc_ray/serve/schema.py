"""Bodies of the gateway's routes, as pydantic models: what OpenAPI shows, and the bounds on what callers send.

Everything is strict: no field is converted, none is unknown, each text and list has a largest length.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from mpc_ray.serve.problems import ProblemError
from mpc_ray.trust import canonical
from mpc_ray.trust.authorisation import OUTPUTS

LATEST_MS = 1 << 53


def _text(pattern: str) -> Any:
    return StringConstraints(pattern=rf"^(?:{pattern})$", max_length=128)


Name = Annotated[str, _text(canonical.NAME.pattern)]
Model = Annotated[str, _text(canonical.MODEL.pattern)]
Jurisdiction = Annotated[str, _text(canonical.JURISDICTION.pattern)]
Hex16 = Annotated[str, _text("[0-9a-f]{32}")]
Hex32 = Annotated[str, _text("[0-9a-f]{64}")]
Count = Annotated[int, Field(ge=1, le=1 << 16)]
Time = Annotated[int, Field(ge=1, le=LATEST_MS)]
Signature = Annotated[str, _text("[A-Za-z0-9+/]{86}==")]
Envelope = Annotated[
    str,
    StringConstraints(min_length=4, max_length=4 * ((1 << 30) // 3)),
    Field(json_schema_extra={"contentEncoding": "base64", "maxLength": 4 * ((1 << 30) // 3)}),
]


class _Body(BaseModel):
    # Keys alone are cached: no job id stays in memory after its request.
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, cache_strings="keys"
    )


class AuthorisationBody(_Body):
    """What the client allows for this one job; signed by it, and bound into each envelope."""

    job: Hex16 = Field(description="16 random bytes")
    federation: Name
    set: Name = Field(description="the set of parties to whose keys the envelopes are sealed")
    client: Hex16 = Field(description="id of the signing key")
    model: Model
    model_digest: Hex32
    protocol: Model
    batch: Count = Field(description="texts in this job")
    length: Count = Field(description="tokens of each, padded")
    output: Annotated[str, _text("|".join(OUTPUTS))]
    range_check: bool
    purpose: Name
    jurisdictions: Annotated[list[Jurisdiction], Field(max_length=64)] = Field(
        description="where all three operators must be; an empty list allows any place"
    )
    retention: Name
    issued_ms: Time
    expires_ms: Time = Field(description="at most 60,000 after issued_ms")
    inputs: Annotated[list[Hex32], Field(min_length=3, max_length=3)] = Field(
        description="SHA-256 of each envelope's content"
    )


class InferBody(_Body):
    """One sealed job."""

    authorisation: AuthorisationBody
    signature: Signature = Field(description="Ed25519 over the authorisation, base64")
    envelopes: Annotated[list[Envelope], Field(min_length=3, max_length=3)] = Field(
        description="one for each party in order, base64; only that party can open it"
    )


class InferAnswer(_Body):
    """Three sealed answers, which only the client can open."""

    job: Hex16
    answers: Annotated[list[str], Field(min_length=3, max_length=3)] = Field(
        description="base64, in party order"
    )
    set: Name
    timing: dict[str, float] = Field(description="seconds and counts, for people")


class SetBody(_Body):
    """One set of three operators, as this gateway sees it."""

    set: str
    ready: bool
    why: str = Field(default="", description="it is not ready, for people")
    order: int = Field(description="0 is what this gateway prefers")
    jurisdictions: list[str] = Field(description="of the three operators, in party order")
    regions: list[str]
    models: list[str]
    queue: int
    triples: int


class SetsBody(_Body):
    """All sets of this gateway, preferred ones first."""

    sets: list[SetBody]


class ModelBody(_Body):
    """A model that can be asked for."""

    name: str
    digest: str
    lengths: list[int] = Field(description="padded lengths in tokens")
    hidden: int = Field(description="width of an embedding")
    sets: list[str] = Field(description="sets that have it, preferred ones first")
    max_batch: int


class ModelsBody(_Body):
    """All models of this gateway."""

    data: list[ModelBody]


class TensorBody(_Body):
    """A tensor as KServe describes it; -1 is any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadataBody(_Body):
    """A model as KServe's V2 protocol describes it. It is asked for by sealed jobs only."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorBody]
    outputs: list[TensorBody]


class LiveBody(_Body):
    """The process answers."""

    live: bool


class ReadyBody(_Body):
    """At least one set answers jobs. ``not_ready``: those that do not, and why; left out where all do."""

    ready: bool
    not_ready: dict[str, str] = Field(default_factory=dict, description="by set, why it answers no jobs now")


class ModelReadyBody(_Body):
    """At least one set that is ready has the model."""

    name: str
    ready: bool


class FieldError(_Body):
    """Where in the request something is wrong, and which rule of pydantic it breaks."""

    at: str
    kind: str


class ProblemBody(BaseModel):
    """An error: RFC 9457 problem details in the caller's language."""

    type: str = Field(examples=["urn:mpc-ray:problem:overloaded"])
    title: str = Field(description="in the best of en, es, fr, de, ja, zh for Accept-Language")
    status: int
    detail: str
    code: str = Field(description="the error in a word for machines", examples=["overloaded"])
    cause: str
    remedy: str
    instance: str = Field(description="under this id the gateway's log speaks of it")
    errors: list[FieldError] | None = Field(None, description="only where the request was malformed")
    sets: list[str] | None = Field(
        None, description="other sets that are ready and allowed, where this one is not"
    )


def decode(text: str, field: str) -> bytes:
    """The bytes of a base64 text: standard alphabet, padded. Raises ProblemError."""
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ProblemError(
            422,
            "invalid",
            f"the request is malformed at {field}",
            remedy="send base64 in the standard alphabet, padded",
            extra={"errors": [{"at": field, "kind": "base64"}]},
        ) from None


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
