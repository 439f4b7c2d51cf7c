"""Policies for jobs that come one by one: the baselines.

`fewest` is what Ray Serve does where nothing else is said: of two triples at random the one with fewer jobs
(Mitzenmacher, The power of two choices in randomized load balancing, 2001), blind to round trips; `round_robin` is
blind to everything. `Earliest` is batch-aware earliest completion: a job goes, for good, to the triple where it ends
first by what is known, joining a batch of its group that waits there and is not full. All serve first what came first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mpc_ray.planner.jobs.emulate import World


class Fifo:
    """First come, first served, on the triple that `choose` says for a job, of those that may run it and are alive."""

    def __init__(self, world: World, choose: Callable[[Fifo, list[int]], int]) -> None:
        self.world, self.choose = world, choose
        self.queue: list[list[int]] = [[] for _ in world.alive]
        self.stranded: list[int] = []

    def arrive(self, now: float, jobs: list[int]) -> None:
        """Each to its triple."""
        d = self.world.data
        for j in jobs:
            there = np.flatnonzero(d.allowed[d.klass[j]] & self.world.alive).tolist()
            if there:
                self.queue[self.choose(self, there)].append(j)
            else:
                self.stranded.append(j)

    def jobs_of(self, t: int) -> int:
        """Jobs that wait or run there."""
        return len(self.queue[t]) + len(self.world.running.get(t, ()))

    def changed(self, now: float, triple: int) -> None:
        """Its queue goes elsewhere; those that had no triple may have one now."""
        again, self.queue[triple] = self.queue[triple], []
        if self.world.alive[triple]:
            again, self.stranded = again + self.stranded, []
        self.arrive(now, again)

    def take(self, now: float, triple: int) -> list[int]:
        """The first that waits, with those of its group."""
        queue, d = self.queue[triple], self.world.data
        if not queue:
            return []
        jobs = [j for j in queue if d.group[j] == d.group[queue[0]]][: self.world.compiled.batch]
        self.queue[triple] = [j for j in queue if j not in jobs]
        return jobs


def fewest(world: World, seed: int = 0) -> Fifo:
    """The fewer jobs of two triples drawn at random."""
    random = np.random.default_rng(seed)

    def choose(policy: Fifo, there: list[int]) -> int:
        two: list[int] = random.choice(there, min(2, len(there)), replace=False).tolist()
        return min(two, key=policy.jobs_of)

    return Fifo(world, choose)


def round_robin(world: World) -> Fifo:
    """The next triple in turn."""
    turn = [-1]

    def choose(policy: Fifo, there: list[int]) -> int:
        turn[0] = next((t for t in there if t > turn[0]), there[0])
        return turn[0]

    return Fifo(world, choose)


class Earliest:
    """Batch-aware earliest completion on arrival."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.queue: list[list[list[int]]] = [[] for _ in world.alive]  # batches that wait
        self.seconds = np.zeros(len(world.alive))  # of all of them
        self.stranded: list[int] = []

    def arrive(self, now: float, jobs: list[int]) -> None:
        for j in jobs:
            self._place(now, j)

    def _place(self, now: float, j: int) -> None:
        d, batch = self.world.data, self.world.compiled.batch
        g = int(d.group[j])
        there = np.flatnonzero(d.allowed[d.klass[j]] & self.world.alive)
        if not len(there):
            self.stranded.append(j)
            return
        adds = (d.fixed[:, g, there] + d.item[:, g, there]).min(axis=0)
        joins: dict[int, list[int]] = {}
        for i, t in enumerate(there.tolist()):
            for waiting in self.queue[t]:
                if d.group[waiting[0]] == g and len(waiting) < batch:
                    joins[t] = waiting
                    adds[i] = self._step(g, t, len(waiting))
                    break
        best = int((self.world.free(now)[there] + self.seconds[there] + adds).argmin())
        t = int(there[best])
        self.seconds[t] += adds[best]
        if t in joins:
            joins[t].append(j)
        else:
            self.queue[t].append([j])

    def _step(self, g: int, t: int, count: int) -> float:
        return self.world.duration(g, t, count + 1)[0] - self.world.duration(g, t, count)[0]

    def changed(self, now: float, triple: int) -> None:
        again = [j for waiting in self.queue[triple] for j in waiting]
        self.queue[triple], self.seconds[triple] = [], 0.0
        if self.world.alive[triple]:
            again, self.stranded = again + self.stranded, []
        self.arrive(now, again)

    def take(self, now: float, triple: int) -> list[int]:
        if not self.queue[triple]:
            return []
        jobs = self.queue[triple].pop(0)
        seconds = self.world.duration(int(self.world.data.group[jobs[0]]), triple, len(jobs))[0]
        self.seconds[triple] = max(0.0, self.seconds[triple] - seconds)
        return jobs
