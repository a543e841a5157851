"""Log-probabilities of response tokens from hidden states, without keeping the logits of a whole batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from trl.kernels import ChunkedLogProbFunction

# Up to this many logits (256 MB in float32) one plain projection is faster, because its backward pass need not project
# again: 1.7 to 2.2 times on CPU with 300 to 1500 tokens and 32k entries. Above it, memory matters more.
_PLAIN_LOGITS = 2**26
_VOCABULARY_CHUNK = {"cpu": 4096, "cuda": 32768}
# Instead of −∞: its probability is 0 too, but so is their product, where 0 · −∞ would be NaN in TRL's entropy.
_SHUT_OUT = -1e30


@dataclass(frozen=True)
class HeadTransform:
    """The transformation of an architecture's logits: ``z → softcap · tanh(scale · z / softcap)``."""

    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, config: Any) -> HeadTransform:
        """Read it from a transformers (text) configuration: soft-cap of Gemma, scales of Cohere, Granite, Falcon-H1.

        :meth:`align.model.probe.Prober.head` finds architectures with another transformation.
        """
        for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
            if getattr(config, name, None) is not None:
                return cls(float(getattr(config, name)), getattr(config, "final_logit_softcapping", None))
        scaling = getattr(config, "logits_scaling", None)
        return cls(1.0 if scaling is None else 1.0 / scaling, getattr(config, "final_logit_softcapping", None))

    def __call__(self, logits: Tensor) -> Tensor:
        """Apply to logits of any shape."""
        logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


def token_logprobs(
    hidden_ND: Tensor,
    head: nn.Module,
    target_N: Tensor,
    *,
    transform: HeadTransform,
    temperature: float = 1.0,
    entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return the log-probability in nats of each target token and, if requested, the entropy of its distribution.

    ``log softmax(transform(h · Wᵀ + b) / temperature)[target]``, float32 (N,). The softmax is always taken in
    float32. ``head`` is the model's output embedding (``weight`` (V, D), optional ``bias``). A bias of −∞ shuts a token
    out, as in vocabularies that are rounded up.

    Small batches use one plain projection, large ones and accelerators TRL's ``ChunkedLogProbFunction``, which
    projects in tiles; both are differentiable in ``hidden_ND``, the head, and the entropy.
    """
    assert hidden_ND.ndim == 2
    assert target_N.shape == hidden_ND.shape[:1]
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    weight, bias = head.weight, getattr(head, "bias", None)
    assert isinstance(weight, Tensor)
    if bias is not None:
        bias = bias.clamp(min=_SHUT_OUT)
    small = hidden_ND.device.type == "cpu" and hidden_ND.shape[0] * weight.shape[0] <= _PLAIN_LOGITS
    if small:
        logits = F.linear(hidden_ND, weight, bias)
        return gather_logprobs(transform(logits.float()) / temperature, target_N, entropy=entropy)
    logp_N, entropy_N, *_ = ChunkedLogProbFunction.apply(  # pyright: ignore[reportGeneralTypeIssues]
        hidden_ND,
        weight,
        bias,
        target_N,
        temperature,
        _VOCABULARY_CHUNK.get(hidden_ND.device.type, 4096),
        transform.softcap,
        transform.scale,
        ("log_probs", "entropy") if entropy else ("log_probs",),
    )
    return logp_N, entropy_N


def gather_logprobs(logits_NV: Tensor, target_N: Tensor, *, entropy: bool) -> tuple[Tensor, Tensor | None]:
    """Return ``log softmax(logits)[target]`` (N,) and, if requested, the entropies (N,), both in nats.

    A token of probability 0 adds nothing to the entropy (0 · log 0 = 0) nor to its gradient.
    """
    logp_NV = F.log_softmax(logits_NV, dim=-1)
    logp_N = logp_NV.gather(-1, target_N[:, None]).squeeze(-1)
    if not entropy:
        return logp_N, None
    finite_NV = logp_NV.masked_fill(logp_NV == -torch.inf, 0.0)
    return logp_N, -(logp_NV.exp() * finite_NV).sum(-1)


@torch.no_grad()
def log_square_sums(
    hidden_ND: Tensor, head: nn.Module, *, transform: HeadTransform, temperature: float = 1.0
) -> Tensor:
    """Return ``log Σ_v π(v)²`` of each position, the log-probability that two draws agree; float32 (N,)."""
    rows = max(1, _PLAIN_LOGITS // int(head.weight.shape[0]))  # pyright: ignore[reportCallIssue,reportArgumentType,reportIndexIssue,reportOptionalSubscript]
    parts = [log_squares(transform(head(part).float()) / temperature) for part in hidden_ND.split(rows)]
    return torch.cat(parts) if parts else hidden_ND.new_zeros(0, dtype=torch.float32)


@torch.no_grad()
def log_squares(logits_NV: Tensor) -> Tensor:
    """``log Σ_v softmax(z)_v² = logsumexp(2z) − 2·logsumexp(z)``; (N,)."""
    return torch.logsumexp(2 * logits_NV, -1) - 2 * torch.logsumexp(logits_NV, -1)
