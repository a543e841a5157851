"""Examples by unit, and the cache that holds them."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets.config
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from align.data import Example, Preferences, examples
from align.data.encoding import encode_prompt, encode_response, end_of_turn_id
from align.data.examples import tokenize, tokenizer_fingerprint
from align.data.load_report import RowError
from align.data.pairs_and_rankings import draft, ranked
from align.data.rendering import chat_template
from align.errors import UserError

Pair = Callable[..., dict[str, Any]]


def test_pair(chatml: Any, pair: Pair) -> None:
    extra = {
        "chosen_score": 2.0, "margin": 0.5, "weight": 0.25, "prompt_id": "p", "answer": "1", "source": "s",
    }  # fmt: skip
    rows = [pair(7), pair(0) | extra]
    tokenized = tokenize(Preferences.from_rows(rows), chatml, max_length=100)
    assert tokenized[1] == Example(
        prompt_ids=encode_prompt(chatml, rows[1]["prompt"]),
        responses=[encode_response(chatml, rows[1][side]) for side in ("chosen", "rejected")],
        scores=[2.0, None],
        margin=0.5,
        weight=0.25,
        prompt_id="p",
        index=1,
        answer="1",
        source="s",
        comparisons=[[0, 1]],
    )
    assert tokenized[0].weight == 1.0
    assert tokenized[0].margin is None
    assert tokenized[-1] == tokenized[1]
    assert tokenized[:] == list(tokenized) == [tokenized[0], tokenized[1]]
    with pytest.raises(IndexError):
        tokenized[2]


def test_prompt_and_demonstration(chatml: Any, pair: Pair) -> None:
    preferences = Preferences.from_rows([pair(0, margin=2.0)])
    prompt = tokenize(preferences, chatml, max_length=100, unit="prompt")[0]
    demonstration = tokenize(preferences, chatml, max_length=100, unit="demonstration")[0]
    assert (prompt.responses, prompt.scores) == ([], [])
    assert demonstration.responses == [encode_response(chatml, "It is 1.")]
    assert prompt.prompt_ids == demonstration.prompt_ids
    assert demonstration.margin is None


def test_lengths_count_all_tokens(chatml: Any, pair: Pair) -> None:
    tokenized = tokenize(
        Preferences.from_rows([pair(0, chosen="yes " * n) for n in range(1, 9)]),
        chatml,
        max_length=60,
        max_rejected=0.5,
    )
    expected = [len(example.prompt_ids) + sum(map(len, example.responses)) for example in tokenized]
    assert tokenized.lengths.tolist() == expected
    assert len(set(expected)) > 3


def test_ranking_is_put_together_from_its_pairs(chatml: Any, pair: Pair) -> None:
    rows = [
        pair(0, chosen="b", rejected="c", rejected_score=1.0, weight=0.5),
        pair(1),
        pair(0, chosen="a", rejected="b", chosen_score=3.0, answer="x"),
        pair(0, chosen="a", rejected="c"),
    ]
    tokenized = tokenize(Preferences.from_rows(rows), chatml, max_length=100, unit="ranking")
    assert len(tokenized) == 2
    example = tokenized[0]
    assert example.responses == [encode_response(chatml, text) for text in "abc"]
    assert example.scores == [3.0, None, 1.0]
    assert example.weight == pytest.approx(2.5 / 3)
    assert (example.index, tokenized[1].index) == (0, 1)


def test_drawn_ids_stay_with_their_response_in_a_ranking(pair: Pair) -> None:
    """The order of the ranking is not that of the rows; of a response drawn in two rows the first ids count."""
    rows = [
        pair(0, chosen="b", rejected="c", chosen_drawn=[2], rejected_drawn=[3], drawn_with="w"),
        pair(0, chosen="a", rejected="b", chosen_drawn=[1], rejected_drawn=[9], drawn_with="w"),
        pair(0, chosen="c", rejected="d", chosen_drawn=None, rejected_drawn=None, drawn_with=None),
    ]
    example = draft(list(Preferences.from_rows(rows)), "ranking")
    assert [response["content"] for response in example.responses] == ["a", "b", "c", "d"]
    assert example.drawn == [[1], [2], [3], None]
    assert example.drawn_with == "w"


def test_a_response_has_the_score_of_the_first_row_that_gives_it_one(chatml: Any, pair: Pair) -> None:
    rows = [
        pair(0, chosen="a", rejected="b", chosen_score=None, rejected_score=1.0),
        pair(0, chosen="a", rejected="c", chosen_score=3.0, rejected_score=None),
        pair(0, chosen="a", rejected="b", chosen_score=4.0, rejected_score=2.0),
    ]
    (example,) = tokenize(Preferences.from_rows(rows), chatml, max_length=100, unit="ranking")
    assert example.responses == [encode_response(chatml, text) for text in "abc"]
    assert example.scores == [3.0, 1.0, None]


def test_ranking_that_contradicts_itself(chatml: Any, pair: Pair) -> None:
    rows = [pair(0, chosen="a", rejected="b"), pair(1), pair(0, chosen="b", rejected="a")]
    tokenized = tokenize(Preferences.from_rows(rows), chatml, max_length=100, unit="ranking", max_rejected=0.5)
    assert tokenized.report.rejected == {"pairs of the prompt contradict each other": 1}
    assert tokenized.report.examples["pairs of the prompt contradict each other"][0].startswith("rows:1")


def test_ranking_with_responses_that_are_cut_to_the_same(pad_is_eos: Any) -> None:
    worst, middle, best = "Z" * 40 + "a", "Z" * 40 + "b", "Y"
    rows = [{"prompt": "p", "chosen": best, "rejected": middle}, {"prompt": "p", "chosen": middle, "rejected": worst}]
    tokenized = tokenize(Preferences.from_rows(rows), pad_is_eos, max_length=20, unit="ranking")
    assert [len(response) for response in tokenized[0].responses] == [2, 19]


@given(st.permutations("abcde"), st.sets(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=8), st.data())
def test_order_is_consistent_with_every_pair(truth: list[str], picks: set[tuple[int, int]], data: Any) -> None:
    pairs = [(truth[i], truth[j]) for i, j in picks if i < j]
    scores = {text: data.draw(st.none() | st.integers(0, 3)) for text in "abcde"}
    order = ranked(scores, pairs)
    assert sorted(order) == list("abcde")
    assert all(order.index(better) < order.index(worse) for better, worse in pairs)


def test_order_left_open_goes_by_score_then_first_seen() -> None:
    assert ranked({"a": None, "b": 1.0, "c": 5.0, "d": None}, []) == ["c", "b", "a", "d"]
    assert ranked({"a": 1.0, "b": 9.0}, [("a", "b")]) == ["a", "b"]
    with pytest.raises(RowError, match="contradict"):
        ranked({"a": 1.0, "b": 0.0, "c": 0.0}, [("a", "b"), ("b", "c"), ("c", "a")])


def test_conversation_the_template_refuses_is_rejected(bos_adding: Any, pair: Pair) -> None:
    tokenizer = copy.deepcopy(bos_adding)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]
    rows = [pair(0, prompt=turns[1:]), pair(1, prompt=turns)]
    tokenized = tokenize(Preferences.from_rows(rows), tokenizer, max_length=100, max_rejected=0.5)
    assert tokenized.report.examples["chat template refuses the conversation"] == (
        "rows:2: chat template refuses the conversation (no system turn)",
    )


def test_messages_without_a_template_are_an_error(pad_is_eos: Any, pair: Pair) -> None:
    preferences = Preferences.from_rows([pair(0, prompt=[{"role": "user", "content": "Hello"}])])
    with pytest.raises(UserError, match=r"model\.chat_template="):
        tokenize(preferences, pad_is_eos, max_length=100)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"unit": "pairs"}, 'Did you mean "pair"'), ({"max_length": 2}, "max_length=2 leaves no room")],
)
def test_wrong_arguments(options: dict[str, Any], message: str, chatml: Any, pair: Pair) -> None:
    with pytest.raises(UserError, match=message):
        tokenize(Preferences.from_rows([pair()]), chatml, **({"max_length": 9} | options))


def cached_files() -> list[Path]:
    return sorted((Path(datasets.config.HF_DATASETS_CACHE) / "align").glob("*"))


def test_computed_once(chatml: Any, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [pair(0), pair(1, prompt="Z" * 99), pair(2, chosen="Y" * 99)]
    first = tokenize(Preferences.from_rows(rows), chatml, max_length=90)
    monkeypatch.setattr(datasets.Dataset, "map", None)
    second = tokenize(Preferences.from_rows(rows), chatml, max_length=90)
    assert [path.name for path in cached_files()] == [f"{first.fingerprint}.arrow"]
    assert list(first) == list(second)
    assert first.report == second.report
    assert first.report.left_out == {"prompt longer than max_length": 1}
    assert first.report.noted
    with pytest.raises(UserError, match="1 prompts leave no room for a response within 90 tokens"):
        tokenize(Preferences.from_rows(rows, too_long="error"), chatml, max_length=90)


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


def test_fingerprint_ignores_passing_settings(chatml: Any) -> None:
    tokenizer = copy.deepcopy(chatml)
    tokenizer.backend_tokenizer.enable_truncation(5)
    assert tokenizer_fingerprint(tokenizer) == tokenizer_fingerprint(chatml)


WORKER = """
import sys
import datasets.config
from transformers import PreTrainedTokenizerFast
from align.data import Preferences, tokenize
datasets.disable_progress_bars()
preferences = Preferences.load(sys.argv[1])
tokenizer = PreTrainedTokenizerFast.from_pretrained(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
tokenized = tokenize(preferences, tokenizer, max_length=200)
print(tokenized.fingerprint, sum(sum(map(sum, e.responses)) for e in tokenized), tokenized.lengths.sum())
"""


def test_several_ranks_at_the_same_time(chatml: Any, pair: Pair, jsonl: Callable[..., Path], tmp_path: Path) -> None:
    """They start together with an empty cache and different hash seeds, and all get the same; one file stays."""
    path = jsonl([pair(number) for number in range(3000)])
    chatml.save_pretrained(tmp_path / "tokenizer")
    cache = tmp_path / "cache"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path), str(tmp_path / "tokenizer")],
            env=os.environ | {"HF_DATASETS_CACHE": str(cache), "PYTHONHASHSEED": str(seed), "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in (1, 2)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    outputs = {worker.communicate("\n")[0] for worker in workers}
    assert [worker.returncode for worker in workers] == [0, 0]
    tokenized = tokenize(Preferences.load(path), chatml, max_length=200)
    total = sum(sum(map(sum, example.responses)) for example in tokenized)
    assert outputs == {f"{tokenized.fingerprint} {total} {tokenized.lengths.sum()}\n"}
    assert [file.name for file in cached_files()] == [f"{tokenized.fingerprint}.arrow"]


@pytest.mark.parametrize("damage", [b"", b"not an arrow file", None])
def test_damaged_cache_file_is_computed_again(damage: bytes | None, chatml: Any, pair: Pair) -> None:
    preferences = Preferences.from_rows([pair(number) for number in range(50)])
    first = list(tokenize(preferences, chatml, max_length=100))
    (file,) = cached_files()
    content = file.read_bytes()
    file.unlink()  # the open memory map keeps the old bytes
    file.write_bytes(content[: len(content) // 2] if damage is None else damage)
    assert list(tokenize(preferences, chatml, max_length=100)) == first
    assert file.read_bytes() == content


def test_cache_file_cut_between_batches_is_computed_again(chatml: Any, pair: Pair) -> None:
    """Such a file is a valid Arrow stream, only too short."""
    preferences = Preferences.from_rows([pair(number) for number in range(1500)])
    tokenize(preferences, chatml, max_length=100)
    (file,) = cached_files()
    with pa.ipc.open_stream(file.read_bytes()) as stream:
        batch, schema = stream.read_next_batch(), stream.schema
    assert batch.num_rows < 1500
    file.unlink()
    with pa.ipc.new_stream(str(file), schema) as writer:
        writer.write_batch(batch)
    assert len(tokenize(preferences, chatml, max_length=100)) == 1500


def test_cache_that_cannot_be_written(chatml: Any, pair: Pair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file")
    assert len(tokenize(Preferences.from_rows([pair(0)]), chatml, max_length=100)) == 1


def test_hh_on_a_real_tokenizer(hh_file: Path, story_tokenizer: Any) -> None:
    """All 2,303 pairs of the real file, in seconds, with every prompt and response as the text says."""
    tokenizer = copy.deepcopy(story_tokenizer)
    tokenizer.chat_template = chat_template("hh")
    preferences = Preferences.load(hh_file)
    start = time.perf_counter()
    tokenized = tokenize(preferences, tokenizer, max_length=16_384)
    assert time.perf_counter() - start < 15
    assert len(tokenized) == 2303
    assert not tokenized.report.noted
    assert np.all(tokenized.lengths > 0)
    for example in tokenized[::97]:
        row = preferences[example.index]
        assert example.prompt_ids == encode_prompt(tokenizer, row["prompt"])
        for ids, side in zip(example.responses, ("chosen", "rejected"), strict=True):
            text = tokenizer.decode(example.prompt_ids + ids)
            assert text.endswith(f"{row['prompt'][-1]['content']}\n\nAssistant: {row[side][0]['content']}</s>")


def test_of_a_prompt_that_stands_twice_the_first_row_is_kept(chatml: Any, pair: Pair) -> None:
    rows = [
        pair(0, source="first"),
        pair(1, source="b"),
        pair(0, source="again", chosen="Another."),
        pair(1, source="c", chosen="Yes."),
    ]
    prompts = tokenize(Preferences.from_rows(rows), chatml, max_length=99, unit="prompt").distinct_prompts()
    assert [example.index for example in prompts] == [0, 1]
    assert prompts[0].source == "first"
    assert prompts.lengths.tolist() == [len(example.prompt_ids) for example in prompts]


def test_defaults_of_tokenising(chatml: Any, pair: Pair) -> None:
    """Pairs, and the limit of the data; 0 is a limit too."""
    data = Preferences.from_rows([pair(0), pair(1, rejected=None), pair(2)], max_rejected=0.4)
    assert tokenize(data, chatml, max_length=100).unit == "pair"
    assert tokenize(data, chatml, max_length=100).report.rejected == {"rejected is null": 1}
    with pytest.raises(UserError, match=r"1 of 3 rows rejected \(33\.3%, allowed 0\.0%\)"):
        tokenize(data, chatml, max_length=100, max_rejected=0.0)
    with pytest.raises(UserError, match=r"give data with what a pair needs, or accept the loss"):
        tokenize(data, chatml, max_length=100, max_rejected=0.3)
    alike = Preferences.from_rows([pair(0), pair(1, chosen="a" * 99 + "b", rejected="a" * 99)])
    with pytest.raises(UserError, match=r"give data with what a pair needs, raise max_length \(40\), or accept"):
        tokenize(alike, chatml, max_length=40)
    with pytest.raises(
        UserError, match=r"pair needs, or take a method that learns from demonstrations \(supervised\)\.$"
    ):
        tokenize(data.select([1]), chatml, max_length=100)


def test_nothing_may_be_left_where_that_is_allowed(chatml: Any, pair: Pair) -> None:
    data = Preferences.from_rows([pair(0, rejected=None)])
    with pytest.raises(UserError, match="1 of 1 rows rejected"):
        tokenize(data, chatml, max_length=100, max_rejected=1.0)
    empty = tokenize(data, chatml, max_length=100, max_rejected=1.0, may_be_empty=True)
    assert (len(empty), list(empty), empty.lengths.tolist()) == (0, [], [])


def test_the_report_of_tokenising(pad_is_eos: Any, pair: Pair) -> None:
    rows = [
        pair(0),
        *(pair(n, rejected=None) for n in range(1, 5)),
        *(pair(n, prompt=f"Z{n}" * 30, chosen="Y" * 90) for n in range(5, 10)),
    ]
    data = Preferences.from_rows(rows, name="mine")
    tokenized = tokenize(data, pad_is_eos, max_length=100, max_rejected=0.5)
    report = tokenized.report
    assert (report.source, report.rule, report.polarity) == ("mine", "pair", data.report.polarity)
    assert (report.read, report.kept, len(tokenized)) == (10, 6, 6)
    assert report.rejected == {"rejected is null": 4}
    assert report.noted == {"response truncated to max_length": 5}
    assert report.examples == {
        "rejected is null": tuple(f"mine:{n}: rejected is null (a pair needs it)" for n in (2, 3, 4)),
        "response truncated to max_length": tuple(f"mine:{n}: response truncated to max_length" for n in (6, 7, 8)),
    }
    assert [example.index for example in tokenized] == [0, 5, 6, 7, 8, 9]
    assert tokenized[0] == tokenized[-6]
    assert [example.index for example in tokenized[4:0:-2]] == [8, 6]
    assert tokenized.preferences.fingerprint == data.fingerprint


def test_each_row_of_a_unit_keeps_its_columns(chatml: Any, pair: Pair) -> None:
    fields = {"chosen_score": 2.0, "rejected_score": 1.0, "margin": 3.0, "weight": 0.0, "prompt_id": "p"}
    data = Preferences.from_rows([pair(0, **fields, answer="x", source="s")])
    chosen, rejected = (encode_response(chatml, data[0][side]) for side in ("chosen", "rejected"))
    shared: dict[str, Any] = {"prompt_ids": encode_prompt(chatml, data[0]["prompt"]), "weight": 0.0, "prompt_id": "p"}
    shared |= {"index": 0, "answer": "x", "source": "s"}
    both = {"responses": [chosen, rejected], "scores": [2.0, 1.0], "comparisons": [[0, 1]], "margin": 3.0}
    wanted: dict[Any, dict[str, Any]] = {
        "prompt": {"responses": [], "scores": []},
        "demonstration": {"responses": [chosen], "scores": [2.0]},
        "pair": both,
        "ranking": both,
    }
    for unit, expected in wanted.items():
        (example,) = tokenize(data, chatml, max_length=100, unit=unit)
        assert example == Example(**shared, **expected)


def test_a_ranking_of_which_responses_are_cut_to_the_same(pad_is_eos: Any) -> None:
    """Within 10 tokens two are one: it has the place and the score of the better, and is compared once."""
    long = "Z" * 12
    rows = [
        {"prompt": "p", "chosen": f"{long}1", "rejected": "low", "chosen_score": 3.0, "rejected_score": 1.0},
        {"prompt": "p", "chosen": "top", "rejected": f"{long}2", "chosen_score": 4.0, "rejected_score": 2.0},
    ]
    (example,) = tokenize(Preferences.from_rows(rows), pad_is_eos, max_length=11, unit="ranking")
    end = pad_is_eos.eos_token_id
    top, low = ([*pad_is_eos(text, add_special_tokens=False)["input_ids"], end] for text in ("top", "low"))
    cut = pad_is_eos(long, add_special_tokens=False)["input_ids"][:10]
    assert example.responses == [top, cut, low]
    assert example.scores == [4.0, 3.0, 1.0]
    assert example.comparisons == [[0, 1], [0, 2], [1, 2]]
    assert tokenize(Preferences.from_rows(rows), pad_is_eos, max_length=11, unit="ranking").lengths.tolist() == [
        1 + len(top) + 10 + len(low)
    ]


def test_a_prompt_or_a_response_without_tokens_is_rejected() -> None:
    """Some tokenizers drop characters: here everything but the letters a and b."""
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "</s>": 2}, unk_token="a"))
    tokenizer.normalizer = normalizers.Replace(Regex("[^ab]"), "")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    letters = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
    rows = [
        {"prompt": "a", "chosen": "a", "rejected": "b"},
        {"prompt": "c", "chosen": "a", "rejected": "b"},
        {"prompt": "a", "chosen": "a", "rejected": "c"},
        {"prompt": "a", "chosen": "ca", "rejected": "a"},
    ]
    report = tokenize(Preferences.from_rows(rows), letters, max_length=9, max_rejected=0.9).report
    assert report.kept == 1
    assert report.rejected == {
        "prompt has no tokens": 1,
        "response has no tokens": 1,
        "identical after tokenisation": 1,
    }
    assert report.examples["identical after tokenisation"] == (
        "rows:4: identical after tokenisation (within 8 tokens)",
    )


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


def test_drawn_ids_in_a_pair_stand_where_their_response_stands(chatml: Any, pair: Pair) -> None:
    """One side drawn with this tokenizer keeps its ids, though its text alone would be encoded otherwise."""
    letters = [token for letter in "It is" for token in chatml(letter, add_special_tokens=False)["input_ids"]]
    end = end_of_turn_id(chatml)
    plain = chatml("It is", add_special_tokens=False)["input_ids"]
    assert letters != plain
    for side, place in (("chosen", 0), ("rejected", 1)):
        fields = {side: "It is", f"{side}_drawn": letters, "drawn_with": tokenizer_fingerprint(chatml)}
        tokenized = tokenize(Preferences.from_rows([pair(0, **fields)]), chatml, max_length=100)
        other = ("rejected", "chosen")[place]
        assert tokenized[0].responses[place] == letters  # no end of turn is added to what was cut off
        assert tokenized[0].responses[1 - place] == encode_response(chatml, pair(0)[other])
        assert not tokenized.report.noted
        stranger = tokenize(Preferences.from_rows([pair(0, **fields | {"drawn_with": "w"})]), chatml, max_length=100)
        assert stranger[0].responses[place] == [*plain, end]
        assert list(stranger.report.noted.values()) == [1]


@pytest.mark.parametrize("unit", ["pair", "ranking"])
def test_good_and_bad_answers_to_different_prompts_are_no_pairs(unit: Any, chatml: Any) -> None:
    """Three good and five bad: sft loses five of eight, 0.625, so that 0.65 is enough."""
    rows = [{"prompt": f"q{n}", "completion": "an answer", "label": n < 3} for n in range(8)]
    sentence = (
        rf"^rows: a {unit} needs a good and a bad answer to one prompt; 0 prompts have both, but 3 good and 5 bad "
        r"answers stand alone; give such prompts, or fine-tune on the good ones \(supervised, with "
        r"data\.max_rejected=0\.65\), or take a method that learns from judgements, each answer for itself\.$"
    )
    with pytest.raises(UserError, match=sentence):
        tokenize(Preferences.from_rows(rows), chatml, max_length=100, unit=unit)
    both = [*rows, {"prompt": "q0", "completion": "another", "label": False}]
    sentence = (
        r"1 prompts have both, but 2 good and 5 bad answers stand alone; give such prompts, leave the others out "
        r"\(data\.max_rejected=0\.9\), or fine-tune on the good ones \(supervised, with data\.max_rejected=0\.7\)"
    )
    with pytest.raises(UserError, match=sentence):  # 7 of 8 examples are lost, or 6 of 9 answers
        tokenize(Preferences.from_rows(both), chatml, max_length=100, unit=unit)
    assert len(tokenize(Preferences.from_rows(both, max_rejected=0.9), chatml, max_length=100, unit=unit)) == 1
    assert (
        len(tokenize(Preferences.from_rows(both, max_rejected=0.7), chatml, max_length=99, unit="demonstration")) == 3
    )
    data = Preferences.from_rows(rows, max_rejected=0.65)
    assert len(tokenize(data, chatml, max_length=100, unit="demonstration")) == 3
    with pytest.raises(UserError, match=r"0 good and 5 bad answers stand alone; give such prompts, or take a"):
        tokenize(Preferences.from_rows(rows[3:]), chatml, max_length=100, unit=unit)


def test_data_of_which_nothing_is_left_has_no_share_of_it(chatml: Any) -> None:
    """One row is rejected and one too long: all of them are lost, not half."""
    rows = [{"prompt": "a", "chosen": "b"}, {"prompt": "long " * 50, "chosen": "b", "rejected": "c"}]
    rows = [{"rejected": None, **row} for row in rows]
    with pytest.raises(UserError, match=r"2 of 2 rows rejected or left out \(none is left\)"):
        tokenize(Preferences.from_rows(rows), chatml, max_length=30)
