"""The gateway under uvicorn with its triples on Ray Serve: fast, with TLS of our own, and scaled by Serve.

The process is a driver of the gateway's Ray. It owns the state (one process, no actor), Serve owns the replicas of
``Triple``: it starts, scales, updates and replaces them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from mpc_ray.serve.cluster import joined
from mpc_ray.serve.config import GatewayConfig
from mpc_ray.serve.leaders import sets_to_lead

if TYPE_CHECKING:
    from mpc_ray.serve.handle import HandleTriples

LEADER = "mpc_ray.serve.leaders:leader"
ONE_CLUSTER = "mpc_ray.serve.onecluster:leader"


@contextlib.contextmanager
def triples_on_ray(config: GatewayConfig, leader: str = LEADER) -> Iterator[dict[str, HandleTriples]]:
    """Triples of all sets on Serve, for the time of the block. They need not be ready yet.

    Raises ConfigError, CertificateError, ChannelError (no Ray at the address).
    """
    chosen = sets_to_lead(config)
    with joined(config.ray):
        from ray import serve

        from mpc_ray.serve.deployments import triple
        from mpc_ray.serve.handle import HandleTriples

        quiet = {"log_level": "WARNING", "enable_access_log": False}
        serve.start(proxy_location="Disabled", logging_config=quiet)
        names = {one.name: f"mpc-ray-{one.name}" for one in chosen}
        targets = [
            serve.RunTarget(
                triple(config, one, leader), name=names[one.name], route_prefix=None, logging_config=quiet
            )
            for one in chosen
        ]
        # Not until they run: parties that are down are waited for, and "not ready" is an answer too.
        serve.run_many(targets, wait_for_applications_running=False)
        try:
            yield {
                one.name: HandleTriples(
                    one.name, serve.get_deployment_handle(f"Triple-{one.name}", names[one.name])
                )
                for one in chosen
            }
        finally:
            for name in names.values():
                serve.delete(name, _blocking=False)


def serve_on_ray(config: GatewayConfig, started_at: Callable[[str], object], leader: str = LEADER) -> None:
    """Serve until a signal ends it. Raises what ``triples_on_ray`` and ``serve.host.serve`` raise."""
    from mpc_ray.serve.host import serve, tls_context

    tls_context(*config.certificate)  # what cannot be served is said before Ray is started
    with triples_on_ray(config, leader) as triples:
        serve(config, triples, started_at)
