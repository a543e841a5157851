"""Arms measured on their prompts, in a process of its own.

All arms draw with the same random numbers for the same seed, so that comparisons are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from align.cli.parse import groups

if TYPE_CHECKING:
    from torch import Tensor

    from align.model.policy import Policy
    from align.scoring.scorer import Scorer

__all__ = ["loss_of_prompts", "measure"]


def measure(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return for each measure of one arm and seed what was measured, a value for each prompt.

    ``task`` has ``words`` (of the start model), ``weights`` (folder of what was trained, or null), ``shots`` with
    ``examples``, ``best_of``, ``seed``, and ``measures``: for each ``file``, ``scorers``, ``temperature``,
    ``max_new_tokens`` and ``loss``.
    """
    policy = _policy(task)
    return {name: _one(policy, task, settings) for name, settings in task["measures"].items()}


def _policy(task: Mapping[str, Any]) -> Policy:
    from align.cli.compare.words import compose
    from align.cli.launch import assemble
    from align.cli.trained_run import TrainedRun

    if task["weights"] is None:
        return assemble.load_policy(compose(groups.find_configs(), task["words"]))
    run = TrainedRun.find(task["weights"])
    assert run is not None, task["weights"]
    return run.load()


def _one(policy: Policy, task: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    from align.data import Preferences
    from align.data.few_shot import with_shots
    from align.evaluation.best_of_n import divergence_bound
    from align.evaluation.chosen_loss import chosen_nll
    from align.evaluation.evaluator import Evaluator
    from align.sampling.params import SamplingParams

    data = Preferences.load(settings["file"], max_rejected=0.0)
    asked = None
    if task["shots"]:
        asked = with_shots(data, Preferences.load(task["examples"]), task["shots"], seed=task["seed"])
    scorers = [_scorer(word) for word in settings["scorers"]]
    names = ["score", "proxy"][: len(scorers)]
    evaluator = Evaluator.from_preferences(
        policy,
        data,
        None,
        max_length=1024,
        sampling=SamplingParams(temperature=settings["temperature"], max_new_tokens=settings["max_new_tokens"]),
        asked=asked,
        scorers=scorers,
        seed=task["seed"],
    )
    found: dict[str, Any] = {}
    questions = data.questions()
    prompts = len(set(questions))
    if task["best_of"]:
        drawn = evaluator.score_samples(policy, task["best_of"])
        found |= {name: drawn[scorer.name] for name, scorer in zip(names, scorers, strict=True)}
        found["kl"] = [divergence_bound(task["best_of"])] * prompts
    else:
        samples = evaluator.measure(policy).samples
        for name, scorer in zip(names, scorers, strict=True):
            found[name] = [sample.scores[scorer.name] for sample in samples]
        found |= {"kl": [sample.kl for sample in samples], "length": [sample.tokens for sample in samples]}
        found["answers"] = [(sample.prompt, sample.response) for sample in samples[:4]]
    if settings["loss"]:
        asked_nll = chosen_nll(policy, data, max_length=1024)
        assert asked_nll is not None
        found["loss"] = loss_of_prompts(*asked_nll, questions)
    if len(found["score"]) != prompts:
        raise AssertionError(f"{prompts - len(found['score'])} prompts do not fit")
    return found


def loss_of_prompts(nll: Tensor, tokens: Tensor, questions: Sequence[str]) -> list[float]:
    """Return the loss in nats per token of each prompt's answers together: those of one prompt are not independent."""
    place = {question: i for i, question in enumerate(dict.fromkeys(questions))}
    index = torch.tensor([place[question] for question in questions])
    sums = [torch.zeros(len(place), dtype=x.dtype).index_add(0, index, x) for x in (nll, tokens)]
    return (sums[0] / sums[1]).tolist()


def _scorer(word: str) -> Scorer:
    from align.scoring.from_config import make_scorer

    settings = {"scorer": "reward_model", "model": word} if Path(word).is_dir() else {"scorer": word}
    return make_scorer(settings, word)
