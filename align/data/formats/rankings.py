"""Several responses to a prompt with scores or ranks; stored as pairs that hold the ranking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import compress
from typing import Any, cast

from align.data.formats.base import SHARED_COLUMNS, Format, Sample, shared_fields
from align.data.formats.parts import only_one, prompt_with_system
from align.data.load_report import LeftOut, RowError
from align.data.messages import number
from align.data.pairs_and_rankings import ranking_rows
from align.data.schema import prompt_key
from align.data.validation import valid_row

__all__ = [
    "CANDIDATES",
    "DISTILABEL",
    "HELPSTEER",
    "NECTAR",
    "NEMO_RL",
    "RANKED",
    "REWARD_BENCH_2",
    "RRHF",
    "STACK_EXCHANGE",
    "ULTRAFEEDBACK_RAW",
    "are_candidates",
]

_ASKED = frozenset({"prompt", "question", "instruction", "query"})
_LISTS = frozenset({"answers", "candidates", "completions", "generations", "outputs", "responses"})
_ANSWERS = frozenset({"answer", "completion", "content", "generation", "output", "response", "text"})
_SCORES = frozenset({"rating", "reward", "score"})
"""Names of a prompt and of a list of candidates, and in these of an answer and of its score."""


def _ranking(
    row: Mapping[str, Any], prompt: Any, responses: Sequence[Any], values: Sequence[float], *, scored: bool
) -> Iterator[dict[str, Any]]:
    """Yield the pairs of one ranking; raises `LeftOut` if no response is better than another.

    A response that cannot be used stands alone, to be rejected and counted; the others are compared without it.
    """
    if len(responses) != len(values):
        raise RowError("not one value for each response", f"{len(responses)} responses, {len(values)} values")
    usable = [_is_usable(response) for response in responses]
    rows = list(ranking_rows([*compress(responses, usable)], [*compress(values, usable)], scored=scored))
    rows += [{"rejected": "" if one is None else one} for one, good in zip(responses, usable, strict=True) if not good]
    if not rows:
        raise LeftOut("tie between the responses" if len(responses) > 1 else "fewer than two responses")
    fields = {"prompt": prompt, **shared_fields(row)}
    text = prompt if isinstance(prompt, str) else str(prompt)
    tools = row.get("tools")
    fields.setdefault("ranking", prompt_key([{"role": None, "content": text}], None if tools is None else str(tools)))
    return ({**fields, **made} for made in rows)


def _is_usable(response: object) -> bool:
    try:
        valid_row({"prompt": "?", "rejected": response}, lambda _: None)
    except RowError:
        return False
    return response is not None


def _listed(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise RowError(f"{name} is not a list")
    return cast(list[Any], value)


def _objects(value: object, name: str) -> list[Mapping[str, Any]]:
    items = _listed(value, name)
    if not all(isinstance(item, Mapping) for item in items):
        raise RowError(f"{name} is not a list of objects")
    return items


def _field(item: Mapping[str, Any], name: str) -> Any:
    if name not in item:
        raise RowError(f"a response has no {name}")
    return item[name]


def _numbers(value: object, name: str) -> list[float]:
    return [number(item, name) for item in _listed(value, name)]


def _worth(ranks: Sequence[float], name: str) -> list[float]:
    """Return values of which a higher one is better; ranks count from 1, or from 0, which is the best."""
    for rank in ranks:
        if rank < 0 or rank != int(rank):
            raise RowError(f"`{name}` has no ranks: 1 is the best, 2 the next", f"{rank:g}; values are `scores`")
    return [-rank for rank in ranks]


def _scored(prompt: str, responses: str, scores: str) -> Any:
    """Return a conversion of the columns of a prompt, its responses and their scores."""

    def convert(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        asked = prompt_with_system(row[prompt], row.get("system"))
        answers = _listed(row[responses], responses)
        return _ranking(row, asked, answers, _numbers(row[scores], scores), scored=True)

    return convert


def _ultrafeedback_raw(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    completions = _objects(row["completions"], "completions")
    values = [_mean_rating(completion) for completion in completions]
    rated = [(c, value) for c, value in zip(completions, values, strict=True) if value is not None]
    return _ranking(
        row, row["instruction"], [_field(c, "response") for c, _ in rated], [value for _, value in rated], scored=True
    )


def _mean_rating(completion: Mapping[str, Any]) -> float | None:
    """Return the mean of the ratings of all aspects, which are texts; "N/A" is none."""
    found = completion.get("annotations")
    annotations = cast(Mapping[str, Any], found) if isinstance(found, Mapping) else {}
    ratings = [aspect.get("Rating") for aspect in annotations.values() if isinstance(aspect, Mapping)]
    usable = [number(rating, "Rating") for rating in ratings if rating not in (None, "N/A")]
    return sum(usable) / len(usable) if usable else None


def _stack_exchange(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    answers = _objects(row["answers"], "answers")
    values = [number(_field(answer, "pm_score"), "pm_score") for answer in answers]
    return _ranking(row, row["question"], [_field(answer, "text") for answer in answers], values, scored=True)


def _nemo_rl(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    completions = _objects(row["completions"], "completions")
    values = _worth([number(_field(completion, "rank"), "rank") for completion in completions], "rank")
    answers = [_field(completion, "completion") for completion in completions]
    return _ranking(row, row["context"], answers, values, scored=False)


def _nectar(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    answers = _objects(row["answers"], "answers")
    values = _worth([number(_field(answer, "rank"), "rank") for answer in answers], "rank")
    return _ranking(row, row["prompt"], [_field(answer, "answer") for answer in answers], values, scored=False)


def _ranked(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    values = _worth(_numbers(row["ranks"], "ranks"), "ranks")
    return _ranking(row, row["prompt"], _listed(row["responses"], "responses"), values, scored=False)


def _reward_bench_2(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    good, bad = (_listed(row[side], side) for side in ("chosen", "rejected"))
    values = [1.0] * len(good) + [0.0] * len(bad)
    return _ranking(row, row["prompt"], [*good, *bad], values, scored=False)


def _candidates(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    items = _objects(row[name := only_one(row, _LISTS)], name)
    fields = _answer_and_score(items[0]) if items else None
    if fields is None:
        raise RowError(f"{name} are not answers with one score each")
    answers, values = ([_field(item, field) for item in items] for field in fields)
    prompt = prompt_with_system(row[only_one(row, _ASKED)], row.get("system"))
    scores = [number(value, fields[1]) for value in values]
    return _ranking(row, prompt, answers, scores, scored=True)


def _answer_and_score(item: object) -> tuple[str, str] | None:
    """Return the fields of an object that are an answer and its score; None where there is not one of each."""
    names = set(cast(Mapping[str, Any], item)) if isinstance(item, Mapping) else set[str]()
    answer, score = names & _ANSWERS, names & _SCORES
    is_one = len(answer) == len(score) == 1 and names.isdisjoint({"from", "rank", "role"})
    return (answer.pop(), score.pop()) if is_one else None


def are_candidates(value: object) -> bool:
    """Return whether a value is a list of objects that each have an answer and a score, such as {text, score}."""
    return isinstance(value, list) and len({_answer_and_score(item) for item in cast(list[Any], value)} - {None}) == 1


def _helpsteer(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    values = [number(row["helpfulness"], "helpfulness") for row in rows]
    return _ranking(rows[0], rows[0]["prompt"], [row["response"] for row in rows], values, scored=True)


def _has_candidates(sample: Sample) -> bool:
    return all(sample.mostly(name, are_candidates) for name in _LISTS & sample.columns)


def _is_list_of(name: str, *fields: str) -> Any:
    """Return a check that the column is a list of objects with these fields."""

    def check(value: object) -> bool:
        items = cast(list[Any], value) if isinstance(value, list) else []
        return bool(items) and all(isinstance(item, Mapping) and all(f in item for f in fields) for item in items)

    return lambda sample: sample.mostly(name, check)


def _has_rank(sample: Sample) -> bool:
    return _is_list_of("completions", "rank", "completion")(sample)


CANDIDATES = Format(
    name="candidates",
    description="prompt (or question, …), candidates (or responses, …) as a list of {text, score} or the like",
    polarity="a higher score is better",
    requires=frozenset(),
    one_of=(_ASKED, _LISTS),
    convert=_candidates,
    recognises=_has_candidates,
    inside=dict.fromkeys(_LISTS, _ANSWERS | _SCORES),
    optional=SHARED_COLUMNS | {"system"},
)
RANKED = Format(
    name="ranked",
    description="prompt, responses, ranks (1 is the best)",
    polarity="a lower rank is better",
    requires=frozenset({"prompt", "responses", "ranks"}),
    convert=_ranked,
)
RRHF = Format(
    name="rrhf",
    description="query, responses, scores (RRHF)",
    polarity="a higher score is better",
    requires=frozenset({"query", "responses", "scores"}),
    convert=_scored("query", "responses", "scores"),
)
SCORED = Format(
    name="scored",
    description="prompt, responses, scores",
    polarity="a higher score is better",
    requires=frozenset({"prompt", "responses", "scores"}),
    convert=_scored("prompt", "responses", "scores"),
    optional=SHARED_COLUMNS | {"system"},
)
DISTILABEL = Format(
    name="distilabel",
    description="instruction, generations, ratings (distilabel, UltraFeedback)",
    polarity="a higher rating is better",
    requires=frozenset({"instruction", "generations", "ratings"}),
    convert=_scored("instruction", "generations", "ratings"),
    optional=SHARED_COLUMNS | {"system", "rationales", "raw_generation_responses", "raw_labelling_response", "types"},
)
ULTRAFEEDBACK_RAW = Format(
    name="ultrafeedback-raw",
    description="instruction, completions with response and annotations (UltraFeedback before binarising)",
    polarity="a higher mean rating over the aspects is better",
    requires=frozenset({"instruction", "completions"}),
    convert=_ultrafeedback_raw,
    recognises=_is_list_of("completions", "response", "annotations"),
    inside={
        "completions": frozenset({"response", "annotations", "custom_system_prompt", "model", "principle", "critique"})
        | {"fine-grained_score", "overall_score"}
    },
    optional=SHARED_COLUMNS | {"models", "correct_answers", "incorrect_answers"},
)
STACK_EXCHANGE = Format(
    name="stack-exchange",
    description="question, answers with text and pm_score (StackExchange preferences)",
    polarity="a higher pm_score is better",
    requires=frozenset({"question", "answers"}),
    convert=_stack_exchange,
    recognises=_is_list_of("answers", "text", "pm_score"),
    inside={"answers": frozenset({"text", "pm_score", "selected", "answer_id"})},
    optional=SHARED_COLUMNS | {"qid", "date", "metadata"},
)
NEMO_RL = Format(
    name="nemo-rl",
    description="context, completions with rank and completion (NeMo-RL)",
    polarity="a lower rank is better",
    requires=frozenset({"context", "completions"}),
    convert=_nemo_rl,
    recognises=_has_rank,
    inside={"completions": frozenset({"rank", "completion"})},
)
NECTAR = Format(
    name="nectar",
    description="prompt, answers with answer and rank (Nectar)",
    polarity="a lower rank is better, 1 is the best",
    requires=frozenset({"prompt", "answers"}),
    convert=_nectar,
    recognises=_is_list_of("answers", "answer", "rank"),
    inside={"answers": frozenset({"answer", "rank", "model"})},
    optional=SHARED_COLUMNS | {"turns", "num_responses", "good_natured"},
)
REWARD_BENCH_2 = Format(
    name="reward-bench-2",
    description="prompt, chosen and rejected as lists of texts (RewardBench 2)",
    polarity="each response in `chosen` is better than each in `rejected`",
    requires=frozenset({"prompt", "chosen", "rejected"}),
    convert=_reward_bench_2,
    recognises=lambda sample: all(
        sample.mostly(side, lambda v: isinstance(v, list) and bool(v) and all(isinstance(i, str) for i in v))
        for side in ("chosen", "rejected")
    ),
    optional=SHARED_COLUMNS
    | {"num_correct", "num_incorrect", "total_completions", "models", "subset", "additional_metadata"},
)
HELPSTEER = Format(
    name="helpsteer",
    description="prompt, response, helpfulness …: a row for each response (HelpSteer)",
    polarity="a higher helpfulness is better",
    requires=frozenset({"prompt", "response", "helpfulness"}),
    convert_group=_helpsteer,
    gather="prompt",
    optional=SHARED_COLUMNS | {"correctness", "coherence", "complexity", "verbosity"},
)
