"""What a party runs for its client under semi_honest_3pc: load a model's shares, run jobs on them, forget them.

A party sees of a job: which model, batch and padded length, whether keys are masked, and its shares. Its answer holds
its summand of the output and of the range checks, each blinded by a zero share, and counts. A run may hold jobs of
several clients (``mpc_ray.parcels``): each is answered for its own texts alone. In shadow mode, if the client asks,
also its summands of every layer's rows: whoever reads them all reads the hidden states.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from mpc_ray import parcels
from mpc_ray.channel.interface import Channel
from mpc_ray.channel.link import Message
from mpc_ray.correlation.prf import Correlation
from mpc_ray.correlation.seeds import agree
from mpc_ray.errors import ConfigError, DeviceError, HelloMismatch, ModelError
from mpc_ray.functions.plan import exp_digest
from mpc_ray.kernels.memory import give_back
from mpc_ray.kernels.warm import warm
from mpc_ray.models import bert
from mpc_ray.models.plan import (
    ACTIVATION_SCALE,
    BUCKET_LOG,
    CONTEXT_SCALE,
    HIDDEN_SCALE,
    POOLED_SCALE,
    QUERY_KEY_SCALE,
    EncoderPlan,
)
from mpc_ray.models.public import tables_of
from mpc_ray.models.record import digest, from_record
from mpc_ray.protocols.runtime import Protocol, Runtime
from mpc_ray.protocols.semi_honest.blocks import LayerShares, ModelShares, SemiHonestBlocks
from mpc_ray.protocols.semi_honest.fewest_rounds import FewestRoundsBlocks
from mpc_ray.protocols.semi_honest.product import Linear
from mpc_ray.protocols.semi_honest.range_check import RangeChecks
from mpc_ray.sharing.deal import receive_one_by_one
from mpc_ray.sharing.fixed import check_scale
from mpc_ray.sharing.replicated import Shared, Summand, summand

JOB_BYTES = 1 << 30  # of one summand of the input of all jobs of a run
BYTES, ROUNDS = "bytes", "rounds"  # variants: fewest bytes, fewest rounds
ZERO_SHARE_ROLE = 3  # a role of its own, so that no other stream can coincide


@dataclass(frozen=True, eq=False)
class _Loaded:
    plan: EncoderPlan
    shares: ModelShares


class Executor:
    """One party's program. Seeds are agreed when it is made; ``digest`` is what both ends of each pair compared.

    ``allow_trace`` is this party's own setting: without it a job that asks for its hidden states is refused.
    ``variant``: how jobs are computed, BYTES or ROUNDS; the parties compared it in HELLO.
    """

    def __init__(self, channel: Channel, *, digest: bytes, threads: int = 1, device: str = "cpu") -> None:
        if device != "cpu":
            raise DeviceError(f"this release has no kernels for {device}", remedy="use device cpu")
        torch.set_num_threads(threads)
        seeds = agree(channel, b"", digest)  # the digest names the session too
        self.runtime = Runtime(channel, Correlation(channel.me, seeds, os.urandom(32)))
        self.progress: Callable[[str, float], None] | None = None
        self.allow_trace = False
        self.variant = BYTES
        self._models: dict[str, _Loaded] = {}

    def load(self, message: Message) -> Message:
        """Take a model's public record and shares; compare the record with the peers'. 1 round, 64 bytes to each.

        Raises ModelError or InputError for what does not fit, HelloMismatch if a peer was given another record.
        """
        header: Mapping[str, Any] = message.header
        tables = tables_of(message.tensors)
        plan = from_record(header["record"], tables)
        me = self.runtime.me
        take = receive_one_by_one(me, header, message.tensors)
        own = digest(header["record"], tables)
        self.runtime.begin(bytes.fromhex(header["job"]), 0)
        buckets = [n for p in plan.layers for n in (*p.buckets, *p.masked_buckets)]
        self.runtime.run(_compare(self.runtime, own + exp_digest(buckets, BUCKET_LOG)))
        self._models[str(header["model"])] = _Loaded(plan, model_shares(me, plan, take))
        _make_ready(plan)
        return Message({"ok": True, "digest": own.hex()})

    def forget(self, message: Message) -> Message:
        """Drop a model's shares. Forgetting what is not there is not an error."""
        self._models.pop(str(message.header["model"]), None)
        return Message({"ok": True})

    def run(self, message: Message) -> Message:
        """One job, or one of several clients (``batch``, ``mpc_ray.parcels``): ``output`` "embedding" or "hidden" over
        shares of embedded rows.

        Of several jobs each has its own rows of the output and its own range checks in the answer, blinded by zero
        shares of their own. Rounds are paid once; bytes are those of one job of as many texts.

        Raises ModelError if the model is not loaded, InputError for shares of another shape or scale, ConfigError for a
        trace that this party does not allow.
        """
        header: Mapping[str, Any] = message.header
        several = "batch" in header
        if header.get("trace") and (several or not self.allow_trace):
            raise ConfigError(
                "the client asks for every layer's rows, which this party does not give away",
                remedy="start the session with shadow=True, if the client owns the model",
            )
        model = self._models.get(str(header["model"]))
        if model is None:
            raise ModelError(f"model {str(header['model'])[:40]} is not loaded", remedy="load it first")
        runtime = self.runtime
        program = bert.Program(
            len(model.plan.layers),
            model.plan.embedding_norm is not None and not header.get("normalised"),
            str(header["output"]),
        )
        inputs, texts = parcels.take(runtime.me, model.plan, program, message, JOB_BYTES)
        job = bytes.fromhex(header["job"])
        started = time.perf_counter()
        runtime.begin(job, int(header.get("attempt", 0)))
        runtime.clock = 1  # the client's message was the first of the chain
        checks = RangeChecks(job, bool(header.get("range_check", True)), texts)
        runtime.meanwhile = checks.settle
        if header.get("watch"):
            runtime.watch()
        few = self.variant == ROUNDS
        base = SemiHonestBlocks(runtime, model.shares, checks, inputs.get("mask"), inputs.get("pooling"), few)
        blocks: Any = FewestRoundsBlocks(base) if few else base
        heard: list[tuple[str, Any]] = []

        def tap(place: str, rows: Any) -> None:
            if header.get("trace"):
                heard.append((place, rows))

        output = runtime.run(bert.encode(blocks, program, inputs["x"], self.progress, tap))
        assert isinstance(output, Summand)
        trace = [(place, summand(r if isinstance(r, Shared) else r.shared)) for place, r in heard]
        found = checks.finish()
        labels = [[label, bits] for label, (bits, _) in found.items()]
        sums = [
            self._blinded(i + 1, total) & ((1 << bits) - 1) for i, (bits, total) in enumerate(found.values())
        ]
        tensors = parcels.parts(
            several, texts, self._blinded(0, output.value).numpy(), [total.numpy() for total in sums]
        )
        for i, (_, rows) in enumerate(trace):
            tensors[f"trace {i}"] = self._blinded(i, rows.value, "trace").numpy()
        counts = runtime.counts()
        report: dict[str, Any] = {"ok": True, "scale": output.scale}
        if several:
            report["jobs"] = [{"texts": count, "checks": labels} for count in texts]
        else:
            report |= {"checks": labels, "trace": [[place, rows.scale] for place, rows in trace]}
        report |= {
            "seconds": time.perf_counter() - started,
            **counts,
            "rounds": max(counts["rounds"], runtime.clock) + 1,  # and the answer to the client
        }
        return Message(report, tensors)

    def _blinded(self, step: int, value: torch.Tensor, purpose: str = "output") -> torch.Tensor:
        """``value`` + α_i, α_i = F(S_i) - F(S_{i+1}): the three add up to zero, any two are uniform.

        Every element has a zero share of its own, so parts of the result are as blind as the whole.
        """
        draw = self.runtime.correlation.int64
        me = self.runtime.me
        first, second = (
            draw(i % 3, purpose, ZERO_SHARE_ROLE, step, 0, tuple(value.shape)) for i in (me, me + 1)
        )
        return value + (first - second)


def model_shares(me: int, plan: EncoderPlan, take: Callable[[str], Shared | None]) -> ModelShares:
    """This party's prepared weights, tensor by tensor. Raises ModelError if one of the plan is missing."""

    def get(name: str, scale: int | None = None) -> Shared:
        shared = take(name)
        if shared is None:
            raise ModelError(f"the shares lack {name}", remedy="share the model again")
        if scale is not None:
            check_scale(shared.scale, scale, name)
        return shared

    def linear(name: str, scale: int, *inputs: int) -> Linear:
        return Linear(me, get(name), get(f"{name} bias", scale), inputs)

    layers = {}
    for i, p in enumerate(plan.layers):
        at = bert.layer_name(i)
        layers[at] = LayerShares(
            qkv=linear(f"{at}/qkv", p.qkv_scale, HIDDEN_SCALE),
            out=linear(f"{at}/out", p.out_scale, CONTEXT_SCALE, HIDDEN_SCALE),
            up=linear(f"{at}/up", p.up_scale, HIDDEN_SCALE),
            down=linear(f"{at}/down", p.down_scale, ACTIVATION_SCALE, HIDDEN_SCALE),
            query_key_scale=QUERY_KEY_SCALE,
            value_scale=p.value_scale,
            softmax=partial(plan.softmax, i),
            attention_norm=p.attention_norm,
            activation=p.activation,
            ffn_norm=p.ffn_norm,
        )
        give_back()  # or what each layer leaves between small blocks would add up to half the weights again
    return ModelShares(
        heads=plan.heads,
        embedding_norm=plan.embedding_norm,
        layers=layers,
        gain=get("head/gain"),
        hidden_bias=get("head/hidden bias"),
        pooled_bias=get("head/pooled bias"),
        pooled_scale=POOLED_SCALE,
        pool=plan.pool,
    )


def _make_ready(plan: EncoderPlan) -> None:
    """What the first job would otherwise wait for: compiled kernels, and tables in the kernels' layout."""
    warm()
    splines = [s for p in plan.layers for s in (p.activation, p.attention_norm.rsqrt, p.ffn_norm.rsqrt)]
    splines += [norm.rsqrt for norm in (plan.embedding_norm, plan.pool) if norm is not None]
    for spline in splines:  # 1/sum: at the first job of each length
        spline.prepared  # noqa: B018 - made once and kept
    give_back()


def _compare(runtime: Runtime, own: bytes) -> Protocol[None]:
    """All three must hold the same public record: a difference is an error, never garbage."""
    arrivals = {}
    for peer in runtime.peers:
        runtime.send(peer, np.frombuffer(own, np.uint8), "public record", "load")
        arrivals[peer] = runtime.expect(peer, len(own))
    yield
    for peer, arrival in arrivals.items():
        if arrival.bytes().tobytes() != own:
            raise HelloMismatch(
                f"party {peer} was given another public record of the model", remedy="share the model again"
            )
