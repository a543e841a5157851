"""The forward pass: a batch's hidden states and the log-probability of every response token."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from align.model.architecture import body, max_positions
from align.model.batch import Batch, Layout
from align.model.logprobs import HeadTransform, gather_logprobs, log_square_sums, log_squares, token_logprobs
from align.model.packing import PACKED, use_packed_attention
from align.model.residual_dropout import ResidualDropout
from align.model.tree_layout import Rows, lay_out, model_inputs

if TYPE_CHECKING:
    from align.model.sharding import Sharding


@dataclass(frozen=True)
class Logprobs:
    """Log-probabilities of the response tokens of a batch, 0 where ``batch.mask_PKT`` is False."""

    logp_PKT: Tensor
    """In nats, float32."""
    entropy_PKT: Tensor | None = None
    """Entropy of the next-token distribution in nats, if requested."""
    squares_PKT: Tensor | None = None
    """``log Σ_v π(v)²`` of the next-token distribution, if requested; no gradient flows through it."""


@dataclass(frozen=True, kw_only=True)
class Forward:
    """A causal language model with the settings of its forward pass."""

    model: Any
    """A causal language model of transformers."""
    layout: Layout
    pad_id: int
    packed: bool = False
    """Rows are computed one after the other in a single one; see :mod:`align.model.packing`."""
    fused_head: bool = True
    """The model's logits are its output embedding applied to its last hidden state."""
    dropout: bool = False
    """Dropout of the adapters and of the residual stream is active. The model's own never is, nor does it add noise."""
    sharding: Sharding | None = None
    """Of the model's layers over the ranks, whose turns each pass takes."""
    frozen: bool = False
    """No weight has a gradient."""

    def forget_failure(self) -> None:
        """Go on after a pass that failed on all ranks alike."""
        if self.sharding is not None:
            self.sharding.forget_failure()

    def rows(self, batch: Batch) -> Rows:
        """Lay the batch out as rows, on the device of the model's inputs."""
        return lay_out(
            batch,
            self.layout,
            pad_id=self.pad_id,
            device=self.model.get_input_embeddings().weight.device,
            longest=max_positions(self.model.config),
            packed=self.packed,
        )

    def hidden(self, rows: Rows) -> Tensor:
        """Return the last hidden states of all tokens of all rows; (R·L, D)."""
        hidden: Tensor = self._call(body(self.model), rows).last_hidden_state
        return hidden.reshape(-1, hidden.shape[-1])

    def logits(self, rows: Rows) -> Tensor:
        """Return the model's own logits of all tokens of all rows; (R·L, V)."""
        logits: Tensor = self._call(self.model, rows).logits
        return logits.reshape(-1, logits.shape[-1])

    def logprobs(
        self, batch: Batch, *, temperature: float = 1.0, entropy: bool = False, squares: bool = False
    ) -> Logprobs:
        """``logp[p, k, t] = log softmax(logits / temperature)[y_t]`` given the prompt and the tokens before t."""
        rows = self.rows(batch)
        source_N, target_N = rows.source_N, rows.target_N
        squares_N: Tensor | None = None
        if self.fused_head:
            hidden_ND, head = self.hidden(rows)[source_N], self.model.get_output_embeddings()
            transform = HeadTransform.of(self.model.config.get_text_config())
            logp_N, entropy_N = token_logprobs(
                hidden_ND, head, target_N, transform=transform, temperature=temperature, entropy=entropy
            )
            if squares:
                squares_N = log_square_sums(hidden_ND, head, transform=transform, temperature=temperature)
        else:
            logits_NV = self.logits(rows)[source_N].float() / temperature
            logp_N, entropy_N = gather_logprobs(logits_NV, target_N, entropy=entropy)
            squares_N = log_squares(logits_NV) if squares else None

        return Logprobs(
            logp_PKT=rows.placed(logp_N),
            entropy_PKT=None if entropy_N is None else rows.placed(entropy_N),
            squares_PKT=None if squares_N is None else rows.placed(squares_N),
        )

    def _call(self, module: Any, rows: Rows) -> Any:
        _set_dropout(self.model, self.dropout)
        config: Any = self.model.config.get_text_config()
        if rows.pieces is not None and config._attn_implementation != PACKED:  # a copy of the model that was probed
            use_packed_attention(config)
        inputs = model_inputs(rows, config, str(config._attn_implementation), self.model.dtype)
        recorded = torch.is_grad_enabled() and not self.frozen
        with self.sharding.forward(recorded) if self.sharding is not None else nullcontext():
            return module(**inputs)


def _set_dropout(model: Any, active: bool) -> None:
    """Turn dropout of adapters and residual stream on or off, and everything else that distinguishes training off.

    Dropout of the base would make references and ratios wrong, and it hides under many names: modules, attributes,
    values read from the configuration, noise of a router. All of it looks at ``training``.
    """
    if model.training:
        model.eval()
    for module in model.modules():
        if isinstance(module, LoraLayer):
            setattr(module, "training", active)  # noqa: B010 — DoRA looks at it; LoraLayer is no Module by its type
            for dropout in module.lora_dropout.values():
                dropout.train(active)
        elif isinstance(module, ResidualDropout):
            module.train(active)
