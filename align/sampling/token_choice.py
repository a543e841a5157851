"""The choice of the next tokens: by the distribution with each response's own random numbers, greedy, or diverse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers import TopKLogitsWarper, TopPLogitsWarper

from align.model.devices import moved
from align.model.loading import known_ids
from align.sampling.diverse_beam import diverse_tokens
from align.sampling.params import Response, SamplingParams

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenChoice:
    """Chooses tokens by inverting the distribution function with each response's own uniform numbers.

    At temperature 0 it takes the most probable ones.
    """

    def __init__(
        self,
        params: SamplingParams,
        tokenizer: PreTrainedTokenizerBase,
        stops: Sequence[int],
        seeds: Sequence[tuple[int, int]],
        n: int,
    ) -> None:
        """
        Args:
            params: Settings of sampling.
            tokenizer: Decodes responses to find stop strings; tokens beyond its own are never drawn.
            stops: Tokens that end a response.
            seeds: Seeds of the random numbers, one per prompt.
            n: Responses per prompt.
        """
        self.params, self.tokenizer, self.stops, self.n = params, tokenizer, stops, n
        self._strange: Tensor | None = None
        self.responses = [Response() for _ in range(len(seeds) * n)]
        self.warpers: list[Any] = []
        if params.temperature > 0:
            own = [np.random.default_rng((*seed, k)) for seed in seeds for k in range(n)]
            self.uniform = np.stack([generator.random(params.max_new_tokens) for generator in own])
            if params.top_k:
                self.warpers.append(TopKLogitsWarper(params.top_k))
            if params.top_p < 1:
                self.warpers.append(TopPLogitsWarper(params.top_p))

    def __call__(self, logits: Tensor, rows: Sequence[int]) -> tuple[Tensor, Sequence[bool]]:
        """Choose and keep the next token of each row; see :class:`align.sampling.decode_loop.ChooseTokens`."""
        step = len(self.responses[rows[0]].ids)
        logits = logits / (self.params.temperature or 1.0)
        unlimited, normalizer = logits, logits.logsumexp(-1)
        logits = logits.index_fill(-1, self._unknown(logits), -torch.inf)
        if step < self.params.min_new_tokens - 1:
            logits = logits.index_fill(-1, moved(torch.tensor(self.stops), logits.device), -torch.inf)
        for warper in self.warpers:
            logits = warper(None, logits)
        if self.params.temperature > 0:
            cumulative = logits.softmax(-1, dtype=torch.float64).cumsum_(-1)
            uniform = moved(torch.from_numpy(self.uniform[list(rows), step]), logits.device)[:, None]
            chosen = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
            chosen = chosen.clamp(max=logits.shape[-1] - 1)
        elif self.params.diversity_penalty:
            chosen = diverse_tokens(logits, rows, self.n, self.params.diversity_penalty)[:, None]
        else:
            chosen = logits.argmax(-1, keepdim=True)
        logps = unlimited.gather(-1, chosen)[:, 0] - normalizer
        both = torch.stack([chosen[:, 0].double(), logps.double()], 1).tolist()  # in one copy from an accelerator
        ended = [self._keep(row, int(token), logp) for row, (token, logp) in zip(rows, both, strict=True)]
        return chosen[:, 0], ended

    def _unknown(self, logits: Tensor) -> Tensor:
        """Return the entries of a rounded-up vocabulary that are no token."""
        if self._strange is None:
            strange = torch.ones(logits.shape[-1], dtype=torch.bool)
            strange[[token for token in known_ids(self.tokenizer) if token < len(strange)]] = False
            self._strange = moved(strange.nonzero()[:, 0], logits.device)
        return self._strange

    def _keep(self, row: int, token: int, logp: float) -> bool:
        response = self.responses[row]
        response.ids.append(token)
        response.logps.append(logp)
        response.finished = token in self.stops or self._says_stop(response.ids)
        return response.finished

    def _says_stop(self, ids: list[int]) -> bool:
        if not self.params.stop_strings or len(ids) < self.params.min_new_tokens:
            return False
        # Nearly every token adds at least a byte, so these tokens are enough for the longest stop string.
        text = self.tokenizer.decode(ids[-(4 * max(map(len, self.params.stop_strings)) + 4) :])
        return any(stop in text for stop in self.params.stop_strings)

    # For transformers' own loop, which keeps finished rows until the end

    def process(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Leave only the drawn token."""
        del ids
        going = [row for row, response in enumerate(self.responses) if not response.finished]
        chosen = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
        index = moved(torch.tensor(going, dtype=torch.long), scores.device)
        chosen[index], _ = self(scores[index].float(), going)
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen[:, None], 0.0)

    def all_ended(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Return for each row whether all responses have ended."""
        del scores
        return torch.full((len(ids),), all(response.finished for response in self.responses), device=ids.device)
