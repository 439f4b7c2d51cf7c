"""A workload as arrays: what the loops read. Jobs stand in order of due date; who cannot run anywhere is left out.

Hard limits are the candidate lists: a plan is one integer a job, the triple, taken from its list, so that none breaks
one. Jobs of equal group, residency and labels are one *class* and share a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from mpc_ray.planner.jobs.loops.layout import SHARES, Array, Data
from mpc_ray.planner.jobs.refusal import LONGEST_S, Sites, group_fault, job_fault, why_nowhere
from mpc_ray.planner.jobs.workload import Group, Job, Workload
from mpc_ray.planner.problem import ProblemError

LARGEST = 1e9  # weights, and factors of a calibration


@dataclass(frozen=True)
class Compiled:
    """`job[i]` and `triple[t]` name the rows of `data`; `refused` says of every other job why it is not there."""

    data: Data
    job: tuple[str, ...]
    triple: tuple[str, ...]
    group: tuple[str, ...]
    variant: tuple[tuple[str, ...], ...]
    refused: dict[str, str]
    asked: Array  # [n] place of the job in the workload
    batch: int
    now_s: float


def compile_workload(workload: Workload) -> Compiled:
    """Check everything once, and lay it out.

    Raises ProblemError where nothing can be planned: no triples, a name given twice, weights or a batch size out of
    range. A job that cannot run is refused with the reason, and the others go on.
    """
    _check(workload)
    sites = Sites(workload)
    groups = {group.name: number for number, group in enumerate(workload.groups)}
    faults = {group.name: fault for group in workload.groups if (fault := group_fault(group))}
    refused: dict[str, str] = {}
    numbers: dict[tuple[Any, ...], int] = {}
    masks: list[Array] = []
    reasons: list[str] = []
    kept: list[tuple[Job, int, int, int]] = []
    for asked, job in enumerate(workload.jobs):
        key = (job.group, job.regions, job.forbidden_regions, tuple(sorted(job.labels.items())))
        number = numbers.get(key)
        if number is None:
            number = numbers[key] = len(masks)
            fault = faults.get(job.group) or sites.fault(job, groups)
            mask = np.zeros(len(workload.triples), np.bool_)
            if fault is None:
                group = workload.groups[groups[job.group]]
                mask = sites.allowed(job, group)
                if not mask.any():
                    fault = why_nowhere(sites, job, group)
            masks.append(mask)
            reasons.append(fault or "")
        reason = reasons[number] or job_fault(job, workload.now_s)
        if reason:
            refused[job.name] = reason
        else:
            kept.append((job, groups[job.group], number, asked))
    kept.sort(key=lambda one: (one[0].due_s, one[0].arrival_s))
    batch = min(workload.batch, max(1, len(kept)))
    table = np.array(masks, np.bool_).reshape(len(masks), len(workload.triples))
    usable = [group for group in workload.groups if group.name not in faults]
    fixed, item, nbytes = _durations(workload, sites, usable, groups)
    age = np.array([workload.now_s - job.arrival_s for job, _, _, _ in kept])
    free = np.array([max(0.0, triple.free_at_s - workload.now_s) for triple in workload.triples])
    group_of = np.array([number for _, number, _, _ in kept], np.int64)
    klass = np.array([number for _, _, number, _ in kept], np.int64)
    choice, choices = _choices(table, fixed, item, free, group_of, klass)
    w = workload.weights
    data = Data(
        group_of,
        klass,
        -age,
        np.array([job.due_s - workload.now_s for job, _, _, _ in kept]),
        fixed,
        item,
        nbytes,
        _caps(fixed, item, batch),
        sites.price,
        sites.pairs,
        sites.capacity,
        free,
        table,
        choice,
        choices,
        np.array([w.makespan, w.mean, w.tail, w.tardiness, w.late, w.dollars]),
    )
    return Compiled(
        data,
        tuple(job.name for job, _, _, _ in kept),
        tuple(triple.name for triple in workload.triples),
        tuple(group.name for group in workload.groups),
        tuple(tuple(v.name for v in group.variants) for group in workload.groups),
        refused,
        np.array([number for _, _, _, number in kept], np.int64),
        batch,
        workload.now_s,
    )


def _check(workload: Workload) -> None:
    """What concerns the whole."""
    if not workload.triples:
        named = ", ".join(job.name for job in workload.jobs[:3]) + (", …" if len(workload.jobs) > 3 else "")
        raise ProblemError(f"the cluster is empty: there is no triple for {named or 'any job'}")
    for what, names in (
        ("job", [job.name for job in workload.jobs]),
        ("triple", [triple.name for triple in workload.triples]),
        ("group", [group.name for group in workload.groups]),
    ):
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ProblemError(f"{what} {twice} is given twice")
        if "" in names:
            raise ProblemError(f"a {what} needs a name")
    if workload.batch < 1:
        raise ProblemError(f"batch is {workload.batch}, must be at least 1")
    if not abs(workload.now_s) <= LONGEST_S:
        raise ProblemError(f"now_s is {workload.now_s}, must be a number of at most {LONGEST_S:g}")
    for where, values in (("weights", workload.weights), ("calibration", workload.calibration)):
        for name, value in vars(values).items():
            if not 0 <= value <= LARGEST:
                raise ProblemError(f"{where}: {name} is {value}, must be a number from 0 to {LARGEST:g}")


def _durations(
    workload: Workload, sites: Sites, usable: Sequence[Group], groups: dict[str, int]
) -> tuple[Array, Array, Array]:
    """`fixed`, `item` and `nbytes` of `Data`; a variant that a group lacks takes for ever."""
    depth = max((len(group.variants) for group in usable), default=1)
    shape = (depth, len(workload.groups), len(workload.triples))
    fixed, item, nbytes = np.full(shape, inf), np.full(shape, inf), np.zeros(shape[:2])
    c = workload.calibration
    for group in usable:
        g = groups[group.name]
        work = c.work * group.work_s / sites.rate
        for v, variant in enumerate(group.variants):
            fixed[v, g] = c.overhead_s + c.rounds * variant.rounds * sites.rtt
            item[v, g] = work + c.nbytes * variant.nbytes / sites.bandwidth
            nbytes[v, g] = variant.nbytes
    # What cannot be used is in no list; zeros keep its arithmetic quiet.
    idle = sorted(set(groups.values()) - {groups[group.name] for group in usable})
    fixed[:, idle] = 0.0
    item[:, idle] = 0.0
    fixed[:, :, ~sites.usable] = 0.0
    item[:, :, ~sites.usable] = 0.0
    return fixed, item, nbytes


def _caps(fixed: Array, item: Array, batch: int) -> Array:
    """Most jobs of a batch under each rule of SHARES, for the variant that is faster alone."""
    variant = (fixed + item).argmin(axis=0)[None]
    shared = np.take_along_axis(fixed, variant, 0)[0]
    each = np.take_along_axis(item, variant, 0)[0]
    caps = np.full((len(SHARES), *shared.shape), batch, np.int64)
    with np.errstate(divide="ignore", invalid="ignore"):
        for rule, share in enumerate(SHARES[1:], 1):
            wanted = np.ceil(shared / (share * each))
            caps[rule] = np.clip(np.where(np.isfinite(wanted), wanted, batch), 1, batch)
    return caps


def _choices(
    table: Array, fixed: Array, item: Array, free: Array, group: Array, klass: Array
) -> tuple[Array, Array]:
    """For each class its allowed triples by the time at which a job alone would be done."""
    choice = np.zeros(table.shape, np.int64)
    if not len(klass):
        return choice, table.sum(axis=1)
    of_class = np.zeros(len(table), np.int64)
    of_class[klass] = group
    alone = (fixed + item).min(axis=0) + free
    ranked = np.argsort(np.where(table, alone[of_class], inf), axis=1, kind="stable")
    choices = table.sum(axis=1)
    inside = np.arange(table.shape[1])[None] < choices[:, None]
    choice[inside] = ranked[inside]
    return choice, choices
