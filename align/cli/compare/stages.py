"""The jobs of a comparison: reward models first, then a run for each contender and seed, then their measurements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.cli.compare.contest import Contest
from align.cli.compare.jobs import Job, Pool
from align.cli.compare.words import Contender
from align.cli.console import say
from align.cli.parse.job import depends_on_method
from align.errors import UserError
from align.system.files import write_json

__all__ = ["JUDGE", "START", "final_weights", "name_of", "run_all", "sources_of"]

START = Contender("start", None)
"""The model that all begin from."""
JUDGE = "judge"
"""Name of the run that trains it."""

_OF_READING = ("data.max_rejected", "data.too_long", "data.pairs", "data.train_on")
"""Settings of data that hold for the splits too; the others say how to read the user's files."""


def name_of(contender: Contender, seed: int) -> str:
    """Name of the run and the files of one contender and seed."""
    return f"{contender.folder}-seed{seed}"


def run_all(contest: Contest) -> Pool:
    """Do all that is not done yet.

    Raises:
        KeyboardInterrupt: Stopped; the same command goes on.
        UserError: The judge could not be trained.
    """
    pool, comparison = Pool(contest.folder / "jobs", contest.workers, say), contest.comparison
    rows = ", ".join(f"{part} {count:,}" for part, count in contest.rows.items())
    say(f"{contest.folder}: rows of {rows}; {contest.workers} at the same time")
    if models := _reward_models(contest):
        say("Reward models")
        records = pool.run(models)
        if contest.judge is None and records[JUDGE]["code"]:
            raise UserError(f"the judge could not be trained; see {pool.log(JUDGE)}.")
    say("Training")
    pool.run([_training(contest, contender, seed) for seed in comparison.seeds for contender in comparison.trained])
    say("Answering held-out prompts")
    pool.run(
        [
            _measurement(contest, contender, seed)
            for seed in comparison.seeds
            for contender in (START, *comparison.contenders)
            if contender.method is None or pool.record(name_of(contender, seed)) is not None
        ]
    )
    return pool


def final_weights(run: Path) -> Path:
    """Return the trained policy of a run, or of the last stage of several."""
    stages = sorted(run.glob("[0-9]*-*/final"), key=lambda folder: int(folder.parent.name.partition("-")[0]))
    return [run / "final", *stages][-1] if stages else run / "final"


def sources_of(contest: Contest, contender: Contender, seed: int) -> list[str]:
    """Names of the jobs whose time and memory a contender needs: its own, and the reward model that it asks."""
    return [name_of(contender, seed), *([f"reward-seed{seed}"] if contender.label in contest.needs_reward else [])]


def _words(contest: Contest, method: str, seed: int, own: Sequence[str], train: str = "train") -> list[str]:
    """Return the words of a run on the splits."""
    shared = [word for word in contest.comparison.shared if not word.startswith(("data=", "data."))]
    reading = [word for word in contest.comparison.shared if word.startswith(_OF_READING)]
    data = [f"data={contest.data(train)}", f"data.heldout={contest.data('heldout')}"]
    return [f"method={method}", *shared, *reading, *data, *own, f"seed={seed}"]


def _contender_words(contest: Contest, contender: Contender, seed: int) -> list[str]:
    own = list(contender.words)
    if contender.label in contest.needs_reward:
        model = _reward_model(contest, f"reward-seed{seed}")
        own += [f"reward={contest.reward_choice}", f"reward.model={model}"]
    budget = contest.comparison.budget
    if budget is not None and budget.unit == "epochs":
        own.append(f"trainer.epochs={budget.amount}")
    assert contender.method is not None
    return _words(contest, contender.method, seed, own)


def _run(contest: Contest, name: str, words: Sequence[str], title: str) -> Job:
    """Return the job of a run; it evaluates nothing itself, for all are measured alike later."""
    place = [f"output_root={contest.folder / 'runs'}", f"run_name={name}", "if_exists=resume", "evaluation.prompts=0"]
    return Job(name, ["-m", "align", *words, *place], title)


def _reward_model(contest: Contest, name: str) -> Path:
    return contest.folder / "runs" / name / "final" / "reward"


def _reward_models(contest: Contest) -> list[Job]:
    """Return the runs of the judge, and of the reward model of each seed where a method needs one."""
    wanted = [(JUDGE, JUDGE, contest.comparison.seeds[0], "judge")] if contest.judge is None else []
    if contest.needs_reward:
        wanted += [(f"reward-seed{seed}", "train", seed, f"reward model, seed {seed}") for seed in contest.comparison.seeds]
    jobs: list[Job] = []
    for name, part, seed, title in wanted:
        words = _words(contest, contest.reward_method, seed, [], part)
        kept = [word for word in words if not depends_on_method(key := word.partition("=")[0]) and key != "reward"]
        jobs.append(_run(contest, name, kept, title))
    return jobs


def _training(contest: Contest, contender: Contender, seed: int) -> Job:
    words = _contender_words(contest, contender, seed)
    return _run(contest, name_of(contender, seed), words, f"{contender.label}, seed {seed}")


def _measurement(contest: Contest, contender: Contender, seed: int) -> Job:
    name = name_of(contender, seed)
    trained = contender if contender.method is not None else contest.comparison.trained[0]
    job: dict[str, Any] = {
        "words": _contender_words(contest, trained, seed),
        "weights": None if contender.method is None else str(final_weights(contest.folder / "runs" / name)),
        "judge": contest.judge or {"scorer": "reward_model", "model": str(_reward_model(contest, JUDGE))},
        "data": str(contest.data("heldout")),
        "examples": str(contest.data("train")),
        "shots": contender.shots,
        "prompts": contest.prompts,
        "seed": seed,
        "out": str(contest.folder / "measured" / f"{name}.json"),
    }
    file = contest.folder / "jobs" / f"measure-{name}.task.json"
    write_json(file, job)
    (contest.folder / "measured").mkdir(exist_ok=True)
    return Job(f"measure-{name}", ["-m", "align.cli.compare.measuring", str(file)], f"{contender.label}, seed {seed}")
