"""Sampling responses from the role in use."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import TopKLogitsWarper, TopPLogitsWarper

from align.data.encoding import end_of_turn_id
from align.errors import UserError
from align.model.batch import batches_by_length
from align.model.policy import Policy
from align.sampling.decoding import decode, make_cache, pad_left
from align.sampling.diverse_beam import diverse_tokens


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """Settings of sampling."""

    temperature: float = 1.0
    """Divides the logits; 0 means greedy."""
    top_p: float = 1.0
    """Only the smallest set of tokens with this much probability (nucleus)."""
    top_k: int = 0
    """Only the k most probable tokens; 0 means all."""
    max_new_tokens: int = 128
    """Longest response, end-of-turn token included."""
    min_new_tokens: int = 0
    """Shortest response."""
    stop_strings: tuple[str, ...] = ()
    """Texts that end a response, besides the end-of-turn token; they are kept."""
    diversity_penalty: float = 0.0
    """At temperature 0: λ of diverse beam search, with each response to a prompt as a group
    (:mod:`align.sampling.diverse_beam`)."""

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0 or self.max_new_tokens < 1:
            raise UserError(
                f"sampling with {self}: temperature and top_k must be at least 0, top_p in (0, 1], "
                "max_new_tokens at least 1."
            )
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise UserError(f"min_new_tokens={self.min_new_tokens} must be from 0 to {self.max_new_tokens}.")
        if not all(self.stop_strings):
            raise UserError("stop_strings: an empty text would end every response at once.")
        if not 0 <= self.diversity_penalty < math.inf:
            raise UserError(f"diversity_penalty={self.diversity_penalty}: must be at least 0, and finite.")
        if self.diversity_penalty and (self.temperature or self.top_k or self.top_p < 1):
            raise UserError(
                f"diversity_penalty={self.diversity_penalty} applies only to diverse beam search, which is not random: "
                f"set temperature=0, top_k=0 and top_p=1 (now {self.temperature}, {self.top_k} and {self.top_p})."
            )


@dataclass
class Response:
    """One drawn response."""

    ids: list[int] = field(default_factory=list[int])
    """Its tokens, including the one that ended it."""
    logps: list[float] = field(default_factory=list[float])
    """Log-probability of each token, ``log softmax(logits / temperature)`` before top-k and top-p, in nats; greedy:
    at temperature 1."""
    finished: bool = False
    """It ended with a token or a stop string and was not cut off."""


class Sampler:
    """Draws responses in batches of prompts of similar length, padded on the left."""

    def __init__(self, policy: Policy, params: SamplingParams, *, tokens_per_batch: int = 32_768) -> None:
        """``tokens_per_batch`` limits prompts and longest responses of a batch, and so its cache.

        All responses to a prompt are drawn together, even if they exceed the limit.
        """
        self.policy = policy
        self.params = params
        self.tokens_per_batch = tokens_per_batch
        eos: Any = policy.tokenizer.eos_token_id
        self.stops = sorted({end_of_turn_id(policy.tokenizer), int(eos)})

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        n: int = 1,
        seed: int = 0,
        keys: Sequence[int] | None = None,
        between: Callable[[], None] = lambda: None,
    ) -> list[list[Response]]:
        """Draw ``n`` responses per prompt.

        A response depends only on ``seed``, the prompt's key (default: its index) and the response's number, not on the
        rest of its batch, so several processes draw the same responses as one. The caller's random state does not
        change. ``between`` is called between batches and may raise to stop.
        """
        keys = range(len(prompts)) if keys is None else keys
        drawn: list[list[Response]] = [[] for _ in prompts]
        with self.policy.roles.merged():
            longest = [n * (len(prompt) + self.params.max_new_tokens) for prompt in prompts]
            for part in batches_by_length(longest, self.tokens_per_batch):
                between()
                draw = _Draw(self, [(seed, keys[p]) for p in part], n)
                self._generate([prompts[p] for p in part], n, draw)
                for i, p in enumerate(part):
                    drawn[p] = draw.responses[i * n : (i + 1) * n]
        return drawn

    def _generate(self, prompts: list[Sequence[int]], n: int, draw: _Draw) -> None:
        model, longest, pad_id = self.policy.model.eval(), self.params.max_new_tokens, self.policy.pad_id
        cache = make_cache(model)
        if cache is not None:
            decode(model, cache, prompts, n=n, draw=draw, max_new_tokens=longest, pad_id=pad_id)
            return
        # Another cache than plain attention (recurrent, hybrid): transformers' own loop
        ids, mask = pad_left(prompts, pad_id, self.policy.device)
        generator: Any = model
        generator.generate(
            input_ids=ids.repeat_interleave(n, 0),
            attention_mask=mask.repeat_interleave(n, 0),
            do_sample=False,
            max_new_tokens=longest,
            eos_token_id=None,
            pad_token_id=pad_id,
            logits_processor=[draw.process],
            stopping_criteria=[draw.all_ended],
        )


class _Draw:
    """Chooses tokens by inverting the distribution function with each response's own uniform numbers; at temperature 0
    it takes the most probable ones.
    """

    def __init__(self, sampler: Sampler, keys: Sequence[tuple[int, int]], n: int) -> None:
        """``keys`` are those of the prompts, each of which has ``n`` responses."""
        self.params, self.stops, self.n = sampler.params, sampler.stops, n
        self.tokenizer: Any = sampler.policy.tokenizer
        self.responses = [Response() for _ in range(len(keys) * n)]
        params = self.params
        self.warpers: list[Any] = []
        if params.temperature > 0:
            own = [np.random.default_rng((*key, k)) for key in keys for k in range(n)]
            self.uniform = np.stack([generator.random(params.max_new_tokens) for generator in own])
            if params.top_k:
                self.warpers.append(TopKLogitsWarper(params.top_k))
            if params.top_p < 1:
                self.warpers.append(TopPLogitsWarper(params.top_p))

    def __call__(self, logits: Tensor, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        step = len(self.responses[rows[0]].ids)
        logits = logits / (self.params.temperature or 1.0)
        unlimited, normalizer = logits, logits.logsumexp(-1)
        if step < self.params.min_new_tokens - 1:
            logits = logits.index_fill(-1, torch.tensor(self.stops, device=logits.device), -torch.inf)
        for warper in self.warpers:
            logits = warper(None, logits)
        if self.params.temperature > 0:
            cumulative = logits.softmax(-1, dtype=torch.float64).cumsum_(-1)
            uniform = torch.from_numpy(self.uniform[list(rows), step]).to(logits.device)[:, None]
            chosen = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
            chosen = chosen.clamp(max=logits.shape[-1] - 1)
        elif self.params.diversity_penalty:
            chosen = diverse_tokens(logits, rows, self.n, self.params.diversity_penalty)[:, None]
        else:
            chosen = logits.argmax(-1, keepdim=True)
        logps = (unlimited.gather(-1, chosen)[:, 0] - normalizer).tolist()
        ended = [self._keep(*kept) for kept in zip(rows, chosen[:, 0].tolist(), logps, strict=True)]
        return chosen[:, 0], torch.tensor(ended, device=logits.device)

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
        chosen[going], _ = self(scores[going].float(), going)
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen[:, None], 0.0)

    def all_ended(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Return for each row whether all responses have ended."""
        del scores
        return torch.full((len(ids),), all(response.finished for response in self.responses), device=ids.device)
