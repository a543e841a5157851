"""Pairs of controlled sentiment for ``align compare``, after Rafailov et al. (2023, section 6.1).

A small model of stories continues beginnings; of two continuations the one with the better sentiment by the VADER
lexicon is chosen. The judge is the sentiment itself.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.models import quiet
from benchmarks.sentiment import TOKENS, Sentiment, beginnings, untuned

METHODS = (
    "sft:trainer.learning_rate=1e-3:trainer.epochs=2",
    "dpo:trainer.learning_rate=3e-4:trainer.epochs=1",
    "rrhf:samples=8:keep_unfinished=true:trainer.learning_rate=1e-3:trainer.epochs=2",
    "slic:samples=8:keep_unfinished=true:top_k=0:trainer.learning_rate=1e-3:trainer.epochs=2",
    "rft:samples=8:keep_unfinished=true:trainer.learning_rate=2e-3:trainer.epochs=2",
    "ppo:missing_eos=none:responses=4:beta=0.02:lam=1.0:epochs=2:value_coef=1.0:trainer.learning_rate=2e-3:"
    "trainer.steps=40",
    "grpo:missing_eos=none:responses=8:beta=0.02:epochs=2:trainer.batch_size=16:trainer.learning_rate=2e-3:"
    "trainer.steps=40",
)
"""Settings of the benchmark `sentiment`."""


def bench_stories(options: argparse.Namespace) -> None:
    """Write pairs and judge into ``options.output``, and print the command that compares the methods on them."""
    from align.data.encoding import encode_prompt
    from align.sampling.params import SamplingParams
    from align.sampling.sampler import Sampler

    quiet(options.threads)
    train, heldout = beginnings(options)
    policy, scorer = untuned(options), Sentiment(options.lexicon)
    texts = [row["prompt"][0]["content"] for data in (train, heldout) for row in data]
    prompts = [encode_prompt(policy.tokenizer, text) for text in texts]
    sampling = SamplingParams(temperature=1.0, max_new_tokens=TOKENS)
    drawn = [
        [policy.decode(response.ids) for response in row]
        for row in Sampler(policy, sampling).generate(prompts, n=2, seed=options.seed)
    ]
    scores = scorer.score(texts, drawn)
    rows: list[str] = []
    for prompt, answers, (first, second) in zip(texts, drawn, scores, strict=True):
        if first != second and all(answers):
            chosen, rejected = answers if first > second else answers[::-1]
            rows.append(json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected}))
    folder = options.output
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pairs.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "judge.py").write_text(
        _JUDGE.format(scripts=str(Path(__file__).parents[1]), lexicon=str(options.lexicon))
    )
    (folder / "judge.yaml").write_text(f"scorer: function\nfunction: {folder / 'judge.py'}:sentiment\n")
    print(f"{len(rows)} pairs of {len(texts)} beginnings: {folder / 'pairs.jsonl'}\n")
    print(
        f"align compare 'methods=[{','.join(METHODS)}]' data={folder / 'pairs.jsonl'} judge={folder / 'judge.yaml'} "
        f"model={options.model} model.layout=flat model.start=null adapter.r={options.rank} trainer.max_length=256 "
        f"evaluation.max_new_tokens={TOKENS} evaluation.temperature=1"
    )


_JUDGE = '''"""The sentiment of answers by the VADER lexicon."""

import sys
from pathlib import Path

sys.path.insert(0, "{scripts}")
from benchmarks.sentiment import Sentiment

_SENTIMENT = Sentiment(Path("{lexicon}"))


def sentiment(prompts, completions, **columns):
    """Return the sentiment of each answer."""
    return [row[0] for row in _SENTIMENT.score(prompts, [[text] for text in completions])]
'''
