"""The page: whole, escaped, without anything from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from align.comparison.page import page, table_of
from align.comparison.results import Results
from tests.align.comparison.conftest import made

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><script>1</script>",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "]]><svg onload=1>",
    "&lt;b&gt;",
    "\u202egnp.exe",
    "javascript:alert(1)",
    "<!-- -->",
]


class Reader(HTMLParser):
    """Collects tags, addresses and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


def read(found: Results, **texts: object) -> Reader:
    given = {"title": "t", "answer": ["Take b."], "caveats": ["One seed."], "facts": {"Data": "f"}, "answers": []}
    reader = Reader()
    reader.feed(page(found, start="start", frontiers={}, **{**given, **texts}))  # pyright: ignore[reportArgumentType]
    return reader


def test_it_has_the_answer_the_table_and_the_chart(clear: Results) -> None:
    shown = read(clear, answers=[("Who?", [("a", "Me.", 0.25)])])
    assert "Take b." in shown.text
    assert "One seed." in shown.text
    assert "5.0e12" in shown.text  # FLOPs
    assert {"svg", "table", "details"} <= set(shown.tags)
    assert "Me." in shown.text
    for label in ("start", "a", "b", "c"):
        assert label in shown.text


def test_nothing_is_loaded_from_elsewhere(clear: Results) -> None:
    shown = read(clear)
    assert not {"script", "link", "img", "iframe"} & set(shown.tags)
    assert all(address.startswith("#") for address in shown.addresses)  # glyphs and clips of the chart itself


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_of_models_and_names_stay_texts(clear: Results, text: str) -> None:
    plain = read(clear, answers=[("Who?", [("a", "Me.", 0.25)])])
    shown = read(
        clear, title=text, answer=[text], caveats=[text], facts={text: text}, answers=[(text, [(text, text, 0.5)])]
    )
    assert shown.tags == plain.tags
    assert not shown.handlers
    assert shown.text.count(text.strip().replace("\u202e", "\\u202e")) >= 7


@pytest.mark.parametrize("label", ["$x_1$", "<b>&", "a:b=c", "$$", "\\frac{1}"])
def test_labels_in_the_chart_stay_texts(label: str) -> None:
    shown = read(made({label: 0.3}))
    assert shown.text.count(label) >= 3  # chart, table, matrix
    assert "b" not in shown.tags


def test_ink_is_the_pages_own(clear: Results) -> None:
    text = page(clear, title="t", answer=[], caveats=[], facts={}, answers=[], start="start", frontiers={})
    svg = text[text.index("<svg") : text.index("</svg>")]
    assert "#010203" not in svg
    assert "currentColor" in svg
    assert not re.search(r"<svg[^>]* width=", svg)


def test_the_terminals_table_begins_with_the_best(clear: Results) -> None:
    assert [row.label for row, _ in table_of(clear)] == ["b", "a", "start", "c"]


def test_an_interval_that_there_is_not_is_not_promised(clear: Results) -> None:
    assert "Large: the mean, with its 95 % interval." in read(clear).text
    two = made({"a": 0.3}, seeds=(0, 1))
    reason = "2 runs are too few for an interval over runs: train with 3 seeds or more."
    text = read(two).text
    assert f"Large: the mean, without an interval: {reason}" in text
    assert f"of the gain and of the win rate at equal length; the other means have none: {reason}" in text
