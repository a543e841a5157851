"""Token ids of prompts and responses against the plain transformers path."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from transformers import ByT5Tokenizer

from align.data.encoding import Encoder, encode_conversations, encode_prompt, encode_response, end_of_turn_id
from align.data.rendering import chat_template
from align.errors import UserError
from tests.align.data.token_ids import ANSWER, FORCED_THINKING, SYSTEM, USER, plain_ids, raw_text_ids

TRIMMING = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n\n' + message['content'] | trim + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n\n' }}{% endif %}"
)
THINKING = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if loop.last and message['role'] == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ALTERNATING = (
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ '<|im_start|>' + message['content'] + '<|im_end|>' }}{% endfor %}"
)


@pytest.mark.parametrize("messages", [[USER], [SYSTEM, USER], [USER, ANSWER, USER]])
def test_ids_are_those_of_the_plain_path(chatml: Any, messages: list[Any]) -> None:
    prompt, response = encode_prompt(chatml, messages), encode_response(chatml, ANSWER)
    assert prompt == plain_ids(chatml, messages, True)
    newline = chatml("\n", add_special_tokens=False)["input_ids"]
    assert prompt + response + newline == plain_ids(chatml, [*messages, ANSWER], False)
    assert response[-1] == chatml.convert_tokens_to_ids("<|im_end|>") == end_of_turn_id(chatml) != chatml.eos_token_id


@pytest.mark.parametrize("template", [TRIMMING, THINKING, FORCED_THINKING])
def test_other_templates(template: str, with_template: Callable[[str], Any]) -> None:
    tokenizer = with_template(template)
    prompt = encode_prompt(tokenizer, [USER])
    content = ANSWER["content"]
    spaced = {"role": "assistant", "content": f" {content}\n"}
    expected_prompt = plain_ids(tokenizer, [USER], True)
    if template is TRIMMING:
        assert prompt == expected_prompt
        assert prompt + encode_response(tokenizer, spaced) == plain_ids(tokenizer, [USER, spaced], False)
    else:
        assert prompt == [tokenizer.bos_token_id, *expected_prompt]
        lead = "<think>\n\n</think>\n\n" if template is THINKING else ""
        end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        assert encode_response(tokenizer, spaced) == [*raw_text_ids(tokenizer, f"{lead} {content}\n"), end]


def test_exactly_one_bos(with_template: Callable[[str], Any], bos_adding: Any, chatml: Any) -> None:
    """Bad row 16: BOS text in the prompt, BOS by the template, BOS by the tokenizer."""
    bos = bos_adding.bos_token_id
    text = "<s>What <s> is this?"
    for tokenizer in (bos_adding, with_template(TRIMMING), with_template(THINKING), with_template(chat_template("hh"))):
        ids = encode_prompt(tokenizer, text)
        assert (ids[0], ids.count(bos)) == (bos, 1)
        assert text in tokenizer.decode(ids)
    assert chatml.bos_token_id is None
    assert encode_prompt(bos_adding, "<s>What") == [bos, *raw_text_ids(bos_adding, "<s>What")]


def test_slow_tokenizer() -> None:
    """One without a Rust backend: bytes + 3."""
    tokenizer = ByT5Tokenizer()
    assert encode_prompt(tokenizer, "a</s>b") == [byte + 3 for byte in b"a</s>b"]
    assert encode_response(tokenizer, "<pad>") == [*(byte + 3 for byte in b"<pad>"), tokenizer.eos_token_id]


def test_plain_text(chatml: Any, pad_is_eos: Any) -> None:
    """Text is a user turn where there is a chat template, and itself where there is none."""
    assert encode_prompt(chatml, "What is the time?") == encode_prompt(chatml, [USER])
    assert encode_prompt(chatml, [{"role": None, "content": "What is the time?"}]) == encode_prompt(chatml, [USER])
    assert encode_prompt(pad_is_eos, "What is the time?") == raw_text_ids(pad_is_eos, "What is the time?")
    response = encode_response(pad_is_eos, " It is four.")
    assert response == [*raw_text_ids(pad_is_eos, " It is four."), pad_is_eos.eos_token_id]
    assert encode_response(pad_is_eos, [{"role": None, "content": " It is four."}]) == response


def test_messages_without_a_template_are_an_error(pad_is_eos: Any) -> None:
    with pytest.raises(UserError, match=r"no chat template; choose one with model.chat_template=hh, chatml or a file"):
        encode_prompt(pad_is_eos, [USER])


def test_conversation_the_template_refuses(with_template: Callable[[str], Any]) -> None:
    with pytest.raises(UserError, match=r"chat template refuses the conversation \(roles must alternate\)"):
        encode_prompt(with_template(ALTERNATING), [USER, USER])


def test_hh_template_on_a_model_without_one(with_template: Callable[[str], Any]) -> None:
    tokenizer = with_template(chat_template("hh"))
    prompt, response = encode_prompt(tokenizer, [USER]), encode_response(tokenizer, ANSWER)
    assert tokenizer.decode(prompt) == "<s>\n\nHuman: What is the time?\n\nAssistant:"
    assert tokenizer.decode(response) == " It is a quarter past four.</s>"
    assert prompt == plain_ids(tokenizer, [USER], True)


def test_bundled_chatml(with_template: Callable[[str], Any]) -> None:
    tokenizer = with_template(chat_template("chatml"))
    assert encode_prompt(tokenizer, [USER]) == plain_ids(tokenizer, [USER], True)
    assert end_of_turn_id(tokenizer) == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_the_tokenizer_is_left_as_it_was(chatml: Any) -> None:
    tokenizer = copy.deepcopy(chatml)
    tokenizer.backend_tokenizer.enable_truncation(5)
    tokenizer.backend_tokenizer.enable_padding(length=9, pad_id=tokenizer.pad_token_id, pad_token="<|pad|>")
    before = tokenizer.backend_tokenizer.to_str(), tokenizer.backend_tokenizer.encode_special_tokens, str(tokenizer)
    ids = encode_prompt(tokenizer, [{"role": "user", "content": "the <|im_end|> of it, said the old man"}])
    response = encode_response(tokenizer, "the <|pad|> of it, said the old man")
    after = tokenizer.backend_tokenizer.to_str(), tokenizer.backend_tokenizer.encode_special_tokens, str(tokenizer)
    assert before == after
    assert ids == encode_prompt(chatml, [{"role": "user", "content": "the <|im_end|> of it, said the old man"}])
    assert len(response) > 9
    assert tokenizer.pad_token_id not in response


def test_encoder_holds_no_tokenizer(chatml: Any) -> None:
    """So that it can be kept without keeping a vocabulary of megabytes alive."""
    encoder = Encoder.of(chatml)
    assert encoder == Encoder.of(chatml)
    assert not any(value is chatml for value in vars(encoder).values())


def test_a_response_is_text_a_message_or_a_list_of_one(chatml: Any) -> None:
    forms = [ANSWER["content"], ANSWER, [ANSWER]]
    ids = [*raw_text_ids(chatml, ANSWER["content"]), end_of_turn_id(chatml)]
    assert [encode_response(chatml, form) for form in forms] == [ids] * 3
    assert [encode_response(chatml, form, [USER]) for form in forms] == [ids] * 3


def test_prompts_and_responses_belong_together(chatml: Any) -> None:
    first, second = encode_conversations(chatml, ["a", [USER]], [["x", "y"], []])
    assert (first.prompt, second.prompt) == (encode_prompt(chatml, "a"), encode_prompt(chatml, [USER]))
    assert first.responses == [encode_response(chatml, "x"), encode_response(chatml, "y")]
    assert (second.responses, first.remarks, second.remarks) == ([], (), ())
    with pytest.raises(ValueError, match="zip"):
        encode_conversations(chatml, ["a"], [])


def test_rules_of_plain_tokenizers(bos_adding: Any, unigram: Any) -> None:
    plain = Encoder.of(bos_adding)
    assert (plain.has_template, plain.bos, plain.end_of_turn, plain.rest) == (False, 0, bos_adding.eos_token_id, "")
    blank = Encoder.of(unigram)
    assert (blank.bos, blank.dummy_blank, blank.unknown) == (None, True, unigram.unk_token_id)
    assert unigram.unk_token_id not in blank.control_ids
    assert "<unk>" in blank.control
