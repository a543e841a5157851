"""Each command of a conversation: lines in, text out."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from align import Preferences
from align.data.examples import tokenize
from align.errors import ScorerError
from align.model.policy import Policy
from align.sampling.params import SamplingParams
from align.system.signals import stop_if_alone
from reward.verifiers.answers import ExactMatch
from tests.align.cli.chat.conftest import Chat, Script
from tests.align.system.test_terminal import HOSTILE, MARKUP

Start = Callable[..., Chat]


class Words:
    """A scorer: the number of words."""

    name = "words"

    def score(self, prompts: Any, responses: Any, **columns: Any) -> list[list[float]]:
        del prompts, columns
        return [[float(len(response.split())) for response in row] for row in responses]


def test_an_answer_is_streamed_and_the_history_goes_with_the_next_question(chat: Start, script: Script) -> None:
    script.answers = ["It is four.", "Five."]
    shown = chat()("2 and 2?", "  ", " and 1 more?")
    assert shown == "> It is four.\n> > Five.\n> \n"
    assert script.asked == [
        "policy: u: 2 and 2?<eos>a: ",
        "policy: u: 2 and 2?<eos>a: It is four.<eos>u: and 1 more?<eos>a: ",
    ]


def test_pieces_come_one_by_one(chat: Start, script: Script) -> None:
    talk = chat()
    seen: list[str] = []
    script.answers, script.after_token = ["abc"], lambda _: seen.append(talk.out.getvalue())
    talk("x")
    assert seen == ["> a", "> ab", "> abc", "> abc"]


def test_system(chat: Start, script: Script) -> None:
    script.answers = ["a", "b"]
    shown = chat()("/system Be brief.", "x", "/system", "y")
    assert "The next questions have this system turn." in shown
    assert "The next questions have no system turn." in shown
    assert script.asked == ["policy: s: Be brief.<eos>u: x<eos>a: ", "policy: u: x<eos>a: a<eos>u: y<eos>a: "]


def test_a_template_without_a_system_turn(chat: Start, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    template = str(policy.tokenizer.chat_template)
    monkeypatch.setattr(
        policy.tokenizer, "chat_template", template.replace("in messages", "in messages if m.role != 'system'")
    )
    assert "Error: the chat template of runs/one has no place for a system turn." in chat()("/system Be brief.")


def test_temperature(chat: Start) -> None:
    talk = chat()
    assert "The temperature is 0.5." in talk("/temperature 0.5")
    assert talk.session.params.temperature == 0.5
    for word in ("warm", "-1", "nan", ""):
        assert f"/temperature takes a number from 0 on, such as /temperature 0.7, not '{word}'." in talk(
            f"/temperature {word}"
        )
    assert talk.session.params.temperature == 0.5


def test_retry_goes_on_with_the_new_answer(chat: Start, script: Script) -> None:
    script.answers = ["one", "two", "three"]
    assert "two\n(answer 2)" in chat()("x", "/retry", "y")
    assert script.asked[1] == script.asked[0]
    assert script.asked[2] == "policy: u: x<eos>a: two<eos>u: y<eos>a: "


def test_another_system_turn_makes_another_prompt(chat: Start, script: Script) -> None:
    script.answers = ["one", "two"]
    talk = chat()
    assert "The prompt is another one now, so answers are counted anew." in talk("x", "/system s", "/retry")
    assert [answer.text for answer in talk.session.turns[-1].answers] == ["two"]


def test_compare_shows_both_side_by_side_and_draws_once(chat: Start, script: Script) -> None:
    script.answers = ["trained", "before"]
    shown = chat()("x", "/compare", "/compare")
    assert script.asked == ["policy: u: x<eos>a: ", "reference: u: x<eos>a: "]
    assert shown.count("2: the start model") == shown.count("1: runs/one") == 2
    assert any("before" in line and "trained" in line for line in shown.splitlines())


def test_score(chat: Start, script: Script) -> None:
    script.answers = ["one two three", "one"]
    shown = chat(scorers=[Words()])("x", "/compare", "/score")
    assert "1: runs/one: words 3.000\n2: the start model: words 1.000\n" in shown


def test_score_by_the_right_answer(chat: Start, script: Script) -> None:
    script.answers = ["42", "43"]
    shown = chat(scorers=[ExactMatch()])("x", "/retry", "/score", "/score 43")
    assert "Error: the exact_match scorer finds no `answer`" in shown
    assert "\nA scorer that compares needs the right answer: type /score RIGHT.\n" in shown
    assert "1: runs/one: exact_match 0.000\n2: runs/one: exact_match 1.000\n" in shown


def test_a_scorer_that_fails_ends_nothing(chat: Start, script: Script) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ScorerError("the server is gone; start it.")

    script.answers = ["a", "b"]
    shown = chat(scorers=[SimpleNamespace(name="far", score=fail)])("x", "/score", "y")
    assert "Error: the server is gone; start it.\n> b" in shown


def test_save_appends_pairs_that_train(chat: Start, script: Script, tmp_path: Path) -> None:
    script.answers = ["bad", "good", "best"]
    talk = chat(system="Be good.")
    shown = talk("x", "/retry", "/save 2", "/retry", "/save 3 1")
    file = tmp_path / "chat.jsonl"
    assert f"Answer 2 is preferred to answer 1: added to {file}." in shown.replace("\n", "")
    pairs = Preferences.load(file)
    said = [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in pairs]
    assert said == [("good", "bad"), ("best", "bad")]
    assert pairs[0]["prompt"] == [{"role": "system", "content": "Be good."}, {"role": "user", "content": "x"}]
    assert pairs[0]["chosen"][0]["role"] == "assistant"


@pytest.mark.parametrize("wrong", ["1.5 2", "+1 2", "1_0 2", "1 -1", "² 1", "1 2 3", "3 x", "x 2", "1 ٢"])
def test_what_is_no_number_of_an_answer_saves_nothing(wrong: str, chat: Start, script: Script, tmp_path: Path) -> None:
    script.answers = ["bad", "good"]
    assert "Error: /save BETTER WORSE takes the numbers of two answers" in chat()("x", "/retry", f"/save {wrong}")
    assert not (tmp_path / "chat.jsonl").exists()


@pytest.mark.parametrize("stopped", [False, True])
def test_an_answer_that_was_cut_off_teaches_no_end(
    stopped: bool, chat: Start, script: Script, policy: Policy, tmp_path: Path
) -> None:
    script.answers = ["y" * 100, "good"]
    if stopped:
        script.after_token = lambda count: os.kill(os.getpid(), signal.SIGINT) if count == 10 else None
    chat()("x", "/retry", "/save 1 2")
    (example,) = tokenize(Preferences.load(tmp_path / "chat.jsonl"), policy.tokenizer, max_length=128)
    cut, whole = example.responses
    end = policy.tokenizer.eos_token_id
    assert end not in cut
    assert len(cut) == (11 if stopped else 24)
    assert whole[-1] == end


def test_a_pair_is_on_disk_when_it_is_said_to_be(
    chat: Start, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda of: synced.append((tmp_path / "chat.jsonl").stat().st_size) or of)
    script.answers = ["a", "b"]
    chat()("x", "/retry", "/save 1 2")
    assert synced[-1] == (tmp_path / "chat.jsonl").stat().st_size > 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"prompt": "a", "completion": "b"}\n', "has rows that are no pairs"),
        ("[1]\n", "has rows that are no pairs"),
        ("not JSON\n", "cannot be read as JSON lines"),
        ('{"prompt": "a", "chosen": "b", "rejected": "c"}\n', "has prompts of text, and this one is turns"),
    ],
)
def test_another_file_is_left_alone(content: str, words: str, chat: Start, script: Script, tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    file.write_text(content)
    script.answers = ["a", "b"]
    assert words in chat()("x", "/retry", "/save 1 2")
    assert file.read_text() == content


def test_undo_and_reset(chat: Start, script: Script) -> None:
    script.answers = ["a", "b", "c", "d"]
    shown = chat()("x", "y", "/undo", "z", "/reset", "w")
    assert "The last question is taken back; 1 are left." in shown
    assert "The conversation begins anew." in shown
    assert script.asked[2:] == ["policy: u: x<eos>a: a<eos>u: z<eos>a: ", "policy: u: w<eos>a: "]


def test_help_names_every_command(chat: Start) -> None:
    shown = chat()("/help")
    for name in ("system", "temperature", "retry", "compare", "score", "save", "undo", "reset", "help", "quit"):
        assert f"/{name}" in shown


def test_quit(chat: Start, script: Script) -> None:
    talk = chat()
    assert talk("/quit", "x") == "> "
    assert talk.code == 0
    assert not script.asked


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "/scor",
            "there is no /scor; /help lists the commands, and a question that begins with / follows a blank. "
            'Did you mean "score"?',
        ),
        ("/undo twice", "/undo stands alone, without 'twice'."),
        ("/retry", "/retry is about the last question, and none has been asked."),
        ("/compare", "/compare is about the last question"),
        ("/save 1 2", "/save is about the last question"),
        ("/save", "/save BETTER WORSE takes the numbers of two answers to the last question; there are 0 answers."),
        ("/undo", "/undo is about the last question"),
        ("/score", "there is no scorer; start with --scorer NAME."),
        ("a\udcff", "the line has bytes that are no text; write it in the encoding of the terminal."),
        ("x" * 150, "a prompt of 157 tokens and max_new_tokens=24 are more than the model's 128 positions"),
    ],
)
def test_wrong_words_are_one_sentence(line: str, words: str, chat: Start) -> None:
    talk = chat()
    shown = talk(line)
    assert f"Error: {words}" in shown
    assert shown.count("\n") == 2
    assert talk.code == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("1", "there is 1 answer, and /retry or /compare draws another"),
        ("1 2", "there is no answer 2 to the last question; it has 1."),
        ("one two", "takes the numbers of two answers"),
        ("1 1", "answers 1 and 1 are the same"),
    ],
)
def test_what_cannot_be_saved(words: str, sentence: str, chat: Start, script: Script, tmp_path: Path) -> None:
    script.answers = ["a"]
    assert sentence in chat()("x", f"/save {words}")
    assert not (tmp_path / "chat.jsonl").exists()


def test_without_a_model_to_compare_with(chat: Start) -> None:
    assert "Error: runs/one was not trained from another model; start with --against RUN." in chat(rival=None)(
        "/compare"
    )


@pytest.mark.parametrize("text", [*HOSTILE, *MARKUP])
def test_hostile_answers_are_shown_and_do_nothing(text: str, chat: Start, script: Script) -> None:
    """A lone surrogate cannot be encoded, so no tokenizer gives one."""
    text = text.replace("\ud800", "\ufffe")
    script.answers = [f"a{text}b", f"c{text}d"]
    shown = chat(params=SamplingParams(temperature=0, max_new_tokens=60))("x", "/compare")
    expected = HOSTILE.get(text, "\\ufffe" if "\ufffe" in text else text)
    assert f"a{expected}b" in shown
    assert not set(shown) & set("\x00\x07\x08\x1b\r\x9b\x9d\u202e\u2066\ufeff\x7f")


# Ctrl-C


def interrupt_at(token: int, times: int = 1, *, in_a_pass: bool = False) -> Callable[[int], None]:
    def send(drawn: int) -> None:
        if drawn == token:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
            if in_a_pass:
                stop_if_alone()  # as the layers of a model do

    return send


@pytest.mark.parametrize(("in_a_pass", "kept"), [(False, "abcd"), (True, "abc")])
def test_ctrl_c_stops_an_answer_and_keeps_the_conversation(
    in_a_pass: bool, kept: str, chat: Start, script: Script
) -> None:
    script.answers, script.after_token = ["abcdefgh", "next"], interrupt_at(3, in_a_pass=in_a_pass)
    talk = chat()
    assert f"{kept}\n(stopped)" in talk("x", "y")
    assert script.asked[1] == f"policy: u: x<eos>a: {kept}<eos>u: y<eos>a: "


def test_ctrl_c_before_the_first_word_takes_the_question_back(chat: Start, script: Script) -> None:
    script.answers, script.after_token = ["  x", "next"], interrupt_at(1)
    talk = chat()
    talk.session.ask("x")
    assert "Stopped before the first word; the question is taken back." in talk.out.getvalue()
    assert not talk.session.turns


def test_ctrl_c_twice_leaves(chat: Start, script: Script) -> None:
    script.answers, script.after_token = ["abcdefgh"], interrupt_at(3, times=2)
    with pytest.raises(SystemExit) as left:
        chat()("x")
    assert left.value.code == 130


def test_ctrl_c_after_a_stopped_answer_leaves(chat: Start, script: Script) -> None:
    script.answers, script.after_token = ["abcdefgh", "next"], interrupt_at(3)
    talk = chat()
    talk("x", KeyboardInterrupt(), "y")
    assert (talk.code, len(script.asked)) == (130, 1)
    script.after_token = lambda _: None
    talk("y", KeyboardInterrupt())
    assert talk.code == 0


def test_ctrl_c_while_typing_leaves_the_second_time(chat: Start, script: Script) -> None:
    talk = chat()
    script.answers = ["a"]
    shown = talk(KeyboardInterrupt(), "x", KeyboardInterrupt(), KeyboardInterrupt(), "y")
    assert shown.count("Ctrl-C again, Ctrl-D or /quit leaves.") == 2
    assert (talk.code, len(script.asked)) == (130, 1)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_pipe_ends_at_the_first_signal(sent: int, code: int, chat: Start, script: Script) -> None:
    script.answers, script.after_token = ["abc"], lambda _: os.kill(os.getpid(), sent)
    with pytest.raises(SystemExit) as left:
        chat(interactive=False)("x")
    assert left.value.code == code


# Positions


def test_the_history_is_cut_at_turns_where_positions_end(chat: Start, script: Script) -> None:
    """A byte is a token: a question is 34 tokens, an answer 14, the last "a: " 3, and 24 are kept for the answer.

    One earlier turn makes 34 + 14 + 34 + 3 = 85 of 128 - 24 = 104; two make 133.
    """
    questions = [letter * 30 for letter in "xyz"]
    script.answers = ["0123456789"] * 3
    talk = chat()
    shown = talk(*questions)
    assert shown.count("The first turn does not fit the model's 128 positions any more.") == 1
    assert script.asked[2] == f"policy: u: {questions[1]}<eos>a: 0123456789<eos>u: {questions[2]}<eos>a: "
    assert [turn.question for turn in talk.session.turns] == questions[1:]


def test_an_answer_that_is_cut_off_says_so(chat: Start, script: Script) -> None:
    script.answers = ["a" * 100]
    assert "(cut off after 24 tokens)" in chat()("x")


# Pipes, and text without turns


def test_a_pipe_gets_answers_alone(chat: Start, script: Script) -> None:
    script.answers = ["one", "two"]
    talk = chat(interactive=False)
    assert talk("x", "y") == "one\ntwo\n"
    assert talk.code == 0
    assert "Error: there is no /nothing" in talk("/nothing")
    assert talk.code == 2


def test_a_model_without_a_chat_template_continues_text(
    chat: Start, script: Script, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy.tokenizer, "chat_template", None)
    script.answers = [" a time", " a day", " a year"]
    shown = chat()("Once upon", "/retry", "/save 2 1", "There was", "/system x")
    assert script.asked == ["policy: Once upon", "policy: Once upon", "policy: There was"]
    assert "there is no system turn; type it as text." in shown
    row = json.loads((tmp_path / "chat.jsonl").read_text())
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("Once upon", " a day", " a time")
