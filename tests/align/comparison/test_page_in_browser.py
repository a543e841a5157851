"""The page in Chromium: no complaint, no request, nothing wider than the window, labels that do not overlap."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from align.comparison.frontier import Frontier, Point
from align.comparison.page import page
from tests.accessibility import assert_axe_finds_nothing, needs_axe, tab_through
from tests.align.comparison.conftest import N, made
from tests.chromium import CHROMIUM, browser

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

_WORDS = "Whether it holds is another matter. "
_BOXES = """
[...document.querySelectorAll("svg text")].map(text => text.getBoundingClientRect())
  .map(box => [box.left, box.top, box.right, box.bottom])
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many methods of nearly the same score, long labels, long texts without spaces."""
    labels = ["sft", "dpo", "dpo:loss_type=ipo:beta=0.3:trainer.learning_rate=0.00003", "ppo", "grpo", "rft", "slic"]
    found = made({label: 0.5 + i / 1000 for i, label in enumerate(labels)})
    line = Frontier("beta", [Point(b, [b] * N, [b] * N) for b in (0.1, 0.2, 0.3)])
    text = page(
        found,
        title="methods on a_file_with_a_name_that_has_no_place_to_break_and_goes_on_and_on_and_on.jsonl",
        answer=[_WORDS * 3],
        caveats=[_WORDS * 4, "x" * 300],
        facts={"Command": "align compare data=" + "folder/" * 40},
        answers=[("Who? " * 60, [(label, "word" * 100, 0.5) for label in labels])] * 2,
        start="start",
        frontiers={"dpo": line},
    )
    made_file = tmp_path_factory.mktemp("page") / "comparison.html"
    made_file.write_text(text, encoding="utf-8")
    return made_file


def test_the_page_in_a_browser(file: Path, tmp_path: Path) -> None:
    with browser(tmp_path) as shown:
        for width in (400, 1100):
            backgrounds: list[str] = []
            for dark in (False, True):
                shown.open(file, width=width, dark=dark)
                assert shown.complaints == []
                assert shown.requests == [file.as_uri()]
                assert shown.evaluate("document.documentElement.scrollWidth") <= width
                assert shown.evaluate("document.querySelector('svg').getBoundingClientRect().width") >= 300
                backgrounds.append(shown.evaluate("getComputedStyle(document.body).backgroundColor"))
                for a, b in combinations(shown.evaluate(_BOXES), 2):
                    apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
                    assert apart, (a, b)
            assert backgrounds[0] != backgrounds[1]


@needs_axe
def test_axe_finds_nothing_to_object_to(file: Path, tmp_path: Path) -> None:
    with browser(tmp_path) as shown:
        assert_axe_finds_nothing(shown, file)


def test_the_keyboard_reaches_and_works_everything(file: Path, tmp_path: Path) -> None:
    with browser(tmp_path) as shown:
        shown.open(file, width=400, dark=False)
        assert tab_through(shown) == 4  # two tables and two prompts with their answers
        shown.evaluate("document.querySelectorAll('summary')[1].focus()")
        shown.press("Enter")
        shown.wait_until("document.querySelectorAll('details')[1].open")
        shown.evaluate("document.querySelector('.scroll').focus()")
        shown.press("ArrowRight")
        shown.wait_until("document.querySelector('.scroll').scrollLeft > 0")


def test_a_request_and_a_complaint_would_be_seen(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='http://localhost:9/x.png'><script>console.error('no')</script>", encoding="utf-8")
    with browser(tmp_path / "profile") as shown:
        shown.open(bad, width=400, dark=False)
        assert "http://localhost:9/x.png" in shown.requests
        assert any("no" in complaint for complaint in shown.complaints)
