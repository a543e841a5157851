"""For a reader who is to judge a comparison, or to repeat it: its weaknesses, and how it was done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from align.cli.compare.contest import Contest
from align.cli.compare.stages import JUDGE, Stages, name_of
from align.comparison import frontier
from align.comparison.frontier import Frontier
from align.comparison.judge import JudgeCheck
from align.comparison.results import Results, Row
from align.runs.run_folder import environment
from align.system.redaction import command_line

__all__ = ["caveats", "facts"]

_MUCH_CUT = 0.2
"""A share of answers cut off above this is worth a sentence."""
_UNEVEN = 1.5
"""Budgets whose ratio is above this are worth a sentence."""


def caveats(
    stages: Stages,
    found: Results,
    check: JudgeCheck | None,
    notes: Mapping[str, Sequence[str]],
    frontiers: Mapping[str, Frontier],
) -> list[str]:
    """Say what a referee would ask about, the gravest first."""
    contest = stages.contest
    out = _of_judge(contest, check)
    if len(found.seeds) == 1:
        out.append(
            "One training run of each method: the intervals are those of these trained models; another seed may order "
            "them otherwise (seeds=3)."
        )
    if any(lost or cut for lost, cut in contest.lost.values()):
        parts = (f"{lost:,} of {contest.rows[part]:,} of {part}" for part, (lost, _) in contest.lost.items() if lost)
        left_out = ", ".join(parts) or "none"
        cut_rows = sum(count for _, count in contest.lost.values())
        out.append(
            f"Rows too long for trainer.max_length={contest.comparison.config.trainer.max_length} and left out: "
            f"{left_out}; {cut_rows:,} more with an answer that is cut."
        )
    out += _of_budget(contest, found.rows)
    if cut := [f"{row.label} {row.cut_off:.0%}" for row in found.rows if row.cut_off > _MUCH_CUT]:
        out.append(
            f"Answers that reached the limit of {contest.comparison.config.evaluation.max_new_tokens} tokens, and were "
            f"judged as they are: {', '.join(cut)} (evaluation.max_new_tokens)."
        )
    if anew := [row.label for row in found.rows if row.label in contest.from_base]:
        out.append(
            f"{', '.join(anew)}: trained anew from the pretrained model, on answers that the start model drew; KL "
            "is from the start model all the same."
        )
    by_note: dict[str, list[str]] = {}
    for label, said in notes.items():
        for note in said:
            by_note.setdefault(note, []).append(label)
    out += [f"{', '.join(labels)}: {note}." for note, labels in by_note.items()]
    if contest.leaked:
        out.append(f"{contest.leaked:,} held-out rows ask what is trained on too: held-out scores may flatter.")
    if contest.comparison.settings.frontier:
        out += _of_frontier(frontiers, found)
    return out


def _of_judge(contest: Contest, check: JudgeCheck | None) -> list[str]:
    out: list[str] = []
    if contest.judge is None:
        rows = contest.rows[JUDGE] - contest.lost[JUDGE][0]
        out.append(
            f"The judge is a reward model trained on {rows:,} rows that no method saw; what it cannot see is not in "
            "these scores."
        )
    if check is not None:
        out.append(f"The judge on pairs that were held out: {check}.")
    if contest.judge is None and (learners := sorted(contest.needs_reward)):
        out.append(
            f"{', '.join(learners)}: rewarded by a reward model of the training pairs, another than the judge; what "
            "both learn wrongly from labels of the same kind counts in favour of these."
        )
    words = [*contest.comparison.shared, *(word for c in contest.comparison.contenders for word in c.words)]
    for reward in dict.fromkeys(word for word in words if word.startswith("reward=")):
        out.append(
            f"Methods that draw answers were trained on {reward}; if that is the judge too, their scores say how well "
            "they please it, not how good they are."
        )
    return out


def _of_budget(contest: Contest, rows: Sequence[Row]) -> list[str]:
    out: list[str] = []
    trained = {row.label: row.cost.tokens_trained for row in rows if row.cost is not None}
    if (
        contest.comparison.budget is None
        and len(trained) > 1
        and max(trained.values()) > _UNEVEN * min(trained.values())
    ):
        least, most = (pick(trained, key=lambda label: trained[label]) for pick in (min, max))
        out.append(
            f"Budgets differ: each method has its own length, from {trained[least]:,.0f} tokens trained on ({least}) "
            f"to {trained[most]:,.0f} ({most}); budget=tokens:… or minutes:… makes them equal."
        )
    if not contest.comparison.settings.tune:
        out.append("No setting was tuned on these data; with other learning rates the order may differ (tune=4).")
    return out


def _of_frontier(frontiers: Mapping[str, Frontier], found: Results) -> list[str]:
    none = [row.label for row in found.rows if row.cost is not None and row.label not in frontiers]
    said = frontier.sentences(frontiers, found.seeds[0])
    if none:
        said.append(
            f"No line for {', '.join(none)}: nothing ties it to the reference, its runs failed, or its KL is not known."
        )
    return said


def facts(stages: Stages, found: Results, judged: Mapping[str, Any], parameters: int) -> dict[str, str]:
    """Say how it was done, so that it can be repeated."""
    contest, comparison = stages.contest, stages.contest.comparison
    evaluation = comparison.config.evaluation
    start = judged["start"]
    judge = "a reward model trained on the split “judge”" if contest.judge is None else judged["judge"]
    versions = environment()
    tokens = 4 if comparison.config.adapter is not None else 6
    return {
        "Command": command_line(["align", "compare", *comparison.words]),
        "Data": f"{contest.source}: {contest.sizes}",
        "Split": (
            ("rows held out by the user" if comparison.config.data.heldout is not None else "prompts at random")
            + f", seed {comparison.config.seed}; "
            + (f"{contest.leaked:,} held-out rows have" if contest.leaked else "no row has")
            + " a prompt of another split, word for word; near-duplicates are not looked for here (align data check)"
        ),
        "Fingerprints": ", ".join(f"{part} {value[:12]}" for part, value in contest.fingerprints.items()),
        "Start": start["name"] + (f" with {start['start']}" if start["start"] else "") + ", the same for all methods",
        "Runs": f"{len(found.seeds)} of each method, seeds {', '.join(map(str, found.seeds))}",
        "Budget": f"{comparison.budget} for each run" if comparison.budget else "each method's own length",
        "Settings": _tuning(stages),
        **{f"Settings of {c.label}": _settings(stages, c) for c in comparison.trained if _settings(stages, c)},
        "Judge": judge,
        "Answers": (
            f"one to each of {found.prompts:,} held-out prompts per run, at most {evaluation.max_new_tokens} tokens, "
            f"temperature {evaluation.temperature:g}; all methods of a seed draw with the same random numbers"
        ),
        "Score": "mean over prompts and runs; intervals and tests treat both as random (Welch's t with Satterthwaite's "
        "degrees of freedom)",
        "Best": "told from each other method at the two-sided level .05 (Gutmann and Maymin 1987): a wrong winner in "
        "at most 5 % of comparisons; p of gains and of pairs are corrected for their number (Holm)",
        "At equal length": "a logistic model of the wins over the start model, read where both answers are as long "
        "(Dubois et al. 2024)",
        "Tax": "held-out loss on chosen answers, minus that of the start model; like distinct-2 and the share cut off "
        "without an interval",
        "Time and memory": f"of the training processes, a reward model's included, tuning not; up to {contest.workers} "
        "at the same time share the machine",
        "FLOPs": (
            f"an estimate: {tokens}·N for each token trained, in each role that is trained ("
            + ("the base is frozen" if tokens == 4 else "all weights are trained")
            + f"), 2·N for each token drawn or asked of reference and reward; N = {parameters:,}; without attention "
            "over the context, adapters and the prompts of drawn answers"
        ),
        "Versions": ", ".join(f"{name} {value}" for name, value in versions["packages"].items())
        + f"; Python {versions['python']}, {versions['platform']}, {versions['cpus']} cores",
    }


def _tuning(stages: Stages) -> str:
    if not stages.tuned:
        return "each method's own, not tuned on these data"
    contest = stages.contest
    chosen = "; ".join(f"{label}: {words}" for label, words in stages.tuned.items())
    return (
        f"the best of {contest.comparison.settings.tune} for each method on {contest.rows['tuning']:,} other rows, "
        f"with another seed: {chosen}"
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
