"""Simulated bifurcation in Potts form: what a quantum-inspired start brings here. It brings no more than a random one.

Job j has a position theta_ji in [-1, 1] and a momentum v_ji for each agent i that is worth trying, and is spread
over them by

    x_ji = exp(beta theta_ji) / sum_k exp(beta theta_jk),    beta from 1 to 10

so each job always has one agent in all, and no penalty is needed for that. With e_ji the priced cost beyond the
cheapest agent and w_i the change of price that follows from overload, the force is h_ji = e_ji + w_i need_ji, less
its mean over the job's agents (else all positions run into the same wall), and in each step, with t from 0 to 1,

    v += dt (-(1 - t) theta - h / (2 rms h));  theta += dt v;  |theta| > 1: theta = sign theta, v = 0
    w_i += rho u (load_i - capacity_i) / capacity_i,    not below -u_i

At the end each job goes to the agent with its largest theta, which leaves many agents beyond capacity: the descent
repairs that, and does the work. Simulated bifurcation: H. Goto, K. Tatsumura and A. Dixon, Science Advances 5,
2019; it is a classical algorithm.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpc_ray.planner.assignment.problem import Agents, Floats
from mpc_ray.planner.assignment.state import Counts, Table
from mpc_ray.planner.compiled import compiled
from mpc_ray.planner.draws import draw

STEPS = 300
_DT = 0.5
_RHO = 0.1


@compiled
def bifurcate(t: Table, steps: int, seed: NDArray[np.uint64], halt: Counts) -> Agents:
    """One run from positions that are random within 0.1: the agent of each job [jobs], often beyond capacities."""
    jobs, width = t.choice.shape
    agents = len(t.room)
    theta, speed = np.empty((jobs, width)), np.zeros((jobs, width))
    for j in range(jobs):
        for k in range(width):
            theta[j, k] = 0.2 * (np.float64(draw(seed) >> np.uint64(11)) * 2.0**-53) - 0.1
    surcharge = np.zeros(agents)
    usual = _RHO * (t.price.mean() + t.cost.mean() / max(t.need.mean(), 1e-300))
    share, force = np.empty((jobs, width)), np.empty((jobs, width))
    for step in range(steps):
        if halt[0] != 0:
            break
        past = (step + 1) / steps
        load = _spread(t, theta, 1.0 + 9.0 * past, share)
        for i in range(agents):
            change = usual * (load[i] - t.room[i]) / max(t.room[i], 1e-300)
            surcharge[i] = max(-t.price[i], surcharge[i] + change)
        size = max(_force(t, surcharge, force), 1e-300)
        for j in range(jobs):
            for k in range(width):
                speed[j, k] += _DT * (-(1.0 - past) * theta[j, k] - 0.5 * force[j, k] / size)
                theta[j, k] += _DT * speed[j, k]
                if abs(theta[j, k]) > 1.0:
                    theta[j, k], speed[j, k] = np.sign(theta[j, k]), 0.0
    chosen = np.empty(jobs, np.int64)
    for j in range(jobs):
        chosen[j] = t.choice[j, theta[j].argmax()]
    return chosen


@compiled
def _spread(t: Table, theta: Floats, beta: float, share: Floats) -> Floats:
    """Shares [jobs, choices] at inverse temperature `beta`, and the load [agents] that follows from them."""
    load = np.zeros(len(t.room))
    for j in range(len(theta)):
        for k in range(theta.shape[1]):
            share[j, k] = np.exp(beta * theta[j, k])
        total = share[j].sum()
        for k in range(theta.shape[1]):
            share[j, k] /= total
            load[t.choice[j, k]] += share[j, k] * t.need[j, t.choice[j, k]]
    return load


@compiled
def _force(t: Table, surcharge: Floats, force: Floats) -> float:
    """Centred forces [jobs, choices], and their root mean square."""
    squares = 0.0
    for j in range(len(force)):
        for k in range(force.shape[1]):
            i = t.choice[j, k]
            force[j, k] = t.extra[j, i] + surcharge[i] * t.need[j, i]
        force[j] -= force[j].mean()
        for k in range(force.shape[1]):
            squares += force[j, k] ** 2
    return float(np.sqrt(squares / force.size))
