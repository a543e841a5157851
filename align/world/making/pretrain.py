"""Pretraining of the base model: a small LLaMA on packed plain text of the world."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from align.world.facts import World
from align.world.making.tokenizer import BOS, PAD, token_id
from align.world.text import END, TextWriter

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """Size of the model and length of its training."""

    hidden: int = 160
    layers: int = 4
    heads: int = 5
    intermediate: int = 448
    context: int = 512  # tokens that the model may hold
    block: int = 256  # tokens of a training row
    batch: int = 16  # rows per step
    steps: int = 3000
    learning_rate: float = 3e-3  # of the embeddings and norms (AdamW)
    matrix_learning_rate: float = 2e-2  # of the hidden matrices (Muon)
    warmup: float = 0.03  # share of the steps
    seed: int = 0


def pretrain(config: Pretraining, tokenizer: PreTrainedTokenizerFast, folder: Path) -> LlamaForCausalLM:
    """Train a base model and save it with its tokenizer as bfloat16 safetensors; return it in float32."""
    torch.manual_seed(config.seed)
    model = LlamaForCausalLM(_architecture(config, tokenizer))
    optimizers = _optimizers(model, config)
    documents = TextWriter(World.default(), config.seed).documents()
    rows = _packed(documents, tokenizer, config.block)
    model.train()
    start, peaks = time.monotonic(), [group["lr"] for opt in optimizers for group in opt.param_groups]
    for step in range(config.steps):
        scale = _schedule(step / config.steps, config.warmup)
        groups = [group for opt in optimizers for group in opt.param_groups]
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = peak * scale
        batch = torch.tensor(list(itertools.islice(rows, config.batch)))
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in optimizers:
            opt.step()
            opt.zero_grad()
        if step % 50 == 0 or step == config.steps - 1:
            log.info("step %d loss %.3f %.0f s", step, float(loss.detach()), time.monotonic() - start)
    save_base(model, tokenizer, folder)
    return model


def save_base(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write model and tokenizer; the weights are stored as bfloat16 to stay small."""
    model.to(torch.bfloat16).save_pretrained(folder)  # pyright: ignore[reportArgumentType]
    tokenizer.save_pretrained(folder)
    model.to(torch.float32)  # pyright: ignore[reportArgumentType]


def _architecture(config: Pretraining, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        intermediate_size=config.intermediate,
        max_position_embeddings=config.context,
        tie_word_embeddings=True,
        pad_token_id=token_id(tokenizer, PAD),
        bos_token_id=token_id(tokenizer, BOS),
        eos_token_id=token_id(tokenizer, END),
    )


def _optimizers(model: LlamaForCausalLM, config: Pretraining) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices (fewer steps than AdamW at this size), AdamW for the rest."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=config.matrix_learning_rate, weight_decay=0.01),
        torch.optim.AdamW(others, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _packed(
    documents: Iterator[str], tokenizer: PreTrainedTokenizerFast, block: int, chunk: int = 512
) -> Iterator[list[int]]:
    """Yield rows of `block` token ids cut from `<bos> document <end> <bos> document <end> …`."""
    bos, end = token_id(tokenizer, BOS), token_id(tokenizer, END)
    buffer: list[int] = []
    while True:
        texts = list(itertools.islice(documents, chunk))
        for ids in tokenizer(texts)["input_ids"]:
            buffer += [bos, *ids, end]
        whole = len(buffer) - len(buffer) % block
        for begin in range(0, whole, block):
            yield buffer[begin : begin + block]
        buffer = buffer[whole:]


def _schedule(progress: float, warmup: float) -> float:
    """Linear warm-up, then cosine decay to 3 % of the peak."""
    if progress < warmup:
        return (progress + 1e-3) / warmup
    return 0.03 + 0.97 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2
