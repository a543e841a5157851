"""Sampling responses from the role in use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from align.data.tokenization import end_of_turn_id
from align.decoding import decode, make_cache, pad_left
from align.errors import UserError
from align.policy import Policy


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How responses are drawn."""

    temperature: float = 1.0
    """Divides the logits; 0 is greedy."""
    top_p: float = 1.0
    """Nucleus: the smallest set of tokens with this much probability."""
    top_k: int = 0
    """Only the k most probable tokens; 0 means all."""
    max_new_tokens: int = 128
    """Longest response, end-of-turn token included."""

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0 or self.max_new_tokens < 1:
            raise UserError(
                f"sampling with {self}: temperature and top_k must be at least 0, top_p in (0, 1], "
                "max_new_tokens at least 1."
            )


class Sampler:
    """Draws responses in batches, prompts padded on the left and of similar length together."""

    def __init__(self, policy: Policy, params: SamplingParams, *, rows: int = 64) -> None:
        """``rows``: sequences generated at a time."""
        self.policy = policy
        self.params = params
        self.rows = rows
        self.end_of_turn = end_of_turn_id(policy.tokenizer)

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        n: int = 1,
        seed: int = 0,
        between: Callable[[], None] = lambda: None,
    ) -> list[list[list[int]]]:
        """``n`` responses per prompt, as token ids; a finished one ends in the end-of-turn token.

        The same prompts, parameters and seed give the same responses; the caller's random state is untouched.
        ``between`` is called between batches and may raise to stop.
        """
        order = sorted(range(len(prompts)), key=lambda p: len(prompts[p]))
        responses: list[list[list[int]]] = [[] for _ in prompts]
        per_batch = max(1, self.rows // n)
        devices = [self.policy.device] if self.policy.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            for first in range(0, len(order), per_batch):
                between()
                part = order[first : first + per_batch]
                for p, drawn in zip(part, self._generate([prompts[p] for p in part], n), strict=True):
                    responses[p] = drawn
        return responses

    def _generate(self, prompts: list[Sequence[int]], n: int) -> list[list[list[int]]]:
        policy, params = self.policy, self.params
        stops = sorted({self.end_of_turn, int(policy.tokenizer.eos_token_id)})  # pyright: ignore[reportArgumentType]
        policy.model.eval()
        cache = make_cache(policy.model)
        if cache is None:
            return self._generate_slowly(prompts, n, stops)
        return decode(
            policy.model,
            cache,
            prompts,
            n=n,
            draw=_drawing(params),
            stops=stops,
            max_new_tokens=params.max_new_tokens,
            pad_id=policy.pad_id,
        )

    def _generate_slowly(self, prompts: list[Sequence[int]], n: int, stops: list[int]) -> list[list[list[int]]]:
        """With transformers' own loop, for models whose cache is not plain attention."""
        from transformers import GenerationConfig

        policy, params = self.policy, self.params
        ids, mask = pad_left(prompts, policy.pad_id, policy.device)
        greedy = params.temperature == 0
        drawing = {} if greedy else {"temperature": params.temperature, "top_p": params.top_p, "top_k": params.top_k}
        config: Any = GenerationConfig(
            do_sample=not greedy,
            max_new_tokens=params.max_new_tokens,
            num_return_sequences=n,
            eos_token_id=stops,
            pad_token_id=policy.pad_id,
            **drawing,
        )
        model: Any = policy.model
        out = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        drawn = [_until_stop(row, stops) for row in out[:, ids.shape[1] :].tolist()]
        return [drawn[p * n : (p + 1) * n] for p in range(len(prompts))]


def _drawing(params: SamplingParams) -> Callable[[Tensor], Tensor]:
    """Logits (R, V) → tokens (R,), as the parameters say."""
    if params.temperature == 0:
        return lambda logits: logits.argmax(-1)
    warpers: list[Any] = [TemperatureLogitsWarper(params.temperature)]
    if params.top_k:
        warpers.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        warpers.append(TopPLogitsWarper(params.top_p))

    def draw(logits: Tensor) -> Tensor:
        for warper in warpers:
            logits = warper(None, logits)
        return torch.multinomial(logits.softmax(-1), 1)[:, 0]

    return draw


def _until_stop(ids: list[int], stops: list[int]) -> list[int]:
    for t, token in enumerate(ids):
        if token in stops:
            return ids[: t + 1]
    return ids
