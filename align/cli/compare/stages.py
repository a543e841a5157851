"""The jobs of a comparison, one after the other: reward models, lengths by the budget, tuning, runs, measuring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from align.cli.compare import budget, tuning
from align.cli.compare.contest import Contest
from align.cli.compare.jobs import Job, Pool, reason_of_task
from align.cli.compare.words import Contender
from align.cli.console import say
from align.cli.parse.job import depends_on_method
from align.errors import UserError
from align.evaluation.statistics import Estimate
from align.system.files import read_json
from align.system.identity import content_hash, hashed

__all__ = ["JUDGE", "START", "Stages", "final_weights", "name_of"]

START = Contender("start", None)
"""The model that all begin from."""
JUDGE = "judge"
"""Name of the run that trains it."""

MEASURING = ("-m", "align.cli.compare.measuring")
"""Command that does the tasks of a file, which comes after it."""
_OF_READING = ("data.max_rejected", "data.too_long", "data.pairs", "data.train_on")
"""Settings of data that hold for the splits too; the others say how to read the user's files."""


def name_of(contender: Contender, seed: int) -> str:
    """Name of the run and the files of one contender and seed."""
    return f"{contender.folder}-seed{seed}"


@dataclass
class Stages:
    """The jobs of a contest. All that is done already is not done again."""

    contest: Contest
    chosen: dict[str, list[str]] = field(default_factory=dict[str, "list[str]"])
    """Words that budget and tuning add to each contender's own."""
    tuned: dict[str, str] = field(default_factory=dict[str, str])
    """Settings that the tuning chose, for people."""
    given_up: dict[str, list[str]] = field(default_factory=dict[str, "list[str]"])
    """Contenders whose length or settings could not be found, with the jobs that failed; they are not trained."""
    swept: dict[str, tuple[str, dict[float, str]]] = field(default_factory=dict[str, "tuple[str, dict[float, str]]"])
    """Of a contender's frontier: the setting that ties it to the reference, and the run of each strength of it."""

    def __post_init__(self) -> None:
        self.pool = Pool(self.contest.folder / "jobs", self.contest.workers, say)

    def run(self) -> None:
        """Do everything that is not done yet.

        Raises:
            KeyboardInterrupt: Stopped; the same command goes on.
            UserError: The judge could not be asked, or not be trained.
        """
        contest, comparison = self.contest, self.contest.comparison
        say(f"{contest.folder}: {contest.sizes}; {contest.workers} at the same time")
        if contest.judge is not None:
            self._try_judge(contest.judge)
        if models := self._reward_models():
            say("Reward models")
            records = self.pool.run(models)
            if contest.judge is None and records[JUDGE]["code"]:
                reason = self.pool.reason(JUDGE).rstrip(".")
                raise UserError(f"the judge could not be trained: {reason}; all it printed: {self.pool.log(JUDGE)}.")
        self._find_lengths()
        if comparison.settings.tune:
            self._tune()
        say("Training")
        runs = [(contender, seed) for seed in comparison.seeds for contender in self.trained]
        self.pool.run([self.training(contender, seed) for contender, seed in runs])
        say("Answering held-out prompts")
        measured = [
            (contender, name_of(contender, seed), seed)
            for seed in comparison.seeds
            for contender in (START, *comparison.contenders)
            if contender.method is None
            or (contender in self.trained and self.pool.record(name_of(contender, seed)) is not None)
        ]
        self._measure(measured, "heldout", contest.prompts)
        if comparison.settings.frontier:
            self._sweep()

    @property
    def trained(self) -> list[Contender]:
        """Contenders that are trained, those that were given up left out."""
        return [c for c in self.contest.comparison.trained if c.label not in self.given_up]

    @property
    def judge_identity(self) -> str:
        """Hash of all that the judge's scores depend on."""
        given = self.contest.judge_identity
        return content_hash(self._reward_model(JUDGE)) if given is None else hashed(given)

    def needs(self, contender: Contender, seed: int) -> list[str]:
        """Names of the jobs whose time and memory a contender takes: its own, and the reward model that it asks."""
        model = [f"reward-seed{seed}"] if contender.label in self.contest.needs_reward else []
        return [*model, name_of(contender, seed)]

    def reason(self, contender: Contender, seed: int) -> str:
        """Return why a contender of one seed was not trained or not measured; nothing where that is not known."""
        name = name_of(contender, seed)
        jobs = self.needs(contender, seed) if contender.method is not None else []
        tried = self.given_up.get(contender.label, [])
        failed = next((reason for job in (*tried, *jobs) if (reason := self.pool.reason(job))), "")
        places = (self.contest.folder / "measured" / f"{job}.json" for job in (*tried, name))
        return failed or next((reason for place in places if (reason := reason_of_task(place))), "")

    def reward_accuracies(self) -> dict[int, Estimate]:
        """Share of the held-out pairs that the reward model of each seed orders as labelled, where it was measured."""
        out: dict[int, Estimate] = {}
        for seed in self.contest.comparison.seeds:
            found = read_json(self.contest.folder / "runs" / f"reward-seed{seed}" / "evaluation.json") or {}
            if accuracy := found.get("intervals", {}).get("accuracy", {}).get("after"):
                out[seed] = Estimate(**accuracy)
        return out

    def measured(self, name: str) -> Any:
        """Return what was measured under a name; None where it was not."""
        return read_json(self.contest.folder / "measured" / f"{name}.json")

    # Runs

    def _words(self, method: str, seed: int, own: Sequence[str], train: str = "train") -> list[str]:
        """Return the words of a run on the splits."""
        contest = self.contest
        shared = [word for word in contest.comparison.shared if not word.startswith(("data=", "data."))]
        reading = [word for word in contest.comparison.shared if word.startswith(_OF_READING)]
        data = [f"data={contest.data(train)}", f"data.heldout={contest.data('heldout')}"]
        return [f"method={method}", *shared, *reading, *data, *own, f"seed={seed}"]

    def _own_words(self, contender: Contender, seed: int) -> list[str]:
        contest = self.contest
        mix = [word for word in contest.comparison.shared if word.startswith("data.mix=")]  # not the reward model's
        own = [*mix, *contender.words, *self.chosen.get(contender.label, [])]
        if contender.label in contest.needs_reward:
            # Seeds of tuning and of lengths take the first seed's reward model.
            of = seed if seed in contest.comparison.seeds else contest.comparison.seeds[0]
            own += [f"reward={contest.reward_choice}", f"reward.model={self._reward_model(f'reward-seed{of}')}"]
        return own

    def training(self, contender: Contender, seed: int, name: str | None = None, more: Sequence[str] = ()) -> Job:
        """Return the job that trains a contender, under another name and with more words for a run that is tried."""
        assert contender.method is not None
        words = self._words(contender.method, seed, [*self._own_words(contender, seed), *more])
        return self._run(name or name_of(contender, seed), words, f"{contender.label}, {name or f'seed {seed}'}")

    def _run(self, name: str, words: Sequence[str], title: str) -> Job:
        """Return the job of a run; it evaluates nothing itself, for all are measured alike later."""
        place = [f"output_root={self.contest.folder / 'runs'}", f"run_name={name}", "if_exists=resume"]
        grouped = {"wandb", "trackio"} & set(self.contest.comparison.config.trackers)
        group = [f"wandb.group={self.contest.wandb.group}"] if grouped else []
        left = self.contest.folder / "runs" / name
        return Job(name, ["-m", "align", *words, *place, *group, "evaluation.prompts=0"], title, leaves=left)

    def _reward_model(self, name: str) -> Path:
        return self.contest.folder / "runs" / name / "final" / "reward"

    def _reward_models(self) -> list[Job]:
        """Return the runs of the judge, and of the reward model of each seed where a method needs one."""
        contest, seeds = self.contest, self.contest.comparison.seeds
        wanted = [(JUDGE, JUDGE, seeds[0], "judge")] if contest.judge is None else []
        if contest.needs_reward:
            wanted += [(f"reward-seed{seed}", "train", seed, f"reward model, seed {seed}") for seed in seeds]
        jobs: list[Job] = []
        for name, part, seed, title in wanted:
            words = self._words(contest.reward_method, seed, [], part)
            kept = [word for word in words if not depends_on_method(key := word.partition("=")[0]) and key != "reward"]
            jobs.append(self._run(name, kept, title))
        return jobs

    # Length and settings

    def _find_lengths(self) -> None:
        """Turn the budget into steps or epochs of each contender."""
        comparison = self.contest.comparison
        if comparison.budget is None:
            return
        if comparison.budget.unit == "epochs":
            self.chosen |= {c.label: [f"trainer.epochs={comparison.budget.amount}"] for c in comparison.trained}
            return
        say("Measuring the length of a step")
        seed = comparison.seeds[0]
        names = {contender.label: f"{contender.folder}-pilot" for contender in comparison.trained}
        short = [f"trainer.steps={budget.PILOT_STEPS}", "trainer.save_steps=null"]
        records = self.pool.run([self.training(c, seed, names[c.label], short) for c in comparison.trained])
        for contender in comparison.trained:
            name = names[contender.label]
            if records[name]["code"] == 0:
                steps = budget.steps(comparison.budget, self.contest.folder / "runs" / name, records[name]["seconds"])
                self.chosen[contender.label] = [f"trainer.steps={steps}"]
            else:
                self.given_up[contender.label] = [name]

    def _tune(self) -> None:
        """Try settings of each contender on prompts that are not reported, and keep the best."""
        comparison = self.contest.comparison
        say(f"Tuning: {comparison.settings.tune} settings of each method")
        seed = comparison.seeds[0] + tuning.SEED
        tried: dict[str, tuple[Contender, list[str]]] = {}
        for contender in self.trained:
            assert contender.method is not None
            job = comparison.job(self._words(contender.method, seed, self._own_words(contender, seed)))
            for number, words in enumerate(tuning.candidates(job, comparison.settings.tune)):
                tried[f"{contender.folder}-tuning{number}"] = contender, words
        records = self.pool.run([self.training(c, seed, name, words) for name, (c, words) in tried.items()])
        self._measure(
            [(contender, name, seed) for name, (contender, _) in tried.items() if records[name]["code"] == 0],
            "tuning",
            self.contest.rows["tuning"],
        )
        for contender in self.trained:
            scores = {
                name: tuning.score(found)
                for name, (of, _) in tried.items()
                if of == contender and (found := self.measured(name)) is not None
            }
            if scores:
                best = max(scores, key=lambda name: scores[name])
                self.chosen.setdefault(contender.label, []).extend(tried[best][1])
                count = sum(of == contender for of, _ in tried.values())
                self.tuned[contender.label] = f"{' '.join(tried[best][1]) or 'its own settings'} (of {count})"
            else:
                self.given_up[contender.label] = [name for name, (of, _) in tried.items() if of == contender]

    def _sweep(self) -> None:
        """Train and measure the first seed with weaker and stronger ties to the reference."""
        comparison = self.contest.comparison
        say("Frontier: weaker and stronger ties to the reference")
        seed = comparison.seeds[0]
        more: dict[str, tuple[Contender, list[str]]] = {}
        for contender in self.trained:
            assert contender.method is not None
            job = comparison.job(self._words(contender.method, seed, self._own_words(contender, seed)))
            setting, strengths = tuning.sweep(job)
            own = name_of(contender, seed)
            names = {value: f"{own}-{setting}-{value:g}" if words else own for value, words in strengths.items()}
            self.swept[contender.label] = setting, names
            more |= {names[value]: (contender, words) for value, words in strengths.items() if words}
        records = self.pool.run([self.training(c, seed, name, words) for name, (c, words) in more.items()])
        done = [(contender, name, seed) for name, (contender, _) in more.items() if records[name]["code"] == 0]
        self._measure(done, "heldout", self.contest.prompts)

    # Measurements

    def _try_judge(self, judge: Mapping[str, Any]) -> None:
        """Ask the judge about a few held-out answers of the data, so that it fails before the training, not after."""
        contest = self.contest
        out = contest.folder / "measured" / "judge.json"
        identity = hashed([self.judge_identity, contest.fingerprints["heldout"]])
        if (read_json(out) or {}).get("identity") == identity:
            return
        say("Asking the judge about a few held-out answers")
        task = {"title": "judge", "judge": judge, "data": str(contest.data("heldout")), "out": str(out)}
        out.parent.mkdir(exist_ok=True)
        [job] = self.pool.shared_out("try-judge", [{**task, "identity": identity}], MEASURING)
        job = replace(job, title="judge")
        if self.pool.run([job])[job.name]["code"]:
            reason = reason_of_task(out) or self.pool.reason(job.name)
            reason = reason.rstrip(".").removesuffix("; correct it").removesuffix("; correct the scorer")
            raise UserError(f"judge: {reason}; correct it, or give another judge=. Nothing is trained yet.")

    def _measure(self, wanted: Sequence[tuple[Contender, str, int]], part: str, prompts: int) -> None:
        """Measure the policies of runs, several in each process."""
        contest = self.contest
        judge = contest.judge or {"scorer": "reward_model", "model": str(self._reward_model(JUDGE))}
        judged_by = self.judge_identity
        tasks: list[Mapping[str, Any]] = []
        for contender, name, seed in wanted:
            trained = contender if contender.method is not None else contest.comparison.trained[0]
            weights = None if contender.method is None else final_weights(contest.folder / "runs" / name)
            assert trained.method is not None
            tasks.append(
                {
                    "title": f"{contender.label}, {name}",
                    "words": self._words(trained.method, seed, self._own_words(trained, seed)),
                    "weights": None if weights is None else str(weights),
                    "judge": judge,
                    "data": str(contest.data(part)),
                    "examples": str(contest.data("train")),
                    "shots": contender.shots,
                    "prompts": prompts,
                    "seed": seed,
                    "check_judge": name == name_of(START, contest.comparison.seeds[0]),
                    "identity": hashed([judged_by, None if weights is None else content_hash(weights), prompts]),
                    "out": str(contest.folder / "measured" / f"{name}.json"),
                }
            )
        (contest.folder / "measured").mkdir(exist_ok=True)
        found = {task["out"]: read_json(Path(task["out"])) for task in tasks}
        left = [task for task in tasks if (found[task["out"]] or {}).get("identity") != task["identity"]]
        if stale := [Path(task["out"]) for task in left if found[task["out"]] is not None]:
            say(f"  {len(stale)} measured by another judge, or of other weights: measured anew")
        for file in stale:  # where the measuring fails now, they must not be taken for its scores
            file.unlink()
        self.pool.run(self.pool.shared_out(f"measure-{part}", left, MEASURING))


def final_weights(run: Path) -> Path:
    """Return the trained policy of a run, or of the last stage of several."""
    stages = sorted(run.glob("[0-9]*-*/final"), key=lambda folder: int(folder.parent.name.partition("-")[0]))
    return stages[-1] if stages else run / "final"
