"""Tokens per second of the sampler and of transformers' generate, on the embedded model."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from align.data.examples import tokenize
from benchmarks.measuring import quartiles, ratios, report, settings_of, spread, versions
from benchmarks.models import quiet

if TYPE_CHECKING:
    from align.model.policy import Policy


def bench_sample(options: argparse.Namespace) -> None:
    """Measure both in turns and print the result."""
    from align.data import Preferences
    from align.model.policy import Policy
    from align.sampling.params import SamplingParams
    from align.sampling.sampler import Sampler

    quiet(options.threads)
    policy = Policy.load("world/base", start="world/sft", device="cpu")
    rows = Preferences.load("world/prompts").select(range(options.prompts))
    prompts = [example.prompt_ids for example in tokenize(rows, policy.tokenizer, max_length=256, unit="prompt")]
    sampler = Sampler(policy, SamplingParams(max_new_tokens=options.tokens))
    rates: dict[str, list[float]] = {"ours": [], "generate": []}
    for round in range(options.rounds + 1):  # the first warms up
        began = time.perf_counter()
        drawn = sampler.generate(prompts, n=options.responses, seed=options.seed + round)
        between = time.perf_counter()
        theirs = _generate(policy, prompts, options, sampler.stops, options.responses)
        ended = time.perf_counter()
        if round:
            tokens = sum(len(response.ids) for row in drawn for response in row)
            rates["ours"].append(tokens / (between - began))
            rates["generate"].append(sum(map(len, theirs)) / (ended - between))
    greedy = Sampler(policy, SamplingParams(max_new_tokens=options.tokens, temperature=0)).generate(prompts)
    expected = _generate(policy, prompts, options, sampler.stops, 1, greedy=True)
    result = {
        "benchmark": "sample",
        "settings": settings_of(options),
        "tokens_per_second": {name: spread(values) for name, values in rates.items()},
        "ratios": {"align/generate": {"seconds": ratios(rates["generate"], rates["ours"])}},
        "greedy_identical": sum(row[0].ids == ids for row, ids in zip(greedy, expected, strict=True)),
        "versions": versions(),
    }
    report(result, options, print_table)


def _generate(
    policy: Policy, prompts: list[Any], options: argparse.Namespace, stops: list[int], n: int, *, greedy: bool = False
) -> list[list[int]]:
    """Return the responses of `generate`, cut after their end; all prompts are in one batch."""
    import torch

    from align.sampling.decode_loop import pad_left

    ids, mask = pad_left(prompts, policy.pad_id, policy.device)
    generator: Any = policy.model.eval()
    settings: dict[str, Any] = {"do_sample": False} if greedy else {"do_sample": True, "top_k": 0, "temperature": 1.0}
    with torch.no_grad():
        found = generator.generate(
            input_ids=ids,
            attention_mask=mask,
            num_return_sequences=n,
            max_new_tokens=options.tokens,
            eos_token_id=stops,
            pad_token_id=policy.pad_id,
            **settings,
        )
    rows: list[list[int]] = found[:, ids.shape[1] :].tolist()
    ends = [next((t for t, token in enumerate(row) if token in stops), len(row)) for row in rows]
    return [row[: end + 1] for row, end in zip(rows, ends, strict=True)]


def print_table(result: dict[str, Any]) -> None:
    """Print rates and their ratio."""
    from rich.console import Console

    settings, ratio = result["settings"], result["ratios"]["align/generate"]["seconds"]
    rates = {name: f"{values['median']:,.0f}" for name, values in result["tokens_per_second"].items()}
    console = Console()
    console.print(
        f"{settings['prompts']} prompts × {settings['responses']} responses of at most {settings['tokens']} tokens, "
        f"{settings['threads']} CPU threads: {rates['ours']} tokens/s, transformers' generate {rates['generate']}; "
        f"round by round {ratio['median']:.3f} of its time for a token (quartiles {quartiles(ratio)}, "
        f"extremes {ratio['min']:.3f} – {ratio['max']:.3f})."
    )
    console.print(f"Greedy answers identical: {result['greedy_identical']} of {settings['prompts']}.")
