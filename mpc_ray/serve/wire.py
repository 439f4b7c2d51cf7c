"""Errors as values: what one process of the gateway tells another.

An exception that crosses Ray is kept, text and all, in task events and spans; and what is raised in one process
is pickled for another. So a replica answers with a failure as data, and the caller raises it anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpc_ray import errors
from mpc_ray.errors import AuthorisationError, CheatingDetected, MpcError, PeerLost, Unavailable
from mpc_ray.serve.idempotency import Conflict
from mpc_ray.serve.limits import QuotaExceeded, RateExceeded

_OURS: Mapping[str, type[MpcError]] = {
    kind.__name__: kind
    for kind in (*vars(errors).values(), Conflict, QuotaExceeded, RateExceeded)
    if isinstance(kind, type) and issubclass(kind, MpcError)
}


@dataclass(frozen=True)
class Failed:
    """An error on its way. ``fields`` is plain JSON."""

    fields: Mapping[str, Any]


def failed(error: BaseException) -> Failed:
    """The error as a value. One that is not of mpc-ray keeps only the name of its class."""
    if not isinstance(error, MpcError):
        return Failed(
            {"error": "MpcError", "cause": f"{type(error).__name__} inside the gateway", "remedy": ""}
        )
    fields: dict[str, Any] = {"error": type(error).__name__, "cause": error.cause, "remedy": error.remedy}
    for name in ("code", "retry_after_s", "peer", "second_hand"):
        if value := getattr(error, name, None):
            fields[name] = value
    if isinstance(error, CheatingDetected):
        fields["culprits"] = list(error.culprits)
    return Failed(fields)


def error_of(failure: Failed) -> MpcError:
    """The inverse of ``failed``."""
    fields = failure.fields
    kind = _OURS.get(str(fields.get("error")), MpcError)
    cause, remedy = str(fields.get("cause", "")), str(fields.get("remedy", ""))
    if issubclass(kind, PeerLost):
        peer = str(fields.get("peer", "party"))
        return kind(peer, cause.removeprefix(f"{peer}: "), remedy=remedy)
    if issubclass(kind, AuthorisationError):
        return kind(cause, remedy=remedy, code=str(fields.get("code", "unauthorised")))
    if issubclass(kind, Unavailable):
        return kind(cause, remedy=remedy, retry_after_s=float(fields.get("retry_after_s", 1.0)))
    if issubclass(kind, CheatingDetected):
        culprits = tuple(int(i) for i in fields.get("culprits", ()))
        return kind(cause, culprits, remedy=remedy, second_hand=bool(fields.get("second_hand", False)))
    return kind(cause, remedy=remedy)
