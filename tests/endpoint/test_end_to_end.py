"""Three operators' endpoints as subprocesses, a gateway's commands, a client's numbers."""

from __future__ import annotations

import numpy as np
from cluster import Three, agreed, at_all, open_triple, run, sealed  # type: ignore[import-not-found]

from mpc_ray.channel import Message
from mpc_ray.models.bert_float import embed

TEXTS = ["hello world", "a quick fox"]


def test_a_job_computes_what_the_clear_model_computes(endpoints: Three) -> None:
    links = endpoints.links()
    triple = open_triple(links)
    job = endpoints.job(TEXTS)
    agreed(at_all(links, job.submit))
    answers = agreed(run(links, triple, [job]))
    assert [answer.header["jobs"] for answer in answers] == [[job.id]] * 3
    assert all(answer.header["rounds"] > 10 and answer.header["worn"] is False for answer in answers)
    got = job.read(sealed(answers, job))
    wanted = embed(endpoints.bert, TEXTS)
    assert np.abs(got - wanted[list(job.batch.indices)]).max() < 2e-3
    agreed(at_all(links, lambda i: Message({"cmd": "close", "triple": triple})))
