"""What the compiled loops and their callers agree on. No loop is here, so that importing it compiles nothing."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

TAIL = 0.05  # share of the jobs that the tail term looks at

# Batches of a queue are cut by one of three rules: as full as allowed, or only until the rounds that a batch shares are
# a quarter, or all, of what one more job adds. Waiting for a full batch delays its first jobs for nothing where rounds
# are cheap.
SHARES = (0.0, 0.25, 1.0)
ORDERS = 3  # of the batches of a queue: by due date, by Smith's rule (seconds a job), by arrival
MODES = ORDERS * len(SHARES)


class Data(NamedTuple):
    """n jobs, C classes, G groups, V variants, T triples, L links. float64 and int64; seconds count from `now_s`."""

    group: Array  # [n]
    klass: Array  # [n]
    arrived: Array  # [n], not above 0
    due: Array  # [n], ascending
    fixed: Array  # [V, G, T] seconds of a batch, whatever its size
    item: Array  # [V, G, T] seconds of each job in it
    nbytes: Array  # [V, G] bytes of one job over each pair of a triple
    cap: Array  # [len(SHARES), G, T] most jobs of a batch under each rule
    price: Array  # [T] dollars of such a byte, all three pairs
    pairs: Array  # [T, L] pairs of the triple that use the link
    capacity: Array  # [L] bytes a second
    free: Array  # [T] when the triple is free, not below 0
    allowed: Array  # [C, T] bool
    choice: Array  # [C, T] allowed triples, quickest first; unused places hold 0
    choices: Array  # [C] how many
    weights: Array  # [6] makespan, mean, tail, tardiness, late, dollars


class Timetable(NamedTuple):
    """`batch[j]` of each job [n]; of each batch [B] its triple, variant, group, jobs, start and end (seconds from now).

    Batches of one triple stand in order of starting.
    """

    batch: Array
    triple: Array
    variant: Array
    group: Array
    size: Array
    start: Array
    end: Array
