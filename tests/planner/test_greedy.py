"""The greedy planner against brute force, and its rules one by one."""

from __future__ import annotations

from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_ray.planner import (
    Infeasible,
    Node,
    Plan,
    Problem,
    ProblemError,
    Requirement,
    greedy,
    plan,
    violations,
)


def best(problem: Problem) -> tuple[int, int] | None:
    """Distinct nodes and trust domains of the best placement, found by trying all; None if there is none.

    A party for which a node is labelled goes to no other: greedy's own rule, so it is applied here too.
    """
    named = {node.party for node in problem.nodes}
    found = []
    for nodes in product(problem.nodes, repeat=3):
        if any(str(party) in named and node.party is None for party, node in enumerate(nodes)):
            continue
        counts = (len({node.id for node in nodes}), len({node.trust for node in nodes}))
        if not violations(problem, Plan((nodes[0].id, nodes[1].id, nodes[2].id), *counts)):
            found.append(counts)
    return max(found, default=None)


labels = st.fixed_dictionaries(
    {},
    optional={
        "party": st.sampled_from(["0", "1", "2"]),
        "trust": st.sampled_from(["a", "b", "c"]),
        "region": st.sampled_from(["eu", "us"]),
    },
)
amounts = st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0, 3.0])
requirements = st.builds(
    Requirement,
    cpus=st.sampled_from([0.1, 1.0, 2.0]),
    gpus=st.sampled_from([0.0, 0.5, 1.0]),
    labels=st.sampled_from([{}, {}, {"region": "eu"}]),
)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    count = draw(st.integers(0, 5))
    nodes = tuple(Node(f"n{i}", draw(amounts), draw(amounts), draw(labels)) for i in range(count))
    return Problem(
        nodes,
        draw(st.tuples(requirements, requirements, requirements)),
        draw(st.booleans()),
        draw(st.booleans()),
    )


@given(problems())
def test_as_good_as_brute_force(problem: Problem) -> None:
    expected = best(problem)
    if expected is None:
        with pytest.raises(Infeasible):
            greedy(problem)
        return
    answer = plan(problem)
    assert violations(problem, answer) == []
    assert (answer.distinct_nodes, answer.distinct_trust) == expected


@given(problems())
def test_order_of_nodes_does_not_matter(problem: Problem) -> None:
    answers = set()
    for nodes in list(permutations(problem.nodes))[:24]:
        try:
            answers.add(
                greedy(Problem(nodes, problem.parties, problem.distinct_nodes, problem.distinct_trust)).nodes
            )
        except Infeasible as error:
            answers.add(error.reason)
    assert len(answers) == 1


def test_one_machine_holds_all_three() -> None:
    assert plan(Problem((Node("local", cpus=3),))) == Plan(("local", "local", "local"), 1, 1)


def test_labels_decide_which_party_goes_where() -> None:
    nodes = tuple(Node(f"n{i}", 4, labels={"party": str(2 - i), "trust": f"op{i}"}) for i in range(3))
    answer = plan(Problem(nodes))
    assert answer.nodes == ("n2", "n1", "n0")
    assert (answer.distinct_nodes, answer.distinct_trust) == (3, 3)


def test_nodes_without_a_trust_label_count_as_one_domain() -> None:
    nodes = tuple(Node(f"n{i}", 4) for i in range(3))
    answer = plan(Problem(nodes))
    assert (answer.distinct_nodes, answer.distinct_trust) == (3, 1)
    with pytest.raises(Infeasible, match="distinct trust domains"):
        plan(Problem(nodes, distinct_trust=True))


def test_distinct_trust_before_free_processors() -> None:
    nodes = (
        Node("big", 64, labels={"trust": "a"}),
        Node("big2", 64, labels={"trust": "a"}),
        Node("big3", 64, labels={"trust": "a"}),
        Node("small", 1, labels={"trust": "b"}),
        Node("tiny", 1, labels={"trust": "c"}),
    )
    answer = plan(Problem(nodes))
    assert (answer.distinct_nodes, answer.distinct_trust) == (3, 3)


def test_gpus_are_left_to_those_who_need_them() -> None:
    nodes = (Node("gpu", 8, 4), *(Node(f"cpu{i}", 2) for i in range(3)))
    assert "gpu" not in plan(Problem(nodes)).nodes


def test_unlabelled_node_does_not_stand_in_for_a_labelled_one() -> None:
    nodes = (Node("zero", 0, labels={"party": "0"}), Node("any", 16))
    with pytest.raises(Infeasible, match=r"party 0 fits on no node: node zero has 0 CPU free, 1 needed"):
        plan(Problem(nodes))


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (Problem(()), "there are no nodes"),
        (Problem((Node("a", 8),), (Requirement(gpus=1),) * 3), "node a has 0 GPU free, 1 needed"),
        (Problem((Node("a", 2),)), "3 CPU and 0 GPU needed, 2 CPU and 0 GPU free on 1 node"),
        (Problem((Node("a", 8),), distinct_nodes=True), "on distinct nodes"),
        (Problem((Node("a", 8, labels={"party": "1"}),)), "node a is labelled for party 1"),
        (
            Problem((Node("a", 8, labels={"region": "us"}),), (Requirement(labels={"region": "eu"}),) * 3),
            "has region=us, region=eu needed",
        ),
        (Problem(tuple(Node(f"n{i}", 0) for i in range(9))), "and 6 more"),
    ],
)
def test_reason_of_what_does_not_fit(problem: Problem, reason: str) -> None:
    with pytest.raises(Infeasible) as caught:
        greedy(problem)
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    "make",
    [
        lambda: Node("", 1),
        lambda: Node("a", -1),
        lambda: Node("a", float("nan")),
        lambda: Node("a", 1, labels={"party": "3"}),
        lambda: Requirement(gpus=float("inf")),
        lambda: Problem((Node("a", 1), Node("a", 2))),
    ],
)
def test_contradictory_problems_are_refused(make: object) -> None:
    with pytest.raises(ProblemError):
        make()  # type: ignore[operator]


def test_a_solver_that_breaks_the_rules_is_caught() -> None:
    def careless(problem: Problem) -> Plan:
        return Plan(("a", "a", "b"), 2, 1)

    nodes = (Node("a", 1), Node("b", 1))
    with pytest.raises(
        AssertionError, match="careless broke the problem's rules: node a cannot hold 2 parties"
    ):
        plan(Problem(nodes), careless)
    with pytest.raises(AssertionError, match="there is no node b"):
        plan(Problem(nodes[:1]), careless)


def test_hundreds_of_nodes_are_no_burden() -> None:
    nodes = tuple(Node(f"n{i:03}", 8, labels={"trust": f"op{i % 2}"}) for i in range(400))
    answer = plan(Problem(nodes))
    assert (answer.distinct_nodes, answer.distinct_trust) == (3, 2)
