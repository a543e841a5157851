from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from align.cli.main import main


@pytest.fixture
def words(tiny_model: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    return [
        f"model={tiny_model}",
        f"data={pairs}",
        "data.max_rejected=0.1",
        "adapter.r=2",
        "trainer.max_length=64",
        "trainer.steps=2",
        "trainer.batch_size=4",
        "evaluation.prompts=2",
        "evaluation.max_new_tokens=4",
    ]


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_a_run_leaves_its_folder(method: str, words: list[str], configs: Path) -> None:
    assert main([f"method={method}", *words], configs) == 0
    folder = Path(f"runs/{method}-tiny-pairs-seed0")
    for name in ("command.txt", "environment.json", "evaluation.json", "samples.jsonl", "curves.png", "final"):
        assert (folder / name).exists(), name
    config = OmegaConf.load(folder / "config.yaml")
    assert config.method.name == method
    assert config.adapter.r == 2
    assert config.trainer.steps == 2
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {record["step"] for record in records} >= {1, 2}


def test_every_parameter_is_trained_without_an_adapter(words: list[str], configs: Path) -> None:
    words = [word for word in words if not word.startswith("adapter.")]
    assert main(["method=sft", "adapter=none", *words], configs) == 0
    assert list(Path("runs/sft-tiny-pairs-seed0/final").glob("*.safetensors"))


def test_new_resume_and_overwrite(words: list[str], configs: Path) -> None:
    words = ["method=dpo", "run_name=first", "evaluation.prompts=0", *words]
    assert main(words, configs) == 0
    assert main(words, configs) == 0
    assert sorted(folder.name for folder in Path("runs").iterdir()) == ["first", "first-2"]
    written = (Path("runs") / "first" / "command.txt").stat().st_mtime_ns
    assert main([*words, "if_exists=resume"], configs) == 0
    assert (Path("runs") / "first" / "command.txt").stat().st_mtime_ns == written
    assert main([*words, "if_exists=overwrite"], configs) == 0
    assert (Path("runs") / "first" / "command.txt").stat().st_mtime_ns > written
    assert len(list(Path("runs").iterdir())) == 2


def test_a_dry_run_says_everything_and_writes_nothing(
    words: list[str], configs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["method=dpo", "dry_run=true", *words], configs) == 0
    output = capsys.readouterr().out
    assert OmegaConf.create(output.partition("\n\n")[0]).adapter.r == 2
    assert "16 rows read" in output
    assert "1: empty chosen" in output
    assert "2 steps of 4 prompts" in output
    # 2 layers: q, o 16->16; k, v 16->16; gate, up 16->32; down 32->16; rank 2 adds 2 x (in + out) each.
    assert f"{2 * 2 * (4 * 32 + 3 * 48):,} trained" in output
    assert re.search(r"Memory of each process, about \d", output)
    assert list(tmp_path.iterdir()) == []


def test_positions_beyond_the_model_are_refused_before_weights_load(
    words: list[str], configs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    words = [word for word in words if "max_length" not in word]
    assert main(["method=dpo", *words], configs) == 2
    assert "trainer.max_length=1024 is beyond the 128 positions" in capsys.readouterr().err


def test_data_that_does_not_fit_is_refused_before_weights_load(
    words: list[str], configs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    assert main(["method=dpo", *words, "trainer.max_length=4"], configs) == 2
    assert "prompt longer than max_length" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("method.beta=0", "Error: method.beta=0"),
        ("method.loss_type=ipoo", "not 'ipoo'. Did you mean \"ipo\"?"),
        ("method.label_smoothing=0.7", "Error: method.label_smoothing=0.7"),
        ("evaluation.scorer=absent", "'absent' is not one of the scorers"),
        ("model.start=./", "no PEFT adapter there"),
    ],
)
def test_what_only_the_library_can_know_is_one_sentence_too(
    word: str, expected: str, words: list[str], configs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["method=dpo", *words, word], configs) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error")]
    assert len(errors) == 1
    assert expected in errors[0]
    assert not Path("runs").exists()


def test_too_many_bad_rows_are_an_error(words: list[str], configs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in words if "max_rejected" not in word]
    assert main(["method=dpo", *words], configs) == 2
    assert "data.max_rejected=" in capsys.readouterr().err


def test_held_out_pairs_can_be_given(
    words: list[str], pairs: Path, configs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["method=dpo", *words, f"data.heldout={pairs}"], configs) == 0
    assert "15 rows of data.heldout ask what data.train asks (first: pairs.jsonl:1)" in capsys.readouterr().err


def test_nothing_held_out_means_no_evaluation(words: list[str], configs: Path) -> None:
    assert main(["method=dpo", *words, "data.heldout_size=0"], configs) == 0
    assert not Path("runs/dpo-tiny-pairs-seed0/evaluation.json").exists()


@pytest.mark.parametrize("seed", [0, 3])
def test_the_seed_reaches_the_trainer_and_the_drawing(
    seed: int, words: list[str], configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    class StopError(Exception):
        pass

    def draw(*_: object, **settings: int) -> None:
        seen.append(settings["seed"])
        raise StopError

    def trainer(*arguments: object, **_: object) -> None:
        seen.append(arguments[2].seed)  # pyright: ignore
        raise StopError

    monkeypatch.setattr("align.candidates.drawing.draw", draw)
    monkeypatch.setattr("align.training.trainer.Trainer", trainer)
    for method in (["method=sft"], ["method=rft", "method.select=answer", "stage=sample"]):
        assert main([*method, *words, f"seed={seed}"], configs) == 1  # an unexpected error
    assert seen == [seed, seed]


FUNCTIONS = """
import sys
def raises(prompts, responses):
    return 1 / 0
def leaves(prompts, responses):
    sys.exit(3)
def huge(prompts, responses):
    return [[10**400 for _ in row] for row in responses]
def nothing(prompts, completions):
    return [None for _ in completions]
def later(prompts, responses, no_such_column):
    return [[0.0 for _ in row] for row in responses]
"""


@pytest.mark.parametrize("dry", ["dry_run=true", "dry_run=false"])
@pytest.mark.parametrize(
    ("name", "message", "code"),
    [
        ("raises", r"Error: scorer 'raises' failed at \S*mine.py, line 4, in raises: ZeroDivisionError", 1),
        ("leaves", r"Error: scorer 'leaves' failed at \S*mine.py, line 6, in leaves: SystemExit: 3; correct it", 1),
        ("huge", r"Error: scorer 'huge', prompt 0, response 0: '1\S* is not a finite number; correct", 1),
        ("nothing", r"Error: scorer 'nothing' does not apply to response 0 of prompt 0; ", 1),
        ("later", r"Error: function 'later' needs no_such_column, which is not a column", 2),
        ("absent", r"Error: .*has no attribute 'absent'", 2),
    ],
)
def test_a_reward_function_is_tried_before_weights_are_loaded(
    name: str, message: str, code: int, dry: str, words: list[str], configs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.py").write_text(FUNCTIONS)
    words = [*words, "method=ppo", "reward=function", f"reward.function=mine.py:{name}", dry]
    assert main(words, configs) == code
    errors = capsys.readouterr().err
    assert re.search(message, errors)
    assert "Traceback" not in errors
    assert not Path("runs").exists()


@pytest.mark.parametrize("dry", ["dry_run=true", "dry_run=false"])
@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (
            ["reward=world"],
            "true_reward: prompt 0 is no task of the embedded world .*score data of your own by",
        ),
        (["reward=math"], "the math scorer finds no `answer` for prompt 0"),
        (["reward=model", "reward.model=./nowhere"], "model=./nowhere: there is no such folder"),
        (["reward=function", "reward.function=nowhere.py:f"], "function: 'nowhere.py:f' cannot be imported"),
    ],
)
def test_a_scorer_that_the_data_do_not_suit_is_refused_before_the_run(
    reward: list[str], message: str, dry: str, words: list[str], configs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "method=ppo", *reward, dry], configs) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not Path("runs").exists()


def test_an_unexpected_error_of_the_users_code_is_one_sentence(
    words: list[str], configs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise LookupError("mine")

    monkeypatch.setattr("align.cli.launch.assemble.Preferences.load", broken)
    assert main([*words, "method=sft"], configs) == 1
    assert re.fullmatch(
        r"Error: \S*test_execute.py, line \d+, in broken: LookupError: mine; correct it\.\n", capsys.readouterr().err
    )


def test_the_help_ends_quietly_where_its_reader_does() -> None:
    root = Path(__file__).parents[4]
    command = f"set -o pipefail; {sys.executable} {root / 'scripts' / 'run.py'} --help | head -1"
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
    assert done.returncode in (0, 141)  # 0: all of it fitted into the pipe
