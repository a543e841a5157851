"""Diverse beam search (Vijayakumar et al. 2016, arXiv 1610.02424), one beam per group.

The K responses of a prompt are K groups. At each step the groups choose one after the other, each repelled by what the
groups before it chose at this step (the paper's Hamming diversity), with h running over these groups::

    y_g,t = argmax_v  log p(v | x, y_g,<t) − λ · Σ_{h<g} 1[y_h,t = v]

The first group is greedy decoding, and with λ = 0 all are. Nothing is drawn at random.

Departures from the paper: a group holds one beam (its B = G), as RRHF's authors draw, four beams in four groups. The
hypotheses of a group then never compete, so that no normalisation by length has a part (``length_penalty`` of
transformers): the response of a group is what it chose until an end-of-turn token. In the step in which it ends, that
token repels the groups after it (in transformers, whose search goes on past it, the next best one does); then none.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["diverse_tokens"]


def diverse_tokens(logits_RV: Tensor, rows: Sequence[int], groups: int, penalty: float) -> Tensor:
    """The next token of each group by the equation above; (R,).

    Args:
        logits_RV: Of the groups that go on, in any order; their normaliser does not change the choice.
        rows: Which they are: ``p * groups + g`` is group g of prompt p.
        groups: Of each prompt, K.
        penalty: λ, in nats for each group before that chose the token.
    """
    assert logits_RV.shape[0] == len(rows)
    row_R = torch.tensor(rows, device=logits_RV.device)
    prompts, prompt_R = torch.unique(row_R // groups, return_inverse=True)
    taken_PV = logits_RV.new_zeros(len(prompts), logits_RV.shape[1])
    chosen_R = torch.empty_like(row_R)
    for group in range(groups):
        of = (row_R % groups == group).nonzero()[:, 0]  # at most one of each prompt
        chosen_R[of] = (logits_RV[of] - penalty * taken_PV[prompt_R[of]]).argmax(-1)
        taken_PV[prompt_R[of], chosen_R[of]] += 1
    return chosen_R
