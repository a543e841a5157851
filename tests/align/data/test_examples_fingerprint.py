"""Fingerprints of examples and of tokenizers: everything that changes token ids counts, nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import normalizers
from transformers import ByT5Tokenizer

from align.data import Preferences, examples
from align.data.examples import tokenize, tokenizer_fingerprint
from align.data.rendering import chat_template
from tests.align.data.conftest import Pair


def test_fingerprint_depends_on_all_that_matters(chatml: Any, bos_adding: Any, pair: Pair) -> None:
    other_template, other_eos = copy.deepcopy(chatml), copy.deepcopy(chatml)
    other_template.chat_template = chat_template("hh")
    other_eos.eos_token = "<|pad|>"
    preferences = Preferences.from_rows([pair(0), pair(1)])
    fingerprints = [
        tokenize(data, tokenizer, max_length=length, unit=unit).fingerprint
        for data, tokenizer, length, unit in [
            (preferences, chatml, 100, "pair"),
            (preferences, chatml, 101, "pair"),
            (preferences, chatml, 100, "ranking"),
            (preferences, other_template, 100, "pair"),
            (preferences, other_eos, 100, "pair"),
            (preferences, bos_adding, 100, "pair"),
            (preferences.select([0]), chatml, 100, "pair"),
            (preferences.select([1, 0]), chatml, 100, "pair"),
            (Preferences.from_rows([pair(0), pair(1, weight=2)]), chatml, 100, "pair"),
        ]
    ]
    assert len(set(fingerprints)) == len(fingerprints)


def test_the_fingerprint_changes_with_the_rules_of_encoding(
    chatml: Any, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Preferences.from_rows([pair(0)])
    before = tokenize(data, chatml, max_length=100).fingerprint
    monkeypatch.setattr(examples, "_VERSION", examples._VERSION + 1)
    assert tokenize(data, chatml, max_length=100).fingerprint != before


def test_the_fingerprint_of_a_tokenizer_is_that_of_all_it_does(chatml: Any) -> None:
    def changed(change: Callable[[Any], object]) -> str:
        tokenizer = copy.deepcopy(chatml)
        change(tokenizer)
        return tokenizer_fingerprint(tokenizer)

    changes: list[Callable[[Any], object]] = [
        lambda _: None,
        lambda t: setattr(t, "chat_template", t.chat_template + " "),
        lambda t: setattr(t, "chat_template", None),
        lambda t: setattr(t, "eos_token", "<|pad|>"),
        lambda t: setattr(t, "pad_token", "<|endoftext|>"),
        lambda t: setattr(t, "bos_token", "<|endoftext|>"),
        lambda t: t.add_tokens(["<more>"]),
        lambda t: setattr(t.backend_tokenizer, "normalizer", normalizers.NFKC()),
    ]
    assert len(set(map(changed, changes))) == len(changes)
    passing: list[Callable[[Any], object]] = [
        lambda t: t.backend_tokenizer.enable_padding(length=9),
        lambda t: t.backend_tokenizer.enable_truncation(5),
        lambda t: setattr(t, "padding_side", "left"),
    ]
    assert {changed(change) for change in passing} == {tokenizer_fingerprint(chatml)}
    slow, longer = ByT5Tokenizer(), ByT5Tokenizer(extra_ids=7)
    assert tokenizer_fingerprint(slow) == tokenizer_fingerprint(ByT5Tokenizer()) != tokenizer_fingerprint(longer)
