"""Counts and distributions of a small set, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from align.curation.profile import WORD, plot_profile, profile
from align.data import Preferences, tokenize
from align.model.policy import Policy

ROWS = [
    {"prompt": "one", "chosen": "a b c", "rejected": "a", "chosen_score": 3.0, "rejected_score": 1.0, "source": "s"},
    {"prompt": "one two", "chosen": "a", "rejected": None, "margin": 0.5, "source": "s"},
    {"prompt": "one two three", "chosen": None, "rejected": None},
    {"prompt": "one", "chosen": None, "rejected": "a b"},
]


def test_a_profile_by_hand(tiny_policy: Policy) -> None:
    data = Preferences.from_rows(ROWS)
    found = profile(data)
    assert (found["rows"], found["prompts"]) == (4, 3)
    assert found["kinds"] == {"pairs": 1, "demonstrations": 1, "prompts alone": 1, "bad answers alone": 1}
    assert found["sources"] == {"s": 2, "(none)": 2}
    spread = found["distributions"]
    # 1, 1, 2, 3 words: the 90th percentile lies 0.7 of the way from 2 to 3.
    assert spread["words of a prompt"] == pytest.approx(
        {"n": 4, "mean": 1.75, "least": 1, "median": 1.5, "p90": 2.7, "p99": 2.97, "most": 3}
    )
    means = {name: (values["n"], values["mean"]) for name, values in spread.items()}
    assert means == {
        **{"words of a prompt": (4, 1.75), "turns of a prompt": (4, 1.0)},
        **{"words, chosen": (2, 2.0), "words, rejected": (2, 1.5)},
        **{"score, chosen": (1, 3.0), "score, rejected": (1, 1.0), "score, chosen − rejected": (1, 2.0)},
        "margin": (1, 0.5),
    }
    tokens = tokenize(data, tiny_policy.tokenizer, max_length=100, unit="demonstration", max_rejected=1.0)
    spread = profile(data, tokens)["distributions"]
    # One token a letter; <|user|>, <|end|> and <|assistant|> around a prompt, <|end|> after an answer.
    assert (spread["tokens of a prompt"]["least"], spread["tokens of a prompt"]["most"]) == (6, 10)
    assert (spread["tokens of a response"]["least"], spread["tokens of a response"]["most"]) == (2, 6)


@pytest.mark.parametrize("rows", [ROWS, [{"prompt": "one"}]])
def test_a_picture_is_drawn(rows: list[dict[str, object]], tmp_path: Path) -> None:
    plot_profile(Preferences.from_rows(rows), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("text", "count"),
    [("a b, c", 3), ("天空很蓝。", 4), ("空 sky 3.5", 4), ("하늘은 파랗다", 2), ("ท้องฟ้า", 7), ("…", 0)],
)
def test_words_of_scripts_without_blanks_are_characters(text: str, count: int) -> None:
    assert len(WORD.findall(text)) == count
