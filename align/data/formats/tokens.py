"""Rows that are token ids already, under the names that trainers give their prepared data.

The ids are used as they are, so they must be those of the model's own tokenizer with its chat template; text is never
encoded for them. What is trained is said by a column of the prompt, or by labels: −100 (0 in a mask) where it is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from align.data.formats.base import SHARED_COLUMNS, Format, Sample, shared_fields
from align.data.formats.parts import only_one
from align.data.load_report import RowError
from align.data.schema import token_message

__all__ = ["TOKENS", "TOKEN_PAIRS", "is_ids"]

_PROMPT, _CHOSEN, _REJECTED = (
    frozenset({f"{name}_input_ids", f"{name}_ids"}) for name in ("prompt", "chosen", "rejected")
)
_MASKS = frozenset({"completion_mask", "assistant_masks"})
_IGNORED = -100
_OWN = "the ids are those of the model's tokenizer and used as they are"


def _token_pairs(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    given = _ids(row, only_one(row, _PROMPT)) if any(row.get(name) is not None for name in _PROMPT) else None
    (first, chosen), (second, rejected) = (
        _cut(row, side, only_one(row, names), given) for side, names in (("chosen", _CHOSEN), ("rejected", _REJECTED))
    )
    if first != second:
        raise RowError("prompts differ before the last turn")
    if given is not None and first != given:
        raise RowError("the labels and the column of the prompt disagree about the prompt")
    yield _messages(first, chosen=chosen, rejected=rejected) | shared_fields(row)


def _cut(row: Mapping[str, Any], side: str, name: str, prompt: list[int] | None) -> tuple[list[int], list[int]]:
    """Return the ids of the prompt and of one side, which holds its prompt where it has labels."""
    if row.get(f"{side}_labels") is not None:
        return _trained(row, name, _is_trained(row, f"{side}_labels", name))
    if prompt is None:
        raise RowError("nothing says where the prompt ends", f"give prompt_ids or {side}_labels")
    return prompt, _ids(row, name)


def _tokens(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    mask = only_one(row, {"labels", *_MASKS})
    trained = _is_trained(row, mask, "input_ids") if mask == "labels" else [bool(bit) for bit in _listed(row, mask)]
    prompt, chosen = _trained(row, "input_ids", trained)
    yield _messages(prompt, chosen=chosen) | shared_fields(row)


def _messages(prompt: list[int], **sides: list[int]) -> dict[str, Any]:
    return {name: [token_message(ids)] for name, ids in {"prompt": prompt, **sides}.items()}


def _trained(row: Mapping[str, Any], name: str, trained: list[bool]) -> tuple[list[int], list[int]]:
    """Return the ids before the last run of trained ones, and this run; what follows it is left out."""
    ids = _listed(row, name)
    if len(trained) != len(ids):
        raise RowError("not one label for each token", f"{len(ids)} tokens, {len(trained)} labels")
    if True not in trained:
        raise RowError("no token is trained", name)
    end = len(trained) - trained[::-1].index(True)
    start = next((place for place in range(end, 0, -1) if not trained[place - 1]), 0)
    prompt = _ids(row, name, stop=start)
    if not prompt:
        raise RowError("every token is trained, so there is no prompt", name)
    return prompt, ids[start:end]


def _is_trained(row: Mapping[str, Any], name: str, ids: str) -> list[bool]:
    labels = _listed(row, name)
    if any(label not in (_IGNORED, token) for label, token in zip(labels, _listed(row, ids), strict=False)):
        raise RowError("labels are neither the tokens nor −100", name)
    return [label != _IGNORED for label in labels]


def _ids(row: Mapping[str, Any], name: str, stop: int | None = None) -> list[int]:
    """Return the ids of a column, without the padding that its attention mask shows."""
    ids, mask = _listed(row, name), row.get(_mask_of(name))
    if mask is None:
        return ids[:stop]
    mask = _listed(row, _mask_of(name))
    if len(mask) != len(ids):
        raise RowError("not one bit of the attention mask for each token", name)
    return [token for token, bit in list(zip(ids, mask, strict=True))[:stop] if bit]


def _mask_of(name: str) -> str:
    return name.removesuffix("ids").removesuffix("input_") + "attention_mask"


def _listed(row: Mapping[str, Any], name: str) -> list[int]:
    value = row[name]
    if not is_ids(value):
        raise RowError(f"{name} is not a list of token ids")
    return cast(list[int], value)


def is_ids(value: object) -> bool:
    """Return whether a value is a list of whole numbers."""
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in cast(list[Any], value))


def _recognises(*choices: frozenset[str]) -> Any:
    def check(sample: Sample) -> bool:
        return all(sample.mostly(name, is_ids) for names in choices for name in names & sample.columns)

    return check


TOKEN_PAIRS = Format(
    name="token-pairs",
    description="prompt_ids, chosen_ids, rejected_ids, or chosen_labels and rejected_labels (TRL's prepared pairs)",
    polarity=f"chosen is `chosen_ids` (or chosen_input_ids); {_OWN}",
    requires=frozenset(),
    one_of=(_CHOSEN, _REJECTED, _PROMPT | {"chosen_labels"}),
    convert=_token_pairs,
    recognises=_recognises(_CHOSEN, _REJECTED),
    optional=SHARED_COLUMNS
    | {"chosen_labels", "rejected_labels"}
    | {f"{name}_attention_mask" for name in ("prompt", "chosen", "rejected")},
)
TOKENS = Format(
    name="tokens",
    description="input_ids with labels, completion_mask or assistant_masks (prepared demonstrations)",
    polarity=f"no preference: the last run of trained tokens is a demonstration; {_OWN}",
    requires=frozenset({"input_ids"}),
    one_of=(_MASKS | {"labels"},),
    convert=_tokens,
    recognises=_recognises(frozenset({"input_ids"})),
    gives="demonstrations",
    optional=SHARED_COLUMNS | {"attention_mask", "position_ids", "seq_lengths"},
)
