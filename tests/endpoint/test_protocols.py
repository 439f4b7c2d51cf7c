"""The other protocols through three operators' endpoints: same shares, same client, said in the authorisation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cluster import agreed, at_all, open_triple, run, sealed, three_endpoints  # type: ignore[import-not-found]

from mpc_ray.errors import MpcError, Refused
from mpc_ray.models.bert_float import embed

TEXTS = ["hello world", "a quick fox"]


def test_a_job_under_aby3(tmp_path: Path) -> None:
    """The model's shares are the same; neither another protocol's jobs nor a model with public weights are taken."""
    with three_endpoints(tmp_path, protocol="aby3", policy={"protocols": ["aby3"]}) as three:
        links = three.links()
        triple = open_triple(links, timeout_s=60.0)
        job = three.job(TEXTS, protocol="aby3")
        agreed(at_all(links, job.submit))
        answers = agreed(run(links, triple, [job]))
        wanted = embed(three.bert, TEXTS)
        got = job.read(sealed(answers, job))
        assert np.abs(got - wanted[list(job.batch.indices)]).max() < 2e-3
        for outcome in at_all(links, three.job(TEXTS).submit):
            assert isinstance(outcome, Refused)


def test_a_job_under_malicious_3pc(tmp_path: Path) -> None:
    """From the shares that were made for no protocol in particular. It is answered in copies, once, and no job under
    another protocol is taken.
    """
    policy = {"protocols": ["malicious_3pc", "semi_honest_3pc"]}
    with three_endpoints(tmp_path, protocol="malicious_3pc", policy=policy) as three:
        links = three.links()
        triple = open_triple(links, timeout_s=60.0)
        job = three.job(TEXTS, protocol="malicious_3pc")
        agreed(at_all(links, job.submit))
        answers = agreed(run(links, triple, [job]))
        wanted = embed(three.bert, TEXTS)
        got = job.read(sealed(answers, job))
        assert np.abs(got - wanted[list(job.batch.indices)]).max() < 2e-3
        assert all("experimental" in three.log("eu", index).read_text() for index in range(3))

        other = three.job(TEXTS)
        for outcome in at_all(links, other.submit):
            assert isinstance(outcome, Refused)
            assert "malicious_3pc" in str(outcome)

        again = three.job(TEXTS, protocol="malicious_3pc")
        agreed(at_all(links, again.submit))
        outcomes = run(links, triple, [again], attempt=1)
        assert all("attempt 1 of a job that ran so often already" in str(outcome) for outcome in outcomes)
        assert all(isinstance(outcome, MpcError) for outcome in outcomes)
