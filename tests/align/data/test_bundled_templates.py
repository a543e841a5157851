"""The bundled chat templates hh and chatml."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from align.data.rendering import chat_template

SYSTEM = {"role": "system", "content": "Be kind."}


USER = {"role": "user", "content": "Hello there"}


GOOD = {"role": "assistant", "content": "Hello yourself"}


def rendered(messages: list[dict[str, Any]], tokenizer: Any, generation: bool) -> str:
    return tokenizer.apply_chat_template(
        messages, chat_template=chat_template("hh"), add_generation_prompt=generation, tokenize=False
    )


@pytest.mark.parametrize(
    ("role", "shown"),
    [("system", "x"), ("developer", "x"), ("user", "\n\nHuman: x"), ("assistant", "\n\nAssistant: x")],
)
def test_roles_of_the_hh_template(role: str, shown: str, chatml: Any, bos_adding: Any) -> None:
    turns = [{"role": role, "content": "x"}]
    assert rendered(turns, chatml, False) == shown
    assert rendered(turns, bos_adding, True) == f"<s>{shown}\n\nAssistant:"


def test_the_chatml_template(chatml: Any, bos_adding: Any) -> None:
    template = chat_template("chatml")
    for tokenizer, start in ((chatml, ""), (bos_adding, "<s>")):
        whole = tokenizer.apply_chat_template([SYSTEM, USER, GOOD], chat_template=template, tokenize=False)
        assert whole == (
            f"{start}<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello there<|im_end|>\n"
            "<|im_start|>assistant\nHello yourself<|im_end|>\n"
        )
        asked = tokenizer.apply_chat_template(
            [USER], chat_template=template, tokenize=False, add_generation_prompt=True
        )
        assert asked == f"{start}<|im_start|>user\nHello there<|im_end|>\n<|im_start|>assistant\n"


def test_a_role_that_the_hh_template_does_not_know(chatml: Any) -> None:
    with pytest.raises(Exception, match="the hh template knows no role tool"):
        rendered([{"role": "tool", "content": "x"}], chatml, False)


def test_a_bos_that_begins_a_turn_is_written_once(chatml: Any) -> None:
    """As that of SmolLM2."""
    tokenizer = copy.deepcopy(chatml)
    tokenizer.bos_token = "<|im_start|>"
    whole = tokenizer.apply_chat_template([USER], chat_template=chat_template("chatml"), tokenize=False)
    assert whole == "<|im_start|>user\nHello there<|im_end|>\n"
