"""Simulated bifurcation on the Potts form: a classical algorithm that a quantum one inspired, as a source of starts.

Job j has a position θ_jt in [-1, 1] for each of its `near` quickest triples t, and a share x_jt = softmax_t(β·θ_jt), β
rising from 2 to 12, so that each job is always one job and no hard limit can be broken. Of the amounts n_gt = Σ x_jt of
each group follow the lengths of queues L_t, with n/B + (1 - 1/B)(1 - e^-n) batches, the loads of links, and F with the
sixth norm in place of the maximum and mean completions from L_t/2. With h the derivative of F, less its mean over the
job's triples, and t running from 0 to 1,

    v += Δ(-(1 - t)·θ - c·h/rms(h)),   θ += Δ·v,   |θ| > 1: θ = sgn θ, v = 0         Δ = c = 0.5

(ballistic bifurcation: Goto, Endo, Suzuki et al., High-performance combinatorial optimization based on classical
mechanics, 2021). The plan is each job's leading triple. Such plans are 1.5 to 3 times worse than greedy before the walk
that follows; what the starts are worth is told by `native.control`, which takes random ones (docs/planner.md).
"""

from __future__ import annotations

import numpy as np

from mpc_ray.planner.jobs.clock import Lane
from mpc_ray.planner.jobs.loops.layout import Array
from mpc_ray.planner.jobs.loops.potts import bifurcate
from mpc_ray.planner.jobs.native import annealing
from mpc_ray.planner.jobs.search import Candidate, Search
from mpc_ray.planner.jobs.settings import JobSettings

STEPS = 150
LEAST = 20  # steps; with fewer the positions have not left the middle
WORTH = 60  # moves of a walk that one job takes as long as in a whole bifurcation: for budgets of moves


def bifurcation(search: Search, lane: Lane, s: JobSettings, name: str = "bifurcation") -> None:
    """Bifurcations from random positions in `starts` of the lane; then annealing, at a tenth of its heat, from the best
    of them. Where the clock leaves no time for one, annealing alone."""
    part = lane.part(s.starts)
    best: Candidate | None = None
    _run(search, part, s, 1)  # not timed: it may have to be loaded
    began = search.clock.now()
    _run(search, part, s, 2)
    pace = (search.clock.now() - began) / 2
    while part.fraction() < 1.0:
        steps = STEPS if part.moves is not None else min(STEPS, int(0.9 * part.left() / pace))
        if steps < LEAST:
            break
        place = _run(search, part, s, steps)
        found = search.offer(place, search.settled(place), name)
        part.done += WORTH * search.n
        if best is None or found.rank < best.rank:
            best = found
    lane.done += part.done
    annealing(search, lane, s, name, start=best)


def _run(search: Search, lane: Lane, s: JobSettings, steps: int) -> Array:
    """One bifurcation of so many steps; the triple of each job."""
    near = min(s.near, search.triples)
    position = lane.random.uniform(-0.1, 0.1, (search.n, near))
    speed = lane.random.uniform(-0.1, 0.1, (search.n, near))
    place = np.empty(search.n, np.int64)
    bifurcate(search.data, near, steps, search.compiled.batch, position, speed, place)
    return place
