"""The byte-level BPE tokenizer of the world's models, with a chat template of one turn marker per role."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from align.world.grammar import sentences
from world_making.text import ASSISTANT, END, USER

PAD, BOS = "<|pad|>", "<|bos|>"
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '" + ASSISTANT + "' if message['role'] == 'assistant' else '" + USER + "' }}"
    "{{ message['content'] }}" + END + "{% endfor %}"
    "{% if add_generation_prompt %}" + ASSISTANT + "{% endif %}"
)


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """Return the id of a special token."""
    found = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int)
    return found


def _with_starts(texts: Iterable[str]) -> Iterator[str]:
    """Yield the texts, each of their sentences alone, and the numbers often enough to become tokens."""
    for text in texts:
        yield text
        yield from sentences(text)
    for number in range(100):
        yield from itertools.repeat(str(number), 1000)


def train_tokenizer(texts: Iterable[str], folder: Path, *, vocab_size: int = 1792) -> PreTrainedTokenizerFast:
    """Train on plain text and save to `folder`.

    Every word of the texts gets a token for the beginning of a text and one after a blank, and every number to 99 is
    always one token, so that a small model can copy and count without learning to spell first.
    """
    tokenizer = Tokenizer(models.BPE())
    numbers = pre_tokenizers.Digits(individual_digits=False)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([numbers, byte_level])  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, END, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_with_starts(texts), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=END,
        extra_special_tokens=[USER, ASSISTANT],
        model_max_length=512,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return fast
