"""Where three parties go on a Ray cluster: nodes read from Ray, the planner's plan, a placement group.

The planner (``mpc_ray.planner``) sees nodes with labels (``region``, ``party``, ``trust``) and free
processors and GPUs, and says which node holds which party. The plan is then pinned: one placement group with
a bundle for each party, tied to its node by the label ``ray.io/node-id``, all three or none. Nothing pends
for ever: what cannot fit is a PlacementError at once, what is merely busy is one at the deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mpc_ray.errors import DeviceError, PlacementError
from mpc_ray.planner import Infeasible, Node, Plan, Problem, Requirement, plan

NODE_ID = "ray.io/node-id"
POLL_S = 0.05


@dataclass(frozen=True)
class Placement:
    """The plan and, where room was reserved, Ray's placement group, party i being bundle i."""

    plan: Plan
    group: Any = None

    def strategy(self, party: int) -> Any:
        """Ray's scheduling strategy for the actor of ``party``: its bundle, else its node and no other."""
        from ray.util.scheduling_strategies import (
            NodeAffinitySchedulingStrategy,
            PlacementGroupSchedulingStrategy,
        )

        if self.group is None:
            return NodeAffinitySchedulingStrategy(self.plan.nodes[party], soft=False)
        return PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=party)

    def release(self) -> None:
        """Give the reservation back; whatever still runs in it is killed by Ray."""
        from ray.util import remove_placement_group

        if self.group is not None:
            remove_placement_group(self.group)


def cluster_nodes(*, free: bool) -> tuple[Node, ...]:
    """The live nodes of the Ray cluster; ``free`` counts what is unused now, else all that a node has."""
    import ray
    from ray._private.state import available_resources_per_node  # no public call says this node by node

    unused: Mapping[str, Mapping[str, float]] = available_resources_per_node() if free else {}
    found = []
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        has = unused.get(node["NodeID"], {}) if free else node["Resources"]
        labels = {name: str(value) for name, value in node.get("Labels", {}).items()}
        found.append(Node(node["NodeID"], float(has.get("CPU", 0)), float(has.get("GPU", 0)), labels))
    return tuple(found)


def gpus_for_each(wanted: float, device: str, cluster_gpus: float) -> float:
    """GPUs to reserve for each party: what was asked, or for ``cuda`` a whole one, or a third of the only
    ones.

    Raises DeviceError, before anything is placed, when the cluster does not have them.
    """
    if wanted == 0 and device.startswith("cuda"):
        wanted = 1.0 if cluster_gpus >= 3 or cluster_gpus <= 0 else int(cluster_gpus * 10_000 / 3) / 10_000
    if wanted * 3 > cluster_gpus + 1e-9:
        raise DeviceError(
            f"three parties need {wanted * 3:g} GPU, the cluster has {cluster_gpus:g}",
            remedy="use device cpu, or add GPUs",
        )
    return wanted


def choose(
    problem: Callable[[bool], Problem], deadline: float, sleep: Callable[[float], None] = time.sleep
) -> Plan:
    """The planner's plan over what is free; waits until ``deadline`` (``time.monotonic``) for what is busy.

    ``problem(free)`` describes the cluster anew at every try. Raises PlacementError: at once when the whole
    cluster could not hold the parties even if it were idle, at the deadline when it stays busy.
    """
    while True:
        try:
            return plan(problem(True))
        except Infeasible as busy:
            try:
                plan(problem(False))
            except Infeasible as never:
                raise PlacementError(
                    f"the cluster cannot hold three parties: {never.reason}",
                    remedy="add nodes, or ask for less",
                ) from None
            if time.monotonic() >= deadline:
                raise PlacementError(
                    f"the cluster is too busy for three parties: {busy.reason}",
                    remedy="stop other work, or wait longer",
                ) from None
        sleep(POLL_S)


def place(*, cpus: float, gpus: float, reserve: bool, deadline: float) -> Placement:
    """Choose nodes for three parties (``cpus`` and ``gpus`` each) by the planner's plan.

    With ``reserve`` the room is taken at once, all three or none, until this process ends; without, actors
    that are to outlive the process are bound to their nodes one by one. Raises PlacementError as ``choose``;
    also when another job takes the room first and keeps it until the deadline.
    """
    from ray.util import placement_group

    need = Requirement(cpus, gpus)

    def problem(free: bool) -> Problem:
        return Problem(cluster_nodes(free=free), (need, need, need))

    answer = choose(problem, deadline)
    if not reserve:
        return Placement(answer)
    bundle = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    group = placement_group(
        [bundle] * 3, strategy="PACK", bundle_label_selector=[{NODE_ID: node} for node in answer.nodes]
    )
    if not group.wait(max(0.1, deadline - time.monotonic())):
        from ray.util import placement_group_table, remove_placement_group

        state = placement_group_table(group)["stats"]["scheduling_state"]
        remove_placement_group(group)
        raise PlacementError(
            f"Ray did not reserve room for three parties in time ({state})",
            remedy="stop other work, or wait longer",
        )
    return Placement(answer, group)
