"""Sampling from the small models: batched by length, padded on the left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast


@torch.no_grad()
def generate(
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    *,
    n: int = 1,
    temperature: float = 1.0,
    max_new_tokens: int = 96,
    batch: int = 128,
    seed: int = 0,
    chat: bool = True,
) -> list[list[str]]:
    """Return `n` sampled responses per prompt (greedy at temperature 0), decoded without special tokens.

    `chat=False` continues the prompts as plain text.
    """
    torch.manual_seed(seed)
    texts = [chat_prompt(tokenizer, prompt) if chat else f"{tokenizer.bos_token}{prompt}" for prompt in prompts]
    jobs = sorted((i for i in range(len(texts)) for _ in range(n)), key=lambda i: len(texts[i]))
    found: list[list[str]] = [[] for _ in texts]
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
    model.eval()
    for begin in range(0, len(jobs), batch):
        rows = jobs[begin : begin + batch]
        inputs = tokenizer([texts[i] for i in rows], return_tensors="pt", padding=True, return_token_type_ids=False)
        out = model.generate(**inputs, **sampling, max_new_tokens=max_new_tokens, pad_token_id=tokenizer.pad_token_id)
        answers = tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for i, answer in zip(rows, answers, strict=True):
            found[i].append(answer)
    return found


def chat_prompt(tokenizer: PreTrainedTokenizerFast, prompt: str) -> str:
    """Return a prompt as a user turn, up to where the assistant begins."""
    messages = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
