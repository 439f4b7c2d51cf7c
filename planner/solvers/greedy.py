"""The baseline: each party takes the node that looks best, and a search steps back where that fails."""

from __future__ import annotations

from itertools import product

from mpc_ray.planner.plan import Infeasible, Plan, fits, refusal
from mpc_ray.planner.problem import PARTIES, Node, Problem, Requirement


def greedy(problem: Problem) -> Plan:
    """Place three parties: as many distinct nodes as possible, then as many distinct trust domains.

    A party for which a node is labelled goes to no unlabelled one. Among equals, the node with fewest spare
    GPUs goes first, then the one with most free processors, then the smaller id; so the answer depends on
    the problem alone, not on the order of its nodes.

    Finds a placement whenever there is one. Takes time O(n) where nodes are plentiful and O(n^3) at worst.

    Raises:
        Infeasible: nothing holds all three parties; the reason names the first that does not fit.
    """
    candidates = [_candidates(problem, party) for party in range(PARTIES)]
    most_nodes = min(PARTIES, len({node.id for nodes in candidates for node in nodes}))
    most_trust = min(PARTIES, len({node.trust for nodes in candidates for node in nodes}))
    least_nodes = PARTIES if problem.distinct_nodes else 1
    least_trust = PARTIES if problem.distinct_trust else 1
    levels = product(range(most_nodes, least_nodes - 1, -1), range(most_trust, least_trust - 1, -1))
    # The party with fewest candidates chooses first: the others can step aside more easily.
    order = sorted(range(PARTIES), key=lambda party: (len(candidates[party]), party))
    for nodes, trust in levels:
        if trust > nodes:
            continue
        chosen = _search(problem, candidates, order, {}, nodes, trust)
        if chosen is not None:
            ids = (chosen[0].id, chosen[1].id, chosen[2].id)
            return Plan(ids, len(set(ids)), len({node.trust for node in chosen.values()}))
    raise Infeasible(_joint_reason(problem))


def _candidates(problem: Problem, party: int) -> list[Node]:
    """The nodes that can hold `party` alone, best first; raises `Infeasible` where there is none."""
    need = problem.parties[party]
    named = [node for node in problem.nodes if node.party == str(party)]
    pool = named or [node for node in problem.nodes if node.party is None]
    able = [node for node in pool if refusal(node, party, need) is None]
    if not able:
        raise Infeasible(_reason(problem, party, pool))
    return sorted(able, key=lambda node: _rank(node, need))


def _rank(node: Node, need: Requirement) -> tuple[float, float, str]:
    """Smaller is better: spare GPUs are left to those who need them, spare processors are welcome."""
    return (node.gpus - need.gpus, -node.cpus, node.id)


def _search(
    problem: Problem,
    candidates: list[list[Node]],
    order: list[int],
    chosen: dict[int, Node],
    least_nodes: int,
    least_trust: int,
) -> dict[int, Node] | None:
    """The first placement, in order of preference, with at least so many distinct nodes and trust domains."""
    left = PARTIES - len(chosen)
    if left == 0:
        return chosen
    party = order[len(chosen)]
    for node in candidates[party]:
        tried = {**chosen, party: node}
        if len({each.id for each in tried.values()}) + left - 1 < least_nodes:
            continue
        if len({each.trust for each in tried.values()}) + left - 1 < least_trust:
            continue
        if not fits(node, [problem.parties[other] for other, held in tried.items() if held.id == node.id]):
            continue
        found = _search(problem, candidates, order, tried, least_nodes, least_trust)
        if found is not None:
            return found
    return None


def _reason(problem: Problem, party: int, pool: list[Node]) -> str:
    """Why no node can hold `party`: each node's own reason, the first three of them."""
    if not problem.nodes:
        return f"party {party}: there are no nodes"
    need = problem.parties[party]
    shown = sorted(pool or problem.nodes, key=lambda node: node.id)
    reasons = [f"node {node.id} {refusal(node, party, need)}" for node in shown[:3]]
    more = f"; and {len(shown) - 3} more" if len(shown) > 3 else ""
    return f"party {party} fits on no node: {'; '.join(reasons)}{more}"


def _joint_reason(problem: Problem) -> str:
    """Why three parties that fit alone do not fit together."""
    rules = [
        words
        for required, words in (
            (problem.distinct_nodes, "on distinct nodes"),
            (problem.distinct_trust, "in distinct trust domains"),
        )
        if required
    ]
    where = f" {' and '.join(rules)}" if rules else ""
    free = f"{sum(n.cpus for n in problem.nodes):g} CPU and {sum(n.gpus for n in problem.nodes):g} GPU"
    need = f"{sum(p.cpus for p in problem.parties):g} CPU and {sum(p.gpus for p in problem.parties):g} GPU"
    return (
        f"each party fits alone but the three do not fit together{where}: "
        f"{need} needed, {free} free on {len(problem.nodes)} node(s)"
    )
