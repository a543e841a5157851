"""A batch through a model: hidden states, and the log-probability of every response token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from align.model.batch import Batch, Layout
from align.model.layout import Rows, lay_out, model_inputs
from align.model.logprobs import HeadTransform, token_logprobs


@dataclass(frozen=True)
class Logprobs:
    """Log-probabilities of the response tokens of a batch under one role; 0 where ``batch.mask_PKT`` is False."""

    logp_PKT: Tensor
    """Log-probabilities in nats, float32."""
    entropy_PKT: Tensor | None = None
    """Entropy of the next-token distribution in nats, where it was asked for."""


@dataclass(frozen=True, kw_only=True)
class Forward:
    """A causal language model as it computes now, and how its inputs are laid out."""

    model: Any
    """A causal language model of transformers."""
    layout: Layout
    pad_id: int
    fused_head: bool = True
    """Whether the model's logits are its output embedding applied to its last hidden state."""
    training: bool = False
    """Whether dropout is active."""

    def rows(self, batch: Batch) -> Rows:
        """The batch as model rows, where this model's inputs go."""
        return lay_out(batch, self.layout, pad_id=self.pad_id, device=self.model.get_input_embeddings().weight.device)

    def hidden(self, rows: Rows) -> Tensor:
        """Last hidden states of all tokens of all rows; (R·L, D)."""
        hidden: Tensor = self._call(self.model.base_model, rows).last_hidden_state
        return hidden.reshape(-1, hidden.shape[-1])

    def logprobs(self, batch: Batch, *, temperature: float = 1.0, entropy: bool = False) -> Logprobs:
        """``logp[p, k, t] = log softmax(logits / temperature)[y_t]`` given the prompt and the tokens before t."""
        rows = self.rows(batch)
        mask_PKT = batch.mask_PKT.to(rows.source_PKT.device)
        source_N = rows.source_PKT[mask_PKT]
        target_N = torch.tensor(
            [token for responses in batch.response_ids for ids in responses for token in ids],
            dtype=torch.long,
            device=source_N.device,
        )
        if self.fused_head:
            logp_N, entropy_N = token_logprobs(
                self.hidden(rows)[source_N],
                self.model.get_output_embeddings(),
                target_N,
                transform=HeadTransform.of(self.model.config.get_text_config()),
                temperature=temperature,
                entropy=entropy,
            )
        else:
            logits: Tensor = self._call(self.model, rows).logits
            logp_NV = (logits.reshape(-1, logits.shape[-1])[source_N].float() / temperature).log_softmax(-1)
            logp_N = logp_NV.gather(-1, target_N[:, None]).squeeze(-1)
            entropy_N = -(logp_NV.exp() * logp_NV).sum(-1) if entropy else None
        zeros_PKT = torch.zeros(mask_PKT.shape, device=logp_N.device)
        return Logprobs(
            logp_PKT=zeros_PKT.masked_scatter(mask_PKT, logp_N),
            entropy_PKT=None if entropy_N is None else zeros_PKT.masked_scatter(mask_PKT, entropy_N),
        )

    def _call(self, module: Any, rows: Rows) -> Any:
        if self.model.training != self.training:
            self.model.train(self.training)
        config: Any = self.model.config.get_text_config()
        return module(**model_inputs(rows, config, str(config._attn_implementation), self.model.dtype))
