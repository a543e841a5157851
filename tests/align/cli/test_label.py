"""``align label``: its words, and sessions that are begun, continued and reported."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from align.cli import label as command
from align.cli.label import main, read_words
from align.errors import UserError
from align.labelling.server import LabelServer
from align.labelling.session import Session


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "policy is missing: write policy=RUN, the folder of a run."),
        (("policy=m",), "prompts is missing: write prompts=FILE, a file with prompts."),
        (("policy",), "'policy' is not one of policy=, prompts="),
        (("promts=f",), 'Did you mean "prompts"?'),
        (("policy=m", "prompts=f", "seed=1", "seed=2"), "seed is given twice; give it once."),
        (("policy=m", "prompts=f", "pairs=0"), "pairs"),
        (("policy=m", "prompts=f", "pairs=many"), "pairs"),
        (("policy=m", "prompts=f", "annotator=a/b"), "annotator='a/b': give a name of letters"),
        (("policy=m", "prompts=f", "annotator="), "annotator= is empty; write annotator=VALUE, or leave it out."),
        (("policy=m", "prompts=f", "temperature=0"), "temperature=0 draws the same answer twice"),
        (("policy=m", "prompts=f", "against=n", "reward=r"), "leave one of them out"),
        (("policy=m", "prompts=f", "host=0.0.0.0"), "can be reached from other machines"),
        (("policy=m", "prompts=f", "port=70000"), "port must be from 0 to 65535"),
        (("policy=m", "prompts=f", "token_env=UNSET_TOKEN"), "UNSET_TOKEN is not set"),
        (("policy=m", "prompts=/no/such/file.jsonl"), "/no/such/file.jsonl"),
        (("report=no-folder",), "no-folder is not the folder of a labelling session"),
    ],
)
def test_a_wrong_word_is_one_sentence(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert said in error
    assert error.count("\n") == 1


def test_a_folder_that_holds_no_reward_model(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder of a run stands for the reward model in it."""
    (tmp_path / "run" / "final" / "reward").mkdir(parents=True)
    assert main([*words, f"reward={tmp_path / 'run'}"]) == 2
    assert str(tmp_path / "run" / "final" / "reward") in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.startswith("align label policy=RUN prompts=FILE")


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (("policy=runs/dpo-world",), "runs/label-dpo-world-prompts"),
        (("policy=runs/a", "against=runs/b/"), "runs/label-a-against-b-prompts"),
        (("policy=a", "out=here"), "here"),
    ],
)
def test_where_a_session_lies(words: tuple[str, ...], folder: str) -> None:
    assert read_words([*words, "prompts=data/prompts.jsonl"]).folder == Path(folder)


@pytest.fixture
def words(tiny_model: Path, pair_rows: list[dict[str, Any]], tmp_path: Path) -> list[str]:
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": row["prompt"]}) for row in pair_rows[:10]))
    own = [f"policy={tiny_model}", f"prompts={file}", f"out={tmp_path / 'session'}", "port=0"]
    return [*own, "max_new_tokens=5", "max_length=100", "pairs=9"]


def test_a_port_in_use_is_told_before_the_model_is_loaded(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("align.cli.label.load_model", lambda *_: pytest.fail("loaded"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main([*(word for word in words if word != "port=0"), f"port={taken.getsockname()[1]}"]) == 2
    assert "cannot be listened on (Address already in use); give another port=." in capsys.readouterr().err


def judging(server: LabelServer, count: int) -> None:
    """Judge as a person would, waiting for answers that are being drawn."""
    while count:
        state = server.state()
        if state["pair"] is None:
            assert state["waiting"]
            time.sleep(0.01)
            continue
        server.judge(state["pair"]["key"], "left", 1.0, "")
        count -= 1


def test_a_session_goes_on_without_drawing_again(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LabelServer, "run", lambda server, *_: judging(server, 3))
    assert main(words) == 0
    assert "annotator: 3 preferred, 0 tied" in capsys.readouterr().out
    first = (tmp_path / "session" / "pairs.jsonl").read_text()

    def wait_for_all(server: LabelServer, *_: Any) -> None:
        while len(server.session.pairs) < 9:
            time.sleep(0.01)

    monkeypatch.setattr(LabelServer, "run", wait_for_all)
    assert main(words) == 0
    second = (tmp_path / "session" / "pairs.jsonl").read_text()
    assert second.startswith(first)
    assert len(second.splitlines()) == 9

    def fail(*_: Any) -> None:
        raise AssertionError("no model is needed any more")

    monkeypatch.setattr(command, "load_model", fail)
    monkeypatch.setattr(LabelServer, "run", lambda server, *_: judging(server, 2))
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "annotator: 5 preferred, 0 tied" in out
    assert f"align method=dpo data={tmp_path / 'session' / 'labels.jsonl'}" in out
    assert main([f"report={tmp_path / 'session'}"]) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == out.splitlines()[-3:]


def test_the_least_sure_pairs_first(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a scorer that counts letters: the answers of most equal length."""
    scorer = tmp_path / "letters.py"
    scorer.write_text(
        "def letters(prompts, completions, **columns):\n    return [float(len(c)) for c in completions]\n"
    )
    (tmp_path / "letters.yaml").write_text(f"scorer: function\nfunction: {scorer}:letters\n")
    gaps: list[int] = []

    def look(server: LabelServer, *_: Any) -> None:
        while (state := server.state())["pair"] is not None:
            gaps.append(abs(len(state["pair"]["left"]["text"]) - len(state["pair"]["right"]["text"])))
            server.judge(state["pair"]["key"], "tie", 1.0, "")
        assert state["total"] == len(gaps)

    monkeypatch.setattr(LabelServer, "run", look)
    monkeypatch.setattr("align.labelling.server.visible", lambda text: text)
    assert main([*words, f"reward={tmp_path / 'letters.yaml'}"]) == 0
    assert gaps == sorted(gaps)
    assert len(gaps) > 4


def test_other_settings_are_refused_and_so_is_a_folder_in_use(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LabelServer, "run", lambda *_: main(words))
    assert main(words) == 0
    sentence = f"is in use by process {os.getpid()}; end that one, or give out=ANOTHER_FOLDER."
    assert sentence in capsys.readouterr().err
    assert main([*words, "seed=4"]) == 2
    assert "was begun otherwise: seed is 0 in it and 4 now" in capsys.readouterr().err


def test_an_arena_of_two_models(
    words: list[str], tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LabelServer, "run", lambda server, *_: judging(server, 2))
    assert main([*words, f"against={tiny_model}"]) == 0
    assert f"{tiny_model} wins " in capsys.readouterr().out


def test_an_error_while_drawing_reaches_the_page(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise UserError("the disk is full; free space.")

    def look(server: LabelServer, *_: Any) -> None:
        while (state := server.state())["waiting"]:
            time.sleep(0.01)
        assert state["problem"] == "No further answers are drawn; the terminal says why."

    monkeypatch.setattr(Session, "add", full)
    monkeypatch.setattr(LabelServer, "run", look)
    assert main(words) == 0
    assert "Error: the disk is full; free space." in capsys.readouterr().err


def test_names_in_a_folder_do_not_act_on_the_terminal(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LabelServer, "run", lambda server, *_: judging(server, 1))
    assert main(words) == 0
    journal = tmp_path / "session" / "judgements.jsonl"
    journal.write_text(journal.read_text().replace('"annotator": "annotator"', '"annotator": "\\u001b[2J"'))
    capsys.readouterr()
    assert main([f"report={tmp_path / 'session'}"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.startswith("\\x1b[2J: 1 preferred")
