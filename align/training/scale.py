"""Which settings make a run fit its devices: a model of seconds beside the estimate of bytes, and a rule on both.

The rule: **of the settings whose estimate fits nine tenths of a device, those of the fastest step.** Looked at are
``trainer.sharding``, ``trainer.gradient_checkpointing`` and micro-batches of the size that is set, a half and a quarter
of it. Where none fits: the frozen base in bfloat16; then without drawing here, which needs a whole model on each
device; then more devices of the same kind.

A step has three parts. Products: the FLOPs of :mod:`align.comparison.flops` at the rate of a device, and those of the
forward pass once more where it is recomputed. Gathers: each pass of a micro-batch receives the layers that others keep,
``(n−1)/n`` of them, and where they are trained their gradients are scattered likewise. Sums: the gradients that are
whole on every device, ``2(n−1)/n`` of their bytes. The parts are added, as if nothing went on at the same time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from operator import attrgetter

from align.comparison import flops
from align.settings.config import RunConfig
from align.settings.sampling import SamplingConfig
from align.settings.sharding import ShardingName
from align.training.cluster import Cluster
from align.training.memory import Memory, Workload, estimate, kept, own_share, readable, weight_bytes

__all__ = ["H100", "Advice", "Rates", "Seconds", "advice", "advise", "step_seconds"]

_FILLED = 0.9  # of a device; the rest is for what no estimate sees: buffers of collectives, holes, kernels' workspaces
_CUTS = (1, 2, 4)  # of a micro-batch
_MOST_DEVICES, _OF_A_MACHINE = 64, 8


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Speeds of a device and of its links."""

    flops: float
    """Of a training step, a second."""
    inside: float
    """Bytes a second from other devices of its machine."""
    between: float
    """Bytes a second into a machine from others, over all of its links together."""


H100 = Rates(flops=0.4 * 989e12, inside=450e9, between=400e9)
"""NVIDIA's data sheets: H100 SXM, dense bfloat16 and NVLink in one direction; DGX H100, eight links of 400 Gb/s. A step
reaches 0.4 of a product's rate (docs/benchmarks.md)."""


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Parts of a step."""

    products: float
    gathers: float
    sums: float

    @property
    def total(self) -> float:
        """The whole step."""
        return self.products + self.gathers + self.sums


def step_seconds(config: RunConfig, work: Workload, cluster: Cluster, rates: Rates) -> Seconds:
    """Predict an optimiser step; drawing is not in it, and answers still to be drawn are as long as they may be."""
    assert work.plan is not None
    rollout = work.method.rollout
    drawn = 0 if rollout is None else rollout.responses * rollout.sampling.max_new_tokens
    of_prompt = float(work.examples.lengths.mean()) + drawn  # tokens
    prompts = work.plan.batch_size / work.plan.minibatches / cluster.devices
    turns = math.ceil(prompts / max(1, config.trainer.tokens_per_microbatch // of_prompt))
    tokens = prompts * of_prompt
    trainer, size, adapters = config.trainer, work.whole.size, config.adapter is not None
    trained, asked = len(work.method.trains), len(work.method.frozen)
    again = trained * tokens if trainer.gradient_checkpointing else 0.0
    count = flops.estimate(
        _multiplying(work), trained=trained * tokens, drawn=0, asked=asked * tokens + again, adapters=adapters
    )
    sharing, share = cluster.sharing(trainer.sharding), own_share(config, work, cluster)
    received = size.total * (1 - share)  # parameters that a pass gets from others
    shared = received * sharing / (sharing - 1) if sharing > 1 else 0.0
    across = min(rates.inside, rates.between)  # a ring through all devices goes into each machine over all its links
    link = rates.inside if sharing <= cluster.per_machine else across
    of_pass = received * weight_bytes(config, work) / size.total / link
    gathers = turns * (2 * trained + asked) * of_pass
    whole = 4.0 * size.trainable * trained  # bytes of gradients that every device has
    if not adapters and sharing > 1:
        copies = cluster.devices // sharing
        # Of several copies each device sums its part with those of the other machines, all devices at once.
        scattered = received / link + _summed(shared, copies) / rates.between
        gathers += turns * trained * 4 * scattered
        whole -= 4 * shared * trained
    slowest = across if cluster.machines > 1 else rates.inside
    return Seconds(products=count / rates.flops, gathers=gathers, sums=_summed(whole, cluster.devices) / slowest)


def _multiplying(work: Workload) -> int:
    """Parameters that multiply activations: all but an embedding that is not the output head too."""
    network = work.whole.network
    inner, outer = network.get_input_embeddings(), network.get_output_embeddings()
    return work.whole.size.total - (0 if outer is None or outer.weight is inner.weight else inner.weight.numel())


def _summed(amount: float, devices: int) -> float:
    """Bytes that a device receives when a tensor is summed over devices, in a ring."""
    return 2 * amount * (devices - 1) / devices


@dataclass(frozen=True, kw_only=True)
class Advice:
    """The settings of the fastest step that fits."""

    words: tuple[str, ...]
    """Those to change."""
    config: RunConfig
    cluster: Cluster
    memory: Memory


def advice(config: RunConfig, work: Workload, own: Cluster, rates: Rates = H100) -> str:
    """Return the advice of the rule as a sentence."""
    if estimate(config, work, own).unknown is not None:
        return "none, for a step cannot be counted here."
    found = advise(config, work, own, rates)
    if found is None:
        return (
            "no settings are known to fit: lower trainer.max_length, or take a smaller model, an adapter, "
            "model.quantization=4bit or devices with more memory (docs/scale.md)."
        )
    words, peak = " ".join(found.words), readable(found.memory.peak)
    if found.cluster != own:
        return f"take {found.cluster.devices} such devices, and {words}, with which each needs about {peak}."
    if not words:
        return "of the settings that fit, these are the fastest."
    return f"take {words}, with which it needs about {peak} and a step is the fastest of all that fit."


def advise(config: RunConfig, work: Workload, own: Cluster, rates: Rates = H100) -> Advice | None:
    """Return the advice of the rule; None where nothing fits."""
    for cluster in _clusters(own):
        for way in _ways(config, work, cluster, rates):
            if sum(kept(way, work, cluster).values()) > _FILLED * cluster.room:
                continue
            memory = estimate(way, work, cluster)
            if memory.peak <= _FILLED * cluster.room:
                return Advice(words=tuple(_words(config, way)), config=way, cluster=cluster, memory=memory)
    return None


def _clusters(own: Cluster) -> Iterator[Cluster]:
    """That which there is, then larger ones; processes on CPUs share the memory, so more of them are no help."""
    yield own
    devices = 2
    while own.accelerator and devices <= _MOST_DEVICES:
        if devices > own.devices:
            yield replace(own, devices=devices, per_machine=min(devices, max(own.per_machine, _OF_A_MACHINE)))
        devices *= 2


def _ways(config: RunConfig, work: Workload, cluster: Cluster, rates: Rates) -> Iterator[RunConfig]:
    """Settings of a run, in the order in which they are preferred."""
    kinds: list[ShardingName] = ["none"]
    if config.model.quantization is None and 1 < cluster.per_machine < cluster.devices:
        kinds.append("node")
    if config.model.quantization is None and cluster.devices > 1:
        kinds.append("full")
    most = config.trainer.tokens_per_microbatch
    trainers = [
        replace(config.trainer, sharding=kind, gradient_checkpointing=again, tokens_per_microbatch=most // cut)
        for kind in kinds
        for again in (False, True)
        for cut in _CUTS
        if cut == 1 or most // cut >= config.trainer.max_length
    ]
    for plain in _plainer(config, work):
        ways = [replace(plain, trainer=trainer) for trainer in trainers]
        yield from sorted(ways, key=lambda way: step_seconds(way, work, cluster, rates).total)


def _plainer(config: RunConfig, work: Workload) -> Iterator[RunConfig]:
    """The run as it is set; in bfloat16; without drawing on its own devices."""
    yield config
    if config.model.quantization is None:
        model = config.model if config.adapter is None else replace(config.model, dtype="bfloat16")
        narrow = replace(config, model=model, trainer=replace(config.trainer, precision="bfloat16"))
        if narrow != config:
            yield narrow
        config = narrow
    if work.method.rollout is None:
        if config.evaluation.prompts:
            yield replace(config, evaluation=replace(config.evaluation, prompts=0))
    elif config.adapter is not None and not config.adapter.dora and config.sampling.engine != "vllm":
        yield replace(config, sampling=SamplingConfig(engine="vllm", url="http://127.0.0.1:8000"))


_SETTINGS = (
    *("model.dtype", "trainer.precision", "trainer.sharding", "trainer.gradient_checkpointing"),
    *("trainer.tokens_per_microbatch", "evaluation.prompts", "sampling.engine", "sampling.url"),
)


def _words(config: RunConfig, way: RunConfig) -> Iterator[str]:
    """The settings in which a way differs, as they are typed."""
    for name in _SETTINGS:
        before, after = (attrgetter(name)(one) for one in (config, way))
        if before != after:
            yield f"{name}={str(after).lower()}"
