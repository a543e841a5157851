"""Tokens per second of the sampler, of transformers' generate and of its continuous batching, on the embedded model."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from align.data.examples import tokenize
from benchmarks.measuring import quartiles, ratios, report, settings_of, spread, versions
from benchmarks.models import quiet

if TYPE_CHECKING:
    from align.model.policy import Policy
    from align.sampling.params import Response


def bench_sample(options: argparse.Namespace) -> None:
    """Measure them in turns and print the result."""
    from align.data import Preferences
    from align.model.policy import Policy
    from align.sampling.engine.continuous import ContinuousEngine
    from align.sampling.params import SamplingParams
    from align.sampling.sampler import Sampler

    quiet(options.threads)
    policy = Policy.load("world/base", start="world/sft", device="cpu")
    rows = Preferences.load("world/prompts").select(range(options.prompts))
    prompts = [example.prompt_ids for example in tokenize(rows, policy.tokenizer, max_length=256, unit="prompt")]
    params, n = SamplingParams(max_new_tokens=options.tokens), options.responses
    sampler, engine = Sampler(policy, params), ContinuousEngine(policy)
    sides: dict[str, Callable[[int], list[list[int]]]] = {
        "ours": lambda seed: _ids(sampler.generate(prompts, n=n, seed=seed)),
        "generate": lambda seed: _generate(policy, prompts, options, sampler.stops, n, seed),
        "continuous batching": lambda seed: _ids(engine.generate(prompts, params, n=n, seed=seed)),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for round in range(options.rounds + 1):  # the first warms up
        for name, draw in sides.items():
            began = time.perf_counter()
            tokens = sum(map(len, draw(options.seed + round)))
            if round:
                rates[name].append(tokens / (time.perf_counter() - began))
    greedy = Sampler(policy, SamplingParams(max_new_tokens=options.tokens, temperature=0)).generate(prompts)
    expected = _generate(policy, prompts, options, sampler.stops, 1, None)
    result = {
        "benchmark": "sample",
        "settings": settings_of(options),
        "tokens_per_second": {name: spread(values) for name, values in rates.items()},
        "ratios": {
            f"align/{name}": {"seconds": ratios(rates[name], rates["ours"])}
            for name in ("generate", "continuous batching")
        },
        "greedy_identical": sum(row[0].ids == ids for row, ids in zip(greedy, expected, strict=True)),
        "versions": versions(),
    }
    report(result, options, print_table)


def _ids(drawn: Sequence[Sequence[Response]]) -> list[list[int]]:
    return [response.ids for row in drawn for response in row]


def _generate(
    policy: Policy, prompts: list[Any], options: argparse.Namespace, stops: list[int], n: int, seed: int | None
) -> list[list[int]]:
    """Return the responses of `generate`, cut after their end; all prompts are in one batch. Without a seed: greedy."""
    import torch

    from align.sampling.decode_loop import pad_left

    ids, mask = pad_left(prompts, policy.pad_id, policy.device)
    generator: Any = policy.model.eval()
    settings: dict[str, Any] = {"do_sample": False}
    if seed is not None:
        torch.manual_seed(seed)
        settings = {"do_sample": True, "top_k": 0, "temperature": 1.0}
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
    """Print rates and their ratios."""
    from rich.console import Console

    settings = result["settings"]
    rates = {name: f"{values['median']:,.0f}" for name, values in result["tokens_per_second"].items()}
    console = Console()
    console.print(
        f"{settings['prompts']} prompts × {settings['responses']} responses of at most {settings['tokens']} tokens, "
        f"{settings['threads']} CPU threads: {rates['ours']} tokens/s."
    )
    for pair, of in result["ratios"].items():
        name, ratio = pair.partition("/")[2], of["seconds"]
        console.print(
            f"transformers' {name}: {rates[name]} tokens/s; round by round {ratio['median']:.3f} of its time for a "
            f"token (quartiles {quartiles(ratio)}, extremes {ratio['min']:.3f} – {ratio['max']:.3f})."
        )
    console.print(f"Greedy answers identical: {result['greedy_identical']} of {settings['prompts']}.")
