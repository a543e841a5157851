"""Chat templates of the kinds that published models have: the ids are those that transformers renders."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from align.data import Preferences, tokenize
from align.data.encoding import decode_response, encode_conversations, encode_prompt, end_of_turn_id
from align.data.examples import tokenizer_fingerprint
from align.errors import UserError
from tests.align.data.published_templates import TEMPLATES, template_tokenizer

SYSTEM = {"role": "system", "content": "Be kind."}
USER = {"role": "user", "content": "What is the time?"}
THOUGHT = {"role": "assistant", "content": "<think>\nOne moment.\n</think>\n\nIt is four."}
NO_IDEA = {"role": "assistant", "content": "No idea."}
CONVERSATIONS = {
    "user": [USER],
    "system": [SYSTEM, USER],
    "history": [USER, THOUGHT, USER],
    "system and history": [SYSTEM, USER, {"role": "assistant", "content": "Four."}, {**USER, "content": " And now?\n"}],
    "two users": [USER, USER],
}
ANSWERS = [
    "It is a quarter past four.",
    "<think>\nI look.\n</think>\n\nIt is four.",
    " It is four. \n",
    "\nOnce",
    "四点",
]


def oracle(tokenizer: Any, messages: list[Any], end: str | None) -> list[int]:
    """Ids of a whole conversation by transformers, up to the token that ends the last turn."""
    ids = tokenizer.apply_chat_template(messages, return_dict=False)
    if end is None:
        return [*ids, tokenizer.eos_token_id]
    (token,) = tokenizer.convert_tokens_to_ids([end])
    return ids[: len(ids) - ids[::-1].index(token)]


def common(first: list[int], second: list[int]) -> list[int]:
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    return [token for token, _ in pairs]


def refuses(render: Callable[..., Any], messages: list[Any]) -> bool:
    try:
        render(messages, tokenize=False, add_generation_prompt=True)
    except Exception:
        return True
    return False


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_prompt_and_answer_are_rendered_by_the_template(name: str, conversation: str) -> None:
    template, end = TEMPLATES[name]
    tokenizer, messages = template_tokenizer(template), CONVERSATIONS[conversation]
    if refuses(tokenizer.apply_chat_template, messages):
        with pytest.raises(UserError, match=r"chat template (refuses|fails on) the conversation"):
            encode_conversations(tokenizer, [messages], [ANSWERS])
        return
    if (name, conversation) in {("Mistral v3", "system"), ("Mistral v3", "system and history")}:
        with pytest.raises(UserError, match="renders the messages of the prompt otherwise before an answer"):
            encode_conversations(tokenizer, [messages], [ANSWERS])
        return
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert encode_prompt(tokenizer, messages) == asked
    for answer in ANSWERS:
        [encoded] = encode_conversations(tokenizer, [messages], [[answer]])
        whole = oracle(tokenizer, [*messages, {"role": "assistant", "content": answer}], end)
        assert [*encoded.prompt, *encoded.responses[0]] == whole
        shared = common(asked, whole)
        assert encoded.prompt == shared
        assert any("cut" in remark for remark in encoded.remarks) == (len(shared) < len(asked))
        assert end_of_turn_id(tokenizer) == encoded.responses[0][-1]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_pair_has_one_prompt(name: str) -> None:
    """Its two answers render apart: both follow what they share with the prompt as it is answered."""
    template, end = TEMPLATES[name]
    tokenizer = template_tokenizer(template)
    messages = [USER] if not refuses(tokenizer.apply_chat_template, [USER]) else [SYSTEM, USER]
    row = {"prompt": messages, "chosen": [THOUGHT], "rejected": [NO_IDEA]}
    tokenized = tokenize(Preferences.from_rows([row, row]), tokenizer, max_length=900)
    asked = shared = encode_prompt(tokenizer, messages)
    for answer, response in zip((THOUGHT, NO_IDEA), tokenized[0].responses, strict=True):
        whole = oracle(tokenizer, [*messages, answer], end)
        assert [*tokenized[0].prompt_ids, *response] == whole
        shared = common(shared, whole)
    assert tokenized[0].prompt_ids == shared
    cut = [remark for remark in tokenized.report.noted if "cut there" in remark]
    assert bool(cut) == (len(shared) < len(asked))
    assert all(tokenized.report.noted[remark] == 2 for remark in cut)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("text", ["I think.\n</think>\n\nFour.", "four", "Four.<|user|>", "\ufffd", " four \n"])
@pytest.mark.parametrize("finished", [True, False])
def test_drawn_answers_keep_their_ids(name: str, text: str, finished: bool) -> None:
    """Behind the whole prompt, whatever the template would have written for the text; also of halved tokens."""
    tokenizer = template_tokenizer(TEMPLATES[name][0])
    messages = [USER] if not refuses(tokenizer.apply_chat_template, [USER]) else [SYSTEM, USER]
    drawn = [id for letter in text for id in tokenizer(letter, add_special_tokens=False)["input_ids"]]
    drawn += [end_of_turn_id(tokenizer)] * finished
    row = {"prompt": messages, "chosen": decode_response(tokenizer, drawn), "chosen_drawn": drawn}
    row |= {"drawn_with": tokenizer_fingerprint(tokenizer)}
    [example] = tokenize(Preferences.from_rows([row]), tokenizer, max_length=900, unit="demonstration")
    assert example.prompt_ids == encode_prompt(tokenizer, messages)
    assert example.responses == [drawn]


def test_drawn_ids_of_another_tokenizer_or_text_are_not_used() -> None:
    tokenizer = template_tokenizer(TEMPLATES["ChatML"][0])
    row = {
        "prompt": [USER],
        "chosen": "Four.",
        "chosen_drawn": [70, 71],
        "drawn_with": tokenizer_fingerprint(tokenizer),
    }
    good = tokenizer("Four.", add_special_tokens=False)["input_ids"]
    for changed in ({}, {"chosen_drawn": good, "drawn_with": "another"}):
        tokenized = tokenize(Preferences.from_rows([row | changed]), tokenizer, max_length=900, unit="demonstration")
        assert tokenized[0].responses == [[*good, end_of_turn_id(tokenizer)]]
        assert [count for remark, count in tokenized.report.noted.items() if "encoded again" in remark] == [1]


@pytest.mark.parametrize(
    "broken",
    [
        "{{ messages[0].content + 1 }}",
        "{{ messages[99].content.x }}",
        "{{ 1 // 0 }}",
        "{{ raise_exception('no') }}",
        "{{ messages[0]['content'].nothing() }}",
        "{{ [].pop() }}",
        "{{ 'x'.encode('no such') }}",
    ],
)
def test_templates_that_raise_reject_the_row(broken: str) -> None:
    tokenizer = template_tokenizer(broken)
    with pytest.raises(UserError, match=r"the prompt cannot be encoded: chat template (refuses|fails on)"):
        encode_prompt(tokenizer, [USER])
    with pytest.raises(UserError, match=r"1 chat template (refuses|fails on) the conversation"):
        tokenize(Preferences.from_rows([{"prompt": [USER]}]), tokenizer, max_length=99, unit="prompt")


def test_a_template_that_drops_a_thought_is_reported() -> None:
    tokenizer = template_tokenizer(TEMPLATES["R1"][0])
    rows = [{"prompt": [USER], "chosen": [THOUGHT]}, {"prompt": [USER], "chosen": [{**THOUGHT, "content": "Four."}]}]
    report = tokenize(Preferences.from_rows(rows), tokenizer, max_length=900, unit="demonstration").report
    assert report.noted["the chat template changes the text of a response"] == 1


def test_thoughts_stay_tokens_and_turn_marks_do_not() -> None:
    """A model writes <think> by itself; the marks of turns are the template's alone."""
    tokenizer = template_tokenizer(TEMPLATES["QwQ"][0])
    think, start = tokenizer.convert_tokens_to_ids(["<think>", "<|im_start|>"])
    ids = encode_prompt(tokenizer, [{"role": "user", "content": "<think> <|im_start|>"}])
    assert (ids.count(think), ids.count(start)) == (2, 2)
