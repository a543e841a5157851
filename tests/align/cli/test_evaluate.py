"""``scripts/evaluate.py``: what it measures, on files of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align import Policy, Preferences, Trainer, TrainerConfig
from align.cli.evaluate import main
from methods import SFT

COMMON = ("--prompts", "4", "--max-new-tokens", "8", "--max-length", "120")


@pytest.fixture
def pairs(tmp_path: Path, pair_rows: list[dict[str, Any]]) -> str:
    """Forty pairs; the chosen response is the shorter one where the source is ``even``."""
    file = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": row["prompt"], "chosen": "a" if even else "a b", "rejected": "a b" if even else "a", "source": name}
        for i, row in enumerate(pair_rows)
        for even, name in [(i % 2 == 0, "even" if i % 2 == 0 else "odd")]
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


@pytest.fixture
def brief(tmp_path: Path) -> str:
    """A scorer with 1 for one word and 0 for two."""
    file = tmp_path / "brief.yaml"
    file.write_text("{scorer: length, maximum: 1}")
    return str(file)


@pytest.fixture
def run(tiny_model: Path, pair_rows: list[dict[str, Any]], tmp_path: Path) -> str:
    policy = Policy.load(str(tiny_model))
    config = TrainerConfig(steps=1, batch_size=4, max_length=120, learning_rate=1e-2, save_steps=None)
    return str(Trainer(policy, tmp_path / "run", config).fit(SFT(), Preferences.from_rows(pair_rows[:8])).folder)


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evaluation.json").read_text())


def test_pairs_by_subset_without_a_model(
    pairs: str, brief: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", pairs, "--pairs", "--scorer", brief, "--out", str(tmp_path / "out")]) == 0
    table = result(tmp_path / "out")["scorer_accuracy"]["length"]
    assert {name: (row["mean"], row["n"]) for name, row in table.items()} == {
        "all": (0.5, 40),
        "even": (1.0, 20),
        "odd": (0.0, 20),
    }
    assert "Pairs ordered as labelled by length" in capsys.readouterr().out


def test_a_model_alone(tiny_model: Path, pairs: str, brief: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [str(tiny_model), "--data", pairs, "--scorer", brief, "--best-of", "4", "--out", str(out), *COMMON]
    assert main(words) == 0
    found = result(out)
    assert found["metrics"].keys() >= {"length", "kl", "response_length", "preference_accuracy"}
    assert found["metrics"]["kl"] == {"model": 0}
    assert [point["n"] for point in found["best_of_n"]] == [1, 2, 4]
    scores = [point["score"] for point in found["best_of_n"]]
    assert scores == sorted(scores)
    assert (out / "best_of_n.png").stat().st_size > 5000
    assert len((out / "samples.jsonl").read_text().splitlines()) == 4


def test_a_run_against_the_model_it_began_from(
    run: str, tiny_model: Path, pairs: str, brief: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = [run, "--against", str(tiny_model), "--data", pairs, "--scorer", brief, "--out", str(out), *COMMON]
    assert main(words) == 0
    found = result(out)
    assert set(found["metrics"]["kl"]) == {"against", "model"}
    assert found["metrics"]["kl"]["against"] == 0
    assert found["win_rate"]["by"] == "length"
    assert found["win_rate"]["n"] == 4
    said = "".join(capsys.readouterr().out.split())  # long paths are wrapped, at a blank or within
    assert f"Winrateof{run}over{tiny_model},bylength" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "there is no model to evaluate; name one, or add --pairs"),
        (["--pairs"], "--pairs needs a scorer; add --scorer NAME."),
        (["m", "--best-of", "4"], "--best-of needs a scorer; add --scorer NAME."),
        (["--pairs", "--scorer", "repetition", "--scorer", "repetition"], "two scorers have the name repetition;"),
        (["--pairs", "--scorer", "repetitoin"], 'Did you mean "repetition"?'),
    ],
)
def test_what_cannot_be_done_is_said_first(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--data", "not-read"]) == 2
    assert message in capsys.readouterr().err


def test_a_server_that_is_down_is_one_sentence(pairs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "down.yaml"
    file.write_text("{scorer: http, url: 'http://127.0.0.1:9/score', retries: 0}")
    assert main(["--data", pairs, "--pairs", "--scorer", str(file)]) == 1
    assert capsys.readouterr().err.startswith("Error: http://127.0.0.1:9/score was asked once and gave no scores: ")
