"""Checks of the model: its files, its passes, and one step of training that changes nothing."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from align.doctor.check import check
from align.doctor.patient import Patient
from align.errors import UserError
from align.model.classifier import require_classifier
from align.model.loading import known_ids, require_safetensors, resolve
from align.model.probe import Prober
from align.model.roles import SCALAR_ROLES
from align.model.sharding import is_shared_out, kept_share
from align.training.memory import WEIGHT_BYTES, readable

__all__ = [
    "architecture",
    "drawing",
    "dropout",
    "files",
    "forward_backward",
    "gradients",
    "layout",
    "memory",
    "padding",
    "reference",
    "seconds",
    "sharding",
    "targets",
    "weights",
]

_HOUR = 3600.0


@check("architecture", "the model's configuration, and a head for reward and value roles")
def architecture(patient: Patient) -> str | None:
    """The model is a causal language model that is known."""
    config = patient.architecture
    if any(role in SCALAR_ROLES for role in patient.method.roles):
        require_classifier(config)
    return f"{config.model_type}, {config.get_text_config().num_hidden_layers} layers"


@check("weight files", "safetensors, not pickles")
def files(patient: Patient) -> str | None:
    """Weights can be read without running code."""
    path = resolve(patient.config.model.name)
    require_safetensors(path, "model.name")
    return "safetensors" if Path(path).is_dir() else "safetensors of the hub"


@check("adapter targets", "layers that get an adapter")
def targets(patient: Patient) -> str | None:
    """Every target of the adapter is in this architecture."""
    found = patient.skeleton
    size = f"{found.size.trainable:,} of {found.size.total:,} parameters are trained"
    return f"{len(found.adapted)} layers, {size}" if found.adapted else size


@check("sharding", "whether the model can be shared out, and what each process keeps of it")
def sharding(patient: Patient) -> str | None:
    """The model has layers to share out, and several processes to share them."""
    config, found = patient.config, patient.skeleton
    kind, quantized = config.trainer.sharding, config.model.quantization is not None
    if kind == "none":
        return None
    several, adapters = is_shared_out(kind, quantized=quantized), config.adapter is not None
    base = found.size.total * WEIGHT_BYTES[config.model.dtype if adapters else "float32"]
    what = "the base" if adapters else "the model, and as great a part of its gradients and the optimiser's state"

    def kept(ranks: int | None = None) -> str:
        return readable(base * kept_share(found.network, kind, ranks))

    if several:
        return f"{kind}: each process keeps {kept()} of the {readable(base)} of {what}"
    return (
        f"{kind} has no effect on a single process; each of 2 that torchrun starts would keep {kept(2)}, each of 8 "
        f"{kept(8)} of the {readable(base)} of {what}"
    )


@check("memory", "the estimate against what the device has, and the settings to take")
def memory(patient: Patient) -> str | None:
    """The run fits."""
    return patient.part("room")


@check("weights", "they load whole and finite into a causal model")
def weights(patient: Patient) -> str | None:
    """The model is loaded."""
    return f"{patient.policy.name} on {patient.policy.device}"


@check("layout", "tree against flat log-probabilities on random tokens")
def layout(patient: Patient) -> str | None:
    """The layout in use gives the log-probabilities of one row for each response."""
    policy = patient.policy
    if policy.layout == "flat":
        return "flat: one row for each response"
    probe = _prober(patient).tree(fused_head=policy.fused_head)
    if not probe.exact:
        raise UserError(f"the tree layout is not exact on this model ({probe.detail}): set model.layout=flat.")
    return f"tree ({probe.detail})"


@check("packing", "packed against padded rows on random tokens")
def packing(patient: Patient) -> str | None:
    """Rows that follow one another in a single one, where they do, give the same log-probabilities."""
    policy = patient.policy
    if not policy.packed:
        return "rows are padded"
    probe = _prober(patient).packed(policy.layout, fused_head=policy.fused_head)
    if not probe.exact:
        raise UserError(f"packed rows change log-probabilities ({probe.detail}): set model.attention=eager.")
    return f"exact ({probe.detail})"


@check("padding", "prompts of different lengths drawn together")
def padding(patient: Patient) -> str | None:
    """Prompts share a batch only where padding changes nothing."""
    probe = _prober(patient).left_padding()
    if patient.policy.pads_left and not probe.exact:
        raise UserError(f"padding on the left changes this model's answers ({probe.detail}): report it as a bug.")
    return f"changes nothing ({probe.detail})" if probe.exact else "prompts of one length are drawn together"


@check("reference", "log-probabilities of the reference against the policy's before the first step")
def reference(patient: Patient) -> str | None:
    """The reference is the model that training begins from."""
    policy = patient.policy
    policy.require(patient.method.roles)
    if "reference" not in policy.roles.names or patient.config.model.reference is not None:
        return None
    if policy.uses_adapters and patient.config.model.start is None and policy.roles.weights("reference"):
        raise UserError("the reference has an adapter, though training begins from none: report it as a bug.")
    ours, theirs = _logprobs(patient, "policy"), _logprobs(patient, "reference")
    difference = (ours - theirs).abs().max().item()
    if not difference <= _tolerance(patient):
        raise UserError(
            f"before the first step the reference differs from the policy by {difference:.1e} nats, so KL and margins "
            "begin wrong: give the model that training begins from as model.name with model.start."
        )
    return f"equal to the policy (largest difference {difference:.1e} nats)"


@check("dropout", "two passes of the reference, and of the policy without dropout, with gradients")
def dropout(patient: Patient) -> str | None:
    """Passes that are compared compute the same function."""
    policy = patient.policy
    for role in ("policy", "reference"):
        if role not in policy.roles.names:
            continue
        with policy.dropout(False):
            one, other = (_logprobs(patient, role, gradient=True) for _ in range(2))
        difference = (one - other).abs().max().item()
        if not difference <= _tolerance(patient):
            raise UserError(
                f"two passes of the {role} differ by {difference:.1e} nats: this model adds noise that cannot be "
                "turned off; set its dropout to 0 in config.json."
            )
    return f"off where passes are compared; {policy.roles.dropout if patient.method.dropout else 0:g} in updates"


@check("drawing", "log-probabilities of drawn tokens as drawn and as computed in training")
def drawing(patient: Patient) -> str | None:
    """Drawing and training compute the same policy."""
    drawn = patient.drawn
    found = _logprobs(patient, "policy")[drawn.batch.mask_PKT]
    difference = (found - drawn.sampler_logp).abs().max().item()
    if not difference <= 10 * _tolerance(patient):
        raise UserError(
            f"drawn tokens have other log-probabilities than in training (by up to {difference:.1e} nats), so ratios "
            "are wrong: set model.attention=eager, or model.dtype=float32."
        )
    return f"{len(found)} tokens, largest difference {difference:.1e} nats"


@check("forward and backward", "loss and gradient of one step on a few prompts")
def forward_backward(patient: Patient) -> str | None:
    """A step works."""
    result = patient.trial.result
    loss = result.metrics.get("loss", math.nan)
    return f"loss {loss:.4g}, gradient norm {result.grad_norm:.3g}, {result.tokens:,} tokens"


@check("gradients", "trained parameters that the step reaches")
def gradients(patient: Patient) -> str | None:
    """Everything that is trained gets a gradient."""
    trial = patient.trial
    if trial.untouched:
        raise UserError(
            f"{len(trial.untouched)} of {trial.trained} trained tensors get no gradient (first: {trial.untouched[0]}), "
            "so they would never learn: leave their layers out of adapter.targets."
        )
    if trial.result.grad_norm == 0:
        raise UserError(
            "the gradient is 0, so nothing would be learnt: are chosen and rejected, or all rewards, the same?"
        )
    return f"all {trial.trained} tensors"


@check("time", "seconds of the step, and between two checkpoints")
def seconds(patient: Patient) -> str | None:
    """A crash loses no more than four hours."""
    made, step = patient.plan, patient.trial.seconds
    between = step * min(patient.config.trainer.save_steps or made.steps, made.steps)
    if between > 4 * _HOUR:
        raise UserError(
            f"a step takes about {step:.0f} s here, so a checkpoint is written only every {between / _HOUR:.1f} hours: "
            f"set trainer.save_steps={max(1, int(_HOUR / 2 / step))}."
        )
    return f"about {step:.2g} s per step, {step * made.steps / 60:,.1f} minutes for {made.steps:,}, evaluation apart"


def _prober(patient: Patient) -> Prober:
    return Prober(patient.policy.forward, known_ids(patient.tokenizer))


def _logprobs(patient: Patient, role: str, *, gradient: bool = False) -> torch.Tensor:
    with patient.policy.use(role), torch.set_grad_enabled(gradient):  # pyright: ignore[reportArgumentType]
        return patient.policy.logprobs(patient.drawn.batch).logp_PKT.detach().cpu()


def _tolerance(patient: Patient) -> float:
    """Of equally right computations, in nats."""
    return 1e-3 if patient.policy.model.dtype == torch.float32 else 0.25
