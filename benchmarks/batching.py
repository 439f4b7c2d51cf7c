"""Continuous batching: jobs of several clients one by one, and the same jobs as one run.

    python benchmarks/batching.py --clients 8 --lengths 16,32,128 --runs 3

Every client has one text. ``one by one``: a run for each job, as a service without batching would do it; ``batch``:
one run of all, each job with its own parcel, answer and range checks. The two take turns. Seconds are the client's,
from the parcels at hand to the last answer, with three parties in processes of their own on this machine; dealing of
correlated randomness is inside, the clients' own sharing is not: it is the same in both, and on the clients' machines.
Weights are random (MiniLM's sizes) unless --weights real. Bytes and rounds are one party's largest, for all the jobs.
"""

import argparse
import json
import secrets
import statistics
import sys
import time

import numpy as np

import mpc_ray
from mpc_ray import parcels
from mpc_ray.bench.machine import machine
from mpc_ray.bench.shapes import SHAPES
from mpc_ray.channel import Message
from mpc_ray.model import DEMO_MODEL, model_folder
from mpc_ray.models import query
from mpc_ray.models.calibrate import observed_for
from mpc_ray.models.export import export_encoder
from mpc_ray.models.load import load_bert
from mpc_ray.models.statistics import observe
from mpc_ray.models.synthetic import random_bert

NAME = "batching"


def the_model(shape, weights, lengths):
    """(model, export): random weights calibrated on random tokens, or the demo model's."""
    if weights == "real":
        bert = load_bert(model_folder(DEMO_MODEL))
        observed = observed_for(bert)
    else:
        size = SHAPES[shape]
        bert = random_bert(
            size.layers, size.hidden, size.heads, size.ffn, vocab=1024, max_positions=max(lengths)
        )
        observed = observe(bert, [row for length in lengths for row in tokens(16, length, seed=1)])
    export = export_encoder(
        bert.encoder,
        observed,
        tuple(lengths),
        gain=bert.embeddings.norm_gain,
        bias=bert.embeddings.norm_bias,
        normalize=bert.normalize,
    )
    return bert, export


def tokens(count, length, seed):
    """Texts of random tokens that fill ``length`` with two to spare, so that masks and padding are at work."""
    drawn = np.random.default_rng((seed, length)).integers(5, 1024, (count, max(1, length - 2)))
    return [row.tolist() for row in drawn]


class Jobs:
    """As many jobs as clients, of one text each, on a session that holds the model."""

    def __init__(self, session, bert, export, clients, length):
        self.session = session
        self.shared = [
            query.embedding_secrets(bert, export, [row], length) for row in tokens(clients, length, 2)
        ]

    def parcels(self):
        """For each job its three messages; shares are fresh at every call."""
        empty = bytes(16)
        return [query.run_messages(s, NAME, empty, 0, "embedding") for s in self.shared]

    def one_by_one(self, jobs):
        """[for each job its three answers]"""
        return [
            self.session.run(
                lambda name, attempt, job=job: [
                    Message({**m.header, "job": name.hex(), "attempt": attempt}, m.tensors) for m in job
                ]
            )
            for job in jobs
        ]

    def batch(self, jobs):
        """[the three answers of the one run]"""

        def make(name, attempt):
            header = {"cmd": "run", "model": NAME, "job": name.hex(), "attempt": attempt}
            header |= {"output": "embedding", "range_check": True}
            return [parcels.join(header, [job[i] for job in jobs]) for i in range(3)]

        return [self.session.run(make)]


def results(answers):
    """Vectors of all jobs, whichever way they were run. Raises RangeExceeded if a check struck."""
    if len(answers) == 1 and "jobs" in answers[0][0].header:
        answers = list(zip(*(parcels.answers(a) for a in answers[0]), strict=True))
    return np.concatenate([query.result(a) for a in answers])


def cost(answers):
    """(rounds, bytes of the party that sent most) of all runs, one after the other."""
    rounds = sum(max(a.header["rounds"] for a in run) for run in answers)
    sent = [sum(run[i].header["bytes_sent"] for run in answers) for i in range(3)]
    return rounds, max(sent)


def measure(jobs, runs):
    """Both ways, in turn, once to warm up and ``runs`` times measured."""
    ways = {"one by one": jobs.one_by_one, "batch": jobs.batch}
    seconds = {way: [] for way in ways}
    found, costs = {}, {}
    for _ in range(runs + 1):
        for way, run in ways.items():
            ready = jobs.parcels()
            started = time.perf_counter()
            answers = run(ready)
            seconds[way].append(time.perf_counter() - started)
            found[way], costs[way] = results(answers), cost(answers)
    apart = 1 - (found["one by one"] * found["batch"]).sum(-1)
    out = {"max_one_minus_cosine": float(apart.max())}
    for way in ways:
        typical = statistics.median(seconds[way][1:])
        out[way] = {
            "seconds_median": typical,
            "seconds_min": min(seconds[way][1:]),
            "texts_per_second": len(jobs.shared) / typical,
            "rounds": costs[way][0],
            "bytes_sent": costs[way][1],
        }
    out["ratio"] = out["batch"]["texts_per_second"] / out["one by one"]["texts_per_second"]
    return out


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--lengths", default="16,32,128")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--shape", default="minilm", choices=sorted(SHAPES))
    parser.add_argument("--weights", default="random", choices=("random", "real"))
    parser.add_argument("--launcher", default="processes", choices=("processes", "threads"))
    a = parser.parse_args()
    lengths = [int(n) for n in a.lengths.split(",")]
    if min(a.clients, a.runs, *lengths) < 1:
        parser.error("--clients, --runs and --lengths are at least 1")
    load = machine()["load"]
    bert, export = the_model(a.shape, a.weights, lengths)
    found = {}
    with mpc_ray.Session(launcher=a.launcher) as session:
        session.share(NAME, lambda: query.load_messages(export, NAME, secrets.token_bytes(16)))
        for length in lengths:
            found[str(length)] = measure(Jobs(session, bert, export, a.clients, length), a.runs)
    print(f"\n{a.clients} clients of one text, {a.shape}, {a.weights} weights", file=sys.stderr)
    print(f"{'tokens':>8}{'one by one':>14}{'batch':>10}{'ratio':>8}   texts/s", file=sys.stderr)
    for length, row in found.items():
        one, all_at_once = (row[way]["texts_per_second"] for way in ("one by one", "batch"))
        print(f"{length:>8}{one:14.2f}{all_at_once:10.2f}{row['ratio']:8.2f}", file=sys.stderr)
    said = {"clients": a.clients, "shape": a.shape, "weights": a.weights, "launcher": a.launcher}
    print(json.dumps({**said, "lengths": found, "machine": {**machine(), "load": load}}))


if __name__ == "__main__":
    main()
