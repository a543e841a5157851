"""A response that was drawn is decoded to text and encoded again; which blanks around it count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from align.data.encoding import decode_response, encode_response, end_of_turn_id, trimmed
from align.data.rendering import chat_template


@pytest.mark.parametrize("text", [" blue, said Tim", "blue", "\nOnce more", " two  blanks"])
def test_a_drawn_continuation_is_encoded_again_as_it_was(text: str, bos_adding: Any, story_tokenizer: Any) -> None:
    """After plain text the first blank is part of the response: without it the words would be glued together."""
    for tokenizer in (bos_adding, story_tokenizer):
        assert tokenizer.chat_template is None
        ids = encode_response(tokenizer, text)
        assert decode_response(tokenizer, ids) == text
        assert decode_response(tokenizer, encode_response(tokenizer, f"{text} \n")) == text


def test_a_drawn_answer_has_no_blanks_around_it(with_template: Callable[[str], Any]) -> None:
    tokenizer = with_template(chat_template("hh"))
    assert decode_response(tokenizer, encode_response(tokenizer, " It is blue.\n")) == "It is blue."


@pytest.mark.parametrize("text", ["a b", " a", "a ", "\n a\n", " ", ""])
def test_what_is_trimmed_of_a_response(text: str, chatml: Any, pad_is_eos: Any) -> None:
    """All blanks around an answer in a conversation; behind plain text only those at the end."""
    assert trimmed(chatml, text) == text.strip()
    assert trimmed(pad_is_eos, text) == text.rstrip()
    ids = pad_is_eos(text, add_special_tokens=False)["input_ids"]
    assert decode_response(pad_is_eos, [*ids, pad_is_eos.eos_token_id]) == text.rstrip()
    ids = chatml(text, add_special_tokens=False)["input_ids"]
    assert decode_response(chatml, [*ids, end_of_turn_id(chatml)]) == text.strip()
