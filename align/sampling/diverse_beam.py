"""Diverse beam search (Vijayakumar et al. 2016, arXiv 1610.02424), one beam per group.

The K responses to a prompt are K groups. At each step the groups choose one after another, each penalised for tokens
that the groups before it chose at this step (the paper's Hamming diversity), with h running over these groups::

    y_g,t = argmax_v  log p(v | x, y_g,<t) − λ · Σ_{h<g} 1[y_h,t = v]

The first group decodes greedily, and with λ = 0 all do. Nothing is random.

Departures from the paper: a group has one beam (its B = G), as in Yuan et al. (2023, arXiv 2304.05302), who draw
four beams in four groups. So the hypotheses of a group never compete, and there is no normalisation by length
(``length_penalty`` of transformers): a group's response ends at its end-of-turn token. In that step the token is
penalised in the groups after it (in transformers, whose search goes on, the next best token is); afterwards a finished
group penalises nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from align.model.devices import moved

__all__ = ["diverse_tokens"]


def diverse_tokens(logits_RV: Tensor, rows: Sequence[int], groups: int, penalty: float) -> Tensor:
    """Return the next token of each group by the equation above; (R,).

    Args:
        logits_RV: Logits of the unfinished groups, in any order; log-probabilities give the same choice.
        rows: Numbers of the groups: ``p * groups + g`` is group g of prompt p.
        groups: Groups per prompt, K.
        penalty: λ, in nats for each earlier group that chose the token.
    """
    assert logits_RV.shape[0] == len(rows)
    device = logits_RV.device
    place = {prompt: i for i, prompt in enumerate(sorted({row // groups for row in rows}))}
    taken_PV = logits_RV.new_zeros(len(place), logits_RV.shape[1])
    chosen_R = torch.empty(len(rows), dtype=torch.long, device=device)
    for group in range(groups):
        members = [i for i, row in enumerate(rows) if row % groups == group]  # at most one of each prompt
        of = moved(torch.tensor(members, dtype=torch.long), device)
        prompt = moved(torch.tensor([place[rows[i] // groups] for i in members], dtype=torch.long), device)
        chosen = (logits_RV[of] - penalty * taken_PV[prompt]).argmax(-1)
        chosen_R[of] = chosen
        taken_PV[prompt, chosen] += 1
    return chosen_R
