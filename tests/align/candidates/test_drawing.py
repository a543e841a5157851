"""Drawing candidates: nothing is drawn twice or lost, and every failure is explained."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from align.candidates import drawing as candidates
from align.candidates.drawing import draw
from align.candidates.plan import CandidatePlan
from align.candidates.store import GrowingFile, read_summary
from align.data import Preferences
from align.data.examples import tokenize
from align.data.preferences import Rules
from align.data.writing import write_rows
from align.errors import ScorerError, UserError
from align.model.policy import Policy
from align.sampling.params import Response, SamplingParams
from align.sampling.sampler import Sampler
from align.scoring.reward_role import RoleScorer
from align.system.signals import Interrupted
from methods.picked_pairs import AllPairs
from reward import Length

PLAN = CandidatePlan(
    samples=3, sampling=SamplingParams(temperature=0.7, max_new_tokens=4), keep_unfinished=True, include_data=True
)


@dataclass
class Letters:
    """Scores by the first character, so that ties happen; acts when asked the `at`-th time."""

    name: str = "letters"
    at: int = 0
    act: Any = None
    asked: list[str] = field(default_factory=list[str])
    calls: int = 0

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **_: Sequence[Any]
    ) -> list[list[float]]:
        self.calls += 1
        if self.act is not None and self.calls == self.at:
            self.act()
        self.asked += prompts
        return [[float(ord(text[0]) % 5) for text in row] for row in responses]


@pytest.fixture
def data(pair_rows: list[dict[str, str]]) -> Preferences:
    return Preferences.from_rows(pair_rows)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_CHUNK", 8)


def content(file: Path) -> tuple[bytes, dict[str, Any]]:
    return file.read_bytes(), json.loads(file.with_suffix(".json").read_text())


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


class TestGoingOn:
    """However a drawing is stopped, going on gives the file of an uninterrupted one."""

    @pytest.fixture
    def whole(self, tiny_policy: Policy, data: Preferences, tmp_path: Path) -> tuple[bytes, dict[str, Any]]:
        draw(tiny_policy, data, PLAN, tmp_path / "whole.jsonl", scorer=Letters())
        return content(tmp_path / "whole.jsonl")

    def test_a_scorer_that_fails_in_the_middle(
        self, tiny_policy: Policy, data: Preferences, tmp_path: Path, whole: tuple[bytes, dict[str, Any]]
    ) -> None:
        def fail() -> None:
            raise ScorerError("the scorer is down; start it.")

        file = tmp_path / "c.jsonl"
        first = Letters(at=3, act=fail)
        with pytest.raises(ScorerError, match=r"the scorer is down; start it. 16 of 40 prompts are in .*c\.jsonl"):
            draw(tiny_policy, data, PLAN, file, scorer=first)
        assert content(file)[1]["done"] == 16
        second = Letters()
        draw(tiny_policy, data, PLAN, file, scorer=second)
        assert content(file) == whole
        assert not set(first.asked) & set(second.asked)
        assert len(first.asked) + len(second.asked) == 40

    @pytest.mark.parametrize("when", ["before the rows", "inside the rows", "before the state", "after the state"])
    def test_a_kill_at_any_point_of_writing(
        self,
        when: str,
        tiny_policy: Policy,
        data: Preferences,
        tmp_path: Path,
        whole: tuple[bytes, dict[str, Any]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        class KilledError(Exception):
            pass

        file, append, write = tmp_path / "c.jsonl", GrowingFile.append, GrowingFile._write_state
        chunks = itertools.count()

        def dying_append(self: GrowingFile, rows: Any, **state: Any) -> None:
            if next(chunks) == 2 and when != "before the state":
                if when == "inside the rows":
                    with self.file.open("ab") as stream:
                        stream.write(json.dumps(rows[0]).encode()[:50])
                if when == "after the state":
                    append(self, rows, **state)
                raise KilledError
            append(self, rows, **state)

        def dying_write(self: GrowingFile) -> None:
            if self.state["done"] == 24 and when == "before the state":
                raise KilledError
            write(self)

        with monkeypatch.context() as patch:
            patch.setattr(GrowingFile, "append", dying_append)
            patch.setattr(GrowingFile, "_write_state", dying_write)
            with pytest.raises(KilledError):
                draw(tiny_policy, data, PLAN, file, scorer=Letters())
        assert file.read_bytes() not in (b"", whole[0])
        draw(tiny_policy, data, PLAN, file, scorer=Letters())
        assert content(file) == whole

    def test_a_signal(
        self, tiny_policy: Policy, data: Preferences, tmp_path: Path, whole: tuple[bytes, dict[str, Any]]
    ) -> None:
        file = tmp_path / "c.jsonl"
        with pytest.raises(Interrupted) as caught:
            draw(
                tiny_policy,
                data,
                PLAN,
                file,
                scorer=Letters(at=2, act=lambda: os.kill(os.getpid(), signal.SIGTERM)),
            )
        assert caught.value.exit_code == 143
        assert content(file)[1]["done"] == 8
        draw(tiny_policy, data, PLAN, file, scorer=Letters())
        assert content(file) == whole

    def test_a_finished_file_is_not_drawn_again(
        self, tiny_policy: Policy, data: Preferences, tmp_path: Path, whole: tuple[bytes, dict[str, Any]]
    ) -> None:
        scorer = Letters()
        draw(tiny_policy, data, PLAN, tmp_path / "whole.jsonl", scorer=scorer)
        assert scorer.asked == []
        assert content(tmp_path / "whole.jsonl") == whole

    def test_other_settings_data_weights_and_seeds_are_refused(
        self, tiny_policy: Policy, data: Preferences, tmp_path: Path, whole: tuple[bytes, dict[str, Any]]
    ) -> None:
        import torch

        file = tmp_path / "whole.jsonl"
        with pytest.raises(UserError, match=r"samples is 3 in the run and 4 now"):
            draw(tiny_policy, data, replace(PLAN, samples=4), file, scorer=Letters())
        with pytest.raises(UserError, match=r"cannot be resumed: seed is 0 in the run and 1 now\."):
            draw(tiny_policy, data, PLAN, file, scorer=Letters(), seed=1)
        with pytest.raises(UserError, match=r"resumed: reward\.scorer is Letters in the run and Length now"):
            draw(tiny_policy, data, PLAN, file, scorer=Length(maximum=3))
        with pytest.raises(UserError, match=r"resumed: the prompts is not the same\."):
            draw(tiny_policy, data.select(range(8)), PLAN, file, scorer=Letters())
        with torch.no_grad():
            next(iter(tiny_policy.roles.parameters("policy").values())).add_(0.1)
        with pytest.raises(UserError, match=r"resumed: the model that draws is not the same\."):
            draw(tiny_policy, data, PLAN, file, scorer=Letters())
        assert content(file) == whole

    @pytest.mark.parametrize(
        ("change", "clause"),
        [
            ({"keep_unfinished": False}, "keep_unfinished is true in the run and false now"),
            ({"include_data": False}, "include_data is true in the run and false now"),
            (
                {"sampling": replace(PLAN.sampling, temperature=0.8)},
                "sampling.temperature is 0.7 in the run and 0.8 now",
            ),
            ({"sampling": replace(PLAN.sampling, max_new_tokens=5)}, "sampling.max_new_tokens is 4 in the run"),
        ],
    )
    def test_another_plan_is_refused_by_name(
        self,
        change: dict[str, Any],
        clause: str,
        tiny_policy: Policy,
        data: Preferences,
        tmp_path: Path,
        whole: tuple[bytes, dict[str, Any]],
    ) -> None:
        with pytest.raises(UserError, match=re.escape(clause)):
            draw(tiny_policy, data, replace(PLAN, **change), tmp_path / "whole.jsonl", scorer=Letters())
        assert content(tmp_path / "whole.jsonl") == whole

    def test_files_that_are_not_ours(self, tiny_policy: Policy, data: Preferences, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"name it NAME\.jsonl"):
            draw(tiny_policy, data, PLAN, tmp_path / "c.txt", scorer=Letters())
        (tmp_path / "c.jsonl").write_text("{}\n")
        with pytest.raises(UserError, match=r"no c\.json that says how it was made"):
            draw(tiny_policy, data, PLAN, tmp_path / "c.jsonl", scorer=Letters())
        draw(tiny_policy, data, PLAN, tmp_path / "d.jsonl", scorer=Letters())
        (tmp_path / "d.jsonl").write_text("{}\n")
        with pytest.raises(UserError, match="cut short"):
            draw(tiny_policy, data, PLAN, tmp_path / "d.jsonl", scorer=Letters())


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


def test_several_policies_draw(tiny_policy: Policy, tiny_model: Path, data: Preferences, tmp_path: Path) -> None:
    other = Policy.load(str(tiny_model))
    few = data.select(range(6))
    draw([tiny_policy, other], few, PLAN, tmp_path / "both.jsonl", scorer=Letters())
    both = read_summary(tmp_path / "both.jsonl")
    assert both is not None
    assert both["drawn"] == 36
    draw(other, few, PLAN, tmp_path / "other.jsonl", scorer=Letters())
    alone = read_summary(tmp_path / "other.jsonl")
    assert alone is not None
    assert both["distinct"] > alone["distinct"]


def test_the_policies_are_those_of_the_plan_and_have_one_tokenizer(
    tiny_policy: Policy, tiny_model: Path, data: Preferences, tmp_path: Path
) -> None:
    file, plan = tmp_path / "c.jsonl", replace(PLAN, sources=("runs/a/final", "runs/b/final"))
    with pytest.raises(UserError, match=r"draws from runs/a/final, runs/b/final besides the policy; give draw\(\)"):
        draw(tiny_policy, data, plan, file, scorer=Letters())
    other = Policy.load(str(tiny_model), chat_template="hh")
    with pytest.raises(UserError, match=r"the tokenizer or chat template of .*tiny-llama.* is not that of"):
        draw([tiny_policy, other], data, PLAN, file, scorer=Letters())
    assert not file.exists()
    few, other = data.select(range(3)), Policy.load(str(tiny_model))
    draw([tiny_policy, other], few, replace(PLAN, sources=("a",)), file, scorer=Letters())
    whole = content(file)
    # A source that was moved is the same one; another one is not.
    draw([tiny_policy, other], few, replace(PLAN, sources=("b",)), file, scorer=Letters())
    assert content(file) == whole
    with pytest.raises(UserError, match=r"resumed: the model that draws is not the same\."):
        draw([tiny_policy, tiny_policy], few, replace(PLAN, sources=("a",)), file, scorer=Letters())


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


def test_what_is_no_file_of_candidates_has_no_summary(tmp_path: Path) -> None:
    (tmp_path / "pairs.json").write_text('[{"prompt": "a"}]')
    (tmp_path / "broken.json").write_text("{")
    for name in ("pairs.json", "pairs.jsonl", "broken.jsonl", "absent.jsonl", "world"):
        assert read_summary(tmp_path / name) is None


def test_saved_rows_are_read_again(data: Preferences, tmp_path: Path) -> None:
    messages = Preferences.from_rows(
        [{"prompt": [{"role": "user", "content": "Hi"}], "chosen": [{"role": "assistant", "content": "Hello"}]}]
    )
    for name, rows in (("text", data), ("messages", messages)):
        write_rows(rows, tmp_path / f"{name}.jsonl")
        read = Preferences.load(tmp_path / f"{name}.jsonl")
        assert [{**row, "place": ""} for row in read] == [{**row, "place": ""} for row in rows]


def test_rows_are_on_disk_before_the_state_that_counts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    growing, flushed = GrowingFile(tmp_path / "c.jsonl", {}, {}), list[str]()
    fsync = os.fsync

    def flushing(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flushing)
    growing.append([{"a": 1}], done=1, counts={})
    assert flushed == ["c.jsonl", ".partial-c.json"]


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


def test_sources_have_random_numbers_of_their_own(tiny_policy: Policy, data: Preferences, tmp_path: Path) -> None:
    """The same policy twice draws twice as many different responses, not each one again."""
    few, plan = data.select(range(6)), replace(PLAN, include_data=False)
    draw(tiny_policy, few, plan, tmp_path / "one.jsonl", scorer=Letters())
    draw([tiny_policy, tiny_policy], few, plan, tmp_path / "two.jsonl", scorer=Letters())
    one, two = (read_summary(tmp_path / f"{name}.jsonl") for name in ("one", "two"))
    assert one is not None
    assert two is not None
    assert (two["drawn"], two["distinct"]) == (36, 2 * one["distinct"])


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
