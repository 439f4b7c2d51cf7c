"""What a party runs for its client: load a model's shares, run jobs on them, forget them. Under semi_honest_3pc, unless
another protocol's ``Body`` is given.

A party sees of a job: which model, batch and padded length, whether keys are masked, and its shares. Its answer holds
its summand of the output and of the range checks, each blinded by a zero share, and counts. A run may hold jobs of
several clients (``mpc_ray.parcels``): each is answered for its own texts alone. In shadow mode, if the client asks,
also its summands of every layer's rows: whoever reads them all reads the hidden states.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from mpc_ray import parcels
from mpc_ray.channel.interface import Channel
from mpc_ray.channel.link import Message
from mpc_ray.correlation.prf import Correlation, Prf
from mpc_ray.correlation.seeds import agree
from mpc_ray.device_memory import DeviceMemory
from mpc_ray.errors import CheatingDetected, ConfigError, DeviceError, HelloMismatch, ModelError
from mpc_ray.functions.plan import exp_digest
from mpc_ray.holdings import Take, model_shares, moved, public_weights
from mpc_ray.kernels.memory import give_back
from mpc_ray.kernels.warm import warm
from mpc_ray.models import bert
from mpc_ray.models.plan import BUCKET_LOG, EncoderPlan
from mpc_ray.models.public import tables_of
from mpc_ray.models.record import digest, from_record
from mpc_ray.protocols.blocks import Blocks
from mpc_ray.protocols.malicious.copies import Copies, compare_copies, refuse_unchecked
from mpc_ray.protocols.runtime import Protocol, Runtime
from mpc_ray.protocols.semi_honest.blocks import ModelShares, SemiHonestBlocks
from mpc_ray.protocols.semi_honest.fewest_rounds import FewestRoundsBlocks, Rows
from mpc_ray.protocols.semi_honest.range_check import RangeChecks
from mpc_ray.sharing.deal import receive_one_by_one
from mpc_ray.sharing.replicated import Shared, Summand, summand

audit = logging.getLogger("mpc_ray.audit")
T = TypeVar("T")
JOB_BYTES = 1 << 30  # of one summand of the input of all jobs of a run
ZERO_SHARE_ROLE = 3  # a role of its own, so that no other stream can coincide
# {label: (bits, this party's summands of the range checks' sums)}
Found = dict[str, tuple[int, torch.Tensor]]


@dataclass(frozen=True)
class Run:
    """One job, or several clients' jobs, as a protocol's body gets it."""

    job: bytes
    texts: tuple[int, ...]
    range_check: bool
    inputs: Mapping[str, Shared]
    program: bert.Program
    progress: Callable[[str, float], None] | None
    tap: bert.Tap[Any]


@dataclass(frozen=True)
class Outcome:
    """What a job comes to: this party's summands of the output and of the range checks' sums.

    ``copies``: its second pieces of the same, where the client gets both and compares: [output, *checks]. Else it gets
    blinded summands.
    """

    output: Summand
    checks: Found
    copies: list[torch.Tensor] | None = None


@dataclass(frozen=True)
class Body:
    """What a protocol brings: what a party makes of its shares when it loads them, and a job on them.

    ``digest``: of public numbers that every party derives by itself from the plan; compared when a model is loaded.
    ``prepare_public``: of weights that are public; None where all weights are secret.
    ``run_few_rounds``: a job by the variant with the fewest rounds, where there is one.
    ``on_devices``: whether shares may lie on another device than the CPU.
    ``checked``: whether parties are held to the protocol (``mpc_ray.execute_malicious``): then copies of weights are
    compared at load and jobs of a failed session, second attempts and traces are refused.
    """

    digest: Callable[[EncoderPlan], bytes]
    prepare: Callable[[int, EncoderPlan, Take, torch.device], Any]
    run: Callable[[Runtime, Any, Run], Protocol[Outcome]]
    prepare_public: (
        Callable[[int, EncoderPlan, MutableMapping[str, np.ndarray], torch.device], Any] | None
    ) = None
    on_devices: bool = False
    checked: bool = False
    run_few_rounds: Callable[[Runtime, Any, Run], Protocol[Outcome]] | None = None


@dataclass(frozen=True, eq=False)
class _Loaded:
    plan: EncoderPlan
    shares: Any


class Executor:
    """One party's program. Seeds are agreed when it is made; ``digest`` is what both ends of each pair compared.

    ``allow_trace`` is this party's own setting: without it a job that asks for its hidden states is refused.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        digest: bytes,
        threads: int = 1,
        device: str = "cpu",
        prf: Prf = "aes128ctr",
        memory_fraction: float = 1.0,
        body: Body | None = None,
    ) -> None:
        self._body = body or SEMI_HONEST
        if device != "cpu" and not self._body.on_devices:
            raise DeviceError(f"this protocol has no kernels for {device}", remedy="use device cpu")
        torch.set_num_threads(threads)
        self._memory = DeviceMemory(torch.device(device), memory_fraction)
        seeds = agree(channel, b"", digest)  # the digest names the session too
        correlation = Correlation(channel.me, seeds, os.urandom(32), prf, self._memory.place)
        self.runtime = Runtime(channel, correlation)
        self.progress: Callable[[str, float], None] | None = None
        self.allow_trace = False
        self._models: dict[str, _Loaded] = {}
        self._run_body = self._body.run

    def use(self, variant: str) -> None:
        """Compute jobs by the variant "bytes" or "rounds" from now on. Raises ConfigError where it is not there."""
        run = {"bytes": self._body.run, "rounds": self._body.run_few_rounds}.get(variant)
        if run is None:
            raise ConfigError(f"this protocol has no variant {variant!r}", remedy="use variant bytes")
        self._run_body = run

    def load(self, message: Message) -> Message:
        """Take a model's public record, and its shares or public weights; compare the record with the peers'. 1 round,
        64 bytes to each.

        Raises ModelError or InputError for what does not fit, HelloMismatch if a peer was given another record.
        """
        header: Mapping[str, Any] = message.header
        tables = tables_of(message.tensors)
        plan = from_record(header["record"], tables)
        me = self.runtime.me
        take = None if plan.weights else receive_one_by_one(me, header, message.tensors)
        own = digest(header["record"], tables)
        self.runtime.begin(bytes.fromhex(header["job"]), 0)
        self.runtime.run(_compare(self.runtime, own + self._body.digest(plan)))
        with self._memory.guarded("the model's shares"):
            self._models[str(header["model"])] = _Loaded(plan, self._held(plan, take, message))
        return Message({"ok": True, "digest": own.hex()})

    def _held(self, plan: EncoderPlan, take: Take | None, message: Message) -> Any:
        me, place, body = self.runtime.me, self.runtime.place, self._body
        if take is None:
            if body.prepare_public is None:
                raise ConfigError(
                    "this protocol keeps weights secret, and the model was given with public ones",
                    remedy="use semi_honest_3pc, or share the model with secret weights",
                )
            return body.prepare_public(me, plan, message.tensors, place)
        if not body.checked:
            return body.prepare(me, plan, take, place)
        copies = Copies(me)
        held = body.prepare(me, plan, copies.through(take), place)
        self._guarded(compare_copies(self.runtime, copies, bytes.fromhex(str(message.header["job"]))))
        return held

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
        if self._body.checked:
            refuse_unchecked(header)
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
        given, texts = parcels.take(runtime.me, model.plan, program, message, JOB_BYTES)
        length = given["x"].shape[1]
        with self._memory.guarded("a job", sum(texts), length):
            return self._run(header, model, program, given, texts)

    def _run(
        self,
        header: Mapping[str, Any],
        model: _Loaded,
        program: bert.Program,
        given: Mapping[str, Shared],
        texts: tuple[int, ...],
    ) -> Message:
        several = "batch" in header
        runtime = self.runtime
        job = bytes.fromhex(header["job"])
        started = time.perf_counter()
        inputs = {name: moved(shared, runtime.place) for name, shared in given.items()}
        runtime.begin(job, int(header.get("attempt", 0)))
        if header.get("profile"):
            runtime.profile()
        runtime.clock = 1  # the client's message was the first of the chain
        if header.get("watch"):
            runtime.watch()
        trace: list[tuple[str, Summand]] = []

        def tap(place: str, rows: Shared) -> None:
            if header.get("trace"):
                trace.append((place, summand(rows)))

        asked = Run(job, texts, bool(header.get("range_check", True)), inputs, program, self.progress, tap)
        outcome = self._guarded(self._run_body(runtime, model.shares, asked))
        labels = [[label, bits] for label, (bits, _) in outcome.checks.items()]
        tensors = self._tensors(several, texts, outcome)
        for i, (_, rows) in enumerate(trace):
            tensors[f"trace {i}"] = self._blinded(i, rows.value, "trace").numpy()
        counts = runtime.counts()
        report: dict[str, Any] = {"ok": True, "scale": outcome.output.scale}
        if outcome.copies is not None:
            report["copies"] = True
        if several:
            report["jobs"] = [{"texts": count, "checks": labels} for count in texts]
        else:
            report |= {"checks": labels, "trace": [[place, rows.scale] for place, rows in trace]}
        if runtime.timeline is not None:
            report["profile"] = runtime.timeline.close()
        report |= {
            "seconds": time.perf_counter() - started,
            **counts,
            "rounds": max(counts["rounds"], runtime.clock) + 1,  # and the answer to the client
        }
        return Message(report, tensors)

    def _tensors(self, several: bool, texts: Sequence[int], outcome: Outcome) -> dict[str, np.ndarray]:
        """The answer's tensors: blinded summands, or both pieces as they are, for the client to compare."""
        output, sums = outcome.output.value, [total for _, total in outcome.checks.values()]
        if outcome.copies is not None:
            second = [piece.numpy() for piece in outcome.copies]
            first = parcels.parts(several, texts, output.numpy(), [total.numpy() for total in sums])
            return first | parcels.parts(several, texts, second[0], second[1:], parcels.COPY)
        blinded = [
            self._blinded(i + 1, total) & ((1 << bits) - 1)
            for i, (bits, total) in enumerate(outcome.checks.values())
        ]
        return parcels.parts(
            several, texts, self._blinded(0, output).numpy(), [total.numpy() for total in blinded]
        )

    def _guarded(self, program: Protocol[T]) -> T:
        """Run it. A check that fails is recorded and this party's secrets are wiped; the session is never taken up."""
        try:
            return self.runtime.run(program)
        except BaseException as error:
            if self._body.checked:
                if isinstance(error, CheatingDetected):
                    audit.critical("party %d: cheating detected: %s", self.runtime.me, error)
                self._models.clear()
                self.runtime.correlation.wipe()
            raise

    def _blinded(self, step: int, value: torch.Tensor, purpose: str = "output") -> torch.Tensor:
        """``value`` + α_i, α_i = F(S_i) - F(S_{i+1}): the three add up to zero, any two are uniform.

        Every element has a zero share of its own, so parts of the result are as blind as the whole.
        """
        draw = self.runtime.correlation.int64
        me = self.runtime.me
        first, second = (
            draw(i % 3, purpose, ZERO_SHARE_ROLE, step, 0, tuple(value.shape)) for i in (me, me + 1)
        )
        return (value.to(self.runtime.place) + (first - second)).cpu()


# -- semi_honest_3pc -----------------------------------------------------------------------------------


def _semi_honest(runtime: Runtime, shares: ModelShares, run: Run) -> Protocol[Outcome]:
    checks = RangeChecks(run.job, run.range_check, run.texts, runtime.place)
    runtime.meanwhile = checks.settle
    mask, pooling = run.inputs.get("mask"), run.inputs.get("pooling")
    blocks: Blocks[Any] = SemiHonestBlocks(runtime, shares, checks, mask, pooling)
    output = yield from bert.encode(blocks, run.program, run.inputs["x"], run.progress, run.tap)
    assert isinstance(output, Summand)
    return Outcome(output, checks.finish())


def _semi_honest_few_rounds(runtime: Runtime, shares: ModelShares, run: Run) -> Protocol[Outcome]:
    checks = RangeChecks(run.job, run.range_check, run.texts, runtime.place)
    runtime.meanwhile = checks.settle
    mask, pooling = run.inputs.get("mask"), run.inputs.get("pooling")
    base = SemiHonestBlocks(runtime, shares, checks, mask, pooling, few_rounds=True)
    blocks: Blocks[Any] = FewestRoundsBlocks(base)

    def tap(place: str, rows: Rows) -> None:
        rows.heard = lambda shared: run.tap(place, shared)

    output = yield from bert.encode(blocks, run.program, run.inputs["x"], run.progress, tap)
    assert isinstance(output, Summand)
    return Outcome(output, checks.finish())


def _exp_digest(plan: EncoderPlan) -> bytes:
    return exp_digest([n for p in plan.layers for n in (*p.buckets, *p.masked_buckets)], BUCKET_LOG)


def _prepare(me: int, plan: EncoderPlan, take: Take, place: torch.device) -> ModelShares:
    held = model_shares(me, plan, take, place)
    _make_ready(plan, place)
    return held


def _prepare_public(
    me: int, plan: EncoderPlan, tensors: MutableMapping[str, np.ndarray], place: torch.device
) -> ModelShares:
    held = public_weights(me, plan, tensors, place)
    _make_ready(plan, place)
    return held


def _make_ready(plan: EncoderPlan, place: torch.device) -> None:
    """What the first job would otherwise wait for: compiled kernels, and tables in the kernels' layout."""
    warm()
    splines = [s for p in plan.layers for s in (p.activation, p.attention_norm.rsqrt, p.ffn_norm.rsqrt)]
    splines += [norm.rsqrt for norm in (plan.embedding_norm, plan.pool) if norm is not None]
    for spline in splines:  # 1/sum: at the first job of each length
        spline.prepared_on(place)
    give_back()


SEMI_HONEST = Body(
    _exp_digest,
    _prepare,
    _semi_honest,
    _prepare_public,
    on_devices=True,
    run_few_rounds=_semi_honest_few_rounds,
)


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
