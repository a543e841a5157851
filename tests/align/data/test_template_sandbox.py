"""Chat templates that never end or never stop writing are stopped; all others render as in transformers."""

# ruff: noqa: E501

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import pytest
from transformers.utils.chat_template_utils import _compile_jinja_template  # pyright: ignore[reportPrivateUsage]

from align.data import template_sandbox
from align.data.rendering import chat_template
from align.data.template_sandbox import STEPS, _compiled, render
from align.errors import UserError

NESTED = "{% for a in range(99999) %}" * 6 + "{% endfor %}" * 6
SET = "{% set n = namespace(s='ab', l=[1, 2], i=3) %}"
MANY = "{% for i in range(99999) %}"

HOSTILE = {
    "loops of loops": NESTED,
    "loops that write": NESTED.replace("{% endfor %}", "x{% endfor %}", 1),
    "a loop of tests": "{% for a in range(99999) if a < 0 %}{% endfor %}" * 3 + NESTED,
    "a recursive loop": "{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "a macro that calls itself": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "a macro that branches": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "filters of filters": MANY + "{% set n = range(99999) | map('string') | list %}{% endfor %}",
    "selections": MANY + "{% set n = range(99999) | select('odd') | list %}{% endfor %}",
    "texts that double": SET + MANY + "{% set n.s = n.s ~ n.s %}{% endfor %}",
    "texts that are added": SET + MANY + "{% set n.s = n.s + n.s %}{% endfor %}",
    "texts that are joined": SET + MANY + "{% set n.s = [n.s, n.s] | join %}{% endfor %}",
    "texts that are joined by a method": SET + MANY + "{% set n.s = n.s.join(['a', 'b', 'c']) %}{% endfor %}",
    "texts that are replaced": SET + MANY + "{% set n.s = n.s.replace('a', 'aa') %}{% endfor %}",
    "texts that are replaced by a filter": SET + MANY + "{% set n.s = n.s | replace('b', 'bb') %}{% endfor %}",
    "texts that are repeated": "{{ 'a' * 10000000000 }}",
    "lists that are repeated": "{{ ([0] * 10000000000) | length }}",
    "lists that are added": SET + MANY + "{% set n.l = n.l + n.l %}{% endfor %}",
    "lists of lists": SET + "{% for i in range(60) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l }}",
    "lists of lists as JSON": SET + "{% for i in range(60) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l | tojson }}",
    "lists that are compared": "{% set a = namespace(l=[1]) %}{% set b = namespace(l=[1]) %}{% for i in range(60) %}"
    "{% set a.l = [a.l, a.l] %}{% set b.l = [b.l, b.l] %}{% endfor %}{{ a.l == b.l }}",
    "sums of lists": "{{ ([[0] * 100000] * 100000) | sum(start=[]) | length }}",
    "powers": "{{ 9 ** (9 ** 9) }}",
    "powers by a variable": SET + "{{ n.i ** (n.i ** 20) }}",
    "squares": SET + MANY + "{% set n.i = n.i * n.i %}{% endfor %}",
    "padding": "{{ 'a' | center(10000000000) }}",
    "padding by a method": "{{ 'a'.ljust(10000000000) }}",
    "padding by zeros": "{{ 'a'.zfill(10000000000) }}",
    "padding by format": "{{ '%9999999999d' | format(1) }}",
    "padding by %": "{{ '%9999999999d' % 1 }}",
    "padding by a star": "{{ '%*d' % (9999999999, 1) }}",
    "padding by a field": "{{ '{:9999999999}'.format(1) }}",
    "padding by a nested field": "{{ '{:{}}'.format(1, 9999999999) }}",
    "indentation": "{{ messages | tojson(indent=1000000000) }}",
    "batches": "{{ [1] | batch(10000000000, 0) | list }}",
    "slices": "{{ [1] | slice(10000000000) | list }}",
    "searches": "{% set t = 'a' * 8000000 %}" + MANY + "{{ 'b' in t }}{% endfor %}",
    "output": "{% set t = 'a' * 80000 %}" + MANY + "{{ t }}{% endfor %}",
    "data that is written": MANY + "{% for m in messages %}{{ m.content }}{% endfor %}{% endfor %}",
}
MESSAGES = [{"role": "user", "content": "What is it? " * 50}, {"role": "assistant", "content": "It is."}]


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_stopped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here after a twentieth of the steps, to save time."""
    monkeypatch.setattr(template_sandbox, "STEPS", STEPS // 20)
    began, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"the chat template was stopped: .*; choose another with model\.chat_template"):
        render(HOSTILE[name], messages=MESSAGES)
    assert time.process_time() - began < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 300_000  # KiB


def test_a_whole_budget_is_spent_in_seconds() -> None:
    began = time.process_time()
    with pytest.raises(UserError, match="not ended after 1,000,000 steps"):
        render(NESTED)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "template",
    [
        "{{ range(10 ** 9) | length }}",
        "{{ lipsum(n=1000000000) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
        "{{ '{0.__class__}'.format(1) }}{{ raise_exception('no') }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
    ],
)
def test_the_sandbox_of_jinja_is_still_there(template: str) -> None:
    messages = [dict(message) for message in MESSAGES]
    with pytest.raises((Exception,)) as caught:
        print(render(template, messages=messages))
    assert not isinstance(caught.value, UserError)
    assert messages == MESSAGES


def templates() -> dict[str, str]:
    """Chat templates that are there: bundled ones, and those of the models beside the repository."""
    found = {name: chat_template(name) for name in ("hh", "chatml")}
    shared = Path(__file__).resolve().parents[4] / "shared"
    for file in sorted(shared.rglob("chat_template.jinja"))[:40]:
        found[str(file.relative_to(shared))] = file.read_text(encoding="utf-8")
    return found


CONVERSATIONS: list[list[dict[str, Any]]] = [
    MESSAGES,
    [{"role": "system", "content": "Be kind."}, *MESSAGES, {"role": "user", "content": "So?\n\n<b>"}],
    [{"role": "user" if i % 2 == 0 else "assistant", "content": f"turn {i} " * 20} for i in range(41)],
    [*MESSAGES, {"role": "user", "content": "x" * 200_000}],
]


@pytest.mark.parametrize("name", templates())
@pytest.mark.parametrize("generation", [False, True])
def test_other_templates_render_as_in_transformers(name: str, generation: bool) -> None:
    """And take some hundredth of the steps at most."""
    source = templates()[name]
    values = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": generation, "tools": None}
    for messages in CONVERSATIONS:
        try:
            expected = _compile_jinja_template(source).render(messages=messages, **values)
        except Exception as error:
            with pytest.raises(type(error)):
                render(source, messages=messages, **values)
            continue
        assert render(source, messages=messages, **values) == expected
        assert STEPS - _compiled(source)[1].left < STEPS / 100


FEATURES = (
    "{% macro m(a, b=2) %}{{ a }}-{{ b }}{% endmacro %}{{ m(1) }}{{ m('x', b=3) }}"
    "{% for a, b in {'k': [1, 2]}.items() %}{{ loop.index }}{{ loop.last }}{{ loop.length }}{{ a }}{{ b | tojson }}"
    "{% else %}none{% endfor %}{% for x in [3, 1, 2] | sort if x > 1 %}{{ loop.revindex }}{{ x }}{% endfor %}"
    "{% set n = namespace(x=1) %}{% for i in range(3) %}{% set n.x = n.x + i %}{% if i == 1 %}{% continue %}{% endif %}"
    "{{ n.x }}{% endfor %}{{ 2 ** 8 }}{{ 7 % 4 }}{{ '%s %05.1f' % ('a', 2.5) }}{{ '{:>6,}'.format(5000000) }}"
    "{{ [1] + [2] }}{{ (1, 2) + (3,) }}{{ 'a' ~ 1 ~ none ~ [1] }}{{ 'ab' * 3 }}{{ [0] * 2 }}{{ 1 in [1] and 'b' not in 'ac' }}"
    "{{ 1 < 2 < 3 }}{{ 'x,y'.split(',') | join(';') }}{{ 'aXb'.replace('X', '--') }}{{ messages | tojson(indent=2) }}"
    "{{ 'a b' | title | trim | length }}{{ [1, none] | select | list }}{{ {'a': 1} | dictsort }}{{ 1.5 | round | int }}"
    "{{ 'abc'[::-1] }}{{ messages[0]['content'][:4] }}{{ x is defined }}{{ x | default('d') }}{{ 'a' if true else 'b' }}"
    "{% filter upper %}abc{{ 1 }}{% endfilter %}{% call(v) w() %}{{ v }}{% endcall %}{% set b %}block{% endset %}{{ b }}"
    "{% generation %}said{% endgeneration %}{{ dict(a=1).a }}{{ ['a', 'b'] | map('upper') | join }}{{ 10000000 + 1 }}"
    "{{ 'abc' | center(9) }}{{ 'a\nb' | indent(4) }}{{ ('%d' | format(3)) }}{{ [3, 4] | sum }}{{ 'x' | batch(2) | list }}"
)


def test_what_templates_are_written_with() -> None:
    source = "{% macro w() %}[{{ caller(4) }}]{% endmacro %}" + FEATURES
    assert render(source, messages=MESSAGES) == _compile_jinja_template(source).render(messages=MESSAGES)


def test_a_rendering_does_not_count_for_the_next() -> None:
    source = "{% for i in range(99999) %}{% for m in messages %}{{ i }}{% endfor %}{% endfor %}"
    for _ in range(30):
        assert len(render(source, messages=MESSAGES)) > 1000
