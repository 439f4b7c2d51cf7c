"""The cost model beside the clock: an encoder over emulated links, predicted and measured.

    python benchmarks/predict.py --shape minilm --runs 3
    python benchmarks/predict.py --shape minilm --seq 16 --links 0,10,50,10:100

Three parties in processes of this machine, TLS on, one triple for each variant; every frame between two of them is held
back by half the round trip and enters its link after the frame before it. A link is MS or MS:MBIT. First each variant's
schedule is measured (rounds and bytes as counted, seconds of the processor: `mpc-ray bench predict` does the same),
then predicted and run on every link, the variants in turn. Predictions are for parties that share this machine's cores.

With --processor time is reckoned instead of waited for: every frame says when it arrives, and a party's clock moves on
by its own processor's seconds and by arrivals alone. That is a run of the whole protocol on machines of their own, and
other work on this one does not matter.

`starved`: the seconds of a measured run that its parties waited for a core which other programs had; where that is
not near zero the machine was busy and the comparison says little. `error` is (predicted - measured) / measured; `gain`
is what the fewest rounds save, predicted and measured, of medians.
"""

import argparse
import json
import os
import statistics
import sys

import mpc_ray
from mpc_ray.bench.encoder import EncoderJob
from mpc_ray.bench.machine import machine
from mpc_ray.bench.predict import watched
from mpc_ray.bench.shapes import shape_of
from mpc_ray.bench.workload import workload
from mpc_ray.cost.links import link_of, predict
from mpc_ray.cost.tables import REFERENCE, VARIANTS, cached_file, write

LINKS = "0,1,10,50,0:1000,10:1000,50:1000,0:100,10:100,50:100"


def links_of(text):
    """[(rtt_ms, mbit or None)] of "50,10:100"."""
    found = []
    for one in text.split(","):
        rtt, _, mbit = one.partition(":")
        found.append((float(rtt), float(mbit) if mbit else None))
    return found


def compare(args, note):
    """The JSON object: one entry for each link and variant, and each link's gain."""
    shape, links = shape_of(args.shape), links_of(args.links)
    variants = args.variants.split(",") if args.variants else VARIANTS[args.protocol]
    cores = None if args.emulate == "processor" else len(os.sched_getaffinity(0))
    work = workload(shape, args.seq, args.batch, args.weights, lambda what, part: None)
    sessions, jobs, schedules = {}, {}, {}
    load = os.getloadavg()[0]
    try:
        for variant in variants:
            note(f"{variant}: starting, sharing the model")
            sessions[variant] = session = mpc_ray.Session(
                launcher="processes", protocol=args.protocol, variant=variant, emulate=args.emulate
            )
            jobs[variant] = EncoderJob(session, work)
            note(f"{variant}: measuring its schedule")
            schedules[variant] = watched(jobs[variant], session, args.runs, lambda what, part: None)
            write(
                cached_file(args.protocol, variant, shape.name, args.seq, args.batch, work.weights),
                schedules[variant],
            )
        if args.reference:
            found = [schedules[variant].to_json() for variant in variants]
            REFERENCE.write_text(json.dumps(found, separators=(",", ":"), ensure_ascii=False) + "\n")
        rows = []
        for rtt, mbit in links:
            measured = {variant: [] for variant in variants}
            for _ in range(args.runs):
                for variant in variants:
                    jobs[variant].more = {"link": [rtt, mbit or 0.0], "watch": True}
                    measured[variant].append(one_pass(jobs[variant]))
            for variant in variants:
                rows.append(row(schedules[variant], rtt, mbit, cores, measured[variant]))
                note(line(rows[-1]))
    finally:
        for session in sessions.values():
            session.close()
    return {
        "shape": shape.name,
        "seq": args.seq,
        "batch": args.batch,
        "weights": work.weights,
        "protocol": args.protocol,
        "emulate": args.emulate,
        "runs": args.runs,
        "rows": rows,
        "gain": gains(rows),
        "load": [load, os.getloadavg()[0]],
        "machine": machine(),
    }


def one_pass(job):
    """(seconds of the slowest party, seconds that it lacked a core for) of one run."""
    passes = job.passes(0, lambda what, part: None)  # the one that would warm up
    report, steps = passes.reports[0], passes.steps[0]
    busy = max(sum(step[0] + step[1] + step[2] for step in party) for party in steps)
    return report.seconds, max(0.0, report.seconds - report.waiting - busy)


def row(schedule, rtt, mbit, cores, measured):
    """One variant over one link."""
    link = link_of(rtt, mbit)
    predicted = predict(schedule, link, cores)
    seconds = statistics.median(one for one, _ in measured)
    return {
        "rtt_ms": rtt,
        "mbit": mbit,
        "variant": schedule.variant,
        "rounds": schedule.rounds,
        "bytes_sent": list(schedule.bytes_sent),
        "predicted": predicted.seconds,
        "predicted_own_machines": predict(schedule, link).seconds,
        "measured": seconds,
        "measured_min": min(one for one, _ in measured),
        "starved": statistics.median(starved for _, starved in measured),
        "error": (predicted.seconds - seconds) / seconds,
    }


def gains(rows):
    """For each link: seconds that the fewest rounds save, predicted and measured."""
    found = []
    for one in rows:
        for other in rows:
            same = (one["rtt_ms"], one["mbit"]) == (other["rtt_ms"], other["mbit"])
            if same and (one["variant"], other["variant"]) == ("bytes", "rounds"):
                found.append(
                    {
                        "rtt_ms": one["rtt_ms"],
                        "mbit": one["mbit"],
                        "predicted": one["predicted"] - other["predicted"],
                        "measured": one["measured"] - other["measured"],
                        "measured_of_fastest": one["measured_min"] - other["measured_min"],
                    }
                )
    return found


def line(r):
    """One row of the table."""
    width = "no limit" if r["mbit"] is None else f"{r['mbit']:g} Mbit/s"
    size = max(r["bytes_sent"]) / 1e6
    return (
        f"{r['rtt_ms']:5g} ms  {width:>11}  {r['variant']:7} {r['rounds']:4} rounds {size:7.1f} MB"
        f"  predicted {r['predicted']:7.3f}  measured {r['measured']:7.3f} (least {r['measured_min']:.3f})"
        f"  starved {r['starved']:.3f}  error {r['error']:+.1%}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", default="minilm")
    parser.add_argument("--seq", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--weights", choices=("real", "random"))
    parser.add_argument("--protocol", default="semi_honest_3pc")
    parser.add_argument("--variants", help="such as bytes,rounds; default: all")
    parser.add_argument("--links", default=LINKS, help=f"MS or MS:MBIT, comma between; default {LINKS}")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--processor", dest="emulate", action="store_const", const="processor", default="clock"
    )
    parser.add_argument(
        "--reference",
        action="store_true",
        help="keep the schedules as the release's own, by which `variant: auto` decides",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    args = parser.parse_args()
    found = compare(args, lambda text: print(text, file=sys.stderr, flush=True))
    if args.json:
        print(json.dumps(found))
        return
    for one in found["rows"]:
        print(line(one))
    for one in found["gain"]:
        width = "no limit" if one["mbit"] is None else f"{one['mbit']:g} Mbit/s"
        print(
            f"gain of the fewest rounds at {one['rtt_ms']:g} ms, {width}: predicted {one['predicted']:+.3f} s, "
            f"measured {one['measured']:+.3f} s, of the fastest runs {one['measured_of_fastest']:+.3f} s"
        )
    print(f"load {found['load'][0]:.1f} before and {found['load'][1]:.1f} after")


if __name__ == "__main__":
    main()
