"""Sampling text from the models of the world."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from align.data.encoding import encode_prompt
from align.model.policy import Policy
from align.sampling.params import SamplingParams
from align.sampling.sampler import Sampler


def generate(
    policy: Policy,
    prompts: Sequence[str],
    *,
    n: int = 1,
    temperature: float = 1.0,
    max_new_tokens: int = 96,
    seed: int = 0,
    chat: bool = True,
) -> list[list[str]]:
    """Return `n` sampled responses per prompt (greedy at temperature 0) without the end-of-turn token.

    `chat=False` continues the prompts as plain text.
    """
    sampler = Sampler(policy, SamplingParams(temperature=temperature, max_new_tokens=max_new_tokens))
    tokenizer: Any = policy.tokenizer
    ids = [
        encode_prompt(tokenizer, prompt) if chat else [tokenizer.bos_token_id, *tokenizer(prompt)["input_ids"]]
        for prompt in prompts
    ]
    drawn = sampler.generate(ids, n=n, seed=seed)
    return [tokenizer.batch_decode([response.ids for response in row], skip_special_tokens=True) for row in drawn]
