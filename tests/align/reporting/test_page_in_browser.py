"""The report in Chromium: no script, no complaint, no request, readable on a telephone, in both themes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from align.reporting.page import report, write_report
from align.reporting.record import Record
from tests.accessibility import assert_axe_finds_nothing, needs_axe, tab_through
from tests.chromium import CHROMIUM, browser
from tests.hostile import HOSTILE

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

_FAINT = """
(() => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const back = element => {
    for (; element; element = element.parentElement) {
      const found = numbers(getComputedStyle(element).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("body *")].filter(e => e.checkVisibility() &&
      [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && !(e instanceof SVGElement)).map(e => {
    const [a, b] = [light(numbers(getComputedStyle(e).color)), light(back(e))];
    return [e.textContent.slice(0, 40), (Math.max(a, b) + .05) / (Math.min(a, b) + .05)];
  }).filter(([, contrast]) => contrast < 4.5);
})()
"""
"""Visible texts whose contrast with what is behind them is below 4.5 (WCAG 2.2, 1.4.3)."""
_UNNAMED = """
[...document.querySelectorAll("[role=img], [role=region], [tabindex]")].filter(e => !e.ariaLabel).length
"""


@pytest.fixture
def pages(run: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path]:
    """The report of one run, and one of two runs."""
    several = tmp_path / "several.html"
    single = write_report(run("a_name_without_a_place_to_break" * 4, text="What is it? " * 10))
    several.write_text(report([Record.read(run(name, text="x" * 60)) for name in ("first", "second")]))
    return single, several


@needs_axe
def test_axe_finds_nothing_to_object_to(pages: tuple[Path, Path], tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as shown:
        for page in pages:
            assert_axe_finds_nothing(shown, page)


def test_the_keyboard_reaches_and_works_everything(pages: tuple[Path, Path], tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as shown:
        for page, settings in zip(pages, (1, 2), strict=True):
            shown.open(page, width=400, dark=False)
            closed = tab_through(shown)
            for number in range(settings):
                shown.evaluate(f"document.querySelectorAll('summary')[{number}].focus()")
                shown.press("Enter" if number else " ")
                shown.wait_until(f"document.querySelectorAll('details')[{number}].open")
            assert tab_through(shown) == closed + settings  # the tables inside
            wide = "[...document.querySelectorAll('.scroll')].find(part => part.scrollWidth > part.clientWidth)"
            shown.evaluate(f"{wide}.focus()")
            shown.press("ArrowRight")
            shown.wait_until(f"{wide}.scrollLeft > 0")


def test_the_report_in_a_browser(pages: tuple[Path, Path], tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as shown:
        for page in pages:
            for width in (400, 1200):
                backgrounds: list[str] = []
                for dark in (False, True):
                    shown.open(page, width=width, dark=dark)
                    assert shown.complaints == []
                    assert shown.requests == [page.as_uri()]
                    assert shown.evaluate("document.documentElement.scrollWidth") <= width
                    assert shown.evaluate("document.querySelector('svg').getBoundingClientRect().width") >= 280
                    assert shown.evaluate(_FAINT) == []
                    assert shown.evaluate(_UNNAMED) == 0
                    backgrounds.append(shown.evaluate("getComputedStyle(document.body).backgroundColor"))
                assert backgrounds[0] != backgrounds[1]


def test_hostile_texts_do_nothing(run: Callable[..., Path], tmp_path: Path) -> None:
    assert len(HOSTILE) >= 40
    with browser(tmp_path / "profile") as shown:
        for number, text in enumerate(HOSTILE):
            page = write_report(run(f"run{number}", text=text))
            shown.open(page, width=1200, dark=False)
            shown.evaluate("document.querySelectorAll('*').forEach(e => e.dispatchEvent(new Event('mouseover')))")
            assert shown.evaluate("typeof hacked") == "undefined", text
            assert (shown.complaints, shown.requests) == ([], [page.as_uri()]), text


def test_names_of_runs_are_texts_too(run: Callable[..., Path], tmp_path: Path) -> None:
    names = [text for text in HOSTILE if "/" not in text and text.isprintable() and len(text) < 100]
    assert len(names) > 8
    with browser(tmp_path / "profile") as shown:
        for name in names:
            page = write_report(run(name))
            shown.open(page, width=400, dark=False)
            assert shown.evaluate("document.querySelector('h1').textContent") == name
            assert shown.evaluate("typeof hacked") == "undefined"
            assert (shown.complaints, shown.requests) == ([], [page.as_uri()])
