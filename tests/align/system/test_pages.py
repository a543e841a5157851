"""The frame of pages: texts are texts, the policy forbids scripts and requests."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from align.system.pages import breakable, duration, pages


def test_texts_are_escaped_and_their_characters_act_on_nothing(tmp_path: Path) -> None:
    (tmp_path / "one.html.jinja").write_text(
        '{% extends "frame.html.jinja" %}{% block content %}<p title="{{ text }}">{{ mark }}</p>{% endblock %}'
    )
    template = pages(tmp_path).get_template("one.html.jinja")
    page = template.render(title="a<b\u202e", text='"\x1b', mark=Markup("<b>x</b>"))
    assert "<title>a&lt;b\\u202e</title>" in page
    assert '<p title="&#34;\\x1b"><b>x</b></p>' in page
    assert "default-src 'none'" in page


def test_a_label_breaks_before_its_settings() -> None:
    assert breakable("dpo:<b>=1\x1b") == "dpo:<wbr>&lt;b&gt;=1\\x1b"


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.4, 59.4, 60, 135)] == ["0 s", "59 s", "1 min 0 s", "2 min 15 s"]
