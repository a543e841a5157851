"""Contenders measured on held-out prompts, in a process of its own: ``python -m align.cli.compare.measuring FILE``.

Every contender of one seed draws with the same random numbers, so that comparisons are paired.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli.console import hide_noise
from align.cli.parse import groups
from align.errors import ScorerError, UserError
from align.system.files import read_json, write_json

if TYPE_CHECKING:
    from align.model.policy import Policy
    from align.model.roles import SharedBase
    from align.settings.config import RunConfig

__all__ = ["main", "measure"]


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Return the measurements of one contender: a list with a value for each prompt or pair, and totals.

    ``job`` has ``words`` (of its run), ``weights`` (folder of what was trained; null: the start model), ``judge``
    (settings of a scorer), ``data`` (held-out rows), ``examples`` and ``shots`` of few-shot prompting, ``seed``.
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
        scorers=[make_scorer(job["judge"], "judge")],
        seed=job["seed"],
    )
    found = evaluator.measure(policy)
    judge = next(iter(found.samples[0].scores))
    return {
        "prompts": [sample.prompt for sample in found.samples],
        "responses": [sample.response for sample in found.samples],
        "scores": [sample.scores[judge] for sample in found.samples],
        "lengths": [sample.tokens for sample in found.samples],
        "kl": None if job["shots"] else [sample.kl for sample in found.samples],
        "preferred": list(found.preferred),
        "chosen_loss": None if job["shots"] else chosen_loss(policy, data, max_length=length),
        "distinct_2": found.metrics().get("distinct_2"),
        "judge": judge,
        "max_new_tokens": settings.max_new_tokens,
        "notes": list(evaluator.notes),
        "start": asdict(config.model),
    }


def _policy(config: RunConfig, weights: str | None) -> Policy:
    from align.cli.launch import assemble
    from align.cli.trained_run import TrainedRun
    from align.model.roles import SharedBase

    if weights is not None:
        run = TrainedRun.find(weights)
        assert run is not None, weights
        policy = run.load()
        if isinstance(policy.roles, SharedBase):  # KL is from the common start, wherever the run itself began
            _refer_to(policy.roles, config.model.start)
        return policy
    return assemble.load_policy(config)


def _refer_to(roles: SharedBase, start: str | None) -> None:
    """Make the start model the reference; one of another shape than the run's adapter leaves the run's own."""
    from align.model.loading import resolve

    if start is None:
        roles.refer_to_base()
    elif roles.can_load(folder := Path(resolve(start))):
        if roles.reference_is_base:
            roles.add("reference")
        roles.load("reference", folder)


def main(file: Path) -> int:
    """Do the tasks of a file; one that fails loses nothing of the others."""
    import traceback

    failed = 0
    for task in read_json(file):
        try:
            write_json(Path(task["out"]), measure(task))
            print(f"{task['title']}: measured", flush=True)
        except (UserError, ScorerError) as error:
            print(f"{task['title']}", f"Error: {error}", sep="\n", flush=True)
            failed += 1
        except Exception:  # shown here, and the others are measured
            print(f"{task['title']} failed:", traceback.format_exc(), sep="\n", flush=True)
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    hide_noise()
    sys.exit(main(Path(sys.argv[1])))
