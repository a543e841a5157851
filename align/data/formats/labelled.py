"""Two responses to a prompt, and a label, a vote or scores that say which one is better. Ties are left out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, cast

from align.data.formats.base import SHARED_COLUMNS, Format, Sample
from align.data.formats.labels import Labels, lead, lead_or_0, of_two
from align.data.formats.parts import better_of, conversation, instruction, shared_turns
from align.data.load_report import UNKNOWN_LABEL, LeftOut, RowError
from align.data.messages import number

__all__ = [
    "ALPACA_EVAL",
    "ARENA",
    "ARENA_55K",
    "HALOS",
    "HELPSTEER2_PREFERENCE",
    "HELPSTEER3",
    "LABELLED",
    "LLMBAR",
    "PANDALM",
    "PKU_SAFE_RLHF",
    "SHP",
    "TINKER",
    "TLDR",
    "WEBGPT",
]

_ANNOTATORS = ("annotator1", "annotator2", "annotator3")
_1_OR_0, _0_OR_1 = of_two(1, 0), of_two(0, 1)


def _strength(row: Mapping[str, Any], name: str) -> float:
    """Return how much better the second response is, from −3 to 3."""
    strength = number(row[name], name)
    if not -3 <= strength <= 3:
        raise RowError(UNKNOWN_LABEL, f"{name} is {strength:g}, not from −3 to 3")
    return strength


def _labelled(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    better = lead(row, "better")
    scores = [None if row.get(name) is None else number(row[name], name) for name in ("score_1", "score_2")]
    high, low = scores if better > 0 else scores[::-1]
    fields = {"prompt": row["prompt"], "chosen_score": high, "rejected_score": low}
    yield from better_of(row, row["response_1"], row["response_2"], better, **fields)


def _pandalm(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    votes = Counter(lead_or_0(row, name) for name in _ANNOTATORS)
    better, count = votes.most_common(1)[0]
    if 2 * count <= len(_ANNOTATORS):
        raise LeftOut("the annotators have no majority")
    yield from better_of(row, row["response1"], row["response2"], better, prompt=instruction(row))


def _llmbar(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    prompt = instruction(row, "instruction" if "instruction" in row else "input")
    yield from better_of(row, row["output_1"], row["output_2"], lead_or_0(row, "label"), prompt=prompt)


def _alpaca_eval(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if row["preference"] is None:
        raise LeftOut("no preference is given")
    lead = _preference(row, "preference")
    yield from better_of(row, row["output_1"], row["output_2"], lead, prompt=instruction(row))


def _preference(row: Mapping[str, Any], name: str) -> float:
    """Return by how much a preference from 1 to 2 is for the first output."""
    preference = number(row[name], name)
    if preference != 0 and not 1 <= preference <= 2:
        raise RowError(UNKNOWN_LABEL, f"{name} is {preference:g}, not 0 (tie) or from 1 to 2")
    return 0.0 if preference == 0 else 1.5 - preference


def _halos(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    lead = _is_first(row, "label")
    scores = [None if row.get(name) is None else number(row[name], name) for name in ("reward_A", "reward_B")]
    high, low = scores if lead > 0 else scores[::-1]
    fields = {"prompt": row["prompt"], "chosen_score": high, "rejected_score": low}
    yield from better_of(row, row["output_A"], row["output_B"], lead, **fields)


def _is_first(row: Mapping[str, Any], name: str) -> int:
    label = row[name]
    return _1_OR_0({name: int(label)} if isinstance(label, bool) else row, name)


def _shp(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    lead = _1_OR_0(row, "labels")
    scores = [number(row[name], name) for name in ("score_A", "score_B")]
    high, low = scores if lead > 0 else scores[::-1]
    fields = {"prompt": row["history"], "chosen_score": high, "rejected_score": low}
    yield from better_of(row, row["human_ref_A"], row["human_ref_B"], lead, **fields)


def _helpsteer3(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    strength = _strength(row, "overall_preference")
    fields = {"prompt": row["context"], "margin": abs(strength)}
    yield from better_of(row, row["response1"], row["response2"], -strength, **fields)


def _helpsteer2(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    strength = _strength(row, "preference_strength")
    fields = {"prompt": row["prompt"], "margin": abs(strength)}
    yield from better_of(row, row["response_1"], row["response_2"], -strength, **fields)


def _pku(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    lead = _0_OR_1(row, "better_response_id")
    yield from better_of(row, row["response_0"], row["response_1"], lead, prompt=row["prompt"])


def _tldr(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    info, summaries = row["info"], row["summaries"]
    if not isinstance(info, Mapping) or not isinstance(summaries, list) or len(cast(list[Any], summaries)) != 2:
        raise RowError("info and two summaries are not there")
    texts = [summary.get("text") if isinstance(summary, Mapping) else None for summary in cast(list[Any], summaries)]
    lead = _0_OR_1(row, "choice")
    yield from better_of(row, texts[0], texts[1], lead, prompt=_post(cast(Mapping[str, Any], info)))


def _post(info: Mapping[str, Any]) -> str:
    """Return the query that the summaries answer, as Stiennon et al. (2020, appendix B) show it to the model."""
    if info.get("article"):
        return f"Article: {info['article']}\n\nTL;DR:"
    parts = (("SUBREDDIT", f"r/{info.get('subreddit')}"), ("TITLE", info.get("title")), ("POST", info.get("post")))
    return "\n\n".join([*(f"{name}: {value}" for name, value in parts), "TL;DR:"])


def _arena(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    lead = _winner(row, "winner")
    turns = [conversation(row[f"conversation_{side}"], f"conversation_{side}") for side in "ab"]
    if row.get("turn") is not None:  # MT-Bench judges the answer to its first or second question
        turns = [own[: 2 * int(number(row["turn"], "turn"))] for own in turns]
    pair = _last_answers(turns[0], turns[1])
    yield from better_of(row, pair["chosen"], pair["rejected"], lead, prompt=pair["prompt"])


def _winner(row: Mapping[str, Any], name: str) -> int:
    """Return 1 if the model of the first conversation won, by its place or by its name."""
    models = [row.get(f"model_{side}") for side in "ab"]
    if isinstance(row[name], str) and models.count(row[name]) == 1:
        return 1 if row[name] == models[0] else -1
    return lead(row, name)


def _last_answers(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> dict[str, Any]:
    """Cut two conversations before their last answer; earlier answers must be the same, else the pair has no prompt."""
    if [m for m in first if m.get("role") != "assistant"] != [m for m in second if m.get("role") != "assistant"]:
        raise RowError("prompts differ before the last turn")
    if first[:-1] != second[:-1]:
        raise LeftOut("the models' answers differ before the last turn, so the two have no common prompt")
    return shared_turns(first, second)


def _arena_55k(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    lead = _one_won(row)
    asked, *answers = (_json_texts(row[name], name) for name in ("prompt", "response_a", "response_b"))
    if not len(asked) == len(answers[0]) == len(answers[1]):
        raise RowError("prompt and responses have different numbers of turns")
    turns = [[message for pair in zip(asked, own, strict=True) for message in _exchange(*pair)] for own in answers]
    pair = _last_answers(turns[0], turns[1])
    yield from better_of(row, pair["chosen"], pair["rejected"], lead, prompt=pair["prompt"])


def _one_won(row: Mapping[str, Any], _: str = "") -> float:
    won = [number(row.get(name), name) for name in ("winner_model_a", "winner_model_b", "winner_tie")]
    if sorted(won) != [0, 0, 1]:
        raise RowError(UNKNOWN_LABEL, "not exactly one of winner_model_a, winner_model_b, winner_tie is 1")
    return won[0] - won[1]


def _exchange(question: object, answer: object) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _json_texts(value: object, name: str) -> list[Any]:
    """Return the turns of a column that is a JSON list in a text, or a text or list itself."""
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise RowError(f"{name} is not a JSON list") from error
    return cast(list[Any], value) if isinstance(value, list) else [value]


def _tinker(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    comparison = row["comparison"]
    if not isinstance(comparison, Mapping) or "prompt_conversation" not in comparison:
        raise RowError("comparison has no prompt_conversation")
    first, second = (conversation(comparison.get(f"completion_{side}"), f"completion_{side}") for side in "AB")
    prompt = conversation(comparison["prompt_conversation"], "prompt_conversation")
    yield from better_of(row, first, second, lead(row, "label"), prompt=prompt)


def _webgpt(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    question = row["question"]
    prompt = question.get("full_text") if isinstance(question, Mapping) else question
    first, second = (number(row[name], name) for name in ("score_0", "score_1"))
    fields = {"prompt": prompt, "chosen_score": max(first, second), "rejected_score": min(first, second)}
    yield from better_of(row, row["answer_0"], row["answer_1"], first - second, **fields)


def _has_rewards(sample: Sample) -> bool:
    """Return whether the rewards are there: without them, 0 may be the first output as well as the second."""
    return {"reward_A", "reward_B"} <= sample.columns


def _has_json_turns(sample: Sample) -> bool:
    return sample.mostly("prompt", lambda value: isinstance(value, str | list))


LABELLED = Format(
    name="labelled",
    description="prompt, response_1, response_2, better: 1, 2 or tie (or A, B)",
    polarity="chosen is the response that `better` names",
    requires=frozenset({"prompt", "response_1", "response_2", "better"}),
    convert=_labelled,
    labels=Labels(
        columns=("better",),
        accepted='1 where response_1 is better, 2 where response_2 is, "tie" where neither is',
        read=lead,
    ),
    optional=SHARED_COLUMNS | {"score_1", "score_2"},
)
PANDALM = Format(
    name="pandalm",
    description="instruction, input, response1, response2 and the labels of three annotators (PandaLM)",
    polarity="chosen is the response most annotators name; ties and rows without a majority are left out",
    requires=frozenset({"instruction", "response1", "response2", *_ANNOTATORS}),
    convert=_pandalm,
    labels=Labels(
        columns=_ANNOTATORS,
        accepted='1 where response1 is better, 2 where response2 is, "tie" where neither is',
        read=lead_or_0,
        zero_is_tie=True,
    ),
    optional=SHARED_COLUMNS | {"input"},
)
LLMBAR = Format(
    name="llmbar",
    description="input (or instruction), output_1, output_2, label 1 or 2 (LLMBar)",
    polarity="chosen is the output whose number `label` is",
    requires=frozenset({"output_1", "output_2", "label"}),
    one_of=(frozenset({"instruction", "input"}),),
    convert=_llmbar,
    labels=Labels(
        columns=("label",),
        accepted='1 where output_1 is better, 2 where output_2 is, "tie" where neither is',
        read=lead_or_0,
        zero_is_tie=True,
    ),
)
ALPACA_EVAL = Format(
    name="alpaca-eval",
    description="instruction, output_1, output_2, preference from 1 to 2 (AlpacaEval annotations)",
    polarity="chosen is output_1 below a preference of 1.5, output_2 above; 1.5 and 0 are ties",
    requires=frozenset({"instruction", "output_1", "output_2", "preference"}),
    convert=_alpaca_eval,
    labels=Labels(
        columns=("preference",),
        accepted="1 where output_1 is better, 2 where output_2 is, 1.5 where neither is",
        read=_preference,
        zero_is_tie=True,
    ),
    optional=SHARED_COLUMNS | {"input", "annotator", "raw_completion"},
)
HALOS = Format(
    name="halos",
    description="prompt, output_A, output_B, label, reward_A, reward_B (HALOs)",
    polarity="chosen is output_A where `label` is 1, output_B where it is 0",
    requires=frozenset({"prompt", "output_A", "output_B", "label"}),
    convert=_halos,
    labels=Labels(columns=("label",), accepted="1 where output_A is better, 0 where output_B is", read=_is_first),
    recognises=_has_rewards,
    optional=SHARED_COLUMNS | {"reward_A", "reward_B"},
)
SHP = Format(
    name="shp",
    description="history, human_ref_A, human_ref_B, labels, score_A, score_B (Stanford Human Preferences)",
    polarity="chosen is human_ref_A where `labels` is 1, human_ref_B where it is 0",
    requires=frozenset({"history", "human_ref_A", "human_ref_B", "labels", "score_A", "score_B"}),
    convert=_shp,
    labels=Labels(columns=("labels",), accepted="1 where human_ref_A is better, 0 where human_ref_B is", read=_1_OR_0),
)
HELPSTEER3 = Format(
    name="helpsteer3",
    description="context, response1, response2, overall_preference from −3 to 3 (HelpSteer3)",
    polarity="chosen is response1 where overall_preference is negative, response2 where it is positive",
    requires=frozenset({"context", "response1", "response2", "overall_preference"}),
    convert=_helpsteer3,
    labels=Labels(
        columns=("overall_preference",),
        signed=True,
        accepted="from −3 where response1 is better to 3 where response2 is",
        read=_strength,
    ),
    optional=SHARED_COLUMNS | {"individual_preference"},
)
HELPSTEER2_PREFERENCE = Format(
    name="helpsteer2-preference",
    description="prompt, response_1, response_2, preference_strength from −3 to 3 (HelpSteer2)",
    polarity="chosen is response_1 where preference_strength is negative, response_2 where it is positive",
    requires=frozenset({"prompt", "response_1", "response_2", "preference_strength"}),
    convert=_helpsteer2,
    labels=Labels(
        columns=("preference_strength",),
        signed=True,
        accepted="from −3 where response_1 is better to 3 where response_2 is",
        read=_strength,
    ),
    optional=SHARED_COLUMNS
    | {
        "preference_statement",
        "preference_elaboration",
        "three_most_similar_preferences",
        "all_preferences_unprocessed",
    },
)
PKU_SAFE_RLHF = Format(
    name="pku-saferlhf",
    description="prompt, response_0, response_1, better_response_id (PKU-SafeRLHF)",
    polarity="chosen is the response whose number is better_response_id: the more helpful one, not the safer one",
    requires=frozenset({"prompt", "response_0", "response_1", "better_response_id"}),
    convert=_pku,
    labels=Labels(
        columns=("better_response_id",), accepted="0 where response_0 is better, 1 where response_1 is", read=_0_OR_1
    ),
    optional=SHARED_COLUMNS
    | {"safer_response_id"}
    | {f"is_response_{i}_safe" for i in range(2)}
    | {f"response_{i}_{about}" for i in range(2) for about in ("source", "harm_category", "severity_level", "sha256")},
)
TLDR = Format(
    name="tldr",
    description="info, summaries, choice (TL;DR comparisons)",
    polarity="chosen is the summary whose number, 0 or 1, is `choice`",
    requires=frozenset({"info", "summaries", "choice"}),
    convert=_tldr,
    labels=Labels(
        columns=("choice",), accepted="0 where the first summary is better, 1 where the second is", read=_0_OR_1
    ),
    optional=SHARED_COLUMNS | {"worker", "batch", "split", "extra"},
    inside={"info": frozenset({"id", "post", "title", "subreddit", "site", "article"})},
)
ARENA = Format(
    name="arena",
    description="conversation_a, conversation_b, winner (LMSYS Chatbot Arena, MT-Bench judgments)",
    polarity="chosen is the last answer of the conversation that won; ties are left out",
    requires=frozenset({"conversation_a", "conversation_b", "winner"}),
    convert=_arena,
    labels=Labels(
        columns=("winner",),
        accepted='model_a where conversation_a is better, model_b where conversation_b is, "tie" where neither is',
        read=_winner,
    ),
    optional=SHARED_COLUMNS | {"turn", "openai_moderation", "toxic_chat_tag", "full_conversation", "conv_metadata"},
)
ARENA_55K = Format(
    name="arena-55k",
    description="prompt, response_a, response_b (lists of turns), winner_model_a, winner_model_b, winner_tie (LMSYS)",
    polarity="chosen is the response of the model that won; ties are left out",
    requires=frozenset({"prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"}),
    convert=_arena_55k,
    labels=Labels(
        columns=("winner_model_a",),
        accepted="1 where response_a is better and 0 elsewhere, as winner_model_b and winner_tie",
        read=_one_won,
    ),
    recognises=_has_json_turns,
)
TINKER = Format(
    name="tinker",
    description="comparison of prompt_conversation, completion_A, completion_B, and label A, B or Tie (tinker)",
    polarity="chosen is the completion that `label` names",
    requires=frozenset({"comparison", "label"}),
    convert=_tinker,
    inside={"comparison": frozenset({"prompt_conversation", "completion_A", "completion_B"})},
    labels=Labels(
        columns=("label",),
        accepted="A where completion_A is better, B where completion_B is, Tie where neither is",
        read=lead,
    ),
)
WEBGPT = Format(
    name="webgpt",
    description="question, answer_0, answer_1, score_0, score_1 (WebGPT comparisons)",
    polarity="chosen is the answer with the larger score; equal scores are ties",
    requires=frozenset({"question", "answer_0", "answer_1", "score_0", "score_1"}),
    convert=_webgpt,
    inside={"question": frozenset({"dataset", "id", "full_text"})},
    optional=SHARED_COLUMNS | {"quotes_0", "quotes_1", "tokens_0", "tokens_1", "dataset"},
)
