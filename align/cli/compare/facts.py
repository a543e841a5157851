"""For a reader who is to repeat a comparison, or to read its table: how it was done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from align.cli.compare.stages import Stages, name_of
from align.comparison.judge import JudgeCheck
from align.comparison.results import Results
from align.model.naming import short_name
from align.runs.run_folder import environment
from align.system.redaction import command_line

__all__ = ["facts", "judge_name"]


def facts(
    stages: Stages, found: Results, judged: Mapping[str, Any], check: JudgeCheck | None, *, equally_long: bool
) -> dict[str, str]:
    """Say how it was done, so that it can be repeated.

    Args:
        stages: Of the comparison.
        found: Its outcome.
        judged: What was measured of the start model.
        check: Of the judge, on held-out pairs.
        equally_long: All answers have the same length.
    """
    contest, comparison = stages.contest, stages.contest.comparison
    evaluation = comparison.config.evaluation
    start = judged["start"]
    versions = environment()
    tokens = 4 if comparison.config.adapter is not None else 6
    return {
        "Command": command_line(["align", "compare", *comparison.words]),
        "Data": f"{short_name(contest.source)}: {contest.sizes}",
        "Split": (
            ("rows held out by the user" if comparison.config.data.heldout is not None else "prompts at random")
            + f", seed {comparison.config.seed}; "
            + (f"{contest.leaked:,} held-out rows have" if contest.leaked else "no row has")
            + " a prompt of another split, word for word; near-duplicates are not looked for here (align data check)"
        ),
        "Fingerprints": ", ".join(f"{part} {value[:12]}" for part, value in contest.fingerprints.items()),
        "Start": short_name(start["name"])
        + (f" with {short_name(start['start'])}" if start["start"] else "")
        + ", the same for all methods",
        "Runs": f"{len(found.seeds)} of each method, seeds {', '.join(map(str, found.seeds))}",
        "Budget": _budget(stages, found),
        "Settings": _tuning(stages),
        **{f"{label} is": whole for label, whole in comparison.cut_labels.items()},
        **{f"Settings of {c.label}": _settings(stages, c) for c in comparison.trained if _settings(stages, c)},
        "Judge": _judge(stages),
        **_reward_models(stages),
        "Held out": _held_out(stages, found, check),
        "Answers": (
            f"one to each prompt per run, at most {evaluation.max_new_tokens} tokens, "
            f"temperature {evaluation.temperature:g}; all methods of a seed draw with the same random numbers"
        ),
        **_columns(equally_long=equally_long),
        "Time and memory": f"of the training processes, a reward model's included, tuning not; up to {contest.workers} "
        "at the same time share the machine",
        "FLOPs": (
            f"an estimate: {tokens}·N for each token trained, in each role that is trained ("
            + ("the base is frozen" if tokens == 4 else "all weights are trained")
            + f"), 2·N for each token drawn or asked of reference and reward; N = {judged['parameters']:,}; without "
            "attention over the context, adapters and the prompts of drawn answers"
        ),
        "Versions": ", ".join(f"{name} {value}" for name, value in versions["packages"].items())
        + f"; Python {versions['python']}, {versions['platform']}, {versions['cpus']} cores",
    }


def _columns(*, equally_long: bool) -> dict[str, str]:
    """Say what the columns of the table are, and how sure they are."""
    return {
        "Score": "mean over prompts and runs; intervals and tests treat both as random (Welch's t with Satterthwaite's "
        "degrees of freedom)",
        "Best": "told from each other method at the two-sided level .05 (Gutmann and Maymin 1987): a wrong winner in "
        "at most 5 % of comparisons; p of gains and of pairs are corrected for their number (Holm)",
        "p (Holm)": "how often equal methods would differ as much by chance, corrected for the number of methods "
        "(Holm 1979); below .05 the gain is taken as one",
        "At equal length": "a logistic model of the wins over the start model, read where both answers are as long "
        "(Dubois et al. 2024)"
        + ("; all answers are equally long here, so it is the win rate, drawn a little to 50 %" * equally_long),
        "Pairs ranked as labelled": "held-out pairs whose chosen answer gained more likelihood over the start model "
        "than the rejected one",
        "distinct-2": "share of different pairs of neighbouring words in 16 answers: near 1 no phrase comes twice, "
        "near 0 all answers are the same",
        "Tax": "held-out loss on chosen answers, minus that of the start model; like distinct-2 and the share cut off "
        "without an interval",
    }


def _budget(stages: Stages, found: Results) -> str:
    comparison = stages.contest.comparison
    if comparison.budget is None:
        return "each method's own length"
    asks = [row.label for row in found.rows if row.label in stages.contest.needs_reward]
    beside = f"; the reward model that {', '.join(asks)} asks is trained beside it" if asks else ""
    return f"{comparison.budget} for each run{beside if comparison.budget.unit != 'epochs' else ''}"


def judge_name(judge: Mapping[str, Any]) -> str:
    """Return the name of a scorer with that of its function or model, as ``function mine.py:judge``."""
    files = [short_name(value) for key in ("function", "model") if isinstance(value := judge.get(key), str)]
    return " ".join([str(judge["scorer"]), *files])


def _judge(stages: Stages) -> str:
    """Return the name of the judge, and the beginning of the hash of all that its scores depend on."""
    judge = stages.contest.judge
    name = "a reward model trained on the split “judge”" if judge is None else judge_name(judge)
    return f"{name}, sha256 {stages.judge_identity.removeprefix('sha256:')[:12]}"


def _reward_models(stages: Stages) -> dict[str, str]:
    shares = [f"{of.mean:.1%} of {of.n:,} with seed {seed}" for seed, of in stages.reward_accuracies().items()]
    if not shares:
        return {}
    learners = ", ".join(sorted(stages.contest.needs_reward))
    return {"Reward model": f"of the training pairs, for {learners}; held-out pairs ordered right: {', '.join(shares)}"}


def _held_out(stages: Stages, found: Results, check: JudgeCheck | None) -> str:
    """Say how many held-out rows there are, and which of them each number of the page is about."""
    contest = stages.contest
    prompts = contest.heldout_prompts
    said = f"{contest.rows['heldout']:,} rows of {prompts:,} prompts, of which every method answers {found.prompts:,}"
    if found.prompts < min(prompts, contest.prompts):
        said += "; the others do not fit into the model with an answer"
    elif found.prompts < prompts:
        said += " (evaluation.prompts)"
    ranked = next((row.accuracy.n for row in found.rows if row.accuracy is not None), None)
    parts = [f"{check.accuracy.n:,} pairs check the judge"] if check is not None else []
    parts += [f"the methods rank {ranked:,} pairs, those that fit"] if ranked is not None else []
    return "; ".join([said, *parts])


def _tuning(stages: Stages) -> str:
    contest = stages.contest
    if not stages.tuned:
        shipped = contest.comparison.shipped
        own = f"shipped for this model with {', '.join(shipped)}; " if shipped else ""
        return f"{own}{'otherwise ' if own else ''}each method's defaults, not tuned on these data"
    chosen = "; ".join(f"{label}: {words}" for label, words in stages.tuned.items())
    return (
        f"the best of at most {contest.comparison.settings.tune} for each method on {contest.rows['tuning']:,} other "
        f"rows, with another seed: {chosen}"
    )


def _settings(stages: Stages, contender: Any) -> str:
    """Return what the first run of a contender was trained with; nothing where there is none."""
    from omegaconf import OmegaConf

    run = stages.contest.folder / "runs" / name_of(contender, stages.contest.comparison.seeds[0])
    files = [file for file in run.rglob("config.yaml") if (file.parent / "metrics.jsonl").exists()]
    if not files:
        return ""
    config: Any = OmegaConf.load(max(files, key=lambda file: _number(file.parent)))
    used = {name: config.resolved[name] for name in ("learning_rate", "schedule", "batch_size", "steps")}
    return ", ".join(f"{name} {value}" for name, value in {**used, **config.method}.items() if name != "name")


def _number(stage: Path) -> int:
    """Return the number of a stage among several, 0 for a single run."""
    first = stage.name.partition("-")[0]
    return int(first) if first.isdigit() else 0
