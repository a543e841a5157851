"""The SFT adapter: LoRA on the demonstrations, cross-entropy on the response tokens only."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from align.world.making.generation import chat_prompt
from align.world.making.tokenizer import PAD, token_id

log = logging.getLogger(__name__)
IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class Finetuning:
    """Settings of the SFT stage."""

    r: int = 16
    alpha: int = 32
    learning_rate: float = 3e-3  # a model this small wants a larger rate than a real one
    epochs: int = 8
    batch: int = 32  # demonstrations per step
    seed: int = 0


def finetune(
    base: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    rows: Sequence[dict[str, Any]],
    config: Finetuning,
    folder: Path | None = None,
) -> Any:
    """Train an adapter on `prompt` and `chosen` of the rows; save it as a plain PEFT adapter if a folder is given."""
    torch.manual_seed(config.seed)
    base.set_attn_implementation("eager")
    lora = LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    model: Any = get_peft_model(base, lora)
    examples = [_encode(tokenizer, row) for row in rows]
    rng = random.Random(config.seed)
    batches = _batches(examples, config, rng)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], weight_decay=0.0)
    model.train()
    for step, batch in enumerate(batches):
        optimizer.param_groups[0]["lr"] = config.learning_rate * min(1.0, (step + 1) / 20) * (1 - step / len(batches))
        ids, mask, labels = _pad(batch, token_id(tokenizer, PAD))
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == len(batches) - 1:
            log.info("sft step %d of %d loss %.3f", step, len(batches), float(loss.detach()))
    if folder is not None:
        model.peft_config["default"].base_model_name_or_path = "world/base"
        model.save_pretrained(folder)
    return model


def _encode(tokenizer: PreTrainedTokenizerFast, row: dict[str, Any]) -> tuple[list[int], int]:
    """Return the ids of prompt and response, and the length of the prompt."""
    prompt: list[int] = tokenizer(chat_prompt(tokenizer, row["prompt"]))["input_ids"]
    response: list[int] = tokenizer(row["chosen"] + str(tokenizer.eos_token))["input_ids"]
    return [*prompt, *response], len(prompt)


def _batches(
    examples: list[tuple[list[int], int]], config: Finetuning, rng: random.Random
) -> list[list[tuple[list[int], int]]]:
    """Return the batches of all epochs: similar lengths together, in random order."""
    batches: list[list[tuple[list[int], int]]] = []
    for _ in range(config.epochs):
        order = sorted(examples, key=lambda example: len(example[0]) + rng.random() * 8)
        epoch = [order[i : i + config.batch] for i in range(0, len(order), config.batch)]
        rng.shuffle(epoch)
        batches += epoch
    return batches


def _pad(batch: list[tuple[list[int], int]], pad: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    longest = max(len(ids) for ids, _ in batch)
    ids = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in batch])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in batch])
    labels = ids.clone()
    labels[mask == 0] = IGNORED
    for i, (_, prompt) in enumerate(batch):
        labels[i, :prompt] = IGNORED
    return ids, mask, labels
