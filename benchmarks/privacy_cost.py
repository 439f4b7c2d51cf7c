"""What privacy costs: sentences a second and dollars per million, on shares and in the clear, on one machine.

    python benchmarks/privacy_cost.py --sentences 64

Both embed the same sentences with all-MiniLM-L6-v2: in the clear with PyTorch in float32, all cores, sentences of
one length together; on shares as `mpc-ray embed` does, client's work included. All three parties run on this machine
and fill it, so a sentence on shares costs this machine's time three parties' worth at once; what crosses between the
parties is priced apart, because where they stand decides its price. Prices are stated in the output and can be changed.
"""

import argparse
import json
import os
import sys
import time

import numpy as np
import torch

import mpc_ray
from mpc_ray.bench.machine import machine
from mpc_ray.bench.passage import SENTENCES
from mpc_ray.model import DEMO_MODEL, model_folder
from mpc_ray.models.bert_float import batches, embed_tokens, encoder_layer, layer_tensors, tokenizer_of
from mpc_ray.models.load import load_bert
from mpc_ray.models.pooling import normalized, pooling_vector

# Dollars. A virtual core of a compute-optimised cloud machine costs about 0.04 to 0.05 an hour on demand; traffic is
# free or 0.01 to 0.02 a GB within a region, about 0.02 between regions of one provider, about 0.09 to the internet.
CORE_HOUR = 0.0425
TRAFFIC = {"one zone": 0.0, "two regions": 0.02, "three operators, by internet": 0.09}


def plaintext(bert, ids):
    """Embeddings in float32, sentences of equal length together: what a plain service would do."""
    out = np.zeros((len(ids), bert.config.hidden))
    with torch.inference_mode():
        layers = [layer_tensors(layer, torch.float32) for layer in bert.layers]
        for rows in batches([len(row) for row in ids]):
            x = embed_tokens(bert, torch.tensor([ids[row] for row in rows]), torch.float32)
            for layer in layers:
                x = encoder_layer(layer, x, bert.config)
            out[rows] = np.einsum("i,bih->bh", pooling_vector(bert.pooling, x.shape[1]), x.numpy())
    return normalized(out) if bert.normalize else out


def fastest(call, runs):
    """(seconds of the fastest of ``runs`` calls after one to warm up, the last result)."""
    best, result = float("inf"), call()
    for _ in range(runs):
        started = time.perf_counter()
        result = call()
        best = min(best, time.perf_counter() - started)
    return best, result


def computing(seconds_each, cores, core_hour):
    """Dollars for the machine's time on a million sentences."""
    return 1e6 * seconds_each / 3600 * cores * core_hour


def traffic(gigabytes_each):
    """Dollars for what a million sentences send between the parties, by where these stand."""
    return {place: 1e6 * gigabytes_each * price for place, price in TRAFFIC.items()}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sentences", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--launcher", default="ray", choices=("ray", "processes"))
    parser.add_argument("--core-hour", type=float, default=CORE_HOUR, help="dollars a virtual core and hour")
    a = parser.parse_args()
    if min(a.sentences, a.runs) < 1:
        parser.error("--sentences and --runs are at least 1")
    texts = [SENTENCES[i % len(SENTENCES)] for i in range(a.sentences)]
    cores = len(os.sched_getaffinity(0))
    bert = load_bert(model_folder(DEMO_MODEL))
    tokenizer = tokenizer_of(bert)
    torch.set_num_threads(cores)
    plain_s, plain = fastest(lambda: plaintext(bert, tokenizer.encode(texts)), a.runs)
    torch.set_num_threads(1)
    with mpc_ray.Session(launcher=a.launcher) as session:
        model = session.load(DEMO_MODEL)
        private_s, private = fastest(lambda: model.embed(texts), a.runs)
        gigabytes = sum(model.report.bytes_sent) / 1e9 / len(texts)
    drift = float(np.max(1 - (plain * private).sum(1) / np.linalg.norm(private, axis=1)))
    each = {"plaintext": plain_s / len(texts), "on shares": private_s / len(texts)}
    machines = {name: computing(seconds, cores, a.core_hour) for name, seconds in each.items()}
    sent = traffic(gigabytes)
    found = {
        "model": DEMO_MODEL,
        "sentences": len(texts),
        "tokens": sum(map(len, tokenizer.encode(texts))),
        "launcher": a.launcher,
        "sentences_per_second": {name: 1 / seconds for name, seconds in each.items()},
        "slowdown": each["on shares"] / each["plaintext"],
        "gigabytes_per_sentence": gigabytes,
        "prices": {"core_hour": a.core_hour, "gigabyte": TRAFFIC, "cores": cores},
        "dollars_per_million": {"computing": machines, "traffic between the parties": sent},
        "max_one_minus_cosine": drift,
        "machine": machine(),
    }
    print(f"\n{len(texts)} sentences, {found['tokens']} tokens, {cores} cores", file=sys.stderr)
    for name, seconds in each.items():
        print(
            f"  {name:10} {1 / seconds:9.2f} sentences/s {machines[name]:9.2f} dollars a million",
            file=sys.stderr,
        )
    print(
        f"  and for {1000 * gigabytes:.1f} MB a sentence between the parties, dollars a million:",
        file=sys.stderr,
    )
    for place, price in sent.items():
        print(f"  {place:30} {price:9.2f}", file=sys.stderr)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
