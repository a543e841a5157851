"""Contenders measured on held-out prompts, in a process of its own: ``python -m align.cli.compare.measuring FILE``.

Every contender of one seed draws with the same random numbers, so that comparisons are paired.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli.compare.jobs import do_tasks
from align.cli.console import hide_noise
from align.cli.parse import groups

if TYPE_CHECKING:
    from align.data import Preferences
    from align.model.policy import Policy
    from align.model.roles import SharedBase
    from align.scoring.scorer import Scorer
    from align.settings.config import RunConfig

__all__ = ["measure", "try_judge"]

_ASKED = 4
"""Held-out prompts about which the judge is asked before anything is trained."""


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Return the measurements of one contender: a list with a value for each prompt or pair, and totals.

    ``job`` has ``words`` (of its run), ``weights`` (folder of what was trained; null: the start model), ``judge``
    (settings of a scorer), ``data`` (held-out rows), ``examples`` and ``shots`` of few-shot prompting, ``seed``, and
    ``check_judge``: ask it about the held-out pairs too.
    """
    from align.cli.compare.words import compose
    from align.data import Preferences
    from align.data.few_shot import with_shots
    from align.evaluation.chosen_loss import chosen_loss
    from align.evaluation.evaluator import Evaluator
    from align.sampling.params import SamplingParams
    from align.scoring.from_config import make_scorer

    config = compose(groups.find_configs(), job["words"])
    data = Preferences.load(job["data"], max_rejected=1.0)
    asked = None
    if job["shots"]:
        asked = with_shots(data, Preferences.load(job["examples"]), job["shots"], seed=job["seed"])
    policy = _policy(config, job["weights"])
    settings, length = config.evaluation, config.trainer.max_length
    judge = make_scorer(job["judge"], "judge")
    has_pairs = any(data.dataset["rejected"])
    evaluator = Evaluator.from_preferences(
        policy,
        data,
        data if has_pairs and not job["shots"] else None,
        max_length=length,
        limit=job["prompts"],
        sampling=SamplingParams(
            temperature=settings.temperature, top_p=settings.top_p, max_new_tokens=settings.max_new_tokens
        ),
        asked=asked,
        scorers=[judge],
        seed=job["seed"],
    )
    found = evaluator.measure(policy)
    return {
        "prompts": [sample.prompt for sample in found.samples],
        "responses": [sample.response for sample in found.samples],
        "scores": [sample.scores[judge.name] for sample in found.samples],
        "lengths": [sample.tokens for sample in found.samples],
        "kl": None if job["shots"] else [sample.kl for sample in found.samples],
        "preferred": list(found.preferred),
        "pair_prompts": list(found.pair_prompts),
        "chosen_loss": None if job["shots"] else chosen_loss(policy, data, max_length=length),
        "distinct_2": found.metrics().get("distinct_2"),
        "judge": judge.name,
        "max_new_tokens": settings.max_new_tokens,
        "notes": list(evaluator.notes),
        "start": asdict(config.model),
        "parameters": _matrix_parameters(policy),
        "pairs": _judged_pairs(judge, policy, data, job["prompts"]) if job["check_judge"] and has_pairs else None,
    }


def try_judge(job: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of the data's own answers to a few held-out prompts; raises where there are none.

    ``job`` has ``judge`` (settings of a scorer) and ``data`` (held-out rows).
    """
    from align.data import Preferences
    from align.scoring.checked_scores import score
    from align.scoring.from_config import make_scorer
    from align.scoring.scorer_inputs import prompt_text, scorer_columns

    data = Preferences.load(job["data"], max_rejected=1.0)
    rows = [data[i * len(data) // _ASKED] for i in range(_ASKED)] if len(data) > _ASKED else list(data)
    sides = [[str(side[0]["content"]) for side in (row["chosen"], row["rejected"]) if side] for row in rows]
    texts = [answers or ["Yes.", "No."] for answers in sides]  # rows may be prompts alone
    judge = make_scorer(job["judge"], "judge")
    return {"scores": score(judge, [prompt_text(row["prompt"]) for row in rows], texts, **scorer_columns(rows))}


def _do(job: dict[str, Any]) -> dict[str, Any]:
    return measure(job) if "words" in job else try_judge(job)


def _matrix_parameters(policy: Policy) -> int:
    """Parameters that multiply activations: all of the base but a table of embeddings that is not the output's too."""
    model: Any = policy.model
    adapters = sum(parameter.numel() for name, parameter in model.named_parameters() if "lora_" in name)
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    looked_up = 0 if head is not None and head.weight is table else table.numel()
    return int(model.num_parameters()) - adapters - looked_up


def _judged_pairs(judge: Scorer, policy: Policy, data: Preferences, limit: int) -> list[dict[str, Any]]:
    """Scores and lengths of chosen and rejected responses of at most ``limit`` held-out pairs, evenly spaced."""
    from align.scoring.checked_scores import score
    from align.scoring.scorer_inputs import prompt_text, scorer_columns

    pairs = [row for row in data if row["chosen"] and row["rejected"]]
    rows = [pairs[i * len(pairs) // limit] for i in range(limit)] if len(pairs) > limit else pairs
    texts = [[str(side[0]["content"]) for side in (row["chosen"], row["rejected"])] for row in rows]
    scores = score(judge, [prompt_text(row["prompt"]) for row in rows], texts, **scorer_columns(rows))
    lengths = [[len(policy.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in both] for both in texts]
    prompts = [row["prompt_id"] or prompt_text(row["prompt"]) for row in rows]
    return [
        {"prompt": prompt, "scores": given, "lengths": long}
        for prompt, given, long in zip(prompts, scores, lengths, strict=True)
    ]


def _policy(config: RunConfig, weights: str | None) -> Policy:
    from align.cli.launch import assemble
    from align.cli.trained_run import TrainedRun
    from align.model.roles import SharedBase

    if weights is not None:
        if config.adapter is None:  # the start model, and the trained weights beside it
            policy = assemble.load_policy(config)
            policy.require(("reference",))
            policy.roles.load("policy", Path(weights))
            return policy
        run = TrainedRun.find(weights)
        assert run is not None, weights
        policy = run.load()
        if isinstance(policy.roles, SharedBase):  # KL is from the common start, wherever the run itself began
            _refer_to(policy.roles, config.model.start)
        return policy
    return assemble.load_policy(config)


def _refer_to(roles: SharedBase, start: str | None) -> None:
    """Make the start model the reference; one of another shape than the run's adapter leaves the run's own."""
    from align.model.loading import refer_to
    from align.model.sources import resolve

    if start is None:
        roles.refer_to_base()
    elif roles.can_load(folder := Path(resolve(start))):
        refer_to(roles, folder)


if __name__ == "__main__":
    hide_noise()
    sys.exit(do_tasks(Path(sys.argv[1]), _do))
