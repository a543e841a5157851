"""Messages and their token ids by transformers alone."""

from __future__ import annotations

from typing import Any

SYSTEM = {"role": "system", "content": "Be kind."}
USER = {"role": "user", "content": "What is the time?"}
ANSWER = {"role": "assistant", "content": "It is a quarter past four."}
FORCED_THINKING = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)


def plain_ids(tokenizer: Any, messages: list[Any], generation: bool) -> list[int]:
    return tokenizer.apply_chat_template(messages, add_generation_prompt=generation, return_dict=False)


def raw_text_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of text in which nothing is special, by the backend alone."""
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
