"""What the gateway checks of a job before it passes it on.

It is a courtesy to honest clients and a relief for the parties, no more: every party checks all of it again by
itself, so a gateway that lies here gains nothing.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from mpc_ray.errors import AuthorisationError
from mpc_ray.serve.apikeys import ApiKey
from mpc_ray.serve.config import GatewayConfig
from mpc_ray.serve.interface import Job, Three
from mpc_ray.serve.problems import ProblemError, invalid
from mpc_ray.serve.published import Place, Published
from mpc_ray.serve.regions import RegionPolicy, RegionRequest, SetUnavailable, lies_in
from mpc_ray.serve.schema import InferBody, decode
from mpc_ray.serve.views import Model, SetView, Views
from mpc_ray.trust.authorisation import Authorisation, verify
from mpc_ray.trust.clients import ClientKeys
from mpc_ray.trust.folder import open_folder

MAX_PIECES = (
    1000  # an honest body has fewer than 150; ten million empty lists would take half a gigabyte to read
)


def parse(body: bytes) -> tuple[Authorisation, bytes, Three]:
    """Authorisation, signature and envelopes of a body. Raises ProblemError, AuthorisationError."""
    if sum(map(body.count, (b",", b"[", b"{"))) > MAX_PIECES:
        raise invalid([{"loc": (), "type": "too_many_values"}])
    try:
        read = InferBody.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False, include_context=False)) from None
    authorisation = Authorisation.from_json(read.authorisation.model_dump(mode="json"))
    a, b, c = (decode(text, f"envelopes.{index}") for index, text in enumerate(read.envelopes))
    return authorisation, decode(read.signature, "signature"), (a, b, c)


class Checks:
    """Everything that is checked, with what it needs to know."""

    def __init__(
        self,
        config: GatewayConfig,
        published: Callable[[], Published],
        views: Views,
        policy: RegionPolicy,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._config = config
        self._published = published
        self._views = views
        self._policy = policy
        self._now_ms = now_ms
        self._clients = KnownClients(config.folder)

    def job(self, body: bytes, key: ApiKey, timeout_s: float) -> tuple[Job, Authorisation]:
        """The job that a body asks for, without trace context. Raises ProblemError, AuthorisationError,
        SetUnavailable."""
        authorisation, signature, envelopes = parse(body)
        a = authorisation
        self._key(a, key)
        self._times(a)
        published = self._published()
        if a.federation != published.federation:
            raise ProblemError(
                422, "wrong_federation", "the job is for another federation", remedy="see GET /v1/parties"
            )
        view, place = self._views.get(a.set), published.places.get(a.set)
        if view is None or place is None:
            raise ProblemError(
                404,
                "unknown_set",
                "this gateway has no such set of parties",
                remedy="GET /v1/sets lists them",
            )
        _place(a, place)
        self._shapes(a, self._model(a, view), envelopes)
        self._clients.check(a, signature, only=self._config.known_clients_only)
        if not view.ready:
            raise self._not_ready(a)
        return Job(a.to_json(), signature, envelopes, timeout_s), a

    def _key(self, a: Authorisation, key: ApiKey) -> None:
        for allowed, wanted, what in ((key.models, a.model, "model"), (key.purposes, a.purpose, "purpose")):
            if allowed and wanted not in allowed:
                raise ProblemError(
                    403,
                    f"forbidden_{what}",
                    f"this API key does not allow that {what}",
                    remedy="ask the gateway's operator",
                )

    def _times(self, a: Authorisation) -> None:
        now, skew = self._now_ms(), int(self._config.limits.clock_skew_s * 1000)
        if a.expires_ms + skew <= now:
            raise AuthorisationError(
                "the authorisation has expired",
                remedy="sign a new one just before it is sent, and set the clocks",
                code="expired",
            )
        if a.issued_ms - skew > now:
            raise AuthorisationError(
                "the authorisation is not valid yet", remedy="set the clocks", code="issued_in_future"
            )

    def _model(self, a: Authorisation, view: SetView) -> Model:
        model = view.models.get(a.model)
        if model is None:
            if not view.models:  # never seen ready: nothing is known
                raise self._not_ready(a)
            raise ProblemError(
                404, "unknown_model", "this set has no such model", remedy="GET /v1/models lists them"
            )
        if a.model_digest != model.digest:
            raise ProblemError(
                409,
                "wrong_model",
                "the model was changed since the client's bundle of it was made",
                remedy="get the model's new bundle from its owner",
            )
        return model

    def _shapes(self, a: Authorisation, model: Model, envelopes: Three) -> None:
        if a.length not in model.lengths:
            raise ProblemError(
                422,
                "unknown_length",
                "the model is not prepared for this length",
                remedy=f"pad to one of {', '.join(map(str, model.lengths))}",
            )
        most = self._config.limits.batch
        if a.batch > most:
            raise ProblemError(
                422, "too_many", f"one request may have {most} texts", remedy="send several requests"
            )
        if max(map(len, envelopes)) > model.envelope_bytes(a.batch, a.length):
            raise ProblemError(
                413,
                "too_large",
                "an envelope is larger than any for this batch and length",
                remedy="seal what mpc_ray.client makes",
            )
        if not all(envelopes):
            raise ProblemError(422, "invalid", "an envelope is empty", remedy="seal one for each party")

    def _not_ready(self, a: Authorisation) -> SetUnavailable:
        """503, with the other sets that are ready and where the job may go, in order."""
        request = RegionRequest(self._config.regions.here or "", a.jurisdictions)
        ready = {view.name for view in self._views if view.ready}
        others = tuple(name for name in self._policy.allowed(request) if name in ready - {a.set})
        return SetUnavailable("this set of parties answers no jobs now", others, retry_after_s=2.0)


class KnownClients:
    """Signing keys enrolled with this gateway: ``clients.json`` in its folder, signed by its own key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._keys: ClientKeys | None = None

    def check(self, a: Authorisation, signature: bytes, *, only: bool) -> None:
        """Verify a signature whose key is known. Raises AuthorisationError; ``only``: also for an unknown key."""
        if self._keys is None:
            if not only and not (self._folder / "clients.json").exists():
                return
            self._keys = open_folder(self._folder).clients()
        try:
            public = self._keys.find(a.client)
        except AuthorisationError as error:
            if only or error.code != "unknown_key":
                raise
            return
        verify(a, signature, public)


def _place(a: Authorisation, place: Place) -> None:
    if a.jurisdictions and not all(lies_in(one, a.jurisdictions) for one in place.jurisdictions):
        raise AuthorisationError(
            "an operator of this set is in a jurisdiction that the job does not allow",
            remedy="seal to a set whose three operators are all where the job may go: GET /v1/sets",
            code="jurisdiction",
        )


def new_turn() -> str:
    """A name for one attempt at a request."""
    return secrets.token_hex(16)
