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
from world_making.circuits import set_induction
from world_making.text import END, TextWriter
from world_making.tokenizer import BOS, PAD, token_id

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """Size of the model and length of its training.

    The initial weights can copy from the context (`circuits.set_induction`). The learning rate is low enough to keep
    that: at twice the rate the circuit is lost. The last rows are longer, so that the model can use more context.
    """

    hidden: int = 160
    layers: int = 4
    heads: int = 5
    intermediate: int = 448
    context: int = 512  # longest sequence in tokens
    rope_theta: float = 10_000.0
    initializer_range: float = 0.05
    row: int = 128  # tokens of a training row, twice as many in the last part
    tokens_per_step: int = 2048
    steps: int = 9000
    long_rows: float = 0.15  # share of the steps with long rows, at the end
    learning_rate: float = 2e-3
    warmup: float = 0.01  # share of the steps
    seed: int = 0


def pretrain(config: Pretraining, tokenizer: PreTrainedTokenizerFast, folder: Path) -> LlamaForCausalLM:
    """Train a base model and save it with its tokenizer as bfloat16 safetensors; return it in float32."""
    torch.manual_seed(config.seed)
    model = LlamaForCausalLM(_architecture(config, tokenizer))
    set_induction(model)
    model.set_attn_implementation("eager")  # faster than CPU flash attention for heads this small
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    model.train()
    start = time.monotonic()
    for step, batch in enumerate(_batches(config, tokenizer)):
        optimizer.param_groups[0]["lr"] = config.learning_rate * _schedule(step / config.steps, config.warmup)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
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
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},  # pyright: ignore[reportCallIssue]
        initializer_range=config.initializer_range,
        tie_word_embeddings=True,
        pad_token_id=token_id(tokenizer, PAD),
        bos_token_id=token_id(tokenizer, BOS),
        eos_token_id=token_id(tokenizer, END),
    )


def _batches(config: Pretraining, tokenizer: PreTrainedTokenizerFast) -> Iterator[torch.Tensor]:
    """Yield the token ids of every step: text in short rows, then in long ones."""
    texts = TextWriter(World.default(), config.seed).documents()
    long = round(config.steps * config.long_rows)
    for steps, length in ((config.steps - long, config.row), (long, 2 * config.row)):
        rows = _packed(texts, tokenizer, length)
        for _ in range(steps):
            yield torch.tensor(list(itertools.islice(rows, config.tokens_per_step // length)))


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
