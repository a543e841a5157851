from __future__ import annotations

import itertools
import re

import pytest
from world_making.text import WEIGHTS, TextWriter

from align.world import FAMILIES, TaskSampler, World, parse
from align.world.grammar import sentences
from align.world.task import Split


def test_pretraining_text_is_grammatical_and_repeatable():
    first = list(itertools.islice(TextWriter(World.default(), 5).documents(), 1500))
    again = list(itertools.islice(TextWriter(World.default(), 5).documents(), 1500))
    assert first == again
    assert first != list(itertools.islice(TextWriter(World.default(), 6).documents(), 1500))
    for document in first:
        for part in re.split(r"<\|\w+\|>", document):
            assert all(parse(sentence) for sentence in sentences(part)), document


def test_every_kind_of_document_is_written():
    writer = TextWriter(World.default(), 0)
    assert all(getattr(writer, f"_{name}")() for name in WEIGHTS)


@pytest.mark.parametrize("split", ["train", "template", "family"])
def test_pretraining_text_holds_every_word_of_the_prompts(split: Split):
    text = " ".join(itertools.islice(TextWriter(World.default(), 0).documents(), 12_000))
    known = {word.lower() for word in re.findall(r"[A-Za-z]+", text)}
    sampler = TaskSampler(FAMILIES, World.default(), split, 0)
    prompts = [sampler.draw().prompt for _ in range(800)]
    words = {word.lower() for prompt in prompts for word in re.findall(r"[A-Za-z]+", prompt)}
    assert words <= known, words - known
