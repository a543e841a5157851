"""Useful FLOPs of an optimiser step, and the rate of matrix products they are held against."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align.model.batch import Batch, Layout


def sizes_of(folder: Path) -> dict[str, int]:
    """Return the weights of the layers and of the head, depth, and width of the attention; nothing is loaded."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    return {
        "layers": sum(p.numel() for p in model.model.layers.parameters()),
        "head": config.vocab_size * config.hidden_size,
        "depth": config.num_hidden_layers,
        "width": config.num_attention_heads
        * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads),
        "parameters": model.num_parameters(),
    }


def real_tokens(batch: Batch, layout: Layout) -> int:
    """Return the tokens that the rows of a batch have without padding (see `align.model.tree_layout`)."""
    shared = layout == "tree" and batch.K > 1  # a lone response is a flat row in both layouts
    return sum(
        len(prompt) - 1 + sum(1 + len(ids) for ids in responses)
        if shared
        else sum(len(prompt) + len(ids) for ids in responses)
        for prompt, responses in zip(batch.prompt_ids, batch.response_ids, strict=True)
    )


def useful_flops(
    batch: Batch, layout: Layout, sizes: dict[str, int], *, forwards: int, head: bool = True, causal: bool = True
) -> float:
    """FLOPs of a step, padding not counted: 2 per weight and token for a forward, as many again for a backward.

    A backward computes no gradient of a frozen weight; what the adapters cost is not counted. The weights of the head
    count at response tokens alone. Attention, 4·width FLOPs per layer, query and key, has a backward of two forwards.

    Args:
        batch: The examples of the step.
        layout: The rows that they are computed in: a prompt once for all of its responses, or once for each.
        sizes: See :func:`sizes_of`.
        forwards: Passes without a gradient beside that of the policy.
        head: The step needs the head.
        causal: Count each query's own past only; else the whole square, as most publications do.
    """
    seen = 0.0
    for prompt, responses in zip(batch.prompt_ids, batch.response_ids, strict=True):
        alone = len(prompt) ** 2 / 2
        each = [(len(prompt) + len(ids)) ** 2 / 2 for ids in responses]
        seen += sum(each) if layout == "flat" else alone + sum(whole - alone for whole in each)
    products = 2 * sizes["layers"] * real_tokens(batch, layout) + head * 2 * sizes["head"] * batch.tokens
    attention = 4 * sizes["width"] * sizes["depth"] * seen * (1 if causal else 2)
    return (2 + forwards) * products + (3 + forwards) * attention


def matmul_rates(dtype: str, *, device: str = "cpu", size: int = 2048, rounds: int = 8) -> dict[str, float]:
    """Return the FLOP/s of a product of two square matrices, 2n³ of them, at its best of several rounds.

    ``cpu`` is over the CPU time of all threads, which a busy machine distorts least; ``seconds`` over the clock.
    """
    import torch

    a, b = (torch.randn(size, size, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
    best = {"seconds": 0.0, "cpu": 0.0}
    for _ in range(rounds):
        began = {"seconds": time.perf_counter(), "cpu": time.process_time()}
        torch.mm(a, b)
        if device == "cuda":
            torch.cuda.synchronize()
        took = {"seconds": time.perf_counter() - began["seconds"], "cpu": time.process_time() - began["cpu"]}
        best = {clock: max(best[clock], 2 * size**3 / took[clock]) for clock in best}
    return best
