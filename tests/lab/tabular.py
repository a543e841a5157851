"""A causal language model of transformers that is a table: the logits after each prefix are parameters of their own.

It answers every call that the toolkit makes of a model (rows of a tree, flat rows, the decode loop with its cache), so
that policy, forward pass and sampler run as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from align.model.batch import Layout
from align.model.full_copies import FullCopies
from align.model.policy import Policy
from align.model.roles import Role
from tests.lab.enumeration import END, Array, Enumeration, V

PAD = 3
_BASE = 5.0  # a prefix is the number Σ (token + 1)·5^position, exact in float64


class TabularConfig(PreTrainedConfig):
    model_type = "tabular"

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.vocab_size = self.hidden_size = V
        self.num_hidden_layers = 1


class _Table(nn.Module):
    """The logits of the prefix that ends at each position, found by a sum over the tokens that the position sees."""

    def __init__(self, rows: dict[tuple[int, ...], int]) -> None:
        super().__init__()
        codes = [sum((token + 1) * _BASE**i for i, token in enumerate(prefix)) for prefix in rows]
        code_S, self.row_S = torch.tensor(codes).sort()
        self.register_buffer("code_S", code_S)
        self.logits = nn.Embedding(len(rows) + 1, V)  # the last row is for prefixes that the world does not have

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        **_: Any,
    ) -> BaseModelOutputWithPast:
        position_RL = torch.arange(input_ids.shape[1]) if position_ids is None else position_ids
        part_RL = (input_ids + 1) * _BASE**position_RL
        if past_key_values is not None:
            part_RL = past_key_values.update(part_RL[:, None, :, None], part_RL[:, None, :, None], 0)[0][:, 0, :, 0]
        code_RL = (_visible(attention_mask, input_ids.shape[1], part_RL.shape[1]) * part_RL[:, None, :]).sum(-1)
        place_RL = torch.searchsorted(self.code_S, code_RL).clamp(max=len(self.code_S) - 1)
        row_RL = torch.where(self.code_S[place_RL] == code_RL, self.row_S[place_RL], len(self.row_S))
        return BaseModelOutputWithPast(last_hidden_state=self.logits(row_RL), past_key_values=past_key_values)


def _visible(mask: Tensor | None, queries: int, keys: int) -> Tensor:
    causal_LL = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)[None]
    if mask is None:
        return causal_LL
    if mask.ndim == 2:  # the decode loop: padding on the left
        return causal_LL & mask[:, None, :].bool()
    return mask[:, 0] if mask.dtype == torch.bool else mask[:, 0] == 0


class TabularModel(PreTrainedModel):
    config_class = TabularConfig
    base_model_prefix = "model"
    _supports_sdpa = True

    def __init__(self, config: TabularConfig, rows: dict[tuple[int, ...], int]) -> None:
        super().__init__(config)
        self.model = _Table(rows)
        self.lm_head = nn.Linear(V, V, bias=False)
        self.post_init()
        self.lm_head.weight = nn.Parameter(torch.eye(V), requires_grad=False)

    def get_input_embeddings(self) -> nn.Module:
        return self.model.logits

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        logits_to_keep: int = 0,
        **inputs: Any,
    ) -> CausalLMOutputWithPast:  # by name, for the decode loop looks at the names
        out = self.model(input_ids, position_ids=position_ids, past_key_values=past_key_values, **inputs)
        logits = self.lm_head(out.last_hidden_state[:, -logits_to_keep:])
        return CausalLMOutputWithPast(logits=logits, past_key_values=out.past_key_values)


def make_policy(world: Enumeration, table_SV: Array, *, layout: Layout = "tree") -> Policy:
    """A policy with this table, and a reference that begins as the same."""
    policy = Policy(FullCopies(TabularModel(TabularConfig(), world.rows)), _tokenizer(), layout=layout)
    set_table(policy, "policy", table_SV)
    policy.require(["reference"])
    return policy


def parameter(policy: Policy, role: Role) -> nn.Parameter:
    """The table of a role, with the row for what the world does not have."""
    return policy.roles.weights(role)["model.logits.weight"]


@torch.no_grad()
def set_table(policy: Policy, role: Role, table_SV: Array) -> None:
    parameter(policy, role).copy_(torch.from_numpy(np.pad(table_SV, ((0, 1), (0, 0)))))


@torch.no_grad()
def set_scalars(policy: Policy, role: Role, value_S: Array) -> None:
    """Give a role with a scalar head these values, one for each prefix."""
    policy.roles.heads[role].double().weight.copy_(torch.eye(V)[:1])
    set_table(policy, role, np.stack([value_S, *[np.zeros_like(value_S)] * (V - 1)], axis=1))


def table(policy: Policy, role: Role = "policy") -> Array:
    return parameter(policy, role).detach().numpy()[:-1].copy()


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "</s>": END, "<pad>": PAD}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>")
