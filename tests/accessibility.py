"""Whether everybody can use a page: what axe-core finds in it, and what the keyboard reaches."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.chromium import Browser

_PACKAGE = find_spec("axe_playwright_python")  # it carries axe-core; playwright itself is not used
needs_axe = pytest.mark.skipif(_PACKAGE is None, reason="axe-core is not installed (axe-playwright-python)")

_FINDINGS = """axe.run().then(({violations}) => violations.flatMap(rule => rule.nodes.map(node =>
  [rule.impact, rule.id, node.target.join(" "),
   node.any.concat(node.all, node.none).map(check => check.message).join(" ")])))"""

_STOPS = """[...document.querySelectorAll("summary, a[href], button, input, select, textarea, [tabindex='0']")]
  .filter(e => e.checkVisibility() && !e.disabled)"""

_FOCUS = """(() => {
  const e = document.activeElement, style = getComputedStyle(e), box = e.getBoundingClientRect();
  if (e === document.body) return null;
  const seen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
  const inside = box.bottom > 0 && box.top < innerHeight;
  return [STOPS.indexOf(e), seen && inside];
})()""".replace("STOPS", _STOPS)


def assert_axe_finds_nothing(shown: Browser, page: Path | str, prepare: Callable[[], object] = lambda: None) -> None:
    """Show a page on a telephone and a desk, light and dark; ``prepare`` brings it into its state after loading."""
    for width in (400, 1200):
        for dark in (False, True):
            shown.open(page, width=width, dark=dark)
            prepare()
            assert axe_findings(shown) == [], (page, width, dark)


def axe_findings(shown: Browser) -> list[list[Any]]:
    """The objections of axe-core to the page that is shown, closed parts opened: impact, rule, place, reason."""
    assert _PACKAGE is not None
    assert _PACKAGE.origin is not None
    shown.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    shown.evaluate(Path(_PACKAGE.origin).with_name("axe.min.js").read_text(encoding="utf-8") + ";0")
    return shown.evaluate(_FINDINGS)


def tab_through(shown: Browser) -> int:
    """Press Tab through the whole page and return the number of stops.

    Each part that can be used is reached once, in the order of the page, in the window and with a mark of focus; the
    end of the page lets the focus go.
    """
    # Tab goes on from where the focus was last, also if that has lost it: the beginning of the page must have had it.
    shown.evaluate("document.body.tabIndex = -1, document.body.focus(), document.body.removeAttribute('tabindex')")
    expected = shown.evaluate(f"{_STOPS}.length")
    for number in range(expected):
        shown.press("Tab")
        reached = shown.evaluate("document.activeElement.outerHTML.slice(0, 200)")
        assert shown.evaluate(_FOCUS) == [number, True], reached
    shown.press("Tab")
    assert shown.evaluate(_FOCUS) in (None, [0, True])  # the window, or the first again
    return expected
