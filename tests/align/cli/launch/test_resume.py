"""``if_exists=resume`` by command: refused by name, or answered as finished, before data and model are loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from align.cli.launch import assemble
from align.cli.main import main

pytestmark = pytest.mark.usefixtures("without_charts")

CONFIGS = Path(__file__).resolve().parents[4] / "configs"
REWARD = """
def good(prompts, responses, **columns):
    return [[float(len(t)) for t in row] for row in responses]
def other(prompts, responses, **columns):
    return good(prompts, responses)
"""


@pytest.fixture
def words(tiny_model: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model, "model")
    shutil.copy(pairs, "pairs.jsonl")
    Path("demonstrations.jsonl").write_text("".join(pairs.read_text().splitlines(keepends=True)[1:]))
    Path("rewards.py").write_text(REWARD)
    return [
        *("model=./model", "data=pairs.jsonl", "data.max_rejected=0.1", "adapter.r=2", "trainer.max_length=64"),
        *("trainer.steps=2", "trainer.batch_size=4", "trainer.save_steps=1", "evaluation.prompts=0", "run_name=run"),
    ]


def resumed(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    code = main([*words, "if_exists=resume"], CONFIGS)
    output = capsys.readouterr()
    return code, output.out + output.err


def cut(folder: Path) -> None:
    """Make of a finished run one that was killed after its first step."""
    shutil.rmtree(folder / "final")
    shutil.rmtree(folder / "checkpoints" / "step-00000002")


CHANGES = [
    ("adapter.dropout=0.2", "adapter.dropout is 0.0 in the run and 0.2 now"),
    ("adapter.alpha=9", "adapter.alpha is 4 in the run and 9 now"),
    ("adapter.rslora=true", "adapter.rslora is false in the run and true now"),
    ("adapter.dora=true", "adapter.dora is false in the run and true now"),
    ("adapter.targets=[q_proj]", 'adapter.targets is all-linear in the run and ["q_proj"] now'),
    ("model.dtype=bfloat16", "model.dtype is float32 in the run and bfloat16 now"),
    ("model.chat_template=chatml", "model.chat_template is not set in the run and chatml now"),
    ("trainer.precision=bfloat16", "trainer.precision is float32 in the run and bfloat16 now"),
    ("trainer.learning_rate=0.5", "trainer.learning_rate is"),
    ("trainer.steps=3", "trainer.steps is 2 in the run and 3 now"),
    ("seed=1", "trainer.seed is 0 in the run and 1 now"),
    ("data.heldout_size=2", "data.heldout_size is 0.05 in the run and 2 now"),
    ("data.split=test", "data.split is train in the run and test now"),
    ("data.format=pairwise", "data.format is auto in the run and pairwise now"),
    ("data.columns.answer=source", "data.columns.answer is not set in the run and source now"),
    ("data.subset=main", "data.subset is not set in the run and main now"),
    ("data.revision=v1", "data.revision is not set in the run and v1 now"),
    ("data.too_long=error", "data.too_long is drop in the run and error now"),
    ("data.pairs=adjacent", "data.pairs is all in the run and adjacent now"),
    ("data.train_on=all", "data.train_on is last in the run and all now"),
    (
        "+model.chat_template_kwargs.day=1",
        "model.chat_template_kwargs.day is not set in the run and 1 now",
    ),
    ("data=custom data.train=[pairs.jsonl,demonstrations.jsonl]", "data.train is not the same"),
]
ONLINE = [
    ("reward.function=rewards.py:other", "reward.function is not the same"),
    ("reward=math", "reward.scorer is FunctionScorer in the run and Math now"),
    ("method.beta=0.5", "method.beta is 0.05 in the run and 0.5 now"),
    ("data.mix=pairs.jsonl", "data.mix is not the same"),
]
FILES = [
    ("pairs.jsonl", "data.train is not the same"),
    ("model/tokenizer_config.json", "model.name is not the same"),
    ("demonstrations.jsonl", "data.mix is not the same"),
    ("rewards.py", "reward.function is not the same"),
]
PPO = [
    *("method=ppo", "method.max_new_tokens=4", "method.epochs=1", "method.ptx_coef=1", "data.mix=demonstrations.jsonl"),
    *("reward=function", "reward.function=rewards.py:good"),
]


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "killed"])
def test_a_change_is_refused_by_name_before_anything_is_loaded(
    finished: bool, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*PPO, *words]
    assert main(words, CONFIGS) == 0
    if not finished:
        cut(Path("runs/run"))
    with monkeypatch.context() as patch:
        for loader in ("load_data", "load_policy", "read_tokenizer"):
            patch.setattr(assemble, loader, None)
        for change, expected in (*CHANGES, *ONLINE):
            replaced = {word.partition("=")[0] for word in change.split()}
            kept = [word for word in words if word.partition("=")[0] not in replaced]
            if "reward" in replaced:
                kept = [word for word in kept if not word.startswith("reward.")]
            code, said = resumed([*kept, *change.split()], capsys)
            assert code == 2, change
            assert f"Error: runs/run cannot be resumed: {expected}" in said, change
            assert said.count(" now.") + said.count("not the same.") == 1, said  # named once
            assert "sha256" not in said
        for file, expected in FILES:
            before = Path(file).read_bytes()
            Path(file).write_bytes(before + b"\n")
            code, said = resumed(words, capsys)
            Path(file).write_bytes(before)
            assert (code, expected in said) == (2, True), file
        if finished:
            free = ["trainer.keep_checkpoints=5", "trainer.log_steps=2", "trainer.samples=0", "trainer.eval_steps=null"]
            moved = [word.replace("data=pairs.jsonl", "data=moved.jsonl") for word in words]
            shutil.copy("pairs.jsonl", "moved.jsonl")
            assert resumed([*moved, *free], capsys) == (0, "This run is finished: runs/run\n")
    if not finished:
        assert resumed(words, capsys)[0] == 0
        assert Path("runs/run/final").exists()


def test_a_run_of_an_earlier_version_is_answered_before_anything_is_loaded(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["method=sft", *words]
    assert main(words, CONFIGS) == 0
    cut(Path("runs/run"))
    file = Path("runs/run/checkpoints/step-00000001/manifest.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": 2}))
    file.with_suffix(".sha256").unlink()
    monkeypatch.setattr(assemble, "load_data", None)
    assert resumed(words, capsys) == (
        2,
        "Error: runs/run was begun by an earlier version of align, whose checkpoints have the format 2, not 6; "
        "finish it with that version, or give if_exists=new.\n",
    )


def test_finished_stages_of_a_recipe_are_those_of_the_same_command(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["method=rft", "method.samples=2", "method.max_new_tokens=4", "method.keep_unfinished=true", *words]
    words += ["reward=function", "reward.function=rewards.py:good"]
    assert main(words, CONFIGS) == 0
    before = Path("runs/run/1-sample/candidates.jsonl").read_bytes()
    for change, expected in (
        ("method.samples=3", "runs/run/1-sample cannot be resumed: method.samples is 2 in the run and 3 now"),
        ("method.temperature=0.9", "1-sample cannot be resumed: method.temperature is 0.7 in the run and 0.9 now"),
        ("trainer.learning_rate=0.5", "runs/run/2-rft cannot be resumed: trainer.learning_rate is"),
        ("adapter.dropout=0.5", "runs/run/1-sample cannot be resumed: adapter.dropout is 0.0 in the run and 0.5 now"),
    ):
        code, said = resumed([*words, change], capsys)
        assert (code, expected in said) == (2, True), said
    Path("rewards.py").write_text(REWARD.replace("len(t)", "-len(t)"))
    code, said = resumed(words, capsys)
    assert (code, "1-sample cannot be resumed: reward.function is not the same" in said) == (2, True)
    Path("rewards.py").write_text(REWARD)
    for stage in ("1-sample", "2-rft"):
        inputs = Path("runs/run", stage, "inputs.json")
        content = inputs.read_text()
        inputs.write_text(json.dumps({**json.loads(content), "the number of processes": 2}))
        refused = (
            f"Error: runs/run/{stage} cannot be resumed: the number of processes is 2 in the run and 1 now. Give what "
            "it began with, resume_world_size=any for the number of processes, or if_exists=new."
        )
        code, said = resumed(words, capsys)
        assert (code, refused in said) == (2, True), said
        assert resumed([*words, "resume_world_size=any"], capsys)[0] == 0
        inputs.write_text(content)
    code, said = resumed(words, capsys)
    assert (code, said.count("This run is finished: runs/run/2-rft")) == (0, 1)
    assert Path("runs/run/1-sample/candidates.jsonl").read_bytes() == before
    Path("runs/run/1-sample/candidates.jsonl").write_bytes(before + b"{}")
    code, said = resumed(words, capsys)  # the drawing cuts off what it did not write
    assert (code, said.count("This run is finished: runs/run/2-rft")) == (0, 1)


@pytest.mark.parametrize("dry", [[], ["dry_run=true"]], ids=["run", "dry run"])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (["adapter=none", "model.start=./adapter"], "model.start=./adapter is an adapter, but adapter=none trains"),
        (["model.quantization=4bit"], "model.quantization=4bit needs bitsandbytes; pip install bitsandbytes"),
        (["model.quantization=4bit", "adapter=none"], "model.quantization=4bit freezes the base; choose adapter=lora"),
        (["trainer.optimizer=adamw_8bit"], "trainer.optimizer=adamw_8bit needs bitsandbytes; pip install bitsandbytes"),
    ],
)
def test_a_dry_run_refuses_what_the_run_refuses(
    dry: list[str],
    change: list[str],
    expected: str,
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from align.model import sources
    from align.training import plan

    for module in (sources, plan):
        monkeypatch.setattr(module, "find_spec", lambda _: None)
    Path("adapter").mkdir()
    words = [word for word in words if not (word.startswith("adapter.") and "adapter=none" in change)]
    assert main(["method=dpo", *words, *change, *dry], CONFIGS) == 2
    assert f"Error: {expected}" in capsys.readouterr().err
    assert not Path("runs").exists()
