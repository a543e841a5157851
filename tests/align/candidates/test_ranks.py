"""Drawing by several ranks, and every count and column of what is drawn, by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from align.candidates import drawing
from align.candidates.drawing import draw, prompts_to_answer
from align.candidates.plan import CandidatePlan, Pool, Ranking, Selected
from align.candidates.store import read_summary
from align.data import Preferences
from align.data.examples import tokenizer_fingerprint
from align.errors import ScorerError, UserError
from align.model.policy import Policy
from align.sampling.engine.engines import LocalEngine
from align.sampling.params import Response, SamplingParams
from align.sampling.sampler import Sampler
from align.system.processes import Processes
from align.system.randomness import derived_seed
from align.system.signals import Interrupted, StopRequest

PLAN = CandidatePlan(samples=4, sampling=SamplingParams(temperature=0.7, max_new_tokens=4))


@dataclass
class Scores:
    """Looks a text's score up."""

    table: dict[str, float]
    name: str = "scores"

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **_: Sequence[Any]
    ) -> list[list[float]]:
        del prompts
        return [[self.table[text] for text in row] for row in responses]


def answered(
    monkeypatch: pytest.MonkeyPatch, policy: Policy, texts: Sequence[tuple[str, bool]]
) -> list[dict[str, Any]]:
    """Let every prompt be answered by these texts, finished or not; returns the words of each call."""
    calls: list[dict[str, Any]] = []
    tokenizer: Any = policy.tokenizer
    row = [
        Response(ids=[*tokenizer(text, add_special_tokens=False)["input_ids"], *[2] * finished], finished=finished)
        for text, finished in texts
    ]

    def generate(self: Sampler, prompts: Sequence[Any], **words: Any) -> list[list[Response]]:
        del self
        calls.append(words | {"prompts": list(prompts)})
        return [row for _ in prompts]

    monkeypatch.setattr(Sampler, "generate", generate)
    return calls


DATA = [
    {"prompt": "p", "chosen": "own", "rejected": "good", "source": "s", "answer": "7", "prompt_id": "one"},
    {"prompt": "q", "chosen": "own", "rejected": " bad ", "source": "t", "answer": "8", "prompt_id": "two"},
]
TABLE = {"good": 3.0, "bad": 1.0, "own": 2.0, "long": 5.0}
TEXTS = [("good", True), ("bad", True), ("good", True), ("long", False), ("", True)]


def ids_of(policy: Policy, text: str) -> list[int]:
    tokenizer: Any = policy.tokenizer
    return [*tokenizer(text, add_special_tokens=False)["input_ids"], 2]


def test_every_count_and_column(tiny_policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two prompts with five answers each: "good" twice, one cut off, one empty; both also have two of the data."""
    calls = answered(monkeypatch, tiny_policy, TEXTS)
    data, file = Preferences.from_rows(DATA), tmp_path / "c.jsonl"
    drawn = draw(tiny_policy, data, PLAN, file, scorer=Scores(TABLE), seed=5)
    assert [(c["n"], c["seed"], list(c["keys"]), len(c["prompts"])) for c in calls] == [
        (4, derived_seed(5, 0), [0, 1], 2)
    ]
    state = json.loads(file.with_suffix(".json").read_text())
    assert state["done"] == 2
    assert state["counts"] == {
        **{"left_out": 0, "prompts": 2, "drawn": 10, "unfinished": 2, "unusable": 2, "distinct": 6, "rows": 4},
        "tokens": 2 * (5 + 4 + 5 + 4 + 1),  # a letter each, and the end of all but the one cut off
        **{"scored": 6, "scored_prompts": 2, "reward_sum": 12.0, "reward_best_sum": 6.0, "ranked": 2},
    }
    summary = read_summary(file)
    assert summary is not None
    assert (summary["reward_mean"], summary["reward_best"]) == (12.0 / 6, 6.0 / 2)
    assert not {"reward_sum", "reward_best_sum"} & set(summary)
    good, bad = ids_of(tiny_policy, "good"), ids_of(tiny_policy, "bad")
    sides = [("good", 3.0, good, "own", 2.0, None), ("own", 2.0, None, "bad", 1.0, bad)]
    expected = [
        {
            **{"prompt": row["prompt"], "prompt_id": row["prompt_id"], "answer": row["answer"]},
            **{
                "source": row["source"],
                "tools": None,
                "ranking": row["prompt_id"],
                "drawn_with": tokenizer_fingerprint(tiny_policy.tokenizer),
            },
            **{"chosen": chosen, "chosen_score": high, "chosen_drawn": first},
            **{"rejected": rejected, "rejected_score": low, "rejected_drawn": second},
        }
        for row in DATA
        for chosen, high, first, rejected, low, second in sides
    ]
    assert [json.loads(line) for line in file.read_text().splitlines()] == expected
    assert len(drawn) == 4


def test_what_a_selection_is_given(tiny_policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn ones in the order of drawing and how often, then the data's; scores only where they are asked for."""
    answered(monkeypatch, tiny_policy, TEXTS)
    pools: list[Pool] = []

    @dataclass(frozen=True)
    class All:
        def __call__(self, pool: Pool) -> Selected:
            pools.append(pool)
            return Selected([{"chosen": pool.texts[0], "rejected": None}], {"mine": 3})

    data = Preferences.from_rows(DATA)
    plan = replace(PLAN, select=All(), keep_unfinished=True)
    draw(tiny_policy, data, plan, tmp_path / "a.jsonl", scorer=Scores(TABLE))
    assert [(list(pool.texts), list(pool.times), pool.row["prompt_id"]) for pool in pools] == [
        (["good", "bad", "long", "own"], [2, 1, 1, 0], "one"),
        (["good", "bad", "long", "own"], [2, 1, 1, 0], "two"),
    ]
    assert [pool.scores for pool in pools] == [[3.0, 1.0, 5.0, 2.0]] * 2
    pools.clear()
    draw(tiny_policy, data, replace(plan, scored=False, include_data=False), tmp_path / "b.jsonl")
    assert [(list(pool.texts), pool.scores) for pool in pools] == [(["good", "bad", "long"], None)] * 2
    state = json.loads((tmp_path / "b.json").read_text())
    assert (state["counts"]["mine"], state["settings"]["reward"]) == (6, None)
    assert "scored" not in state["counts"]
    pools.clear()  # a scorer that the plan does not need is not asked
    draw(tiny_policy, data, replace(plan, scored=False), tmp_path / "d.jsonl", scorer=Scores({}))
    assert [pool.scores for pool in pools] == [None, None]


def test_a_prompt_without_candidates_is_not_asked_about(
    tiny_policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing usable was drawn for either, and the data has responses to the second alone."""
    answered(monkeypatch, tiny_policy, [("", True)])
    rows = [{"prompt": "p", "chosen": None, "rejected": None}, {"prompt": "q", "chosen": "own", "rejected": "bad"}]
    data = Preferences.from_rows(rows)
    draw(tiny_policy, data, PLAN, tmp_path / "c.jsonl", scorer=Scores(TABLE))
    counts = json.loads((tmp_path / "c.json").read_text())["counts"]
    assert (counts["prompts"], counts["scored_prompts"], counts["scored"], counts["single"]) == (2, 1, 2, 1)
    assert (counts["reward_sum"], counts["reward_best_sum"], counts["distinct"]) == (3.0, 2.0, 2)


def test_the_rules_of_the_data_go_with_the_rows(
    tiny_policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(monkeypatch, tiny_policy, TEXTS)
    data = Preferences.from_rows(DATA, max_rejected=0.25, pairs="adjacent", too_long="error")
    drawn = draw(tiny_policy, data, PLAN, tmp_path / "c.jsonl", scorer=Scores(TABLE))
    assert (drawn.rules, drawn.report.rule) == (data.rules, "pairwise")


def test_tools_go_with_the_prompt_and_tell_its_responses_apart(
    tiny_policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(monkeypatch, tiny_policy, [("good", True)])
    monkeypatch.setattr(
        tiny_policy.tokenizer, "chat_template", "{{ tools }}{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"
    )
    sides = {"prompt": "p", "rejected": None}
    rows = [
        {**sides, "chosen": "own", "tools": [{"name": "f"}]},
        {**sides, "chosen": "bad", "tools": [{"name": "g"}]},
    ]
    drawn = draw(tiny_policy, Preferences.from_rows(rows), PLAN, tmp_path / "c.jsonl", scorer=Scores(TABLE))
    assert [(row["tools"], row["rejected"][0]["content"]) for row in drawn] == [
        ('[{"name": "f"}]', "own"),
        ('[{"name": "g"}]', "bad"),
    ]


def test_responses_that_are_more_than_text_are_no_candidates(tiny_policy: Policy, tmp_path: Path) -> None:
    thought = [{"role": "assistant", "content": "4", "thinking": "2 + 2"}]
    data = Preferences.from_rows([{"prompt": "p", "chosen": thought, "rejected": None}])
    with pytest.raises(UserError, match=r"the response at rows:1 has thoughts or tool calls, .*include_data=false"):
        draw(tiny_policy, data, PLAN, tmp_path / "c.jsonl", scorer=Scores(TABLE))


@pytest.mark.parametrize("own", [None, 20])
def test_prompts_leave_room_within_the_positions_of_the_model(
    own: int | None, tiny_policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 positions less 4 of a response: a prompt of more than 14 tokens has no room for one token and an end."""
    answered(monkeypatch, tiny_policy, TEXTS)
    monkeypatch.setattr(type(tiny_policy), "max_positions", property(lambda _: own))
    tokens = len(tokenize_prompt(tiny_policy, ""))
    rows = [{"prompt": "x" * (14 - tokens + more), "chosen": "own", "rejected": "bad"} for more in (0, 1)]
    draw(tiny_policy, Preferences.from_rows(rows, max_rejected=0.5), PLAN, tmp_path / "c.jsonl", scorer=Scores(TABLE))
    counts = json.loads((tmp_path / "c.json").read_text())["counts"]
    assert (counts["prompts"], counts["left_out"]) == ((2, 0) if own is None else (1, 1))


def tokenize_prompt(policy: Policy, text: str) -> list[int]:
    from align.data.encoding import encode_prompt

    return encode_prompt(policy.tokenizer, text)


def test_a_prompt_has_room_for_three_tokens_at_least(tiny_policy: Policy) -> None:
    data = Preferences.from_rows([{"prompt": "p"}], max_rejected=1.0)
    with pytest.raises(UserError, match="6 tokens leave no room for a prompt beside a response of 4"):
        prompts_to_answer(data, tiny_policy.tokenizer, PLAN, 6)
    with pytest.raises(UserError, match="prompt longer than max_length"):
        prompts_to_answer(data, tiny_policy.tokenizer, PLAN, 7)
    assert len(prompts_to_answer(data, tiny_policy.tokenizer, PLAN, 40)) == 1


@pytest.mark.parametrize("policies", [1, 3])
def test_as_many_policies_as_the_plan_names(policies: int, tiny_policy: Policy, tmp_path: Path) -> None:
    plan = replace(PLAN, sources=("a",))
    with pytest.raises(UserError, match="the plan draws from a besides the policy"):
        draw([tiny_policy] * policies, Preferences.from_rows(DATA), plan, tmp_path / "c.jsonl", scorer=Scores(TABLE))


@pytest.mark.parametrize("name", ["top_p", "top_k", "min_new_tokens", "stop_strings", "select"])
def test_other_settings_of_drawing_are_refused_by_name(
    name: str, tiny_policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass(frozen=True)
    class Other(Ranking):
        pass

    answered(monkeypatch, tiny_policy, TEXTS)
    data, file = Preferences.from_rows(DATA), tmp_path / "c.jsonl"
    draw(tiny_policy, data, PLAN, file, scorer=Scores(TABLE))
    values = {"top_p": 0.5, "top_k": 3, "min_new_tokens": 1, "stop_strings": ("x",)}
    if name == "select":
        plan, clause = replace(PLAN, select=Other()), r"select\.name is Ranking in the run and Other now"
    else:
        plan = replace(PLAN, sampling=replace(PLAN.sampling, **{name: values[name]}))
        clause = rf"sampling\.{name} is "
    with pytest.raises(UserError, match=clause):
        draw(tiny_policy, data, plan, file, scorer=Scores(TABLE))
    # Rounds and the place where training begins change nothing that is drawn.
    draw(tiny_policy, data, replace(PLAN, rounds=3, from_base=True), file, scorer=Scores(TABLE))


def test_settings_of_drawing_by_another_engine_are_refused_too(
    tiny_policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(monkeypatch, tiny_policy, TEXTS)
    data, file = Preferences.from_rows(DATA), tmp_path / "c.jsonl"
    engine = LocalEngine(tiny_policy)
    monkeypatch.setattr(engine, "name", "far", raising=False)
    draw(tiny_policy, data, PLAN, file, scorer=Scores(TABLE), engine=engine)
    hotter = replace(PLAN, sampling=replace(PLAN.sampling, temperature=0.9))
    with pytest.raises(UserError, match=r"sampling\.temperature is 0\.7 in the run and 0\.9 now"):
        draw(tiny_policy, data, hotter, file, scorer=Scores(TABLE), engine=engine)
    with pytest.raises(UserError, match=r"sampling\.engine "):
        draw(tiny_policy, data, PLAN, file, scorer=Scores(TABLE))


class TestSeveralRanks:
    """Rank 0 of two; what the other one gathers is put in."""

    @pytest.fixture
    def other(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """Its problem, signal and results in the next gathering; and what rank 0 shared and gathered."""
        said: dict[str, Any] = {"problem": None, "signum": 0, "shared": [], "barriers": 0}

        def share(self: Processes, items: Sequence[int]) -> Sequence[int]:
            del self
            said["shared"].append(list(items))
            return items[0::2]

        def gather(self: Processes, value: Any) -> list[Any]:
            del self
            return [value, (said["problem"], said["signum"], said.get("results", []))]

        def create(self: Processes) -> None:
            self.rank, self.world_size = 0, 2

        monkeypatch.setattr(Processes, "__init__", create)
        monkeypatch.setattr(Processes, "share", share)
        monkeypatch.setattr(Processes, "gather", gather)
        monkeypatch.setattr(Processes, "barrier", lambda _: said.update(barriers=said["barriers"] + 1))
        monkeypatch.setattr(Processes, "on_first", lambda _, make: make())
        monkeypatch.setattr(Processes, "first_goes_first", lambda _: StopRequest().listening())
        return said

    def test_results_of_both_are_put_in_order(
        self, other: dict[str, Any], tiny_policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = answered(monkeypatch, tiny_policy, TEXTS)
        theirs = {"chosen": "x", "rejected": "y", "prompt": "q"}
        other["results"] = [(1, [theirs], {"prompts": 1, "rows": 1, "scored": 1, "scored_prompts": 1, "reward_sum": 9})]
        file = tmp_path / "c.jsonl"
        with pytest.raises(UserError):  # the other's row lacks columns
            draw(tiny_policy, Preferences.from_rows(DATA), PLAN, file, scorer=Scores(TABLE))
        assert other["shared"] == [[0, 1]]
        assert [list(call["keys"]) for call in calls] == [[0]]
        assert other["barriers"] == 1
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert [line["prompt"] for line in lines] == ["p", "p", "q"]
        counts = json.loads(file.with_suffix(".json").read_text())["counts"]
        assert (counts["prompts"], counts["rows"], counts["scored"], counts["reward_sum"]) == (2, 3, 4, 6.0 + 9)

    @pytest.mark.parametrize("kind", [ScorerError, UserError])
    def test_a_problem_of_the_other_stops_both(
        self, kind: type[Exception], other: dict[str, Any], tiny_policy: Policy, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        answered(monkeypatch, tiny_policy, TEXTS)
        other["problem"] = kind("theirs is down.")
        with pytest.raises(
            kind, match=r"^theirs is down\. 0 of 2 prompts are in .*c\.jsonl; continue with if_exists="
        ) as caught:
            draw(tiny_policy, Preferences.from_rows(DATA), PLAN, tmp_path / "c.jsonl", scorer=Scores(TABLE))
        assert type(caught.value) is kind
        assert json.loads((tmp_path / "c.json").read_text())["done"] == 0

    def test_a_signal_of_the_other_stops_both(
        self, other: dict[str, Any], tiny_policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answered(monkeypatch, tiny_policy, TEXTS)
        other["signum"] = 15
        with pytest.raises(Interrupted) as caught:
            draw(tiny_policy, Preferences.from_rows(DATA), PLAN, tmp_path / "c.jsonl", scorer=Scores(TABLE))
        assert caught.value.exit_code == 128 + 15
        assert json.loads((tmp_path / "c.json").read_text())["done"] == 0

    def test_between_batches_no_rank_leaves_alone(
        self, other: dict[str, Any], tiny_policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The other would wait for it; the signal is answered when both have gathered."""
        del other
        answered(monkeypatch, tiny_policy, TEXTS)
        stop = StopRequest()
        engine, file = LocalEngine(tiny_policy), tmp_path / "c.jsonl"
        made = drawing._Drawing(
            [tiny_policy], engine, Preferences.from_rows(DATA), PLAN, file, Scores(TABLE), 200, 0, stop
        )
        stop.signum = 2
        made._leave()
        made.processes.world_size = 1
        with pytest.raises(Interrupted):
            made._leave()
