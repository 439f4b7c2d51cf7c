"""The default solver: annealing with ejection chains in every thread, bounds and proofs in the last of them.

1. `prices`: the linear bound, and which agents are worth trying. `misfit` proves some problems impossible.
2. Every thread: short runs of `chains`, each followed by the descent, to the clock or to its share of the moves.
3. The last thread, once there is an assignment: the bound from `knapsacks`; then CP-SAT on the core, the pairs of job
   and agent that an assignment better than the best may still use, where it is small. An empty core is a proof.
4. The last thread, where runs find no assignment: CP-SAT looks for any, or proves that there is none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpc_ray.planner.assignment.chains import Schedule, anneal
from mpc_ray.planner.assignment.descent import descend, overload_price
from mpc_ray.planner.assignment.prices import Prices
from mpc_ray.planner.assignment.problem import Agents
from mpc_ray.planner.assignment.proofs import any_assignment, proofs
from mpc_ray.planner.assignment.search import Search
from mpc_ray.planner.assignment.settings import GapSettings
from mpc_ray.planner.assignment.state import State, Table, state, table

_PACE = 2e5  # proposals a second that the first run counts on


class Annealing:
    """One thread's part of the search. `moves` None: to the clock. `proving`: it does 3 and 4 too."""

    def __init__(
        self,
        search: Search,
        priced: Prices,
        settings: GapSettings,
        seed: NDArray[np.uint64],
        moves: int | None,
        proving: bool,
    ) -> None:
        self.search, self.settings, self.seed, self.moves, self.proving = (
            search,
            settings,
            seed,
            moves,
            proving,
        )
        self.priced = priced
        self.table: Table = table(search.problem, priced.unit, settings.choices)
        self.overload = overload_price(self.table)
        # How much a job's second choice costs beyond its first, in the median: the unit of temperature.
        extra = np.sort(np.where(np.isfinite(self.table.extra), self.table.extra, np.inf), axis=1)
        second = extra[:, 1] if extra.shape[1] > 1 else np.ones(1)
        finite = second[np.isfinite(second)]
        scale = float(np.median(finite)) if len(finite) else 0.0
        self.unit = scale or float(search.problem.costs.mean()) * 0.01 or 1.0
        self.pace = _PACE
        self.runs = self.own = 0  # runs, and those that found an assignment
        self.made: NDArray[np.int64] = np.zeros(2, np.int64)

    def __call__(self) -> None:
        """Work until the search is over or the moves are used up."""
        work = proofs(self.search, self.priced, lambda: self.runs, self.moves) if self.proving else iter(())
        while not self.search.over():
            proposals = self._proposals()
            if proposals == 0:
                break
            self._run(proposals)
            next(work, None)
        if self.proving and self.moves is not None and self.search.agents is None:
            any_assignment(self.search, self.moves)

    def _proposals(self) -> int:
        """Of the next run: fewer where time or moves do not last for a whole one; 0: none."""
        problem, settings = self.search.problem, self.settings
        whole = settings.proposals * problem.jobs
        if self.moves is not None:
            return max(0, min(whole, self.moves - int(self.made[0])))
        lasting = self.search.left() * self.pace
        if self.runs == 0:
            return max(int(min(whole, 0.5 * lasting)), 20 * problem.jobs)
        return (
            0
            if lasting < 0.05 * whole and self.search.agents is not None
            else int(min(whole, 0.95 * lasting)) + 1
        )

    def _run(self, proposals: int) -> None:
        """One run, descent included; what it finds is offered."""
        search, settings = self.search, self.settings
        began, before = search.passed(), int(self.made[0])
        best = np.empty(search.problem.jobs, np.int64)
        plan = Schedule(
            proposals,
            settings.hot * self.unit,
            settings.cold * self.unit,
            settings.overload,
            settings.span,
            settings.depth,
        )
        walker = self._start()
        least = anneal(self.table, walker, plan, self.seed, best, np.inf, search.halt, self.made)
        self.runs += 1
        if np.isfinite(least):
            self.own += 1
            self._offer(best)
            polished = state(self.table, best)
            if np.isfinite(descend(self.table, polished, self.overload, search.halt)):
                self._offer(polished.agent)
        took = search.passed() - began
        if took > 0 and self.made[0] > before:
            self.pace = (int(self.made[0]) - before) / took

    def _start(self) -> State:
        known = self.search.agents
        # Drawn even where nothing is known yet, so that a run does not depend on what another thread found.
        draw = np.random.default_rng(int(self.seed[0])).random()
        if known is not None and (draw < self.settings.again or self.own == 0):
            return state(self.table, known)
        return state(self.table, self.table.choice[:, 0])

    def _offer(self, agents: Agents) -> None:
        problem = self.search.problem
        if not problem.violations(agents):
            self.search.offer(problem.cost_of(agents), agents)
