"""``align data``: every subcommand on small files, what it writes, prints and returns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align.cli.data import main
from align.data import Preferences

ROWS = [
    {"q": "first question", "good": "a b c", "bad": "a"},
    {"q": "second question", "good": "a b", "bad": "b"},
    {"q": "third question", "good": "a", "bad": "c"},
]
COLUMNS = ["--columns", "{prompt: q, chosen: good, rejected: bad}"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    write("mine.jsonl", ROWS)


def write(name: str, rows: list[dict[str, Any]]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def pair(number: int, **fields: Any) -> dict[str, Any]:
    return {"prompt": f"question number {number}", "chosen": f"yes {number}", "rejected": f"no {number}", **fields}


def test_convert(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "mine.jsonl", *COLUMNS, "--out", "out.jsonl"]) == 0
    prompt_id = Preferences.from_rows([{"prompt": "first question"}])[0]["prompt_id"]
    first = {"prompt": "first question", "chosen": "a b c", "rejected": "a", "prompt_id": prompt_id}
    assert lines("out.jsonl")[0] == first
    output = capsys.readouterr()
    assert output.out.startswith("mine.jsonl: 3 rows read as pairwise")
    assert output.err.endswith("written to out.jsonl\n")
    assert main(["convert", "out.jsonl", "--out", "out.parquet"]) == 0
    read = Preferences.load("mine.jsonl", columns={"prompt": "q", "chosen": "good", "rejected": "bad"})
    both = [Preferences.load(name).fingerprint for name in ("out.jsonl", "out.parquet")]
    assert both == [read.fingerprint] * 2


@pytest.mark.parametrize(
    "words", [["convert", "mine.jsonl", *COLUMNS], ["select", "mine.jsonl", "--rows", "1"], ["mix", "a=mine.jsonl"]]
)
def test_no_file_is_replaced(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--out", "mine.jsonl"]) == 2
    assert capsys.readouterr().err == ("Error: --out=mine.jsonl is there already; give another name, or delete it.\n")
    assert len(lines("mine.jsonl")) == len(ROWS)


def test_convert_keeps_conversations() -> None:
    turns = [{"role": "user", "content": "q"}]
    calls = [{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}]
    answer = [{"role": "assistant", "content": "", "thinking": "t", "tool_calls": calls}]
    write("a.jsonl", [{"prompt": turns, "chosen": answer, "rejected": "no", "tools": [{"name": "f"}], "ranking": "r"}])
    assert main(["convert", "a.jsonl", "--out", "b.jsonl"]) == 0
    assert main(["convert", "a.jsonl", "--out", "b.parquet"]) == 0
    read = Preferences.load("a.jsonl").fingerprint
    assert [Preferences.load(name).fingerprint for name in ("b.jsonl", "b.parquet")] == [read] * 2


def select(*words: str) -> list[str]:
    return ["select", "mine.jsonl", *COLUMNS, "--rows=1", "--out=o.jsonl", *words]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["convert", "mine.jsonl", "--out", "out.jsonl"], "no known format fits the columns"),
        (["convert", "mine.jsonl", *COLUMNS, "--out", "out.txt"], "--out=out.txt: give a .jsonl or .parquet file."),
        (["convert", "mine.jsonl", "--columns", "q", "--out", "o.jsonl"], "--columns=q: not of the form"),
        (["convert", "mine.jsonl", "--columns", "{q", "--out", "o.jsonl"], "--columns={q cannot be read"),
        (
            ["check", "mine.jsonl", "--columns", "{prompt: q[0].b, chosen: good}"],
            """a path or name of a column needs quotes: --columns='{prompt: "q[0].b", chosen: "good"}'""",
        ),
        (["check", "mine.jsonl"], "for instance: --columns='{"),
        (["check", "mine.jsonl", "--format", "kto"], "--format=kto needs the column"),
        (["check", "absent.jsonl"], "absent.jsonl"),
        (["check", "mine.jsonl", *COLUMNS, "--model=smolllm2"], "--model=smolllm2: there is no such folder here"),
        (["check", "mine.jsonl", *COLUMNS, "--model=smollm2-135"], 'give a folder. Did you mean "smollm2-135m"?'),
        (["mix", "mine.jsonl", "--out", "o.jsonl"], "mix: 'mine.jsonl' is not of the form NAME=SOURCE."),
        (["mix", "a=world", "a=world", "--out", "o.jsonl"], "mix: two sources have the same name"),
        (["convert", "bad.jsonl", "--out", "o.jsonl"], "accept the loss with --max-rejected=0.5"),
        (["mix", "a=bad.jsonl", "--out", "o.jsonl"], "accept the loss with align data convert --max-rejected=0.5"),
        (["select", "mine.jsonl", *COLUMNS, "--rows", "9", "--out", "o.jsonl"], "select: --rows=9 of 3 rows"),
        (
            ["select", "mine.jsonl", *COLUMNS, "--rows=1", "--by=score", "--out=o.jsonl"],
            "select: 3 of 3 rows have no score (first: mine.jsonl:1); give --by length or a scorer, or the column",
        ),
        (select("--by=lenght"), """select: --by=lenght is no score that rows have, and no scorer"""),
        (select("--by=lenght"), """Did you mean "length"?"""),
        (select("--by=good"), "a column of numbers is read as the score by --columns='{chosen_score: COLUMN}'"),
        (
            select("--by="),
            "select: --by= is no score that rows have, and no scorer; give length, score, cosine_length, ensemble",
        ),
        (select("--by=regex"), "pattern is missing; it must be given. Give its settings in a YAML file that begins"),
        (select("--by=absent.yaml"), "select: --by absent.yaml: there is no such file; "),
        (select("--per-source=0"), "select: --per-source=0; give 1 or more"),
        (["select", "mine.jsonl", "--columns={prompt: q}", "--rows=1", "--out=o.jsonl"], "have no chosen answer"),
    ],
)
def test_mistakes(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    write("bad.jsonl", [pair(1), pair(2, chosen="")])
    assert main(words) == 2
    output = capsys.readouterr()
    assert "Error: " in output.err
    assert said in output.err
    assert {path.name for path in Path().iterdir()} == {"mine.jsonl", "bad.jsonl"}


def test_check_by_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """0 for notes at most, 1 for warnings, 3 for errors."""
    sky = pair(7, prompt="Why is the sky blue?")
    write("held.jsonl", [sky])
    for rows, code in (
        ([pair(1), pair(2)], 0),
        ([pair(1, mood="good")], 0),
        ([pair(1), pair(1)], 1),
        ([pair(1), pair(2, chosen="")], 3),
        ([pair(1), sky], 3),
    ):
        write("rows.jsonl", rows)
        assert main(["check", "rows.jsonl", "--heldout", "held.jsonl"]) == code, rows
    shown = capsys.readouterr().out
    assert "rows.jsonl: 2 rows read as pairwise" in shown
    assert "held-out rows ask what the training data asks" in shown
    assert main(["check", "rows.jsonl", "--heldout", "held.jsonl", "--json"]) == 3
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["name"], finding["count"], finding["places"]) == ("leakage", 1, ["held.jsonl:1"])


def test_check_with_a_model(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("rows.jsonl", [pair(1), pair(2, prompt="long " * 20)])
    words = ["check", "rows.jsonl", "--model", str(tiny_model), "--max-length", "60", "--json"]
    assert main(words) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["sentence"] == "left out: as tokens: prompt longer than max_length"


def test_show(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--model", str(tiny_model)]
    assert main(["show", "mine.jsonl", *COLUMNS, *model, "--rows", "1"]) == 0
    shown = capsys.readouterr().out
    assert "u: first question<eos>a: a b c<eos>" in shown
    assert "u: first question<eos>a: a<eos><pad><pad><pad><pad>" in shown
    assert "second question" not in shown
    assert main(["show", "mine.jsonl", *COLUMNS, *model, "--rows", "2", "--html", "page.html"]) == 0
    assert capsys.readouterr().out == "4 rows of tokens are in page.html.\n"
    assert Path("page.html").read_text(encoding="utf-8").count('<p class="tokens">') == 4
    assert main(["show", "mine.jsonl", *COLUMNS, *model, "--max-length", "5"]) == 2
    assert "no pair fits" in capsys.readouterr().err


def test_a_model_of_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "mine.jsonl", *COLUMNS, "--model", "world", "--rows", "1"]) == 0
    assert "first question" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "unit"),
    [
        ([pair(1)], "pair"),
        ([pair(1, rejected=None)], "demonstration"),
        ([{"prompt": "q"}], "prompt"),
        ([{"prompt": "q", "completion": word, "label": word == "a"} for word in "ab"], "pair"),
        ([{"prompt": word, "completion": word, "label": word == "a"} for word in "ab"], "demonstration"),
    ],
)
def test_the_unit_is_what_the_data_has(
    rows: list[dict[str, Any]], unit: str, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("rows.jsonl", rows)
    shown: list[str] = []
    for words in ([], ["--unit", unit]):
        assert main(["show", "rows.jsonl", "--model", str(tiny_model), *words]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]


def test_stats(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", "mine.jsonl", *COLUMNS, "--json", "--out", "lengths.png"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["kinds"]) == (3, {"pairs": 3})
    assert found["distributions"]["words, chosen"]["mean"] == 2.0
    assert Path("lengths.png").read_bytes().startswith(b"\x89PNG")
    assert main(["stats", "mine.jsonl", *COLUMNS]) == 0
    assert "mine.jsonl: 3 rows (3 pairs), 3 prompts" in capsys.readouterr().out


def test_mix(capsys: pytest.CaptureFixture[str]) -> None:
    write("a.jsonl", [pair(n) for n in range(6)])
    write("b.jsonl", [pair(n) for n in range(10, 13)])
    assert main(["mix", "one=a.jsonl", "two=b.jsonl", "--out", "mix.jsonl", "--seed", "4"]) == 0
    assert [row["source"] for row in lines("mix.jsonl")] == ["one", "two", "one"] * 3
    assert {row["prompt"] for row in lines("mix.jsonl")} == {pair(n)["prompt"] for n in (*range(6), *range(10, 13))}
    said = "one: 6 rows, 66.7% of the mixture\ntwo: 3 rows, 33.3% of the mixture\n"
    assert capsys.readouterr().out == said
    assert main(["mix", "one=a.jsonl", "two=b.jsonl", "--out", "few.jsonl", "--cap", "3", "--rows", "4"]) == 0
    assert [row["source"] for row in lines("few.jsonl")] == ["one", "two"] * 2


def test_select(capsys: pytest.CaptureFixture[str]) -> None:
    """By length the answer of three words, by score the one with the highest."""
    rows = [pair(n, chosen="w " * (n + 1) + str(n), chosen_score=float(-n), rejected_score=-9.0) for n in range(3)]
    write("a.jsonl", rows)
    for words, prompt in ((["--by", "length"], rows[2]["prompt"]), (["--by", "score"], rows[0]["prompt"])):
        assert main(["select", "a.jsonl", "--rows", "1", "--out", f"by_{words[1]}.jsonl", *words]) == 0
        assert [row["prompt"] for row in lines(f"by_{words[1]}.jsonl")] == [prompt]
    assert "1 of 3 rows from 1 clusters of prompts; mean score -1 → 0; 0 better rows" in capsys.readouterr().out


def test_check_of_good_data_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    write("good.jsonl", [pair(1), pair(2)])
    assert main(["check", "good.jsonl"]) == 0
    assert "Nothing is wrong with it" in capsys.readouterr().out


def test_names_in_the_data_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    write("[red]rows.jsonl", [pair(1, **{"[/b]": 1}), pair(2, **{"[/b]": 2}), pair(3, chosen="", **{"[/b]": 2})])
    assert main(["check", "[[]red]rows.jsonl"]) == 3
    shown = capsys.readouterr().out
    assert 'column "[/b]" is not read' in shown
    assert "[red]rows.jsonl:3" in shown


def test_an_example_in_a_refusal_cannot_colour_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    write("colour.jsonl", [{"foo": "a \x1b[31m red"}])
    assert main(["check", "colour.jsonl"]) == 2
    assert "foo (text: a \ufffd[31m red)" in capsys.readouterr().err
