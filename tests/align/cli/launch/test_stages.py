"""The beginning of each stage of a recipe, and how a run and a recipe end."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from align.cli.launch import assemble, execute
from align.cli.launch.recipe import Recipe, assemble_job
from align.cli.launch.run import Rival, Run, Scorers
from align.cli.parse.command import read_command
from align.cli.parse.job import read_job
from align.data import Preferences
from align.errors import ScorerError, UserError
from align.scoring.reward_role import RoleScorer
from align.system.signals import Interrupted
from align.training.step import TrainingError
from align.world import asset

pytestmark = pytest.mark.usefixtures("without_charts")

CONFIGS = Path(__file__).resolve().parents[4] / "configs"
COMMON = ("model.name=owner/name", "data.train=pairs.jsonl", "run_name=all")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("pairs.jsonl").write_text('{"prompt": "q", "chosen": "a", "rejected": "b"}')
    return tmp_path


@cache
def read(*words: str) -> Any:
    return assemble_job(read_job(read_command([*COMMON, *words], CONFIGS).overrides, CONFIGS))


def executed(
    recipe: Recipe, codes: dict[str, int] | None = None, *, holds_out: bool = False
) -> tuple[int, dict[str, Run]]:
    """Do a recipe with stages that train nothing and end with these codes; returns the runs by name, in order."""
    done: dict[str, Run] = {}

    def execute(run: Run) -> int:
        done[run.config.run_name] = run
        if run.config.stage == "sample":
            folder = Path(run.config.output_root, run.config.run_name)
            folder.mkdir(parents=True)
            for name in ("candidates.jsonl", *(["heldout.jsonl"] if holds_out else [])):
                (folder / name).touch()
        return (codes or {}).get(run.config.run_name, 0)

    return recipe.execute(execute), done


def test_each_stage_begins_with_what_those_before_it_left() -> None:
    code, done = executed(read("recipe=rlhf", "seed=3"))
    assert (code, list(done)) == (0, ["1-sft", "2-reward", "3-ppo"])
    for run in done.values():
        assert (run.config.output_root, run.config.seed, run.config.model.name) == ("runs/all", 3, "owner/name")
    starts = [run.config.model.start for run in done.values()]
    assert starts == [None, "runs/all/1-sft/final", "runs/all/1-sft/final"]
    assert done["2-reward"].config.reward is None
    reward = done["3-ppo"].config.reward
    assert reward is not None
    assert (reward["scorer"], reward["model"]) == ("reward_model", "runs/all/2-reward/final/reward")


def test_without_adapters_a_stage_begins_from_the_whole_model_that_was_trained() -> None:
    _, done = executed(read("recipe=rlhf", "adapter=none"))
    models = [(run.config.model.name, run.config.model.start) for run in done.values()]
    assert models == [("owner/name", None), ("runs/all/1-sft/final", None), ("runs/all/1-sft/final", None)]


@pytest.mark.parametrize("code", [1, 2, 130])
def test_a_stage_that_fails_is_the_last_one(code: int) -> None:
    recipe = read("recipe=rlhf")
    found, done = executed(recipe, {"2-reward": code})
    assert (found, list(done)) == (code, ["1-sft", "2-reward"])


def test_the_worst_code_of_a_dry_run_is_its_code_and_all_stages_are_tried() -> None:
    tried: list[str] = []

    def execute(run: Run) -> int:
        tried.append(run.config.method)
        return {"sft": 0, "reward": 2, "ppo": 1}[run.config.method]

    assert read("recipe=rlhf", "dry_run=true").execute(execute) == 2
    assert tried == ["sft", "reward", "ppo"]
    assert not Path("runs").exists()


@pytest.mark.parametrize("holds_out", [True, False])
def test_what_is_drawn_is_trained_on_from_the_base_and_the_drawer_is_measured_beside(
    holds_out: bool, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The number of rows and the names of columns are those of the data, not of the candidates."""
    shutil.copytree(asset("sft"), here / "start")
    words = ("model.start=start", "data.expected_rows=9", "data.columns.prompt=question", "data.format=pairwise")
    _, done = executed(read("method=rft", "method.select=answer", *words), holds_out=holds_out)
    assert list(done) == ["1-sample", "2-rft"]
    sample, train = done.values()
    assert (sample.config.stage, sample.config.model.start, sample.rival) == ("sample", "start", None)
    assert (train.config.stage, train.config.model.start) == ("train", None)
    assert train.rival == Rival(sample.config.model, "the model that drew the candidates")
    assert sample.config.data.train == "pairs.jsonl"
    assert (sample.config.data.expected_rows, sample.config.data.format) == (9, "pairwise")
    data = train.config.data
    assert (data.train, data.expected_rows, data.format) == ("runs/all/1-sample/candidates.jsonl", None, "auto")
    assert data.heldout == ("runs/all/1-sample/heldout.jsonl" if holds_out else None)
    assert not any(data.columns.values())
    assert "Stage 2 of 2: rft\n" in capsys.readouterr().out


@pytest.mark.usefixtures("here")
def test_a_stage_is_announced_with_the_names_of_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    """Plain ones, as remedies name them, go to the last stage."""
    executed(read("recipe=rlhf"))
    said = capsys.readouterr().out
    assert "Stage 1 of 3: sft (its settings: sft.method.…, sft.trainer.…)\n" in said
    assert "Stage 3 of 3: ppo\n" in said


def test_what_begins_from_the_model_that_drew_has_no_other_to_compare_with() -> None:
    _, done = executed(read("method=rft", "method.select=answer", "model.start=null"))
    assert [run.rival for run in done.values()] == [None, None]


@pytest.mark.parametrize(("if_exists", "name"), [("new", "all-3"), ("resume", "all"), ("overwrite", "all")])
def test_the_folder_of_all_stages(if_exists: str, name: str) -> None:
    for earlier in ("all", "all-2"):
        Path("runs", earlier).mkdir(parents=True)
    _, done = executed(read("recipe=rlhf", f"if_exists={if_exists}"))
    assert {run.config.output_root for run in done.values()} == {f"runs/{name}"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Interrupted(2, None), 130),
        (Interrupted(15, Path("c")), 143),
        (ScorerError("no scores."), 1),
        (TrainingError("NaN."), 1),
        (None, 0),
    ],
)
@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("method=dpo",), "_train"),
        (("method=dpo", "dry_run=true"), "dry_run"),
        (("method=rft", "method.select=answer", "stage=sample"), "_sample"),
        (("method=rft", "method.select=answer", "stage=sample", "dry_run=true"), "dry_run"),
    ],
)
def test_every_end_has_its_code(
    words: tuple[str, ...],
    part: str,
    error: Exception | None,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    done: list[str] = []

    def stub(name: str) -> Callable[..., None]:
        def call(*_: Any) -> None:
            done.append(name)
            if error is not None:
                raise error

        return call

    for name in ("_train", "_sample"):
        monkeypatch.setattr(execute, name, stub(name))
    monkeypatch.setattr("align.cli.launch.dry_run.dry_run", stub("dry_run"))
    monkeypatch.setattr(assemble, "read_architecture", lambda _: None)
    assert execute.execute(read(*words)) == code
    assert done == [part]
    said = capsys.readouterr().err
    assert said == ("" if error is None else f"Run all: {error}.\n" if code > 2 else f"Error: {error}\n")


@pytest.mark.parametrize(("finished", "done"), [(True, []), (False, ["architecture", "train"])])
def test_a_finished_run_is_not_run_again(finished: bool, done: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []
    monkeypatch.setattr(execute, "is_finished", lambda *_: finished)
    monkeypatch.setattr(assemble, "read_architecture", lambda _: found.append("architecture"))
    monkeypatch.setattr(execute, "_train", lambda *_: found.append("train"))
    assert execute.execute(read("method=dpo", "if_exists=resume")) == 0
    assert found == done


def test_what_draws_nothing_cannot_sample() -> None:
    with pytest.raises(UserError, match="stage=sample: method=dpo draws no candidates as it is set"):
        execute.execute(read("method=dpo", "stage=sample"))


class TestTrain:
    @pytest.fixture
    def made(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Do `_train` on marks instead of data and models; returns what the trainer and the evaluator were given."""
        given: Any = SimpleNamespace(trainer=[], fit=[], evaluator=[])
        policy = SimpleNamespace(name="policy")
        monkeypatch.setattr(assemble, "load_data", lambda _: ("train", "heldout"))
        monkeypatch.setattr(assemble, "try_scorers", lambda *_: None)
        monkeypatch.setattr(assemble, "read_tokenizer", lambda _: ("tokenizer", []))
        monkeypatch.setattr(assemble, "tokenize_data", lambda *_: ("tokens", "heldout tokens"))
        monkeypatch.setattr(assemble, "load_policy", lambda *_: policy)
        monkeypatch.setattr(assemble, "load_mix", lambda _: "mix")
        monkeypatch.setattr(execute, "warn_of", lambda *_: None)
        monkeypatch.setattr(execute, "_measure_rival", lambda *_: {"rival": 1})
        monkeypatch.setattr(execute, "command_inputs", lambda *_: {"inputs": 1})
        monkeypatch.setattr(assemble, "make_evaluator", lambda *args: given.evaluator.append(args) or "evaluator")

        def trainer(*args: Any, **settings: Any) -> Any:
            given.trainer.append((args, settings))

            def fit(*args: Any, **more: Any) -> Any:
                given.fit.append((args, more))
                return SimpleNamespace(folder=Path("out/all"))

            return SimpleNamespace(fit=fit)

        monkeypatch.setattr("align.training.trainer.Trainer", trainer)
        given.policy = policy
        return given

    REWARD = SimpleNamespace(name="mine")
    OTHER = SimpleNamespace(name="other")

    @pytest.mark.parametrize(
        ("method", "is_role", "scorer", "evaluated"),
        [
            ("ppo", True, None, ["role", "other"]),  # the role scores in place of the model, here and in evaluations
            ("ppo", False, "mine", ["mine", "other"]),
            ("dpo", True, None, ["mine", "other"]),  # asked by evaluations alone
        ],
    )
    def test_the_parts_of_a_run(
        self,
        method: str,
        is_role: bool,
        scorer: str | None,
        evaluated: list[str],
        made: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(assemble, "take_reward_role", lambda _, reward: is_role and reward is self.REWARD)
        run = read(f"method={method}", "reward=math", "seed=7", "output_root=out", "if_exists=resume")
        scorers: Any = Scorers((self.REWARD, self.OTHER), self.REWARD)  # pyright: ignore[reportArgumentType]
        execute._train(run, scorers)  # pyright: ignore[reportPrivateUsage]
        ((args, settings),) = made.trainer
        assert args == (made.policy, Path("out/all"), dataclasses.replace(run.config.trainer, seed=7))
        assert settings.pop("engine").name == "local"
        assert settings == {
            "if_exists": "resume",
            "resume_world_size": "same",
            "trackers": (),
            "wandb": run.config.wandb,
            "run_config": run.config.plain(),
            "inputs": {"inputs": 1},
        }
        ((args, settings),) = made.fit
        assert args == (run.method, "tokens", "heldout tokens", "evaluator")
        assert (settings["mix"], settings["beside"]) == ("mix", {"rival": 1})
        assert (settings["scorer"].name if settings["scorer"] else None) == scorer
        ((_, policy, heldout, tokens, used),) = made.evaluator
        assert (policy, heldout, tokens) == (made.policy, "heldout", "heldout tokens")
        names = ["role" if isinstance(one, RoleScorer) else one.name for one in used]
        assert names == evaluated
        assert used[0].name == "mine"


class TestSample:
    HELDOUT = Path("runs/all/heldout.jsonl")

    @pytest.fixture
    def drawn(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
        """Marks instead of models, and no drawing; filled with what `draw` was given."""
        given: list[tuple[Any, dict[str, Any]]] = []
        monkeypatch.setattr(assemble, "try_scorers", lambda *_: None)
        monkeypatch.setattr(assemble, "load_policy", lambda *_: "policy")
        monkeypatch.setattr(assemble, "load_source", lambda _, source: source)
        monkeypatch.setattr(assemble, "take_reward_role", lambda *_: False)
        monkeypatch.setattr(execute, "command_inputs", lambda *_: {})
        place = "align.candidates.drawing.draw"
        monkeypatch.setattr(place, lambda *args, **settings: given.append((args, settings)) or [])
        return given

    @pytest.mark.parametrize(
        ("words", "written"),
        [
            ((), True),  # split off from the training data: only this run knows which
            (("data.heldout_size=0",), False),
            (("data.heldout=held.jsonl",), False),  # the stage that trains reads it itself
            (("data.heldout=held.jsonl", "data.format=pairwise"), True),
            (("data.heldout=held.jsonl", "data.columns.prompt=question"), True),
        ],
    )
    def test_rows_that_only_these_settings_can_read_are_written_down(
        self, words: tuple[str, ...], written: bool, drawn: list[Any]
    ) -> None:
        """Candidates are read with ``data.format=auto`` and no other names, and the rows held out beside them too."""
        prompt = "question" if "data.columns.prompt=question" in words else "prompt"
        for file, numbers in (("pairs.jsonl", range(20)), ("held.jsonl", range(20, 23))):
            rows = [{prompt: f"Say {n}", "chosen": f"{n}.", "rejected": "No."} for n in numbers]
            Path(file).write_text("".join(json.dumps(row) + "\n" for row in rows))
        run = read("method=rft", "method.select=answer", "stage=sample", *words)
        execute._sample(run, Scorers((), None))  # pyright: ignore[reportPrivateUsage]
        ((args, _),) = drawn
        assert args[0] == ["policy"]
        assert args[3] == Path("runs/all/candidates.jsonl")
        assert self.HELDOUT.exists() == written
        if written:
            kept = Preferences.load(str(self.HELDOUT))
            asked = {row["prompt"][0]["content"] for row in args[1]} | {row["prompt"][0]["content"] for row in kept}
            expected = 23 if "data.heldout=held.jsonl" in words else 20
            assert asked == {f"Say {n}" for n in range(expected)}
