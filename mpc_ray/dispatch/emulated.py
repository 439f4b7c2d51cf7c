"""A trace on a real Ray cluster of this machine: a node for each region and operator, labelled, and a process a triple.

Each triple is a placement group of three bundles, which the labels of its workers' regions and operators place on three
nodes; its leader is an actor in the first. A batch is a call that waits as long as the cost model says, stretched by
what shared links leave it when it starts. So policies, deaths (a process is killed) and Ray's own delays are real;
arithmetic and network are not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any

from mpc_ray.errors import InputError, PlacementError
from mpc_ray.launch_ray import OBJECT_STORE_BYTES, closed_home
from mpc_ray.planner.jobs.arrays import Compiled, compile_workload
from mpc_ray.planner.jobs.emulate import Emulation, World
from mpc_ray.planner.jobs.simulate import Row, Watched, policy, violations
from mpc_ray.planner.jobs.trace import Trace
from mpc_ray.planner.jobs.workload import Triple

REGION, TRUST = "region", "trust"
MOST_NODES, MOST_TRIPLES = 12, 24  # of one machine
SHARE = 0.001  # of a processor, for each worker: they wait
PLACE_S = 60.0
TICK_S = 0.005


class Leader:
    """The process of one triple."""

    def ready(self) -> str:
        """The node it is on."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def run(self, seconds: float) -> float:
        """A batch; how long it took."""
        began = time.monotonic()
        time.sleep(max(0.0, seconds))
        return time.monotonic() - began


def on_ray(
    trace: Trace,
    policies: Sequence[str],
    *,
    seed: int | None = None,
    speed: float = 1.0,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Run the trace under each policy, one after the other on one cluster. `speed` seconds of it pass in one.

    Raises ProblemError for a trace that contradicts itself, InputError where it is too big for one machine, and
    PlacementError where Ray does not place a triple.
    """
    compiled = compile_workload(trace.workload)
    triples = trace.workload.triples
    sites = sorted({(worker.region, worker.trust) for triple in triples for worker in triple.workers})
    if len(sites) > MOST_NODES or len(triples) > MOST_TRIPLES:
        raise InputError(
            f"the trace has {len(triples)} triples over {len(sites)} regions and operators",
            remedy=f"with --ray at most {MOST_TRIPLES} over {MOST_NODES}",
        )
    rows = []
    with _cluster(sites, len(triples)) as nodes:
        progress(f"Ray: {len(nodes)} nodes")
        for name in policies:
            hosts = [_Host(triple) for triple in triples]
            try:
                _started(hosts, nodes)
                progress(f"Ray: {name}")
                rows.append(_run(trace, compiled, hosts, name, trace.seed if seed is None else seed, speed))
            finally:
                for host in hosts:
                    host.close()
    return rows


@contextmanager
def _cluster(sites: Sequence[tuple[str, str]], triples: int) -> Iterator[dict[str, tuple[str, str]]]:
    """A cluster with a node for each site; the site of each node id."""
    home = closed_home()
    import ray
    from ray.cluster_utils import Cluster

    if ray.is_initialized():
        raise InputError("this process is in a Ray cluster already", remedy="run it in one of its own")
    node: dict[str, Any] = {"num_cpus": max(1, triples), "object_store_memory": OBJECT_STORE_BYTES}
    places = [{REGION: region or "none", TRUST: trust or "none"} for region, trust in sites]
    cluster = Cluster()
    try:
        try:
            cluster.add_node(labels=places[0], temp_dir=str(home / "ray"), include_dashboard=False, **node)
            for labels in places[1:]:
                cluster.add_node(wait=False, labels=labels, **node)
        except Exception as error:  # Ray raises nothing narrower
            raise PlacementError(
                f"a Ray cluster of {len(sites)} nodes did not start: {str(error).splitlines()[0]}",
                remedy="see whether the machine is overloaded, and try again",
            ) from error
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR", namespace="mpc-ray")
        yield {each["NodeID"]: (each["Labels"][REGION], each["Labels"][TRUST]) for each in ray.nodes()}
    finally:
        ray.shutdown()
        cluster.shutdown()


class _Host:
    """One triple on the cluster: its placement group, and its leader while it is alive."""

    def __init__(self, triple: Triple) -> None:
        self.triple = triple
        self.group: Any = None
        self.actor: Any = None

    def place(self) -> None:
        """Ask for the bundles."""
        import ray

        self.group = ray.util.placement_group(
            [{"CPU": SHARE}] * 3,
            strategy="PACK",
            bundle_label_selector=[
                {REGION: worker.region or "none", TRUST: worker.trust or "none"}
                for worker in self.triple.workers
            ],
        )

    def start(self) -> Any:
        """Start the leader; the reference to its first answer."""
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        leader: Any = ray.remote(Leader)
        self.actor = leader.options(
            num_cpus=SHARE,
            scheduling_strategy=PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=0),
        ).remote()
        return self.actor.ready.remote()

    def kill(self) -> None:
        """The process dies."""
        import ray

        if self.actor is not None:
            ray.kill(self.actor)
            self.actor = None

    def close(self) -> None:
        """Give everything back."""
        import ray

        self.kill()
        if self.group is not None:
            ray.util.remove_placement_group(self.group)


def _started(hosts: Sequence[_Host], nodes: dict[str, tuple[str, str]]) -> None:
    """Place all triples and start their leaders; PlacementError within `PLACE_S` otherwise: Ray waits for ever."""
    import ray

    for host in hosts:
        host.place()
    until = time.monotonic() + PLACE_S
    for host in hosts:
        if not host.group.wait(max(0.0, until - time.monotonic())):
            raise PlacementError(
                f"Ray has not placed triple {host.triple.name} within {PLACE_S:g} s",
                remedy="see whether the machine is overloaded, and try with fewer triples",
            )
    firsts = [host.start() for host in hosts]
    done, _ = ray.wait(firsts, num_returns=len(firsts), timeout=PLACE_S)
    if len(done) < len(firsts):
        raise PlacementError(
            f"{len(firsts) - len(done)} leaders have not started within {PLACE_S:g} s",
            remedy="see whether the machine is overloaded, and try with fewer triples",
        )
    for host, node in zip(hosts, ray.get(firsts), strict=True):
        wanted = (host.triple.workers[0].region or "none", host.triple.workers[0].trust or "none")
        if nodes[node] != wanted:
            raise PlacementError(
                f"triple {host.triple.name} was placed in {nodes[node]}, {wanted} was asked for",
                remedy="report this",
            )


def _run(trace: Trace, compiled: Compiled, hosts: Sequence[_Host], name: str, seed: int, speed: float) -> Row:
    watch: list[Watched] = []
    make = policy(name, trace, seed)

    def watched(world: World) -> Watched:
        watch.append(Watched(make(world)))
        return watch[0]

    emulation = Emulation(compiled, trace.changes, watched)
    _follow(emulation, hosts, speed)
    outcome = emulation.outcome()
    return Row(name, outcome, watch[0].longest_s, tuple(violations(trace, compiled, outcome)))


def _follow(emulation: Emulation, hosts: Sequence[_Host], speed: float) -> None:
    """The emulation's arrivals and changes when the wall's clock says so, until all is done or nothing can happen."""
    import ray

    calls: dict[Any, int] = {}
    began = time.monotonic()
    while True:
        for change in emulation.due((time.monotonic() - began) * speed):
            if change.factor == inf:
                hosts[change.triple].kill()
                calls = {call: t for call, t in calls.items() if t != change.triple}
            elif hosts[change.triple].actor is None and change.factor == 1.0:
                hosts[change.triple].start()  # calls wait until the process is up
        for t, seconds in emulation.begin():
            calls[hosts[t].actor.run.remote(seconds / speed)] = t
        if not calls and not emulation.to_come():
            return
        if not calls:
            time.sleep(TICK_S)
            continue
        ready, _ = ray.wait(list(calls), num_returns=1, timeout=TICK_S)
        for call in ready:
            t = calls.pop(call)
            try:
                ray.get(call)
            except ray.exceptions.RayError as error:
                raise PlacementError(
                    f"the process of triple {hosts[t].triple.name} died, which the trace does not say",
                    remedy="see whether the machine is out of memory",
                ) from error
            emulation.end((time.monotonic() - began) * speed, t)
