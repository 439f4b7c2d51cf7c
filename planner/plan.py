"""What a solver answers: a plan, or the reason why there is none; and how a plan is checked."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum
from typing import Protocol

from mpc_ray.planner.problem import PARTIES, Node, Problem, Requirement

SLACK = 1e-9  # of a processor: fractions such as 0.1 + 0.2 must fit into 0.3


class Infeasible(Exception):
    """No placement satisfies the problem. `reason` says which party does not fit, and why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Plan:
    """`nodes[i]` is the id of the node that holds party i."""

    nodes: tuple[str, str, str]
    distinct_nodes: int
    distinct_trust: int


class Solver(Protocol):
    """Anything that turns a problem into a plan. It must answer the same to the same problem."""

    def __call__(self, problem: Problem) -> Plan:
        """Return a plan for which `violations` is empty, or raise `Infeasible`."""
        ...


def refusal(node: Node, party: int, need: Requirement) -> str | None:
    """Why `node` cannot hold `party` even if it held nothing else; None if it can."""
    if node.party is not None and node.party != str(party):
        return f"is labelled for party {node.party}"
    for name, value in sorted(need.labels.items()):
        if node.labels.get(name) != value:
            return f"has {name}={node.labels.get(name, '(none)')}, {name}={value} needed"
    for what, free, wanted in (("CPU", node.cpus, need.cpus), ("GPU", node.gpus, need.gpus)):
        if wanted > free + SLACK:
            return f"has {free:g} {what} free, {wanted:g} needed"
    return None


def violations(problem: Problem, plan: Plan) -> list[str]:
    """Every rule of `problem` that `plan` breaks, in words; an empty list if it breaks none."""
    by_id = {node.id: node for node in problem.nodes}
    found = [
        f"party {party}: there is no node {name}"
        for party, name in enumerate(plan.nodes)
        if name not in by_id
    ]
    if found:
        return found
    for party, (name, need) in enumerate(zip(plan.nodes, problem.parties, strict=True)):
        reason = refusal(by_id[name], party, need)
        if reason is not None:
            found.append(f"party {party}: node {name} {reason}")
    for name in sorted(set(plan.nodes)):
        held = [need for holder, need in zip(plan.nodes, problem.parties, strict=True) if holder == name]
        if len(held) > 1 and not fits(by_id[name], held):
            found.append(f"node {name} cannot hold {len(held)} parties at once")
    if plan.distinct_nodes != len(set(plan.nodes)):
        found.append(f"the plan says {plan.distinct_nodes} distinct nodes and has {len(set(plan.nodes))}")
    trust = len({by_id[name].trust for name in plan.nodes})
    if plan.distinct_trust != trust:
        found.append(f"the plan says {plan.distinct_trust} distinct trust domains and has {trust}")
    if problem.distinct_nodes and len(set(plan.nodes)) < PARTIES:
        found.append("two parties share a node")
    if problem.distinct_trust and trust < PARTIES:
        found.append("two parties share a trust domain")
    return found


def fits(node: Node, needs: list[Requirement]) -> bool:
    """Whether `node` can hold all of `needs` at once."""
    cpus = fsum(need.cpus for need in needs)
    gpus = fsum(need.gpus for need in needs)
    return cpus <= node.cpus + SLACK and gpus <= node.gpus + SLACK
