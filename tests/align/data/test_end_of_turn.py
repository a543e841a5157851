"""The token that ends an answer, and what a template writes behind it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from align.data.encoding import Encoder, end_of_turn_id, ends_every_turn
from align.data.rendering import chat_template
from align.errors import UserError


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("chatml", True),
        ("hh", False),
        (  # as LLaMA 2: after the assistant alone
            "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% else %}"
            " {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}",
            False,
        ),
    ],
)
def test_whether_every_turn_has_its_end(template: str, expected: bool, chatml: Any) -> None:
    tokenizer = copy.deepcopy(chatml)
    tokenizer.chat_template = chat_template(template) if "{" not in template else template
    assert ends_every_turn(tokenizer) is expected


def test_without_a_template_no_turn_has_an_end(pad_is_eos: Any) -> None:
    assert not ends_every_turn(pad_is_eos)


def test_no_end_of_turn_is_an_error(bos_adding: Any) -> None:
    tokenizer = copy.deepcopy(bos_adding)
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="neither an EOS token nor"):
        end_of_turn_id(tokenizer)


def test_what_the_template_writes_behind_the_end_of_a_turn_is_not_learned(chatml: Any) -> None:
    encoder = Encoder.of(chatml)
    assert (encoder.rest, encoder.end_of_turn) == ("\n", chatml.convert_tokens_to_ids("<|im_end|>"))
    assert (encoder.has_template, encoder.bos, encoder.unknown, encoder.dummy_blank) == (True, None, None, False)
    assert set(encoder.control) == {"<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"}
    assert encoder.control_ids == set(encoder.control.values())
