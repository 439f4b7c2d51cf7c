"""The routes, but for what computes (``serve.infer``)."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated

from fastapi import FastAPI, Path, Query, Request
from starlette.responses import Response

from mpc_ray.errors import MpcError
from mpc_ray.serve import schema
from mpc_ray.serve.infer import authenticate
from mpc_ray.serve.openapi import INFER, KEYED, METRICS, PARTIES, PLAIN, READY
from mpc_ray.serve.problems import ProblemError
from mpc_ray.serve.schema import (
    InferAnswer,
    LiveBody,
    ModelBody,
    ModelMetadataBody,
    ModelReadyBody,
    ModelsBody,
    ReadyBody,
    SetBody,
    SetsBody,
    TensorBody,
)
from mpc_ray.serve.views import SetView
from mpc_ray.telemetry import metrics
from mpc_ray.trust.dates import dates

if TYPE_CHECKING:
    from mpc_ray.serve.app import Gateway

ModelName = Annotated[schema.Model, Path(description="a name of GET /v1/models")]
SetName = Annotated[schema.Name | None, Query(alias="set", description="404 if there is no such set")]


def add_routes(app: FastAPI, gateway: Gateway) -> None:
    """Give ``app`` every route of the gateway."""

    @app.post("/v1/private/infer", response_model=InferAnswer, summary="Compute one sealed job", **INFER)
    async def infer(request: Request) -> Response:
        return await gateway.inference(request)

    @app.get("/v1/parties", summary="The signed directory of all parties", **PARTIES)
    async def parties(request: Request, name: SetName = None) -> Response:
        published = gateway.published
        if name is not None and (name not in published.places or name not in gateway.triples):
            raise ProblemError(
                404,
                "unknown_set",
                "this gateway has no such set of parties",
                remedy="GET /v1/sets lists them",
            )
        headers = {"ETag": published.etag, "Cache-Control": "max-age=60"}
        if request.headers.get("if-none-match") == published.etag:
            return Response(status_code=304, headers=headers)
        return Response(published.document, media_type="application/json", headers=headers)

    @app.get("/v1/sets", summary="How each set is, in order of preference", **PLAIN)
    async def sets() -> SetsBody:
        return SetsBody(sets=_sets(gateway))

    @app.get("/v1/models", summary="What can be asked for", **KEYED)
    async def models(request: Request) -> ModelsBody:
        await authenticate(request, gateway.state)
        return ModelsBody(data=list(_models(gateway).values()))

    @app.get("/v2/health/live", summary="Does the process answer?", **PLAIN)
    async def live() -> LiveBody:
        return LiveBody(live=True)

    @app.get(
        "/v2/health/ready",
        summary="Is there a set that answers jobs?",
        response_model_exclude_defaults=True,
        **READY,
    )
    async def ready() -> ReadyBody:
        if gateway.draining:
            raise ProblemError(
                503,
                "draining",
                "this gateway is about to end",
                remedy="send requests to another",
                headers={"Retry-After": "5"},
            )
        down = {view.name: _why(gateway, view) for view in gateway.views if not view.ready}
        if not any(view.ready for view in gateway.views):
            each = "; ".join(f"set {name}: {why}" for name, why in down.items())
            raise _not_ready(f"no set of parties answers jobs now: {each}")
        return ReadyBody(ready=True, not_ready=down)

    @app.get("/v2/models/{name}", summary="A model, as KServe describes it", **KEYED)
    async def model(request: Request, name: ModelName) -> ModelMetadataBody:
        await authenticate(request, gateway.state)
        found = _find(gateway, name)
        return ModelMetadataBody(
            name=found.name,
            versions=[found.digest[:16]],
            platform="mpc-ray",
            inputs=[TensorBody(name="envelopes", datatype="BYTES", shape=[3])],
            outputs=[TensorBody(name="answers", datatype="BYTES", shape=[3])],
        )

    @app.get("/v2/models/{name}/ready", summary="Does a set that is ready have the model?", **READY)
    async def model_ready(name: ModelName) -> ModelReadyBody:
        _find(gateway, name)
        if gateway.draining or not any(view.ready and name in view.models for view in gateway.views):
            raise _not_ready("no set of parties that has this model answers jobs now")
        return ModelReadyBody(name=name, ready=True)

    @app.get("/metrics", summary="For Prometheus, from our own networks only", **METRICS)
    async def expose(request: Request) -> Response:
        if not _inside(gateway, request):
            raise ProblemError(
                404, "not_found", "there is nothing at this address", remedy="see /openapi.json"
            )
        _gauge(gateway)
        content, media_type = metrics.exposition()
        return Response(content, headers={"Content-Type": media_type})

    @app.get("/openapi.json", include_in_schema=False)
    async def document() -> Response:
        return Response(app.state.openapi_json, media_type="application/json")


def _sets(gateway: Gateway) -> list[SetBody]:
    listed = []
    for order, view in enumerate(gateway.views):
        place = gateway.published.places.get(view.name)
        listed.append(
            SetBody(
                set=view.name,
                ready=view.ready and not gateway.draining,
                why=_why(gateway, view),
                order=order,
                jurisdictions=list(place.jurisdictions) if place else [],
                regions=list(place.regions) if place else [],
                models=sorted(view.models),
                queue=view.queue,
                triples=view.triples,
            )
        )
    return listed


def _models(gateway: Gateway) -> dict[str, ModelBody]:
    """All models by name; where two sets differ in one, as the preferred set has it."""
    found: dict[str, ModelBody] = {}
    for view in gateway.views:
        for name, model in view.models.items():
            known = found.get(name)
            if known is None:
                found[name] = ModelBody(
                    name=name,
                    digest=model.digest,
                    lengths=list(model.lengths),
                    hidden=model.hidden,
                    sets=[view.name],
                    max_batch=gateway.config.limits.batch,
                )
            elif known.digest == model.digest:
                found[name] = known.model_copy(update={"sets": [*known.sets, view.name]})
    return found


def _find(gateway: Gateway, name: str) -> ModelBody:
    found = _models(gateway).get(name)
    if found is None:
        raise ProblemError(404, "unknown_model", "there is no such model", remedy="GET /v1/models lists them")
    return found


def _why(gateway: Gateway, view: SetView) -> str:
    """Why a set is not ready. What the directory says comes first: a leader that waits in Ray Serve cannot tell yet."""
    return "" if view.ready else gateway.published.why_not(view.name) or view.why


def _not_ready(cause: str) -> ProblemError:
    return ProblemError(
        503, "unavailable", cause, remedy="try again in a moment", headers={"Retry-After": "2"}
    )


def _gauge(gateway: Gateway) -> None:
    """Bring the gauges up to date: queues, and when certificates and the directory end."""
    own = {"https": gateway.config.certificate[0], "federation": gateway.config.folder / "tls.pem"}
    for name, path in own.items():
        with contextlib.suppress(MpcError):  # being replaced just now
            metrics.certificate(name, dates(path, name)[1])
    directory = gateway.published.directory
    metrics.certificate("directory", directory.expires)
    for view in gateway.views:
        metrics.queue(view.queue, set=view.name)
        said = {party.get("party"): float(party.get("certificate_not_after", 0)) for party in view.parties}
        for index in range(3) if view.name in directory.sets() else ():
            place = f"{view.name}/{index}"  # a party that has rotated may be ahead of the directory
            metrics.certificate(place, said.get(index) or directory.entry(place).not_after)


def _inside(gateway: Gateway, request: Request) -> bool:
    try:
        address = ip_address(request.client.host if request.client else "")
    except ValueError:
        return False
    return any(address in network for network in gateway.config.metrics_networks)
