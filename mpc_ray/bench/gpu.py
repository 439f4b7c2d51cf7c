"""What a GPU computes: kernels beside the device's own ceilings, and an encoder with three parties on it.

    python -m mpc_ray.bench.gpu [--json FILE] [--no-encoder]        (make bench-gpu)

Neither Ray nor a network: parties are processes on this machine, or threads of one. Times are CUDA events' medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mpc_ray.bench.encoder import measure
from mpc_ray.bench.machine import machine
from mpc_ray.bench.shapes import SHAPES
from mpc_ray.config import load
from mpc_ray.errors import DeviceError, MpcError
from mpc_ray.kernels import dpf, elementwise, lookup, ring, stream
from mpc_ray.kernels.cuda import planes
from mpc_ray.kernels.cuda import ring as cuda_ring

RUNS = 15
PRODUCTS = ((128, 768, 768), (128, 768, 3072), (128, 3072, 768), (1024, 1024, 1024), (4096, 4096, 4096))
DIGIT_PRODUCTS, RESIDUE_PRODUCTS = 36, 18


def median_ms(call: Callable[[], object], runs: int = RUNS) -> tuple[float, float]:
    """(median, spread) in milliseconds of a call on the current stream, after two to warm up."""
    times = []
    for i in range(runs + 2):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        if i >= 2:
            times.append(float(begin.elapsed_time(end)))
    return statistics.median(times), max(times) - min(times)


def uniform(place: torch.device, *shape: int) -> torch.Tensor:
    """Random elements of Z_2^64 on a device."""
    raw = bytearray(os.urandom(8 * torch.Size(shape).numel()))
    return torch.frombuffer(raw, dtype=torch.int64).reshape(shape).to(place)


def ceilings(place: torch.device) -> dict[str, float]:
    """What this device reached: ``int8_tops`` of an 8192^3 product, ``copy_tbytes`` a second, read and written."""
    n = 8192
    a, b = (torch.randint(-128, 128, (n, n), dtype=torch.int8, device=place) for _ in range(2))
    product, _ = median_ms(lambda: torch._int_mm(a, b.t()))
    x = uniform(place, 1 << 27)
    y = torch.empty_like(x)
    copy, _ = median_ms(lambda: y.copy_(x))
    return {"int8_tops": 2 * n**3 / product / 1e9, "copy_tbytes": 2 * x.nbytes / copy / 1e9}


def products(place: torch.device, int8_tops: float) -> list[dict[str, Any]]:
    """Every form of the product over Z_2^64 by shape; ``share``: of the int8 ceiling that its int8 products reach."""
    found = []
    for m, k, n in PRODUCTS:
        a, b = uniform(place, m, k), uniform(place, k, n)
        packed = ring.pack(b)
        out = torch.empty((m, n), dtype=torch.int64, device=place)
        forms: dict[str, tuple[Callable[[], object], int]] = {
            "fused": (lambda: ring.matmul_packed(a, packed, out), DIGIT_PRODUCTS),  # noqa: B023
            "digits": (lambda: planes.matmul(a, b, "digits", out), DIGIT_PRODUCTS),  # noqa: B023
            "residues": (lambda: planes.matmul(a, b, "residues", out), RESIDUE_PRODUCTS),  # noqa: B023
            "plain int64": (lambda: cuda_ring.matmul_plain(a, b), 0),  # noqa: B023
        }
        for name, (call, count) in forms.items():
            ms, spread = median_ms(call)
            share = 2 * count * m * k * n / ms / 1e9 / int8_tops
            found.append(
                {"shape": f"{m}x{k}x{n}", "form": name, "ms": ms, "spread_ms": spread, "share": share}
            )
    return found


def kernels(place: torch.device) -> list[dict[str, Any]]:
    """The other kernels that a pass spends its time in."""
    rows, n = 1 << 20, 8
    bits, c = uniform(place, rows, 4).view(torch.uint8), uniform(place, rows)
    tables = lookup.prepare(uniform(place, 4, 1 << n))
    count = 1 << 24
    z, key, nonce = uniform(place, count), os.urandom(32), os.urandom(12)
    seeds = [uniform(place, 4096, 2).view(torch.uint8) for _ in range(2)]
    keys, _ = dpf.generate(seeds[0], seeds[1], uniform(place, 4096), 12)
    cases: dict[str, tuple[Callable[[], object], float, str]] = {
        "look-up, 4 tables of 256": (lambda: lookup.lookup_sums(bits, c, tables), 4.0 * rows, "ns a table"),
        "stream into a sum": (lambda: stream.add(z, key, nonce, 1, out=z), 8.0 * count, "ns a byte"),
        "opening with truncation": (lambda: elementwise.open_truncate(z, z, 16), 32.0 * count, "ns a byte"),
        "point function, 2^12": (lambda: dpf.expand(seeds[0], 0, keys, 12), 4096.0 * 4096, "ns a leaf"),
    }
    found = []
    for name, (call, units, unit) in cases.items():
        ms, spread = median_ms(call)
        found.append({"kernel": name, "ms": ms, "spread_ms": spread, "cost": ms * 1e6 / units, "unit": unit})
    return found


def encoders(progress: Callable[[str, float], None]) -> list[dict[str, Any]]:
    """BERT-base and MiniLM at 128 tokens with three parties on one GPU: in threads without TLS, then in processes."""
    found = []
    for shape in ("minilm", "bert-base"):
        for launcher, tls in (("threads", False), ("processes", True)):
            config = load(
                environ={},
                launcher=launcher,
                tls=tls,
                device="cuda",
                gpu_memory_fraction=0.9 if launcher == "threads" else 0.3,
            )
            found.append(measure(SHAPES[shape], config=config, seq=128, runs=5, progress=progress))
    return found


def main(arguments: list[str] | None = None) -> None:
    """Print the tables, and write what is in them as JSON. Raises DeviceError without a device."""
    parser = argparse.ArgumentParser(description="Measure kernels and an encoder on a CUDA device.")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--no-encoder", action="store_true", help="kernels alone")
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        raise DeviceError(
            "nothing was measured: no CUDA device that PyTorch can use", remedy="run it where there is one"
        )
    place = torch.device("cuda", 0)
    limits = ceilings(place)
    found: dict[str, Any] = {
        "machine": machine("cuda:0"),
        "ceilings": limits,
        "products": products(place, limits["int8_tops"]),
        "kernels": kernels(place),
        "encoders": [] if given.no_encoder else encoders(lambda what, part: None),
    }
    write = sys.stdout.write
    write(
        f"{found['machine']['gpu']}: int8 {limits['int8_tops']:.0f} TOP/s, copy {limits['copy_tbytes']:.2f} TB/s\n"
    )
    for row in found["products"]:
        write(
            f"{row['shape']:>16} {row['form']:<12} {row['ms']:9.4f} ms ± {row['spread_ms']:.4f}  {row['share']:.0%}\n"
        )
    for row in found["kernels"]:
        write(f"{row['kernel']:<28} {row['ms']:9.4f} ms  {row['cost']:.5f} {row['unit']}\n")
    for row in found["encoders"]:
        write(
            f"{row['shape']:<10} {row['launcher']:<10} {row['seconds']:.3f} s  error {row['mean_abs_error']:.1e}\n"
        )
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except MpcError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
