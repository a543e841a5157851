"""``align chat``: the words of the command, and lines from a pipe."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from align import Policy, Preferences, Trainer, TrainerConfig
from align.cli import chat as command
from align.cli.chat import main
from align.data.encoding import encode_prompt
from align.sampling.params import SamplingParams
from align.sampling.sampler import Sampler
from methods import SFT

GREEDY = ("--temperature", "0", "--max-new-tokens", "8")


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run whose step is large enough to change greedy answers."""
    policy = Policy.load(str(tiny_model))
    config = TrainerConfig(steps=2, batch_size=4, max_length=120, learning_rate=3e-1, save_steps=None)
    rows = [{"prompt": f"Say {n}", "chosen": "aaaaaaaa"} for n in range(4)]
    return str(
        Trainer(policy, tmp_path_factory.mktemp("runs") / "run", config).fit(SFT(), Preferences.from_rows(rows)).folder
    )


def greedy(policy: Policy, question: str) -> str:
    ids = encode_prompt(policy.tokenizer, [{"role": "user", "content": question}])
    [[drawn]] = Sampler(policy, SamplingParams(temperature=0, max_new_tokens=8)).generate([ids])
    return policy.decode(drawn.ids)


def test_lines_of_a_pipe_are_answered_by_a_run_and_its_start(
    run: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Say 1\n/compare\n/save 1 2\n"))
    assert main([run, *GREEDY, "--pairs", str(tmp_path / "chat.jsonl")]) == 0, capsys.readouterr().err
    (row,) = map(json.loads, (tmp_path / "chat.jsonl").read_text().splitlines())
    trained, start = Policy.load_saved(Path(run) / "final"), Policy.load(str(tiny_model), adapter=None)
    said = {side: row[side][0]["content"] for side in ("chosen", "rejected")}
    assert said == {"chosen": greedy(trained, "Say 1"), "rejected": greedy(start, "Say 1")}
    shown = capsys.readouterr()
    assert "Error" not in shown.err


def test_a_second_model(
    tiny_model: Path, run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Say 1\n/compare\n"))
    assert main([str(tiny_model), "--against", run, *GREEDY]) == 0
    assert "2: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--pairs", "a.csv"], "--pairs=a.csv: pairs are kept as JSON lines; give a name that ends in .jsonl."),
        (["--scorer", "lenght"], 'Did you mean "length"?'),
        (["--against-start", "x"], "--against-start is an adapter on the model of --against; name that too."),
        (["--temperature", "-1"], "Error: temperature=-1 must be at least 0 and finite; 0 is greedy."),
        (["--max-new-tokens", "0"], "max_new_tokens=0 must be at least 1"),
        (["--start", "/nowhere"], "/nowhere"),
    ],
)
def test_wrong_words_are_answered_before_a_model_is_loaded(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["world/base", *words]) == 2
    shown = capsys.readouterr().err
    assert sentence in shown
    assert shown.startswith("Error: ")
    assert shown.count("\n") == 1


def test_there_is_no_such_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["./nowhere"]) == 2
    assert "Error: ./nowhere: there is no such run or model." in capsys.readouterr().err


def test_models_of_two_kinds(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = Policy.load(str(tiny_model), adapter=None)
    bare.tokenizer.chat_template = None
    bare.merge_and_export(tmp_path / "bare")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main([str(tiny_model), "--against", str(tmp_path / "bare")]) == 2
    assert f"{tmp_path / 'bare'} has no chat template and the other model has one" in capsys.readouterr().err


def test_settings_are_typed_or_the_runs_or_default(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(command, "_talk", lambda arguments: seen.append(arguments) or 0)
    main(["m", "--top-p", "0.5"])
    settings = command._settings(seen[0], None)
    assert settings == {"temperature": 0.7, "top_p": 0.5, "seed": 0}


@pytest.mark.slow
def test_the_script_answers_a_pipe(tiny_model: Path) -> None:
    script = Path(__file__).resolve().parents[4] / "scripts" / "chat.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tiny_model), *GREEDY],
        input="Say 1\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == greedy(Policy.load(str(tiny_model), adapter=None), "Say 1") + "\n"
