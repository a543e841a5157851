"""For a reader who is to judge a comparison: what weakens it, the gravest before the result itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from align.cli.compare import budget
from align.cli.compare.contest import Contest
from align.cli.compare.facts import judge_name
from align.cli.compare.stages import JUDGE, Stages, name_of
from align.comparison import frontier
from align.comparison.frontier import Frontier
from align.comparison.judge import JudgeCheck
from align.comparison.results import Results, Row

__all__ = ["alarms", "caveats"]

_ALMOST_ALL = 0.95
"""A share of answers that are cut off, or have the same score, from which the result says little."""
_OFF_BUDGET = 0.1
"""Runs that miss the budget by more are worth a sentence."""
_OFF_MINUTES = 0.25
"""The same of minutes, which another program at work changes."""
_FEW_STEPS = 50
"""Runs below are worth a sentence."""
_UNEVEN_KL = 2.0
"""KLs whose ratio is above this are worth a sentence."""
_MUCH_CUT = 0.2
"""A share of answers cut off above this is worth a sentence."""
_UNEVEN = 1.5
"""Budgets whose ratio is above this are worth a sentence."""


def alarms(stages: Stages, found: Results, check: JudgeCheck | None, scores: Collection[float]) -> list[str]:
    """Say what must be known before the result is read; ``scores`` are those of all answers and judged pairs."""
    judge = stages.contest.judge
    name = "a reward model of other pairs" if judge is None else judge_name(judge)
    [(common, times)] = Counter(round(score, 9) for score in scores).most_common(1)
    out: list[str] = []
    if times == len(scores):
        out.append(
            f"Do not choose by this comparison: its judge ({name}) gives every answer the same score, {common:g}; "
            "give another judge=."
        )
    elif check is not None and not check.is_better_than_chance:
        share = check.accuracy.percent("pairs")
        if judge is None:
            out.append(
                f"Do not choose by this comparison: its judge orders {share} of the held-out pairs as labelled, which "
                "is not shown to be better than chance; give more pairs, or another judge=."
            )
        else:
            out.append(
                f"These scores are what the judge ({name}) measures, not what your labels prefer: it orders {share} of "
                "the held-out pairs as labelled, which is not shown to be better than chance."
            )
    out += _of_reward_models(stages, found)
    if _ALMOST_ALL <= times / len(scores) < 1:
        out.append(f"The judge ({name}) gives {times / len(scores):.0%} of all answers the same score, {common:g}.")
    if cut := [row for row in found.rows if row.cut_off >= _ALMOST_ALL]:
        whose = "of every model" if len(cut) == len(found.rows) else f"of {', '.join(row.label for row in cut)}"
        out.append(
            f"Nearly all answers {whose} are cut off at {stages.contest.comparison.config.evaluation.max_new_tokens} "
            "tokens: the judge has seen their beginnings only. Give more (evaluation.max_new_tokens)."
        )
    return out


def caveats(
    stages: Stages,
    found: Results,
    check: JudgeCheck | None,
    notes: Mapping[str, Sequence[str]],
    frontiers: Mapping[str, Frontier],
    looks: Collection[int],
) -> list[str]:
    """Say what a referee would ask about, the gravest first; ``looks``: numbers of seeds that it was concluded with."""
    contest = stages.contest
    out = [*_of_judge(contest, found, check), *_of_length(stages, found)]
    if len(found.seeds) == 1:
        out.append(
            "One training run of each method: the intervals are those of these trained models; another seed may order "
            "them otherwise (with seeds=3 the same command goes on)."
        )
    if fewer := [f"{count} seed{'s' * (count > 1)}" for count in sorted(looks) if count < len(found.seeds)]:
        out.append(
            f"Concluded before with {', '.join(fewer)}: if the others were added because of what that showed, the "
            "intervals and p-values are too sure."
        )
    if any(lost or cut for lost, cut in contest.lost.values()):
        parts = (f"{lost:,} of {contest.rows[part]:,} of {part}" for part, (lost, _) in contest.lost.items() if lost)
        left_out = ", ".join(parts) or "none"
        cut_rows = sum(count for _, count in contest.lost.values())
        out.append(
            f"Rows too long for trainer.max_length={contest.comparison.config.trainer.max_length} and left out: "
            f"{left_out}; {cut_rows:,} more with an answer that is cut."
        )
    out += [*_of_budget(contest, found.rows), *_of_kl(contest, found.rows)]
    if cut := [f"{row.label} {row.cut_off:.0%}" for row in found.rows if _MUCH_CUT < row.cut_off < _ALMOST_ALL]:
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


def _of_reward_models(stages: Stages, found: Results) -> list[str]:
    """Name the methods whose reward model is no better than chance: they had nothing to learn from."""
    learners = [row.label for row in found.rows if row.label in stages.contest.needs_reward]
    poor = [
        f"{accuracy.percent('pairs')} with seed {seed}"
        for seed, accuracy in stages.reward_accuracies().items()
        if not accuracy.above_half
    ]
    if not learners or not poor:
        return []
    return [
        f"{', '.join(learners)}: rewarded by a reward model of the training pairs, which is not shown to order the "
        f"held-out pairs better than chance ({'; '.join(poor)}): judge these methods with more pairs, or another "
        "reward=."
    ]


def _of_length(stages: Stages, found: Results) -> list[str]:
    """Name the methods that took few steps or saw only a part of the rows, and those that draw other lengths."""
    contest = stages.contest
    short: list[str] = []
    most = contest.comparison.config.evaluation.max_new_tokens
    drawn: dict[int, list[str]] = {}
    for contender in contest.comparison.trained:
        if contender.label not in {row.label for row in found.rows}:
            continue
        last = budget.last_record(contest.folder / "runs" / name_of(contender, contest.comparison.seeds[0]))
        steps, epochs = int(last.get("step", 0)), float(last.get("train/epoch", 1.0))
        if 0 < steps < _FEW_STEPS or epochs < 1:
            part = f", {epochs:.2g} of an epoch" if epochs < 1 else ""
            short.append(f"{contender.label} {steps:,} step{'s' * (steps != 1)}{part}")
        method = contest.methods[contender.label]
        draws = method.rollout is not None or method.candidates is not None
        length = getattr(method, "max_new_tokens", most)
        if draws and length != most:
            drawn.setdefault(length, []).append(contender.label)
    out = [f"Trained for a short time: {'; '.join(short)}. Longer, the order may be another one."] if short else []
    return out + [
        f"{', '.join(labels)}: trained on answers of at most {length} tokens, judged on answers of at most {most} "
        "(evaluation.max_new_tokens)."
        for length, labels in drawn.items()
    ]


def _of_kl(contest: Contest, rows: Sequence[Row]) -> list[str]:
    """Say that a score at another distance from the start model is no score at equal distance."""
    kl = {row.label: row.kl.mean for row in rows if row.kl is not None}
    if len(kl) < 2 or max(kl.values()) <= _UNEVEN_KL * min(kl.values()):
        return []
    least, most = (pick(kl, key=lambda label: kl[label]) for pick in (min, max))
    remedy = "" if contest.comparison.settings.frontier else " (frontier=true)"
    return [
        f"KL from the start model goes from {kl[least]:.2g} ({least}) to {kl[most]:.2g} nats ({most}): which method "
        f"has the better score at equal KL cannot be read from this table{remedy}."
    ]


def _of_judge(contest: Contest, found: Results, check: JudgeCheck | None) -> list[str]:
    out: list[str] = []
    if contest.judge is None:
        rows = contest.rows[JUDGE] - contest.lost[JUDGE][0]
        out.append(
            f"The judge is a reward model trained on {rows:,} rows that no method saw; what it cannot see is not in "
            "these scores."
        )
    if check is not None:
        out.append(f"The judge on pairs that were held out: {check}.")
        rates = {row.label: row.accuracy for row in found.rows if row.accuracy is not None}
        if better := [f"{label} {of.mean:.1%}" for label, of in rates.items() if of.mean > check.accuracy.mean]:
            pairs = next(iter(rates.values())).n
            out.append(
                f"More of the same pairs are ranked as labelled by the methods themselves ({', '.join(better)}; "
                f"{pairs:,} of the {check.accuracy.n:,} fit) than by the judge ({check.accuracy.mean:.1%})."
            )
    if contest.judge is None and (learners := sorted(contest.needs_reward)):
        favoured = "them" if len(learners) > 1 else "it"
        out.append(
            f"{', '.join(learners)}: rewarded by a reward model of the training pairs, another than the judge; what "
            f"both reward models learn wrongly from labels of the same kind counts in favour of {favoured}."
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
    beside = {row.label: cost.tokens_of_reward for row in rows if (cost := row.cost) and cost.tokens_of_reward}
    if contest.comparison.budget is not None and contest.comparison.budget.unit != "epochs" and beside:
        out.append(
            f"The budget of {contest.comparison.budget} does not count the reward model, which was trained on "
            + ", ".join(f"{tokens:,.0f} tokens for {label}" for label, tokens in beside.items())
            + "."
        )
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
    if (given := contest.comparison.budget) is not None and given.unit == "tokens":
        own = {label: tokens - beside.get(label, 0.0) for label, tokens in trained.items()}
        if off := [f"{label} {n:,.0f}" for label, n in own.items() if abs(n / given.amount - 1) > _OFF_BUDGET]:
            out.append(f"Whole steps do not meet the budget of {given} exactly: {', '.join(off)} tokens trained on.")
    if given is not None and given.unit == "minutes":
        spent = {row.label: row.cost.seconds / 60 for row in rows if row.cost is not None}
        if off := [f"{label} {n:.3g}" for label, n in spent.items() if abs(n / given.amount - 1) > _OFF_MINUTES]:
            took = ", ".join(off)
            out.append(f"The budget of {given} was not met, since a start takes time and speed varies: {took} minutes.")
    if not contest.comparison.settings.tune:
        out.append(f"{_settings(contest)}; with other learning rates the order may differ (tune=4).")
    return out


def _settings(contest: Contest) -> str:
    """Say which methods have settings that somebody chose for this model."""
    shipped = contest.comparison.shipped
    if not shipped:
        return "No setting was tuned on these data"
    if len(shipped) == len(contest.comparison.trained):
        return "Every method has the settings shipped for this model, tuned before and not here"
    return (
        f"Settings tuned for this model are shipped for {', '.join(shipped)}; the others have their defaults, which "
        "counts against them"
    )


def _of_frontier(frontiers: Mapping[str, Frontier], found: Results) -> list[str]:
    none = [row.label for row in found.rows if row.cost is not None and row.label not in frontiers]
    said = frontier.sentences(frontiers, found.seeds[0])
    if none:
        said.append(
            f"No line for {', '.join(none)}: nothing ties it to the reference, its runs failed, or its KL is not known."
        )
    return said
