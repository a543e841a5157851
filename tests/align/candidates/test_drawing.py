"""Drawing candidates: every prompt once, with the responses that the sampler draws for it; every loss is explained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from align.candidates import drawing as candidates
from align.candidates.drawing import draw
from align.candidates.store import read_summary
from align.data import Preferences
from align.data.examples import tokenize
from align.data.preferences import Rules
from align.errors import UserError
from align.model.policy import Policy
from align.sampling.params import Response, SamplingParams
from align.sampling.sampler import Sampler
from align.scoring.reward_role import RoleScorer
from methods.picked_pairs import AllPairs
from tests.align.candidates.letters import PLAN, Letters, content


def answers(monkeypatch: pytest.MonkeyPatch, policy: Policy, texts: Sequence[str], *, finished: bool = True) -> None:
    """Let every prompt be answered by these texts."""
    tokenizer: Any = policy.tokenizer
    row = [Response(ids=tokenizer(text, add_special_tokens=False)["input_ids"], finished=finished) for text in texts]

    def generate(self: Sampler, prompts: Sequence[Any], **_: Any) -> list[list[Response]]:
        del self
        return [row for _ in prompts]

    monkeypatch.setattr(Sampler, "generate", generate)


def test_every_prompt_once_with_its_own_responses(tiny_policy: Policy, data: Preferences, tmp_path: Path) -> None:
    scorer, file = Letters(), tmp_path / "deep" / "c.jsonl"
    drawn = draw(tiny_policy, data, PLAN, file, scorer=scorer)
    assert sorted(scorer.asked) == sorted(row["prompt"][0]["content"] for row in data)
    summary = read_summary(file)
    assert summary is not None
    assert (summary["prompts"], summary["drawn"], summary["rows"]) == (40, 120, len(drawn))
    assert summary["reward_best"] > summary["reward_mean"]
    texts: dict[str, set[str]] = {}
    for row in drawn:
        assert row["chosen_score"] > row["rejected_score"]
        texts.setdefault(row["prompt_id"], set()).update(row[side][0]["content"] for side in ("chosen", "rejected"))
    own = {row["prompt_id"]: {row["chosen"][0]["content"], row["rejected"][0]["content"]} for row in data}
    assert len(texts) == summary["ranked"] > 30
    assert all(own[prompt] <= texts[prompt] for prompt in texts)
    # What was drawn is what the sampler draws for this seed, prompt and number.
    example = next(e for e in tokenize(data, tiny_policy.tokenizer, max_length=200, unit="prompt") if e.index == 9)
    tokenizer: Any = tiny_policy.tokenizer
    (responses,) = Sampler(tiny_policy, PLAN.sampling).generate([example.prompt_ids], n=3, keys=[9])
    wanted = {tokenizer.decode(r.ids, skip_special_tokens=True).strip() for r in responses}
    assert texts[data[9]["prompt_id"]] - own[data[9]["prompt_id"]] <= wanted


def test_the_data_is_left_out_where_it_is_not_wanted(tiny_policy: Policy, data: Preferences, tmp_path: Path) -> None:
    drawn = draw(tiny_policy, data, replace(PLAN, include_data=False), tmp_path / "c.jsonl", scorer=Letters())
    own = {row[side][0]["content"] for row in data for side in ("chosen", "rejected")}
    assert not own & {row[side][0]["content"] for row in drawn for side in ("chosen", "rejected")}


def test_repeated_unfinished_and_unusable_responses(
    tiny_policy: Policy, data: Preferences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, tiny_policy, ["same", " same ", "", " \n", "a\0b", "other"])
    plan = replace(PLAN, include_data=False, keep_unfinished=False)
    drawn = draw(tiny_policy, data, plan, tmp_path / "c.jsonl", scorer=Letters())
    assert len(drawn) == 40
    assert {frozenset((row["chosen"][0]["content"], row["rejected"][0]["content"])) for row in drawn} == {
        frozenset(("same", "other"))
    }
    sides = [(row[side][0]["content"], row[f"{side}_drawn"]) for row in drawn for side in ("chosen", "rejected")]
    tokenizer: Any = tiny_policy.tokenizer
    first = tokenizer("same", add_special_tokens=False)["input_ids"]  # not those of " same "
    assert all(ids == first for text, ids in sides if text == "same")
    summary = read_summary(tmp_path / "c.jsonl")
    assert summary is not None
    assert (summary["unusable"], summary["distinct"], summary["unfinished"]) == (120, 80, 0)
    answers(monkeypatch, tiny_policy, ["same", "other"], finished=False)
    with pytest.raises(
        UserError, match=r"left to learn from: 100% of the responses were cut off; raise method\.max_new"
    ):
        draw(tiny_policy, data, plan, tmp_path / "d.jsonl", scorer=Letters())


def test_all_tied_is_said(
    tiny_policy: Policy, data: Preferences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, tiny_policy, ["ab", "ac"])
    with pytest.raises(UserError, match=r"all responses to 100% of the prompts have the same score; take a scorer"):
        draw(tiny_policy, data, replace(PLAN, include_data=False), tmp_path / "c.jsonl", scorer=Letters())


def test_scores_are_needed_and_the_reward_role_gives_them(
    tiny_policy: Policy, data: Preferences, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="candidates need scores"):
        draw(tiny_policy, data, PLAN, tmp_path / "c.jsonl")
    tiny_policy.require(("reward",))
    drawn = draw(tiny_policy, data, PLAN, tmp_path / "c.jsonl")
    row = drawn[5]
    texts = [row[side][0]["content"] for side in ("chosen", "rejected")]
    [scores] = RoleScorer(tiny_policy).score([row["prompt"][0]["content"]], [texts])
    assert scores == pytest.approx([row["chosen_score"], row["rejected_score"]], abs=1e-5)


def test_no_room_and_prompts_that_are_too_long(tiny_policy: Policy, data: Preferences, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="6 tokens leave no room for a prompt beside a response of 4"):
        draw(tiny_policy, data, PLAN, tmp_path / "c.jsonl", scorer=Letters(), max_length=6)
    file = tmp_path / "d.jsonl"
    lengths = [len(e.prompt_ids) for e in tokenize(data, tiny_policy.tokenizer, max_length=200, unit="prompt")]
    limit = sorted(lengths)[20] + 4
    loose = replace(data, rules=Rules(max_rejected=1.0))
    draw(tiny_policy, loose, PLAN, file, scorer=Letters(), max_length=limit)
    summary = read_summary(file)
    assert summary is not None
    kept = sum(length + 2 <= limit - 4 for length in lengths)
    assert (summary["prompts"], summary["left_out"]) == (kept, 40 - kept)


def test_groups_of_a_diverse_beam_search_are_candidates(tiny_policy: Policy, data: Preferences, tmp_path: Path) -> None:
    beams = SamplingParams(temperature=0, diversity_penalty=100.0, max_new_tokens=4)
    plan, file = replace(PLAN, sampling=beams, include_data=False), tmp_path / "c.jsonl"
    drawn = draw(tiny_policy, data, plan, file, scorer=Letters())
    examples = list(tokenize(data, tiny_policy.tokenizer, max_length=200, unit="prompt"))
    responses = Sampler(tiny_policy, beams).generate([example.prompt_ids for example in examples], n=3)
    found = {
        data[example.index]["prompt_id"]: {tiny_policy.decode(response.ids) for response in row}
        for example, row in zip(examples, responses, strict=True)
    }
    assert len(drawn) > 10
    assert all(row[side][0]["content"] in found[row["prompt_id"]] for row in drawn for side in ("chosen", "rejected"))
    weaker = replace(plan, sampling=replace(beams, diversity_penalty=1.0))
    with pytest.raises(UserError, match=r"sampling\.diversity_penalty is 100\.0 in the run and 1\.0 now"):
        draw(tiny_policy, data, weaker, file, scorer=Letters())


def test_a_prompt_that_stands_twice_is_drawn_for_once(
    tiny_policy: Policy, pair_rows: list[dict[str, str]], tmp_path: Path
) -> None:
    again = [{**row, "chosen": "Another good one"} for row in pair_rows[:3]]
    data = Preferences.from_rows([*pair_rows[:3], *again])
    drawn = draw(tiny_policy, data, PLAN, tmp_path / "c.jsonl", scorer=Letters())
    summary = read_summary(tmp_path / "c.jsonl")
    assert summary is not None
    assert summary["prompts"] == 3
    texts = {row[side][0]["content"] for row in drawn for side in ("chosen", "rejected")}
    assert {"Another good one", pair_rows[0]["chosen"]} <= texts


def test_drawn_responses_keep_their_ids(tiny_policy: Policy, data: Preferences, tmp_path: Path) -> None:
    """The tokens that were drawn are trained on, halves of letters and control tokens among them."""
    drawn = draw(tiny_policy, data, PLAN, tmp_path / "c.jsonl", scorer=Letters())
    examples = list(tokenize(data, tiny_policy.tokenizer, max_length=200, unit="prompt"))
    responses = Sampler(tiny_policy, PLAN.sampling).generate(
        [example.prompt_ids for example in examples], n=3, keys=[example.index for example in examples]
    )
    wanted = {
        tuple(example.prompt_ids): {tuple(response.ids) for response in row}
        for example, row in zip(examples, responses, strict=True)
    }
    own = {text for row in data for text in (row["chosen"][0]["content"], row["rejected"][0]["content"])}
    found = 0
    tokenized = tokenize(drawn, tiny_policy.tokenizer, max_length=250)
    assert not tokenized.report.noted
    for example in tokenized:
        row = tokenized.preferences[example.index]
        for side, ids in zip(("chosen", "rejected"), example.responses, strict=True):
            if row[side][0]["content"] not in own:
                assert tuple(ids) in wanted[tuple(example.prompt_ids)]
                found += 1
    assert found > 60
    assert any(ids[-1] != tiny_policy.tokenizer.eos_token_id for example in tokenized for ids in example.responses)


def test_prompts_keep_their_keys_and_their_order_whoever_draws_them(
    tiny_policy: Policy, data: Preferences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ranks, the second of which has the first prompts, write what one writes."""
    draw(tiny_policy, data, PLAN, tmp_path / "one.jsonl", scorer=Letters())
    keys: list[int] = []
    generate, selected = Sampler.generate, candidates._Drawing._selected

    def counted(self: Sampler, prompts: Sequence[Any], **options: Any) -> Any:
        keys.extend(options["keys"])
        return generate(self, prompts, **options)

    def dealt(self: Any, indices: Sequence[int]) -> Any:
        return [*selected(self, indices[1::2]), *selected(self, indices[::2])]

    monkeypatch.setattr(Sampler, "generate", counted)
    monkeypatch.setattr(candidates._Drawing, "_selected", dealt)
    draw(tiny_policy, data, PLAN, tmp_path / "two.jsonl", scorer=Letters())
    assert sorted(keys) == list(range(40))
    assert content(tmp_path / "two.jsonl")[0] == content(tmp_path / "one.jsonl")[0]


def test_the_rows_of_a_prompt_have_its_weight(
    tiny_policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean of its rows; where the selection weighs its rows too, both count."""
    answers(monkeypatch, tiny_policy, ["a", "b", "c"])
    rows = [
        {"prompt": f"{name}?", "chosen": "yes", "rejected": f"no {i}", "weight": weight}
        for i, (name, weight) in enumerate((("one", 0.0), ("one", 6.0), ("two", 1.0), ("three", None)))
    ]
    data = Preferences.from_rows(rows)
    plan = replace(PLAN, include_data=False)
    ranked = draw(tiny_policy, data, plan, tmp_path / "ranked.jsonl", scorer=Letters())
    pairs = draw(tiny_policy, data, replace(plan, select=AllPairs()), tmp_path / "pairs.jsonl", scorer=Letters())

    def weights(drawn: Preferences) -> dict[str, set[float | None]]:
        of: dict[str, set[float | None]] = {}
        for row in drawn:
            of.setdefault(row["prompt"][0]["content"], set()).add(row["weight"])
        return of

    assert weights(ranked) == {"one?": {3.0}, "two?": {1.0}, "three?": {1.0}}
    assert weights(pairs) == {"one?": {1.0}, "two?": {1 / 3}, "three?": {1 / 3}}
