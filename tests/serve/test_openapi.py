"""The OpenAPI document against the application: whatever schemathesis makes of it is answered as it says."""

from __future__ import annotations

import asyncio

import pytest
import schemathesis
from gateways import Fake, Federation, api_key, config, federation
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import ignored_auth, negative_data_rejection, positive_data_acceptance

from mpc_ray.serve.app import create_app
from mpc_ray.serve.state import LocalState

EXAMPLES = 25
# A signed job has rules that no schema can say, the key given here is sent with every call, and 413 is a refusal too.
UNFIT = [positive_data_acceptance, ignored_auth, negative_data_rejection]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return federation(tmp_path_factory.mktemp("federation"))


@pytest.fixture(scope="module")
def bearer(made: Federation) -> str:
    return api_key(made, per_minute=1_000_000)


@pytest.fixture(scope="module")
def fake() -> Fake:
    return Fake("eu")


@pytest.fixture(scope="module")
def described(made: Federation, fake: Fake) -> schemathesis.BaseSchema:
    bounds = config(made)
    app = create_app(bounds, {"eu": fake, "us": fake}, LocalState.of(bounds))
    asyncio.run(app.state.gateway.views.refresh())
    return schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_answer_is_one_that_the_document_describes(
    described: schemathesis.BaseSchema, bearer: str, fake: Fake, mode: GenerationMode
) -> None:
    tried = 0
    for found in described.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def answers(case: schemathesis.Case) -> None:
            nonlocal tried
            tried += 1
            case.call_and_validate(headers={"authorization": f"Bearer {bearer}"}, excluded_checks=UNFIT)

        try:
            answers()
        except Unsatisfiable:  # nothing about this operation can be wrong
            assert mode is GenerationMode.NEGATIVE
    assert tried > 100
    assert not fake.jobs, "nothing that was made up is a job"
