"""The recipes of ``configs/recipe/``: their stages and figures are those of the papers, and each runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from align.cli.launch.recipe import Recipe, assemble_job
from align.cli.main import main
from align.cli.parse.job import read_job

CONFIGS = Path(__file__).resolve().parents[4] / "configs"
MODEL = ("model=custom", "model.name=owner/name", "data=custom", "data.train=owner/pairs")
OF_INTERMEDIATE = "intermediate.data.train=owner/other"


def read(*words: str) -> Recipe:
    recipe = assemble_job(read_job([*MODEL, *words], CONFIGS))
    assert isinstance(recipe, Recipe)
    return recipe


@pytest.mark.parametrize(
    ("words", "stages"),
    [
        (["recipe=dpo"], ["sft", "dpo"]),
        (["recipe=rrhf"], ["sft", "reward", "sample", "rrhf"]),
        (["recipe=rrhf", "reward=math"], ["sft", "sample", "rrhf"]),
        (["recipe=slic"], ["sft", "reward", "sample", "slic"]),
        (["recipe=lima"], ["sft"]),
        (["recipe=stilts", OF_INTERMEDIATE], ["intermediate", "target"]),
        (["recipe=mtl", "data.train=[a/b,c/d]"], ["sft"]),
    ],
)
def test_stages(words: list[str], stages: list[str]) -> None:
    recipe = read(*words)
    assert [stage.name for stage in recipe.stages] == stages
    assert recipe.job.overrides.from_base
    assert {run.config.model.start for run in recipe.runs.values()} == {None}
    assert recipe.config.run_name.startswith(f"{words[0].removeprefix('recipe=')}-name-")


def values(of: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(of, name) for name in names}


def test_the_candidates_of_rrhf() -> None:
    """Yuan et al. 2023: four by diverse beam search with penalty 1, and the two responses of the data."""
    plan = read("recipe=rrhf").runs["rrhf"].method.candidates
    assert plan is not None
    assert values(plan, "samples", "include_data", "rounds") == {"samples": 4, "include_data": True, "rounds": 1}
    assert values(plan.sampling, "temperature", "diversity_penalty") == {"temperature": 0.0, "diversity_penalty": 1.0}


def test_the_samples_of_slic() -> None:
    """Zhao et al. 2023, sample-rank: eight samples of the fine-tuned model at temperature .7 among the 40 likeliest."""
    plan = read("recipe=slic").runs["slic"].method.candidates
    assert plan is not None
    assert values(plan, "samples", "include_data") == {"samples": 8, "include_data": False}
    assert values(plan.sampling, "temperature", "top_k") == {"temperature": 0.7, "top_k": 40}


def test_the_figures_of_lima() -> None:
    """Zhou et al. 2023, section 3."""
    config = read("recipe=lima").runs["sft"].config
    assert values(config.data, "select", "train_on") == {"select": 1000, "train_on": "all"}
    assert (config.data.heldout_size, config.evaluation.prompts) == (50, 50)
    names = ("epochs", "batch_size", "betas", "weight_decay", "schedule", "warmup", "final_learning_rate")
    assert values(config.trainer, *names, "residual_dropout") == {
        **{"epochs": 15, "batch_size": 32, "betas": (0.9, 0.95), "weight_decay": 0.1},
        **{"schedule": "linear", "warmup": 0, "final_learning_rate": 0.1, "residual_dropout": 0.3},
    }
    assert config.trainer.eval_steps is not None


def test_the_phases_of_stilts() -> None:
    """Phang et al. 2018: the same method on the intermediate and on the target task, at most three epochs of each."""
    runs = read("recipe=stilts", OF_INTERMEDIATE, "intermediate.trainer.epochs=2").runs
    assert {name: run.config.method for name, run in runs.items()} == {"intermediate": "sft", "target": "sft"}
    assert {name: run.config.data.train for name, run in runs.items()} == {
        "intermediate": "owner/other",
        "target": "owner/pairs",
    }
    assert {name: run.config.trainer.epochs for name, run in runs.items()} == {"intermediate": 2, "target": 3}


def test_the_rates_of_mtl() -> None:
    """Wei et al. 2022: examples-proportional, with a limit of 3,000."""
    data = read("recipe=mtl", "data.train=[a/b,c/d]").runs["sft"].config.data
    assert values(data, "rates", "cap", "train") == {"rates": "proportional", "cap": 3000, "train": ("a/b", "c/d")}


# Short runs

TINY = (
    *("adapter.r=2", "trainer.max_length=100", "data.max_rejected=0.1", "evaluation.prompts=0"),
    *("evaluation.max_new_tokens=4", "data.heldout_size=2", "run_name=r", "trainer.samples=0"),
)
SHORT = ("trainer.steps=1", "trainer.batch_size=4")


@pytest.fixture
def run(tiny_model: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def of(*words: str, stages: Sequence[str]) -> Path:
        short = [f"{stage}.{word}" for stage in stages for word in SHORT]
        assert main([f"model={tiny_model}", f"data={pairs}", *TINY, *short, *words], CONFIGS) == 0
        return tmp_path / "runs" / "r"

    return of


def test_dpo_runs(run: Any) -> None:
    folder = run("recipe=dpo", stages=("sft", "dpo"))
    assert sorted(path.name for path in folder.iterdir()) == ["1-sft", "2-dpo"]
    assert f"start: {Path('runs/r/1-sft/final')}" in (folder / "2-dpo" / "config.yaml").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("method", "samples"), [("rrhf", 2), ("slic", 3)])
def test_methods_that_rank_candidates_run(method: str, samples: int, run: Any) -> None:
    """The fine-tuned model draws, the reward model that was trained before ranks."""
    own = (f"{method}.method.samples={samples}", f"{method}.method.max_new_tokens=6")
    unfinished = f"{method}.method.keep_unfinished=true"
    folder = run(f"recipe={method}", *own, unfinished, stages=("sft", "reward", method))
    assert sorted(path.name for path in folder.iterdir()) == ["1-sft", "2-reward", "3-sample", f"4-{method}"]
    drawn = OmegaConf.load(folder / "3-sample" / "config.yaml")
    assert drawn.model.start == "runs/r/1-sft/final"
    assert drawn.reward.model == "runs/r/2-reward/final/reward"
    learnt = OmegaConf.load(folder / f"4-{method}" / "config.yaml")
    assert (learnt.model.start, learnt.data.train) == ("runs/r/1-sft/final", "runs/r/3-sample/candidates.jsonl")


def test_lima_runs(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Its best answers are kept, by the scorer that is named; the setting of the only stage needs no name."""
    words = ("data.select=6", "trainer.eval_steps=1", "trainer.steps=2", "trainer.batch_size=4")
    folder = run("recipe=lima", *words, "evaluation.scorer=repetition", "evaluation.prompts=2", stages=()) / "1-sft"
    assert json.loads((folder / "best" / "merit.json").read_text()).keys() == {"step", "merit"}
    trainer = OmegaConf.load(folder / "config.yaml").trainer
    assert (trainer.steps, trainer.epochs, trainer.residual_dropout) == (2, None, 0.3)
    said = capsys.readouterr().out
    assert "6 of 13 rows from 2 clusters of prompts" in said
    assert "best/ is not kept" not in said


def test_stilts_runs_with_an_optimiser_of_its_own_in_each_phase(run: Any, pairs: Path) -> None:
    folder = run("recipe=stilts", f"intermediate.data.train={pairs}", stages=("intermediate", "target"))
    assert sorted(path.name for path in folder.iterdir()) == ["1-intermediate", "2-target"]
    first, second = (OmegaConf.load(folder / name / "config.yaml") for name in ("1-intermediate", "2-target"))
    assert (first.model.start, second.model.start) == (None, "runs/r/1-intermediate/final")
    begun = [
        json.loads((folder / name / "metrics.jsonl").read_text().splitlines()[0])
        for name in ("1-intermediate", "2-target")
    ]
    assert all(record["step"] in (0, 1) for record in begun)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["recipe=stilts"], "recipe=stilts needs intermediate.data.train=…"),
        (
            ["recipe=stilts", "intermediate.data.train=/nowhere.jsonl"],
            "intermediate.data.train='/nowhere.jsonl': there is no such file or folder.",
        ),
        (["recipe=mtl"], "data.rates mixes several sources, each once: name them as data.train=[a.jsonl,b.jsonl]"),
        (["recipe=lima", "sft.trainer.epoch=3"], 'sft.trainer.epoch is not a setting. Did you mean "trainer.epochs"'),
        (["recipe=lim"], 'choose from dpo, lima, mtl, rft, rlhf, rrhf, slic, stilts. Did you mean "lima"'),
    ],
)
def test_wrong_words(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words, CONFIGS) == 2
    assert said in capsys.readouterr().err


def test_without_a_scorer_it_is_said_at_the_start_that_no_best_is_kept(
    pairs: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"model={tiny_model}", f"data={pairs}", "data.max_rejected=0.1", "trainer.max_length=100"]
    own = ["recipe=lima", "data.select=4", "data.heldout_size=2", "dry_run=true"]
    assert main([*words, *own], CONFIGS) == 0
    said = capsys.readouterr().out
    assert "no scorer chooses a best policy" in said
    assert said.index("no scorer chooses") < said.index("4 of 13 rows")
    assert main([*words, *own, "evaluation.scorer=repetition", "evaluation.prompts=0"], CONFIGS) == 0
    assert "no held-out prompt is answered" in capsys.readouterr().out
