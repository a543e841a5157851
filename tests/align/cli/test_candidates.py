"""Methods that learn from candidates, as commands: which stages they become, and what each leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from align.cli.main import main
from align.cli.recipe import Recipe, Stage, read_recipe
from align.config import RunConfig
from align.errors import UserError

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
REWARD, SCORED = Stage("reward"), "reward=world"


def stages(*words: str) -> tuple[Stage, ...] | None:
    recipe = read_recipe(words, CONFIGS)
    return recipe.stages if recipe is not None else None


def parts(method: str, *, from_base: bool = False) -> tuple[Stage, Stage]:
    return Stage(method, "sample"), Stage(method, "train", from_base)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["method=rrhf"], None),
        (["method=rrhf", "method.samples=4"], (REWARD, *parts("rrhf"))),
        (["method=rrhf", "method.samples=4", SCORED], parts("rrhf")),
        (["method=rrhf", "method.samples=4", "method.rounds=2", SCORED], parts("rrhf") * 2),
        (["method=slic", "method.samples=8", SCORED], parts("slic")),
        (["method=slic", "method.samples=8", SCORED, "stage=sample"], None),
        (["method=slic", "method.samples=8", "stage=sample"], (REWARD, Stage("slic", "sample"))),
        (["method=slic", "method.samples=8", "stage=train"], None),
        (["method=rft"], (REWARD, *parts("rft", from_base=True))),
        (["method=rft", "method.select=answer"], parts("rft", from_base=True)),
        (["recipe=rft"], (Stage("sft"), REWARD, *parts("rft", from_base=True))),
        (["recipe=rft", "rft.method.select=answer"], (Stage("sft"), *parts("rft", from_base=True))),
        (["recipe=rlhf"], (Stage("sft"), REWARD, Stage("ppo"))),
        (["method=ppo"], (REWARD, Stage("ppo"))),
        (["method=dpo"], None),
    ],
)
def test_stages(words: list[str], expected: tuple[Stage, ...] | None) -> None:
    assert stages(*words) == expected


def test_a_recipe_chooses_its_stages() -> None:
    with pytest.raises(UserError, match="leave stage=sample out"):
        stages("recipe=rft", "stage=sample")
    with pytest.raises(UserError, match=r"sft\.method\.samples=4, rft\.method\.samples=4"):
        stages("recipe=rft", "method.samples=4")


def runs(recipe: Recipe | None, folder: Path) -> list[RunConfig]:
    """The configurations that the stages get, when each leaves what it should."""
    assert recipe is not None
    done: list[RunConfig] = []

    def execute(config: RunConfig) -> int:
        place = Path(config.output_root) / config.run_name
        for name in ("candidates.jsonl", "heldout.jsonl"):
            if config.stage == "sample":
                place.mkdir(exist_ok=True)
                (place / name).touch()
        done.append(config)
        return 0

    assert recipe.run(execute) == 0
    assert {config.output_root for config in done} == {str(folder)}
    return done


def test_each_round_draws_for_the_data_from_what_the_one_before_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["method=rrhf", "method.samples=2", "method.rounds=2", "run_name=it", "trainer.steps=3"]
    reward, first, one, second, two = runs(read_recipe(words, CONFIGS), Path("runs/it"))
    assert reward.trainer.steps is None
    assert [c.run_name for c in (reward, first, one, second, two)] == [
        *("1-reward", "2-sample", "3-rrhf", "4-sample", "5-rrhf")
    ]
    assert first.reward == {"scorer": "reward_model", **(first.reward or {}), "model": "runs/it/1-reward/final/reward"}
    assert (first.stage, first.model.start, first.data.train) == ("sample", "world/sft", "world")
    assert (one.stage, one.model.start) == ("train", "world/sft")
    assert (one.data.train, one.data.heldout) == (
        "runs/it/2-sample/candidates.jsonl",
        "runs/it/2-sample/heldout.jsonl",
    )
    assert (second.model.start, second.data.train) == ("runs/it/3-rrhf/final", "world")
    assert (two.model.start, two.data.train) == ("runs/it/3-rrhf/final", "runs/it/4-sample/candidates.jsonl")


def test_rft_trains_the_base_and_draws_from_what_was_fine_tuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, _, sample, train = runs(read_recipe(["recipe=rft", "run_name=r"], CONFIGS), Path("runs/r"))
    assert sample.model.start == "runs/r/1-sft/final"
    assert train.model.start is None
    _, sample, train = runs(read_recipe(["method=rft", "run_name=s"], CONFIGS), Path("runs/s"))
    assert sample.model.start == "world/sft"
    assert train.model.start is None
    assert train.model.name == "world/base"
    full = ["adapter=none", "model.start=null", "recipe=rft", "run_name=f"]
    _, _, sample, train = runs(read_recipe(full, CONFIGS), Path("runs/f"))
    assert sample.model.name == "runs/f/1-sft/final"
    assert train.model.name == "world/base"


@pytest.fixture
def words(tiny_model: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rewards.py").write_text(
        "from pathlib import Path\n\n"
        "def short(prompts, responses, **columns):\n"
        "    if Path('down').exists():\n"
        "        from align.errors import ScorerError\n"
        "        raise ScorerError('the scorer is down; start it.')\n"
        "    return [[-float(len(text)) for text in row] for row in responses]\n"
    )
    return [
        f"model={tiny_model}",
        f"data={pairs}",
        "data.max_rejected=0.1",
        "data.heldout_size=3",
        "reward=function",
        "reward.function=rewards.py:short",
        "method.max_new_tokens=6",
        "method.keep_unfinished=true",
        "adapter.r=2",
        "trainer.max_length=64",
        "trainer.steps=2",
        "trainer.batch_size=4",
        "evaluation.prompts=2",
        "evaluation.max_new_tokens=4",
        "run_name=run",
    ]


def test_drawing_and_training(words: list[str]) -> None:
    assert main(["method=rrhf", "method.samples=2", *words], CONFIGS) == 0
    sample, train = Path("runs/run/1-sample"), Path("runs/run/2-rrhf")
    rows = [json.loads(line) for line in (sample / "candidates.jsonl").read_text().splitlines()]
    assert {row["prompt"] for row in rows} <= {f"Say {n}" for n in range(15)}
    assert all(row["chosen_score"] == -len(row["chosen"]) > row["rejected_score"] for row in rows)
    heldout = {json.loads(line)["prompt"] for line in (sample / "heldout.jsonl").read_text().splitlines()}
    assert len(heldout) == 3
    assert not heldout & {row["prompt"] for row in rows}
    evaluation = json.loads((train / "evaluation.json").read_text())
    assert evaluation["candidates"]["prompts"] == 12
    assert evaluation["win_rate"]["by"] == "short"
    assert (train / "final").exists()
    assert (sample / "config.yaml").exists()


def test_only_drawing_then_only_training(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    slic = ["method=slic", "method.samples=3", *words]
    assert main([*slic, "stage=sample"], CONFIGS) == 0
    file = Path("runs/run/candidates.jsonl")
    assert f"{len(file.read_text().splitlines())} rows: {file}" in capsys.readouterr().out
    assert [path.name for path in Path("runs").iterdir()] == ["run"]
    words = [word for word in slic if not word.startswith(("data=", "run_name="))]
    assert main([*words, f"data={file}", "stage=train", "run_name=train"], CONFIGS) == 0
    assert (Path("runs/train/final")).exists()


def test_a_scorer_that_fails_is_answered_and_the_run_goes_on(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("down").touch()
    command = ["method=rft", "method.samples=2", *words]
    assert main(command, CONFIGS) == 1
    assert "the scorer is down; start it. 0 of 12 prompts are in" in capsys.readouterr().err
    Path("down").unlink()
    assert main([*command, "if_exists=resume"], CONFIGS) == 0
    assert sorted(path.name for path in Path("runs/run").iterdir()) == ["1-sample", "2-rft"]
    assert main([*command, "if_exists=resume", "seed=1"], CONFIGS) == 2
    assert "candidates.jsonl was made with other settings" in capsys.readouterr().err


def test_a_method_without_candidates_cannot_draw(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in words if not word.startswith("method.")]
    assert main(["method=slic", "stage=sample", *words], CONFIGS) == 2
    assert "stage=sample: method=slic draws no candidates as it is set" in capsys.readouterr().err
    assert not Path("runs").exists()
