"""Controlled sentiment after Rafailov et al. (2023, section 6.1): every method in one chart of reward against KL.

A small model continues the beginnings of stories; the reward is the sentiment of the continuation by the VADER lexicon
(Hutto and Gilbert 2014). PPO draws while it trains; the other methods learn from one file of ranked samples, RFT from
the best of them. The result on held-out beginnings is the reward, the KL to the untuned model, and the perplexity of
the continuations under another model of stories, which rises if they are no longer stories.
"""

from __future__ import annotations

import argparse
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import settings_of, versions
from benchmarks.points import Points, bench_points, chart, interval

if TYPE_CHECKING:
    from align import Policy, Preferences
    from align.evaluation.evaluator import Evaluator
    from align.evaluation.measurement import Measurement
    from align.method.base import Method

TOKENS, WORDS = 64, 12
"""Tokens of a continuation, words of a beginning."""
METHODS = ("ppo", "grpo", "dpo", "rrhf", "slic", "rft")
_HELDOUT = 256
_SAMPLES = 8
_SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class Sentiment:
    """``s / √(s² + 15)`` of the summed valences of the words, VADER's normalisation; between -1 and 1."""

    lexicon: Path
    name: str = "sentiment"

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
    ) -> list[list[float]]:
        """Return scores (P, K)."""
        del prompts, columns
        return [[self._one(text) for text in row] for row in responses]

    def _one(self, text: str) -> float:
        total = sum(self._valences.get(word, 0.0) for word in re.findall(r"[a-z']+", text.lower()))
        return total / math.sqrt(total * total + 15)

    @cached_property
    def _valences(self) -> dict[str, float]:
        rows = (line.split("\t") for line in self.lexicon.read_text(encoding="utf-8").splitlines())
        return {word: float(valence) for word, valence, *_ in rows}


def bench_sentiment(options: argparse.Namespace) -> None:
    """Train by every method, draw the chart and print the result."""
    bench_points(
        "sentiment",
        options,
        measure=_points,
        settings={
            **settings_of(options),
            "heldout": _HELDOUT,
            "samples": _SAMPLES,
            "versions": versions(),
        },
        plot=plot,
        print_table=print_table,
    )


def _points(options: argparse.Namespace) -> Points:
    """Return name of a method → measurement after its training; the untuned model comes first."""
    train, heldout = beginnings(options)
    scorer = Sentiment(options.lexicon)
    points: Points = {}
    for name in options.methods:
        policy = untuned(options)
        evaluator = _evaluator(policy, heldout, scorer, options.seed)
        if not points:
            points["untuned"] = _point(evaluator.measure(policy), options)
        began = time.perf_counter()
        measured = _train(name, policy, train, evaluator, scorer, options)
        points[name] = {**_point(measured, options), "seconds": time.perf_counter() - began}
    return points


def methods() -> dict[str, Callable[[], tuple[Method, dict[str, Any]]]]:
    """Return name → function that gives the method and its trainer settings."""
    from methods import DPO, PPO, RFT, RRHF, SLiC

    drawing: dict[str, Any] = {
        "samples": _SAMPLES,
        "temperature": 1.0,
        "max_new_tokens": TOKENS,
        "keep_unfinished": True,
        "include_data": False,
    }
    online: dict[str, Any] = {"temperature": 1.0, "max_new_tokens": TOKENS, "missing_eos": "none"}
    return {
        "ppo": lambda: (
            PPO(**online, responses=4, beta=0.02, lam=1.0, epochs=2, value_coef=1.0),
            {"learning_rate": 2e-3, "batch_size": 32, "steps": 40},
        ),
        "grpo": lambda: (
            PPO(**online, advantage="group", responses=8, beta=0.02, epochs=2),
            {"learning_rate": 2e-3, "batch_size": 16, "steps": 40},
        ),
        "dpo": lambda: (DPO(beta=0.1), {"learning_rate": 3e-4, "batch_size": 32, "epochs": 1}),
        "rrhf": lambda: (RRHF(**drawing), {"learning_rate": 1e-3, "batch_size": 32, "epochs": 2}),
        "slic": lambda: (SLiC(**drawing, top_k=0), {"learning_rate": 1e-3, "batch_size": 32, "epochs": 2}),
        "rft": lambda: (
            RFT(**drawing, demonstrations=False),
            {"learning_rate": 2e-3, "batch_size": 64, "epochs": 4},
        ),
    }


def _train(
    name: str,
    policy: Policy,
    train: Preferences,
    evaluator: Evaluator,
    scorer: Sentiment,
    options: argparse.Namespace,
) -> Measurement:
    """Train one method on the beginnings; return the measurement after it."""
    from align import Trainer, TrainerConfig
    from align.candidates.drawing import draw
    from methods import PPO, RRHF

    method, settings = methods()[name]()
    config = TrainerConfig(**settings, seed=options.seed, save_steps=None, max_length=256)
    trainer = Trainer(policy, options.output / name, config, if_exists="overwrite")
    if isinstance(method, PPO):
        trainer.fit(method, train, scorer=scorer)
        return evaluator.measure(policy)
    # One file for the methods that rank; RFT keeps the best of the same samples.
    ranking, _ = methods()["rrhf"]()
    assert isinstance(ranking, RRHF)
    plan = method.candidates if name == "rft" else ranking.candidates
    assert plan is not None
    file = options.output / f"candidates-{'best' if name == 'rft' else 'ranked'}.jsonl"
    data = draw(policy, train, plan, file, scorer=scorer, max_length=256, seed=options.seed)
    trainer.fit(method, _best_and_worst(data) if name == "dpo" else data)
    return evaluator.measure(policy)


def _best_and_worst(ranked: Preferences) -> Preferences:
    """Return one pair per prompt: in a chain of pairs DPO would raise and lower the same response."""
    from align import Preferences

    pairs: dict[str, dict[str, Any]] = {}
    for row in ranked:
        chosen, rejected = ({"text": row[side][0]["content"], "score": row[f"{side}_score"]} for side in _SIDES)
        pair = pairs.setdefault(row["prompt_id"], {"prompt": row["prompt"], "best": chosen, "worst": rejected})
        pair["best"] = max(pair["best"], chosen, key=lambda side: side["score"])
        pair["worst"] = min(pair["worst"], rejected, key=lambda side: side["score"])
    return Preferences.from_rows(
        [
            {"prompt": p["prompt"][0]["content"], "chosen": p["best"]["text"], "rejected": p["worst"]["text"]}
            for p in pairs.values()
        ]
    )


def untuned(options: argparse.Namespace) -> Policy:
    """Return the model of stories with a new adapter."""
    from align import Adapter, Policy

    # Beginnings are short and continuations many: a tree would mostly be mask.
    return Policy.load(options.model, adapter=Adapter(r=options.rank), layout="flat", seed=options.seed, device="cpu")


def beginnings(options: argparse.Namespace) -> tuple[Preferences, Preferences]:
    """Return distinct beginnings of stories, for training and held out."""
    from align import Preferences

    stories = options.stories.read_text(encoding="utf-8").split("<|endoftext|>")
    begun = [" ".join(story.split()[:WORDS]) for story in stories if len(story.split()) > 2 * WORDS]
    texts = list(dict.fromkeys(begun))[: options.prompts + _HELDOUT]
    rows = Preferences.from_rows([{"prompt": text} for text in texts], name=options.stories.name)
    return rows.select(range(_HELDOUT, len(rows))), rows.select(range(_HELDOUT))


def _evaluator(policy: Policy, heldout: Preferences, scorer: Sentiment, seed: int) -> Evaluator:
    from align import Evaluator, SamplingParams

    policy.require(("reference",))
    return Evaluator.from_preferences(
        policy,
        prompts=heldout,
        pairs=None,
        max_length=256,
        scorers=[scorer],
        sampling=SamplingParams(temperature=1.0, max_new_tokens=TOKENS),
        seed=seed,
    )


def _point(measured: Measurement, options: argparse.Namespace) -> dict[str, Any]:
    """Return means over the held-out beginnings with 95 % intervals, and some continuations."""
    found = measured.estimates()
    return {
        "reward": asdict(found["sentiment"]),
        "kl": asdict(found["kl"]),
        "perplexity": _perplexity(measured, options),
        "tokens": measured.metrics()["response_length"],
        "distinct_2": measured.metrics()["distinct_2"],
        "samples": [sample.prompt + sample.response for sample in measured.samples[:5]],
    }


def _perplexity(measured: Measurement, options: argparse.Namespace) -> float:
    """Return the perplexity of the continuations under a model not used in training."""
    import torch

    from align import Batch, Policy
    from align.data.encoding import encode_prompt, encode_response

    judge = Policy.load(options.judge, adapter=None, device="cpu")
    room = judge.max_positions or 256
    pairs = [
        (
            encode_prompt(judge.tokenizer, sample.prompt),
            encode_response(judge.tokenizer, sample.response, sample.prompt)[:-1],
        )
        for sample in measured.samples
    ]
    kept = [(prompt, response[: room - len(prompt)]) for prompt, response in pairs if response]
    batch = Batch(
        prompt_ids=tuple(tuple(prompt) for prompt, _ in kept),
        response_ids=tuple((tuple(response),) for _, response in kept),
        rows=tuple(range(len(kept))),
    )
    total = 0.0
    with torch.no_grad():
        for part in batch.micro_batches(8192, judge.layout):
            total += float((judge.logprobs(part).logp_PKT * part.mask_PKT).sum())
    return math.exp(-total / sum(len(response) for _, response in kept))


def plot(points: Points, picture: Path) -> None:
    """Plot reward against KL, one point per method with its intervals."""
    chart(
        points,
        "kl",
        "reward",
        picture,
        xlabel="KL to the untuned model, nats per response",
        ylabel="sentiment, -1 to 1",
        title=f"Sentiment of {TOKENS} new tokens, {_HELDOUT} held-out beginnings, 95 % intervals",
    )


def print_table(points: Points) -> None:
    """Print one line per point."""
    print(f"{'':10}{'sentiment':>24}{'KL':>8}{'perplexity':>12}{'distinct-2':>12}{'seconds':>9}")
    for name, point in points.items():
        print(
            f"{name:10}{interval(point['reward']):>24}{point['kl']['mean']:8.1f}"
            f"{point['perplexity']:12.1f}{point['distinct_2']:12.3f}{point.get('seconds', 0):9.0f}"
        )
