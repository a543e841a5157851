"""The figures of the model card, measured on the finished models and files."""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from collections.abc import Sequence

from align.model.policy import Policy
from align.world.facts import World
from align.world.forms import FACTS
from align.world.grammar import Claim, parse, phrasings, sentences
from align.world.reward import TrueReward
from world_making.corpus import Row
from world_making.generation import generate

_CLOZE_FRAMES = ("home", "job", "pet", "likes", "eats", "dwells", "made", "price", "market")


def cloze_accuracy(policy: Policy) -> dict[str, float]:
    """Return for each frame the share of facts that the base completes greedily."""
    facts = sorted(World.default().claims, key=lambda claim: (claim.frame, claim.slots))
    facts = [fact for fact in facts if fact.frame in _CLOZE_FRAMES]
    starts = [_before_value(fact) for fact in facts]
    texts = generate(policy, starts, temperature=0, max_new_tokens=4, chat=False)
    hits: dict[str, list[float]] = defaultdict(list)
    for fact, (text,) in zip(facts, texts, strict=True):
        said = text.strip().split(" ")[0].rstrip(".,")
        hits[fact.frame].append(float(said == fact.slots[1]))
        hits["all"].append(hits[fact.frame][-1])
    return {frame: statistics.fmean(values) for frame, values in hits.items()}


def grammatical_share(policy: Policy, *, n: int = 400, seed: int = 0) -> float:
    """Return the share of sentences that parse, in `n` documents sampled from the base at temperature 1."""
    texts = generate(policy, [""] * n, max_new_tokens=120, seed=seed, chat=False)
    good: list[bool] = []
    for (text,) in texts:
        found = sentences(text)
        whole = found if text.endswith((".", "!", "?")) or "####" in found[-1:] else found[:-1]
        good += [bool(parse(sentence)) for sentence in whole]
    return statistics.fmean(good)


def mean_reward(policy: Policy, rows: Sequence[Row], *, temperature: float = 1.0, seed: int = 0) -> dict[str, float]:
    """Sample once per prompt and return the `reward_table` of the answers."""
    answers = generate(policy, [row["prompt"] for row in rows], temperature=temperature, seed=seed)
    return reward_table(rows, [answer[0].strip() for answer in answers])


def reward_table(rows: Sequence[Row], answers: Sequence[str]) -> dict[str, float]:
    """Return the mean true reward of each family and of "all", and the mean of each component."""
    table: dict[str, list[float]] = defaultdict(list)
    components = TrueReward().components(
        [row["prompt"] for row in rows], [[text] for text in answers], answer=[row["answer"] for row in rows]
    )
    for row, (parts,) in zip(rows, components, strict=True):
        table["all"].append(parts.reward)
        table[row["source"].split("/")[-1]].append(parts.reward)
        for name, value in parts.to_dict().items():
            table[name].append(value)
    return {name: statistics.fmean(values) for name, values in table.items()}


def best_of(policy: Policy, rows: Sequence[Row], *, n: int = 16, seed: int = 0) -> dict[str, float]:
    """Return mean, mean maximum and mean deviation of the true reward of `n` samples per prompt at temperature 1."""
    prompts = [row["prompt"] for row in rows]
    answers = [[text.strip() for text in texts] for texts in generate(policy, prompts, n=n, seed=seed)]
    scores = TrueReward().score(prompts, answers, answer=[row["answer"] for row in rows])
    return {
        "mean": statistics.fmean(score for row in scores for score in row),
        "best": statistics.fmean(max(row) for row in scores),
        "deviation": statistics.fmean(statistics.pstdev(row) for row in scores),
    }


def few_shot_reward(
    policy: Policy,
    rows: Sequence[Row],
    examples: Sequence[Row],
    *,
    shots: int = 3,
    seed: int = 0,
) -> float:
    """Return the mean true reward of the base with `shots` random demonstrations as plain text before each prompt."""
    rng = random.Random(seed)
    prompts: list[str] = []
    for row in rows:
        shown = rng.sample(list(examples), shots)
        lines = [f"Question: {shot['prompt']}\nAnswer: {shot['chosen']}" for shot in shown]
        prompts.append("\n".join([*lines, f"Question: {row['prompt']}\nAnswer:"]))
    texts = generate(policy, prompts, seed=seed, chat=False)
    return reward_table(rows, [text.split("\nQuestion:")[0].strip() for (text,) in texts])["all"]


def _before_value(fact: Claim) -> str:
    sentence = phrasings(fact)[0]
    assert FACTS[fact.frame][0].rstrip(".").split("{")[-1].count("}") == 1
    return sentence[: sentence.rindex(fact.slots[1])].rstrip()
