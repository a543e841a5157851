"""Every bad row of the list gets its answer: R with place, reason and count, an error, or a remark."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align.data import Preferences
from align.data.examples import tokenize
from align.errors import UserError

USER = {"role": "user", "content": "Hello there"}
NO_MEDIA = "images, video and sound cannot be read"
GOOD = {"role": "assistant", "content": "Hello yourself"}
BAD = {"role": "assistant", "content": "Go away"}
ZERO_WIDTH = "\u200b\u202e\u2060"

TEXT_ROWS: list[tuple[str, Any, str]] = [
    ("1 empty prompt", {"prompt": ""}, "empty prompt"),
    ("1 white-space prompt", {"prompt": " \n"}, "empty prompt"),
    ("1 invisible prompt", {"prompt": ZERO_WIDTH}, "invisible prompt"),
    ("2 empty chosen", {"chosen": ""}, "empty chosen"),
    ("3 empty rejected", {"rejected": ""}, "empty rejected"),
    ("4 both empty", {"chosen": "", "rejected": ""}, "empty chosen and rejected"),
    ("5 identical pair", {"chosen": "same", "rejected": "same"}, "identical pair"),
    ("6 white-space-only response", {"chosen": " \t\n\u00a0"}, "white-space-only chosen"),
    ("8 prompt null", {"prompt": None}, "prompt is null"),
    ("10 a number as response", {"chosen": 7}, "chosen is not text or messages"),
    ("10 true as response", {"rejected": True}, "rejected is not text or messages"),
    ("11 lone surrogate", {"chosen": "half \ud83d of it"}, "lone surrogate"),
    ("12 NUL", {"rejected": "a\0b"}, "NUL character"),
    ("13 only zero-width", {"chosen": ZERO_WIDTH}, "invisible chosen"),
    ("13 only fillers", {"rejected": "\u3164 \u2800"}, "invisible rejected"),
    ("33 column changes type", {"prompt": [USER]}, "column changes type"),
    ("38 NaN score", {"margin": float("nan")}, "margin is not finite"),
    ("38 infinite score", {"chosen_score": float("inf")}, "chosen_score is not finite"),
    ("38 a score beyond float", {"margin": 10**400}, "margin is not finite"),
    ("38 text as score", {"rejected_score": "four"}, "rejected_score is not a number"),
    ("negative weight", {"weight": -1}, "negative weight"),
    ("a weight whose sums lose the others", {"weight": 1e39}, "weight above 1e6"),
    ("answer is a list", {"answer": ["4"]}, "answer is not text"),
]
MESSAGE_ROWS: list[tuple[str, Any, str]] = [
    ("1 no message in the prompt", {"prompt": []}, "empty prompt"),
    ("1 last turn empty", {"prompt": [{"role": "user", "content": ""}]}, "empty prompt"),
    ("22 chosen []", {"chosen": []}, "chosen has no message"),
    ("23 chosen by the user", {"chosen": [USER]}, "chosen is not one assistant message"),
    ("23 two messages", {"rejected": [GOOD, GOOD]}, "prompts differ before the last turn"),
    ("24 unknown role", {"prompt": [{"role": "wizard", "content": "x"}]}, "unknown role"),
    ("24 role is a list", {"prompt": [{"role": ["user"], "content": "x"}]}, "unknown role"),
    ("25 no content", {"chosen": [{"role": "assistant"}]}, "message without content"),
    ("26 content null", {"chosen": [{"role": "assistant", "content": None}]}, "content is null"),
    ("26 content is a number", {"chosen": [{"role": "assistant", "content": 3}]}, "content is not text"),
    (
        "26 an image part",
        {"prompt": [{"role": "user", "content": [{"type": "image"}]}]},
        "images, video and sound cannot be read",
    ),
    ("27 prompt ends with an assistant", {"prompt": [USER, GOOD]}, "prompt ends with an assistant turn"),
    ("27 prompt is a system turn", {"prompt": [USER | {"role": "system"}]}, "prompt does not end with a user turn"),
    ("empty turn", {"prompt": [{"role": "user", "content": " "}, GOOD, USER]}, "empty turn in the prompt"),
    ("a list with text", {"prompt": ["hello"]}, "prompt is not text or messages"),
]
RAW_LINES: list[tuple[str, str, str]] = [
    ("32 column missing", '{"prompt": "a", "chosen": "b"}', "missing column"),
    ("37 duplicate keys", '{"prompt": "a", "chosen": "b", "rejected": "c", "chosen": "d"}', "duplicate keys"),
    (
        "37 duplicate keys inside",
        '{"prompt": [{"role": "user", "role": "user", "content": "x"}], "chosen": "b", "rejected": "c"}',
        "duplicate keys",
    ),
    ("42 a list", '["a", "b", "c"]', "not an object"),
    ("42 a number", "17", "not an object"),
    ("invalid JSON", '{"prompt": "a", ', "invalid JSON"),
    ("two objects", '{"prompt": "a"} {"prompt": "b"}', "invalid JSON"),
]


def assert_third_is_rejected(path: Path, reason: str) -> None:
    preferences = Preferences.load(path, max_rejected=0.2)
    assert preferences.report.rejected == {reason: 1}
    (example,) = preferences.report.examples[reason]
    assert example.startswith(f"{path.name}:3: {reason}")
    assert (preferences.report.read, preferences.report.kept, len(preferences)) == (5, 4, 4)
    with pytest.raises(UserError, match=rf"1 of 5 rows rejected.*1 {reason} \({path.name}:3\).*data.max_rejected=0.2"):
        Preferences.load(path)


@pytest.mark.parametrize(("fields", "reason"), [row[1:] for row in TEXT_ROWS], ids=[row[0] for row in TEXT_ROWS])
def test_text_row(fields: Any, reason: str, jsonl: Callable[..., Path], pair: Callable[..., Any]) -> None:
    path = jsonl([pair(0), pair(1), pair(2) | fields, pair(3), pair(4)])
    assert_third_is_rejected(path, reason)


@pytest.mark.parametrize(("fields", "reason"), [row[1:] for row in MESSAGE_ROWS], ids=[row[0] for row in MESSAGE_ROWS])
def test_message_row(fields: Any, reason: str, jsonl: Callable[..., Path]) -> None:
    row = {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}
    assert_third_is_rejected(jsonl([row, row, row | fields, row, row]), reason)


@pytest.mark.parametrize(("line", "reason"), [row[1:] for row in RAW_LINES], ids=[row[0] for row in RAW_LINES])
def test_raw_line(line: str, reason: str, jsonl: Callable[..., Path], pair: Callable[..., Any]) -> None:
    assert_third_is_rejected(jsonl([pair(0), pair(1), line, pair(3), pair(4)]), reason)


def test_07_chosen_null_and_09_rejected_null(pair: Callable[..., Any], chatml: Any) -> None:
    rows = [pair(0), pair(1, rejected=None), pair(2, chosen=None, rejected=None)]
    preferences = Preferences.from_rows(rows)
    assert len(preferences) == 3
    kept = {}
    for unit in ("prompt", "demonstration", "pair", "ranking"):
        tokenized = tokenize(preferences, chatml, max_length=100, unit=unit, max_rejected=0.9)
        kept[unit] = (len(tokenized), dict(tokenized.report.rejected))
    assert kept == {
        "prompt": (3, {}),
        "demonstration": (2, {"chosen is null": 1}),
        "pair": (1, {"rejected is null": 1, "chosen is null": 1}),
        "ranking": (1, {"fewer than two responses": 2}),
    }
    with pytest.raises(
        UserError, match=r"2 of 3 rows rejected.*rejected is null \(rows:2\).*chosen is null \(rows:3\)"
    ):
        tokenize(preferences, chatml, max_length=100, unit="pair")


@pytest.mark.parametrize(("tokens", "fits"), [(41, True), (42, False)])
def test_18_prompt_longer_than_max_length(tokens: int, fits: bool, pair: Callable[..., Any], pad_is_eos: Any) -> None:
    """A prompt must leave room for one response token and the end of turn."""
    preferences = Preferences.from_rows([pair(0), pair(1, prompt="Z" * tokens), pair(2)])
    tokenized = tokenize(preferences, pad_is_eos, max_length=43, max_rejected=0.5)
    assert len(tokenized) == 2 + fits
    examples = tokenized.report.examples.get("prompt longer than max_length", ())
    assert examples == (() if fits else ("rows:2: prompt longer than max_length (42 tokens of 43)",))


def test_19_response_longer_is_cut_and_counted(pair: Callable[..., Any], pad_is_eos: Any) -> None:
    preferences = Preferences.from_rows([pair(0), pair(1, prompt="Z" * 50, chosen="Y" * 60, rejected="X")])
    tokenized = tokenize(preferences, pad_is_eos, max_length=100)
    example = tokenized[1]
    assert len(example.prompt_ids) + len(example.responses[0]) == 100
    assert pad_is_eos.eos_token_id not in example.responses[0], "a cut response did not end"
    assert example.responses[1][-1] == pad_is_eos.eos_token_id
    assert tokenized.report.noted == {"response truncated to max_length": 1}
    assert tokenized.report.examples["response truncated to max_length"][0].startswith("rows:2:")


def test_19_response_that_fits_exactly_keeps_its_end(pair: Callable[..., Any], pad_is_eos: Any) -> None:
    preferences = Preferences.from_rows([pair(0, prompt="Z" * 50, chosen="Y" * 49, rejected="X" * 50)])
    tokenized = tokenize(preferences, pad_is_eos, max_length=100)
    assert tokenized[0].responses[0][-1] == pad_is_eos.eos_token_id
    assert tokenized[0].responses[1][-1] != pad_is_eos.eos_token_id
    assert tokenized.lengths.tolist() == [150]


def test_20_pair_identical_after_truncation(pair: Callable[..., Any], pad_is_eos: Any) -> None:
    rows = [pair(0), pair(1, chosen="Y" * 90 + "yes", rejected="Y" * 90 + "no")]
    tokenized = tokenize(Preferences.from_rows(rows), pad_is_eos, max_length=60, max_rejected=0.5)
    assert tokenized.report.rejected == {"identical once cut": 1}
    assert tokenized.report.examples["identical once cut"][0].endswith(" tokens beside the prompt)")
    assert len(tokenized) == 1


def test_21_unknown_extra_column_is_warned_of_once(jsonl: Callable[..., Path], pair: Callable[..., Any]) -> None:
    path = jsonl([pair(number, annotator_mood="good") for number in range(3)])
    report = Preferences.load(path).report
    assert report.warnings == ('column "annotator_mood" is not read',)
    assert (report.kept, report.rejected) == (3, {})


def test_28_implicit_prompts_that_diverge(jsonl: Callable[..., Path]) -> None:
    other = {"role": "user", "content": "Good evening"}
    rows = [{"chosen": [USER, GOOD], "rejected": [USER, BAD]}] * 4
    path = jsonl([*rows[:2], {"chosen": [USER, GOOD], "rejected": [other, BAD]}, *rows[2:]])
    assert_third_is_rejected(path, "prompts differ before the last turn")


@pytest.mark.parametrize("content", ["\n\n", "[]", " [ ] \n"])
def test_29_empty_dataset(content: str, tmp_path: Path) -> None:
    path = tmp_path / "empty.json"
    path.write_text(content)
    with pytest.raises(UserError, match="empty"):
        Preferences.load(path)
    with pytest.raises(UserError, match="no row"):
        Preferences.from_rows([])


@pytest.mark.parametrize("blank", ["", "\n", "\n \n\n"])
def test_42_a_list_in_the_first_line_is_no_array(blank: str, tmp_path: Path, pair: Callable[..., Any]) -> None:
    """Unless it is all there is."""
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps([pair(0)]) + "\n" + json.dumps(pair(1)) + "\n" + blank)
    report = Preferences.load(path, max_rejected=0.5).report
    assert (report.kept, report.examples["not an object"]) == (1, ("pairs.jsonl:1: not an object",))
    path.write_text(json.dumps([pair(0), pair(1)]) + blank)
    assert len(Preferences.load(path)) == 2


@pytest.mark.parametrize("ending", ["", "\n", "\n\n"])
def test_30_truncated_last_line(ending: str, tmp_path: Path, pair: Callable[..., Any]) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(pair(0)) + "\n" + json.dumps(pair(1))[:-7] + ending)
    with pytest.raises(UserError, match=r"last line \(pairs.jsonl:2\)"):
        Preferences.load(path, max_rejected=1.0)


def test_30_truncated_array_and_gzip(tmp_path: Path, pair: Callable[..., Any]) -> None:
    array = tmp_path / "pairs.json"
    array.write_text(json.dumps([pair(0), pair(1)], indent=1)[:-12])
    with pytest.raises(UserError, match=r"pairs.json:7: the JSON array is damaged or cut off"):
        Preferences.load(array)
    packed = tmp_path / "pairs.jsonl.gz"
    packed.write_bytes(gzip.compress(b"\n".join(json.dumps(pair(i)).encode() for i in range(50)))[:-20])
    with pytest.raises(UserError, match="damaged or cut off"):
        Preferences.load(packed)


def test_31_expected_rows(jsonl: Callable[..., Path], pair: Callable[..., Any]) -> None:
    path = jsonl([pair(0), pair(1)])
    assert len(Preferences.load(path, expected_rows=2)) == 2
    with pytest.raises(UserError, match=r"2 rows, but data.expected_rows=3"):
        Preferences.load(path, expected_rows=3)


def test_34_bom_and_35_crlf_and_blank_lines(tmp_path: Path, pair: Callable[..., Any]) -> None:
    path = tmp_path / "pairs.jsonl"
    lines = [json.dumps(pair(0)), "", "  ", json.dumps(pair(1, chosen="line\u2028separator"), ensure_ascii=False)]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    preferences = Preferences.load(path)
    assert [row["place"] for row in preferences] == ["pairs.jsonl:1", "pairs.jsonl:4"]
    assert preferences[1]["chosen"] == [{"role": None, "content": "line\u2028separator"}]


def test_36_invalid_utf8_names_the_byte(tmp_path: Path, pair: Callable[..., Any]) -> None:
    path = tmp_path / "pairs.jsonl"
    first = json.dumps(pair(0)).encode() + b"\n"
    path.write_bytes(first + b'{"prompt": "caf\xe9"}\n')
    with pytest.raises(UserError, match=rf"byte {len(first) + 15} is not UTF-8"):
        Preferences.load(path)


def test_39_zero_byte_file(tmp_path: Path) -> None:
    for name, content in (("a.jsonl", b""), ("a.json", b""), ("a.jsonl.gz", gzip.compress(b""))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=r"the file is empty"):
            Preferences.load(tmp_path / name)


def test_40_nesting_bomb(tmp_path: Path) -> None:
    for name, content in (("a.jsonl", '{"prompt": ' + "[" * 100_000), ("a.json", "[" * 100_000)):
        (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match=r"a\.jsonl?:1: .*nested too deeply"):
            Preferences.load(tmp_path / name)


def test_41_text_prompt_with_conversational_responses(jsonl: Callable[..., Path]) -> None:
    rows = [{"prompt": "Hello there", "chosen": [GOOD], "rejected": [BAD]}]
    row = Preferences.load(jsonl(rows))[0]
    assert row["prompt"] == [{"role": "user", "content": "Hello there"}]
    assert row["chosen"] == [GOOD]
    rows = [{"prompt": [USER], "chosen": "Hello yourself", "rejected": "Go away"}]
    assert Preferences.load(jsonl(rows))[0]["chosen"] == [GOOD]


def test_43_pair_with_both_polarities_is_reported(pair: Callable[..., Any]) -> None:
    mirrored = pair(0, chosen=pair(0)["rejected"], rejected=pair(0)["chosen"])
    report = Preferences.from_rows([pair(0), pair(1), mirrored, pair(0)]).report
    assert report.kept == 4
    assert report.noted == {"pair also occurs with the other polarity": 1}
    assert report.examples["pair also occurs with the other polarity"][0].startswith("rows:3:")


@pytest.mark.parametrize("name", ["chosen_score", "rejected_score", "margin", "weight"])
@pytest.mark.parametrize("value", [True, False, "one", [1]])
def test_a_flag_or_a_text_is_no_score(name: str, value: object, pair: Callable[..., Any]) -> None:
    """`true` counts as 1 in Python."""
    report = Preferences.from_rows([pair(0, **{name: 1}), pair(1, **{name: value})], max_rejected=0.5).report
    assert report.rejected == {f"{name} is not a number": 1}
