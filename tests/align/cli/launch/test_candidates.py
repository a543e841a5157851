"""Methods that learn from candidates, as commands: which stages they become, and what each leaves."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from align.cli.launch.recipe import Recipe, Stage, assemble_job
from align.cli.launch.run import Run
from align.cli.main import main
from align.cli.parse.job import read_job
from align.errors import UserError
from align.settings.config import RunConfig

pytestmark = pytest.mark.usefixtures("without_charts")

CONFIGS = Path(__file__).resolve().parents[4] / "configs"
REWARD, SCORED = Stage("reward"), "reward=world"


def read(words: Sequence[str]) -> Run | Recipe:
    return assemble_job(read_job(words, CONFIGS))


def stages(*words: str) -> tuple[Stage, ...] | None:
    """The stages of a recipe; None where the words mean a single run."""
    job = read(words)
    return job.stages if isinstance(job, Recipe) else None


def parts(method: str, *, from_base: bool = False, round: int = 1) -> tuple[Stage, Stage]:
    return Stage(method, "sample", round=round), Stage(method, "train", from_base, round)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["method=rrhf"], None),
        (["method=rrhf", "method.samples=4"], (REWARD, *parts("rrhf"))),
        (["method=rrhf", "method.samples=4", SCORED], parts("rrhf")),
        (["method=rrhf", "method.samples=4", "method.rounds=2", SCORED], (*parts("rrhf"), *parts("rrhf", round=2))),
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
    with pytest.raises(UserError, match=r"method\.rounds=2 has no effect with stage=train"):
        stages("method=slic", "method.samples=8", "method.rounds=2", SCORED, "stage=train")
    with pytest.raises(UserError, match=r"sft\.method\.samples=4, rft\.method\.samples=4"):
        stages("recipe=rft", "method.samples=4")


def runs(recipe: Run | Recipe, folder: Path) -> list[RunConfig]:
    """The configurations that the stages get, when each leaves what it should."""
    assert isinstance(recipe, Recipe)
    done: list[RunConfig] = []

    def execute(run: Run) -> int:
        config = run.config
        place = Path(config.output_root) / config.run_name
        for name in ("candidates.jsonl", "heldout.jsonl"):
            if config.stage == "sample":
                place.mkdir(exist_ok=True)
                (place / name).touch()
        done.append(config)
        return 0

    assert recipe.execute(execute) == 0
    assert {config.output_root for config in done} == {str(folder)}
    return done


def test_each_round_draws_for_the_data_from_what_the_one_before_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["method=rrhf", "method.samples=2", "method.rounds=2", "run_name=it", "trainer.steps=3"]
    reward, first, one, second, two = runs(read(words), Path("runs/it"))
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
    _, _, sample, train = runs(read(["recipe=rft", "run_name=r"]), Path("runs/r"))
    assert sample.model.start == "runs/r/1-sft/final"
    assert train.model.start is None
    _, sample, train = runs(read(["method=rft", "run_name=s"]), Path("runs/s"))
    assert sample.model.start == "world/sft"
    assert train.model.start is None
    assert train.model.name == "world/base"
    full = ["adapter=none", "model.start=null", "recipe=rft", "run_name=f"]
    _, _, sample, train = runs(read(full), Path("runs/f"))
    assert sample.model.name == "runs/f/1-sft/final"
    assert train.model.name == "world/base"


@pytest.fixture
def words(drawing_words: list[str], tmp_path: Path) -> list[str]:
    (tmp_path / "rewards.py").write_text(
        "from pathlib import Path\n\n"
        "def short(prompts, responses, **columns):\n"
        "    if Path('down').exists() and len(prompts) > 1:  # not when it is tried\n"
        "        from align.errors import ScorerError\n"
        "        raise ScorerError('the scorer is down; start it.')\n"
        "    return [[-float(len(text)) for text in row] for row in responses]\n"
    )
    return drawing_words


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
    assert evaluation["win_rates_beside"] == []  # it begins from the model that drew
    assert (train / "final").exists()
    assert (sample / "config.yaml").exists()


def test_rft_names_the_models_it_is_compared_with(
    words: list[str], tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training begins from the base again: the fine-tuned model that drew the candidates stands beside it."""
    plain = [word for word in words if not word.startswith(("method.", "reward"))]
    assert main(["method=sft", *plain, "run_name=sft", "evaluation.prompts=0"], CONFIGS) == 0
    capsys.readouterr()
    assert main(["method=rft", "method.samples=2", "model.start=runs/sft/final", *words], CONFIGS) == 0
    evaluation = json.loads(Path("runs/run/2-rft/evaluation.json").read_text())
    assert evaluation["win_rate"]["over"] == tiny_model.name
    (beside,) = evaluation["win_rates_beside"]
    assert beside["over"] == f"{tiny_model.name} with runs/sft/final"
    assert beside["n"] == 2
    said = " ".join(capsys.readouterr().out.split())
    card = " ".join(Path("runs/run/2-rft/final/README.md").read_text().split())
    for text in (said, card):
        assert f"Win rate of the trained model over the start model ({tiny_model.name}), by short: " in text
        assert "over the model that drew the candidates (" in text


def test_only_drawing_then_only_training(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    slic = ["method=slic", "method.samples=3", *words]
    assert main([*slic, "stage=sample"], CONFIGS) == 0
    file = Path("runs/run/candidates.jsonl")
    assert f"{len(file.read_text().splitlines())} rows: {file}" in capsys.readouterr().out
    assert [path.name for path in Path("runs").iterdir()] == ["run"]
    words = [word for word in slic if not word.startswith(("data=", "run_name="))]
    assert main([*words, f"data={file}", "stage=train", "run_name=train"], CONFIGS) == 0
    assert "is learnt from as it was drawn" not in capsys.readouterr().out
    assert (Path("runs/train/final")).exists()
    evaluation = json.loads(Path("runs/train/evaluation.json").read_text())
    assert evaluation["candidates"]["rows"] == len(file.read_text().splitlines())
    other = ["method=dpo", "method.samples=5", *words[2:], f"data={file}", "stage=train", "dry_run=true"]
    assert main([*other, "method.pick=all"], CONFIGS) == 0
    said = capsys.readouterr().out
    assert f"Note: {file} is learnt from as it was drawn: samples is 3 there and 5 here; " in said
    assert "; select.name is Ranking there and AllPairs here.\n" in said


@pytest.fixture
def sources(tiny_model: Path, tmp_path: Path) -> list[Path]:
    """An adapter of another rank on the same base, and another model with the same tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from align.model.policy import Policy
    from align.settings.adapter import Adapter

    policy = Policy.load(tiny_model, adapter=Adapter(r=3))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in policy.roles.parameters("policy").items():
            if "lora_B" in name:
                parameter.normal_()
    policy.roles.save("policy", tmp_path / "adapter")
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny_model)).save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "model")
    return [tmp_path / "adapter", tmp_path / "model"]


def listed(*sources: Path) -> str:
    return "method.sources=[" + ",".join(f"'{source}'" for source in sources) + "]"


def test_sources_draw_besides_the_policy(
    words: list[str], tiny_model: Path, pairs: Path, sources: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The command draws the same as `draw` does with the same models loaded by hand."""
    from align.candidates.drawing import draw
    from align.data import Preferences
    from align.model.policy import Policy
    from align.scoring.from_config import make_scorer
    from methods.rrhf import RRHF

    command = ["method=rrhf", "method.samples=2", "method.include_data=false", "stage=sample", *words]
    assert main([*command, listed(*sources)], CONFIGS) == 0
    assert "72 responses to 12 prompts" in capsys.readouterr().out  # 12 prompts, 3 models, 2 samples of each
    pool = [Policy.load(tiny_model), Policy.load(tiny_model, start=sources[0]), Policy.load(sources[1], adapter=None)]
    train, _ = Preferences.load(pairs, max_rejected=0.1).train_test_split(3, 0)
    method = RRHF(samples=2, include_data=False, max_new_tokens=6, keep_unfinished=True)
    scorer = make_scorer({"scorer": "function", "function": "rewards.py:short"})
    texts: list[set[str]] = []
    for number in (1, 2, 3):
        file = Path(f"by-hand-{number}.jsonl")
        assert method.candidates is not None
        rows = draw(pool[:number], train, method.candidates, file, scorer=scorer, max_length=64)
        texts.append({row[side][0]["content"] for row in rows for side in ("chosen", "rejected")})
    assert Path("runs/run/candidates.jsonl").read_bytes() == Path("by-hand-3.jsonl").read_bytes()
    assert texts[0] < texts[1] < texts[2]

    assert main([*command, listed(*sources), "if_exists=resume"], CONFIGS) == 0
    capsys.readouterr()
    for others in (sources[::-1], sources[:1], [sources[0], tiny_model]):
        assert main([*command, listed(*others), "if_exists=resume"], CONFIGS) == 2
        assert "run cannot be resumed: method.sources is not the same. Give" in capsys.readouterr().err


def test_a_source_may_be_a_name_on_the_hub(
    words: list[str],
    sources: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The local copy of the hub, as it is laid out there, stands for it."""
    copy = tmp_path / "hub" / "models--someone--writer"
    shutil.copytree(sources[1], copy / "snapshots" / "a1")
    (copy / "refs").mkdir()
    (copy / "refs" / "main").write_text("a1", encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    command = ["method=rrhf", "method.samples=2", "stage=sample", *words]
    assert main([*command, "method.sources=[someone/writer]"], CONFIGS) == 0
    named = Path("runs/run/candidates.jsonl").read_bytes()
    assert main([*command, listed(sources[1]), "run_name=folder"], CONFIGS) == 0
    assert named == Path("runs/folder/candidates.jsonl").read_bytes()
    assert main([*command, "method.sources=[someone/else]", "run_name=else"], CONFIGS) == 2
    assert "method.sources=someone/else: there is no such folder, nor could it be had from the hub" in (
        capsys.readouterr().err
    )


def test_sources_that_cannot_draw_are_answered_before_anything_is_drawn(
    words: list[str], sources: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoTokenizer

    def answer(source: str, words: list[str], *stage: str) -> str:
        words = ["method=rrhf", "method.samples=2", *words, f"method.sources=['{source}']"]
        assert main([*words, *stage], CONFIGS) == 2
        assert not list(Path().rglob("candidates.json*"))
        return capsys.readouterr().err

    absent = "method.sources=runs/absent/final: there is no such folder, nor could it be had from the hub"
    assert absent in answer("runs/absent/final", words)
    # The reward model, which would be trained first, is not.
    assert absent in answer("runs/absent/final", [word for word in words if not word.startswith("reward")])
    assert not Path("runs").exists()
    assert "method.sources=./absent: there is no such folder" in answer("./absent", words, "stage=sample")
    full = ["adapter=none", *(word for word in words if not word.startswith("adapter."))]
    assert re.search(
        r"method.sources=.*adapter cannot be loaded: .* but adapter=none", answer(str(sources[0]), full, "stage=sample")
    )
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    assert re.search(
        r"method.sources=.*adapter cannot be loaded: .*no adapter", answer(str(sources[0]), words, "stage=sample")
    )
    tokenizer = AutoTokenizer.from_pretrained(sources[1])
    tokenizer.chat_template = tokenizer.chat_template.replace(": ", "> ")
    tokenizer.save_pretrained(sources[1])
    assert re.search(
        r"the tokenizer or chat template of .*model is not that of .*tiny",
        answer(str(sources[1]), words, "stage=sample"),
    )


def test_diverse_beams_are_drawn_by_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["method=rrhf", "method.samples=4", "method.diversity_penalty=100", "method.include_data=false", *words]
    assert main([*words, "stage=sample"], CONFIGS) == 2
    answer = "method.diversity_penalty=100 applies only to diverse beam search, which is not random: set temperature=0"
    assert answer in capsys.readouterr().err
    assert main([*words, "stage=sample", "method.temperature=0"], CONFIGS) == 0
    assert re.search(
        r"48 responses to 12 prompts .* 4[0-8] distinct", capsys.readouterr().out
    )  # large, so that all four differ


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
    assert "1-sample cannot be resumed: trainer.seed is 0 in the run and 1 now. Give" in capsys.readouterr().err


def test_a_method_without_candidates_cannot_draw(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in words if not word.startswith("method.")]
    assert main(["method=slic", "stage=sample", *words], CONFIGS) == 2
    assert "stage=sample: method=slic draws no candidates as it is set" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_prompts_alone_can_be_answered_and_learned_from(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Held-out prompts get no candidates, so the method has no metrics on them; they are answered, none is rejected."""
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": f"Say {n}"}) + "\n" for n in range(15)))
    words = ["data=prompts.jsonl" if word.startswith("data=") else word for word in words]
    for method in ("rrhf", "dpo", "kto", "simpo"):
        ordered = [f"method={method}", "method.samples=3", *words, f"run_name={method}"]
        assert main([*ordered, "dry_run=true"], CONFIGS) == 0
        assert "12 prompts, 3 candidates for each" in capsys.readouterr().out
        assert main(ordered, CONFIGS) == 0
        assert "3 rejected" not in capsys.readouterr().out
        evaluation = json.loads(Path(f"runs/{method}/2-{method}/evaluation.json").read_text())
        assert evaluation["win_rate"]["by"] == "short"


def test_columns_under_other_names_hold_for_both_stages(words: list[str]) -> None:
    rows = [{"problem": f"Say {n}", "good": f"{n}.", "bad": "no"} for n in range(15)]
    Path("renamed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["data=renamed.jsonl" if word.startswith("data=") else word for word in words]
    names = ["data.columns.prompt=problem", "data.columns.chosen=good", "data.columns.rejected=bad"]
    assert main(["method=rrhf", "method.samples=2", *words, *names], CONFIGS) == 0
    assert Path("runs/run/2-rrhf/final").exists()


def test_candidates_are_not_continued_with_another_reward(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The function has the same name; its settings are others."""
    words = ["method=slic", "method.samples=2", "stage=sample", *words]
    assert main(words, CONFIGS) == 0
    before = Path("runs/run/candidates.jsonl").read_bytes()
    Path("other.py").write_text(Path("rewards.py").read_text().replace("-float", "float"))
    words = ["reward.function=other.py:short" if word.startswith("reward.function=") else word for word in words]
    assert main([*words, "if_exists=resume"], CONFIGS) != 0
    assert "reward" in capsys.readouterr().err
    assert Path("runs/run/candidates.jsonl").read_bytes() == before


def test_the_number_of_rows_is_that_of_the_data_and_not_of_the_candidates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["method=rrhf", "method.samples=2", SCORED, "run_name=n", "data.expected_rows=9", "data.format=pairwise"]
    sample, train = runs(read(words), Path("runs/n"))
    assert (sample.data.expected_rows, sample.data.format) == (9, "pairwise")
    assert (train.data.expected_rows, train.data.format) == (None, "auto")
