"""The gateway: sealed requests in, sealed answers out, and nothing it could read.

``interface``   what the gateway asks of a set of triples, whoever leads them
``config``      its settings; ``apikeys``, ``limits``, ``idempotency``, ``replays``: its state, one owner each
``app``         the HTTP application, hosted by uvicorn (``standalone``, ``host``) or by Ray Serve (``deployments``)
``triple``      the leader of one triple, over mutual TLS to three party endpoints
"""

from mpc_ray.serve.interface import Answers, Job, Triples

__all__ = ["Answers", "Job", "Triples"]
