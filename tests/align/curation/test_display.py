"""Tokens with what becomes of them, in the terminal and as a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from align.curation.display import LEGEND, Token, as_html, as_text, tokens_of
from align.data import Example
from align.model.policy import Policy


def ids(policy: Policy, text: str) -> list[int]:
    return list(policy.tokenizer(text, add_special_tokens=False)["input_ids"])  # pyright: ignore[reportArgumentType]


def test_rows_of_tokens_by_hand(tiny_policy: Policy) -> None:
    """Prompt, response, end of turn, and padding to the longer response; a cut response has no end."""
    prompt, long, short = (ids(tiny_policy, text) for text in ("q\n", "yes", "n"))
    example = Example(prompt_ids=prompt, responses=[[*short, 2], long], scores=[None, None])
    first, second = tokens_of(example, tiny_policy.tokenizer, 2)
    assert [(token.text, token.kind) for token in first] == [
        *(("q", "prompt"), ("\n", "prompt"), ("n", "chosen"), ("<|end|>", "end"), ("<|pad|>", "pad"))
    ]
    assert [token.id for token in first] == [*prompt, *short, 2, 0]
    assert [(token.text, token.kind) for token in second] == [
        *(("q", "prompt"), ("\n", "prompt"), ("y", "rejected"), ("e", "rejected"), ("s", "rejected"))
    ]
    judged = Example(prompt_ids=prompt, responses=[long], scores=[None], good=[False])
    assert [token.kind for token in tokens_of(judged, tiny_policy.tokenizer, 2)[0][-3:]] == ["rejected"] * 3
    (alone,) = tokens_of(Example(prompt_ids=prompt, responses=[], scores=[]), tiny_policy.tokenizer, 2)
    assert [token.kind for token in alone] == ["prompt", "prompt"]


def test_the_terminal_shows_line_breaks() -> None:
    text = as_text([Token("a\n", 1, "prompt"), Token("[b]", 2, "chosen")])
    assert text.plain == "a⏎\n[b]"
    assert [(span.start, span.end, span.style) for span in text.spans] == [(0, 3, "dim"), (3, 6, "green")]


def test_control_characters_of_the_data_do_nothing_to_the_terminal() -> None:
    """Colours, a turn of the direction of writing and a bell are shown; Persian's joiner and a wide blank stay."""
    row = [Token("\x1b[31m", 1, "chosen"), Token("\u202ea\a", 2, "chosen"), Token("می\u200cخواهم\u3000", 3, "end")]
    assert as_text(row).plain == "\\x1b[31m\\u202ea\\x07می\u200cخواهم\u3000"


def test_a_page_shows_text_as_text(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    as_html([[Token("<b>\n", 7, "end")]], page, title="a & b")
    written = page.read_text(encoding="utf-8")
    assert "<title>a &amp; b</title>" in written
    assert 'title="7">&lt;b&gt;⏎\n</span></p>' in written
    assert all(words in written for words in LEGEND.values())
    assert "<b>" not in written


@pytest.mark.parametrize("kind", LEGEND)
def test_every_kind_has_a_colour(kind: str, tmp_path: Path) -> None:
    as_html([[Token("x", 1, kind)]], tmp_path / "page.html", title="t")  # type: ignore[arg-type]
    assert as_text([Token("x", 1, kind)]).spans[0].style  # type: ignore[arg-type]


def test_a_character_of_several_tokens_stands_at_its_last_one() -> None:
    """ü is two bytes and 天 three; a cut one at the end of the response is shown as what it is."""
    ids = [*"aü天b".encode(), *"天".encode()[:2]]

    class Bytes:
        pad_token_id = 0

        def decode(self, ids: list[int]) -> str:
            return bytes(ids).decode(errors="replace")

    example = Example(prompt_ids=list("ü".encode()), responses=[ids], scores=[None])
    (row,) = tokens_of(example, Bytes(), end=0)  # pyright: ignore[reportArgumentType]
    assert [token.text for token in row] == ["·", "ü", "a", "·", "ü", "·", "·", "天", "b", "·", "\ufffd"]
