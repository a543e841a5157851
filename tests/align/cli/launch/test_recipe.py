"""Recipes: which stages a command means, whose settings are whose, and a run of all of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from align.cli.launch.recipe import Recipe, assemble_job
from align.cli.launch.run import Run
from align.cli.main import main
from align.cli.parse.command import read_command
from align.cli.parse.job import read_job
from align.errors import UserError

pytestmark = pytest.mark.usefixtures("without_charts")

CONFIGS = Path(__file__).resolve().parents[4] / "configs"
Rows = list[dict[str, str]]


def read(words: Sequence[str]) -> Run | Recipe:
    return assemble_job(read_job(words, CONFIGS))


def test_a_method_that_needs_no_rewards_is_a_single_run() -> None:
    assert isinstance(read(["method=dpo"]), Run)
    assert isinstance(read(["method=ppo", "reward=world"]), Run)


def test_a_reward_model_comes_first_where_none_is_given() -> None:
    recipe = read(["method=ppo", "method.beta=0.1", "trainer.max_length=300", "seed=3"])
    assert isinstance(recipe, Recipe)
    assert [stage.name for stage in recipe.stages] == ["reward", "ppo"]
    assert recipe.job.overrides.own == {"ppo": ["method.beta=0.1"]}
    assert recipe.job.overrides.shared == ["trainer.max_length=300", "seed=3"]
    config = recipe.config
    assert (config.method, config.settings["beta"], config.trainer.max_length) == ("ppo", 0.1, 300)
    assert config.run_name == "ppo-world-world-seed3"


def test_settings_of_one_stage_carry_its_name() -> None:
    recipe = read(["recipe=rlhf", "sft.trainer.epochs=2", "reward.method.centring=0.01", "seed=1"])
    assert isinstance(recipe, Recipe)
    assert [stage.name for stage in recipe.stages] == ["sft", "reward", "ppo"]
    assert recipe.job.overrides.own == {"sft": ["trainer.epochs=2"], "reward": ["method.centring=0.01"]}
    assert recipe.config.run_name == "rlhf-world-world-seed1"


@pytest.mark.parametrize(
    "word",
    [
        *("trainer.max_length=99", "trainer.precision=bfloat16", "trainer.tokens_per_microbatch=9"),
        *("trainer.gradient_checkpointing=true", "trainer.save_steps=9", "trainer.samples=9", "seed=9"),
        *("model.dtype=bfloat16", "adapter.r=9", "data.split=test", "evaluation.prompts=9", "trackers=[wandb]"),
    ],
)
def test_what_does_not_depend_on_the_method_is_for_all_stages(word: str) -> None:
    recipe = read(["recipe=rlhf", word])
    assert isinstance(recipe, Recipe)
    assert (recipe.job.overrides.shared, recipe.job.overrides.own) == ([word], {})
    key, _, value = word.partition("=")
    for run in recipe.runs.values():
        found: object = run.config
        for name in key.split("."):
            found = getattr(found, name)
        shown = f"[{', '.join(found)}]" if isinstance(found, tuple) else str(found).lower()
        assert shown == value


@pytest.mark.parametrize(
    "word",
    ["trainer.steps=3", "trainer.learning_rate=0.5", "trainer.eval_steps=3", "trainer.batch_size=3", "method.beta=3"],
)
def test_other_settings_are_those_of_the_method_that_was_named(word: str) -> None:
    """Not of the reward model that is trained first; of a recipe it must be said."""
    recipe = read(["method=ppo", word])
    assert isinstance(recipe, Recipe)
    assert (recipe.job.overrides.shared, recipe.job.overrides.own) == ([], {"ppo": [word]})
    with pytest.raises(UserError, match="say of which stage it is: sft"):
        read(["recipe=rlhf", word])


def test_stages_begin_from_the_base_where_the_recipe_says_so() -> None:
    for name in ("rlhf", "rft"):
        recipe = read([f"recipe={name}"])
        assert isinstance(recipe, Recipe)
        assert {run.config.model.start for run in recipe.runs.values()} == {None}
    recipe = read(["method=ppo"])  # the embedded model has an adapter to begin from
    assert isinstance(recipe, Recipe)
    assert {run.config.model.start for run in recipe.runs.values()} == {"world/sft"}


@pytest.mark.parametrize("first", ["method=rrhf", "recipe=rft"])
def test_settings_of_a_scorer_of_ones_own_are_of_all_stages(first: str, tmp_path: Path) -> None:
    file = tmp_path / "mixture.yaml"
    file.write_text("{scorer: weighted_sum, scorers: {brevity: {scorer: length}}, weights: {brevity: 1.0}}")
    words = [first, f"reward={file}", "reward.weights.brevity=0.5", *["method.samples=2"] * (first == "method=rrhf")]
    recipe = read(read_command(words, CONFIGS).overrides)
    assert isinstance(recipe, Recipe)
    rewards = [run.config.reward for run in recipe.runs.values()]
    assert [reward and reward["weights"] for reward in rewards] == [{"brevity": 0.5}] * len(rewards)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recipe=rlhf", "method=dpo"], "recipe=rlhf chooses the methods itself; leave method=dpo out"),
        (["recipe=rlhf", "method.beta=1"], r"method\.beta: say of which stage it is: sft\.method\.beta=1, reward\."),
        (["recipe=rlhf", "trainer.steps=1"], r"trainer\.steps: say of which stage"),
    ],
)
def test_what_is_not_clear_is_asked(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(words)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("ppo.method.bta=1", r'method\.bta is not a setting of method=ppo\. Did you mean "method\.beta"'),
        ("ppo.method.advantage=rlo", r"method\.advantage must be gae, rloo or group, not .rlo."),
    ],
)
def test_a_wrong_setting_of_a_later_stage_is_answered_before_the_first_runs(word: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(["recipe=rlhf", word])


def test_all_stages_run_and_finished_ones_are_not_run_again(
    tiny_model: Path, pair_rows: Rows, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in pair_rows))
    words = [
        f"model={tiny_model}",
        f"data={pairs}",
        f"output_root={tmp_path / 'runs'}",
        "run_name=all",
        "recipe=rlhf",
        "adapter.r=4",
        "trainer.max_length=128",
        "data.max_rejected=0.9",
        "evaluation.prompts=0",
        *(
            f"{stage}.trainer.{setting}"
            for stage in ("sft", "reward", "ppo")
            for setting in ("steps=2", "batch_size=8")
        ),
        "ppo.method.max_new_tokens=8",
        "ppo.method.epochs=1",
    ]
    assert main(words, CONFIGS) == 0
    folder = tmp_path / "runs" / "all"
    assert sorted(path.name for path in folder.iterdir()) == ["1-sft", "2-reward", "3-ppo"]
    config = (folder / "3-ppo" / "config.yaml").read_text()
    assert f"start: {folder}/1-sft/final" in config
    assert f"model: {folder}/2-reward/final/reward" in config
    trained, used = (
        load_file(folder / stage / "final" / "reward" / "adapter_model.safetensors") for stage in ("2-reward", "3-ppo")
    )
    assert trained.keys() == used.keys()
    assert all(torch.equal(trained[name], used[name]) for name in trained)
    capsys.readouterr()
    (folder / "3-ppo" / "evaluation.json").unlink(missing_ok=True)
    assert main([*words, "if_exists=resume"], CONFIGS) == 0
    assert capsys.readouterr().out.count("This run is finished") == 3


def test_overwriting_deletes_all_stages_of_an_earlier_recipe_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a longer recipe leaves its last stages, and one stopped half-way finds those of another when it goes on."""
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/all")
    for name in ("1-sft", "3-ppo"):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.yaml").touch()
    (folder / "2024-notes").mkdir()
    (folder / "figure.png").touch()
    recipe = read(["recipe=rlhf", "model=world", "data=world", "run_name=all", "if_exists=overwrite"])
    assert isinstance(recipe, Recipe)
    begun: list[str] = []

    def execute(run: Run) -> int:
        begun.append(run.config.run_name)
        assert sorted(path.name for path in folder.iterdir()) == ["2024-notes", "figure.png"]
        return 1

    assert recipe.execute(execute) == 1
    assert begun == ["1-sft"]


def test_stages_are_not_put_beside_a_single_run(tmp_path: Path) -> None:
    run = tmp_path / "all"
    run.mkdir()
    (run / "config.yaml").write_text("method: dpo\n")
    recipe = read(
        ["recipe=rlhf", "model=world", "data=world", "run_name=all", "if_exists=resume", f"output_root={tmp_path}"]
    )
    assert isinstance(recipe, Recipe)
    with pytest.raises(UserError, match=r"all holds a single run, and this command has several stages"):
        recipe.execute(lambda _: 0)
    assert [path.name for path in run.iterdir()] == ["config.yaml"]


def test_a_recipe_must_say_what_its_stages_begin_from(tmp_path: Path) -> None:
    shutil.copytree(CONFIGS, tmp_path / "configs")
    (tmp_path / "configs" / "recipe" / "mine.yaml").write_text("# Mine\nstages: [sft, dpo]\n")
    with pytest.raises(UserError, match="recipe=mine: add `from_base: true`"):
        read_job(["recipe=mine"], tmp_path / "configs")
    (tmp_path / "configs" / "recipe" / "mine.yaml").write_text("# Mine\nstages: [sft, dpo]\nfrom_base: false\n")
    job = read_job(["recipe=mine", "dpo.method.beta=0.7"], tmp_path / "configs")
    assert (job.name, job.is_recipe, job.overrides.from_base) == ("mine", True, False)
    assert [run.method for run in job.runs] == ["sft", "dpo"]
    assert job.runs[1].settings["beta"] == 0.7
    assert {run.model.start for run in job.runs} == {"world/sft"}


@pytest.mark.parametrize("words", [["method=rft"], ["method=slic", "method.samples=2"], ["recipe=rft"]])
@pytest.mark.parametrize(
    "row",
    [
        {"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4]},
        {"input_ids": [1, 2, 3], "labels": [-100, -100, 3]},
        {"prompt": [{"role": "tokens", "content": "1 2"}], "chosen": [{"role": "tokens", "content": "3"}]},
    ],
)
def test_token_ids_are_refused_before_the_first_stage(words: list[str], row: dict[str, object], tmp_path: Path) -> None:
    """Candidates are text; no reward model is trained before that is said."""
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join([json.dumps(row)] * 3))
    recipe = read([*words, f"data.train={file}", f"output_root={tmp_path / 'runs'}"])
    assert isinstance(recipe, Recipe)
    with pytest.raises(UserError, match=r"rows\.jsonl: the prompts are token ids, and method=.* needs text; decode"):
        recipe.execute(lambda _: pytest.fail("a stage was run"))
    assert not (tmp_path / "runs").exists()
