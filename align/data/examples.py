"""Preferences as token ids: examples of one unit, computed once per data, tokenizer and length.

The cached Arrow file has one row per possible example. Rejected ones are included with their reason, so the report
can be made from the file. Its name is the fingerprint. `datasets` writes it under a temporary name and renames it, so
ranks that compute it at the same time replace each other's file with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args, overload

from align.data.encoding import Encoded, Encoder, decode_response
from align.data.load_report import EXAMPLES_PER_REASON, LeftOut, LoadReport, RowError, Tally
from align.data.pairs_and_rankings import Draft, draft, group_rows
from align.data.rendering import Rendered
from align.data.schema import Example, Message, Unit
from align.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import datasets
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from align.data.preferences import Preferences

__all__ = ["TokenizedPreferences", "tokenize", "tokenizer_fingerprint"]

_VERSION = 4
"""Part of the fingerprint: raise it when the same input gives other ids."""

_TRUNCATED = "response truncated to max_length"
_TOO_LONG = "prompt longer than max_length"
_SHORTENED = "first turns of the prompt left out to fit max_length"
_DRAWN_ANEW = "a drawn response was encoded again from its text, which has changed or belongs to another tokenizer"
_EXAMPLE_FIELDS = tuple(field.name for field in fields(Example))


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenizedPreferences(Sequence[Example]):
    """Examples of one unit as token ids, backed by an Arrow file."""

    table: datasets.Dataset
    """One row per example, including rejected ones."""
    rows: NDArray[np.int64]
    """The kept rows of `table`; item i of this sequence is row `rows[i]`."""
    lengths: NDArray[np.int64]
    """Tokens per item: the prompt and all its responses, including end of turn."""
    unit: Unit
    fingerprint: str
    """sha256 over data, tokenizer, chat template, max_length, unit and version: the same in every process."""
    report: LoadReport
    preferences: Preferences
    """The rows that `Example.index` counts, as they were before tokenisation."""

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        """Return one example, or a list of them for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = cast(dict[str, Any], self.table[int(self.rows[index])])
        return Example(**{name: row[name] for name in _EXAMPLE_FIELDS})

    def distinct_prompts(self) -> TokenizedPreferences:
        """Return the first example of every prompt, so that responses are drawn only once for each."""
        seen: dict[tuple[int, ...], int] = {}
        for i, ids in enumerate(self.table.select(self.rows)["prompt_ids"]):
            seen.setdefault(tuple(ids), i)
        places = list(seen.values())
        return replace(self, rows=self.rows[places], lengths=self.lengths[places])


def tokenize(
    preferences: Preferences,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    unit: Unit = "pair",
    max_rejected: float | None = None,
    may_be_empty: bool = False,
) -> TokenizedPreferences:
    """Tokenise preferences into examples of one unit, or open the cached result.

    Args:
        preferences: the data.
        tokenizer: of the model; its chat template is used if it has one. It is not changed.
        max_length: most tokens of a prompt and one response together. A prompt that leaves no room for one response
            token and the end of turn is too long: `Rules.too_long` says what becomes of it. A longer response is cut,
            and then does not end in the end-of-turn token.
        unit: "demonstration" (K=1, chosen), "pair" (K=2; rankings become pairs), "ranking" (K ≥ 2: the pairs of a
            prompt_id merged, best first) or "prompt" (K=0).
        max_rejected: largest fraction of rejected examples; None: that of the preferences.
        may_be_empty: no example may be left.

    Raises:
        UserError: for too many rejected examples, conversations without a chat template, or a wrong argument.
    """
    if unit not in get_args(Unit):
        raise UserError(f"unit={unit!r} is not one of {', '.join(get_args(Unit))}.{did_you_mean(unit, get_args(Unit))}")
    if max_length < 3:
        raise UserError(f"max_length={max_length} leaves no room for a prompt, a response and its end; raise it.")
    if unit == "pair":
        preferences = preferences.as_pairs()
    if unit == "demonstration":
        preferences = preferences.as_demonstrations()
    limit = preferences.rules.max_rejected if max_rejected is None else max_rejected
    shortened = preferences.rules.too_long == "truncate_prompt"
    fingerprint = _sha256(
        [_VERSION, preferences.fingerprint, tokenizer_fingerprint(tokenizer), max_length, unit, shortened]
    )
    table = _computed(preferences, tokenizer, max_length, unit, fingerprint)
    return _opened(preferences, table, unit, max_length, fingerprint, limit, may_be_empty)


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a sha256 of everything the ids depend on: vocabulary, rules, special tokens, chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        rules: Any = [type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())]
    else:
        rules = json.loads(backend.to_str())
        del rules["truncation"], rules["padding"]
    special = [[name, str(token)] for name, token in sorted(tokenizer.special_tokens_map.items())]
    return _sha256([rules, special, tokenizer.chat_template])


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _computed(
    preferences: Preferences,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    unit: Unit,
    fingerprint: str,
) -> datasets.Dataset:
    """Return the table of examples from the cache, or compute and cache it."""
    import datasets
    import datasets.config
    import pyarrow as pa

    groups = group_rows(preferences.dataset["prompt_id"], unit)
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "align"
    path = folder / f"{fingerprint}.arrow"
    with suppress(pa.ArrowInvalid, OSError):  # missing or damaged: compute it
        table = datasets.Dataset.from_file(str(path))
        if len(table) == len(groups):
            return table
    try:
        folder.mkdir(parents=True, exist_ok=True)
        cache: dict[str, Any] = {"cache_file_name": str(path), "load_from_cache_file": False}
    except OSError:
        cache = {"keep_in_memory": True}
    rows = datasets.Features({"rows": datasets.List(datasets.Value("int64"))})
    return datasets.Dataset.from_dict({"rows": groups}, features=rows).map(
        _Tokenization(
            preferences.dataset,
            tokenizer,
            tokenizer_fingerprint(tokenizer),
            Encoder.of(tokenizer),
            max_length,
            unit,
            preferences.rules.too_long == "truncate_prompt",
        ),
        batched=True,
        remove_columns=["rows"],
        features=_features(),
        new_fingerprint=fingerprint[:16],
        desc=f"Tokenizing {unit}s",
        **cache,
    )


def _features() -> datasets.Features:
    from datasets import Features, List, Value

    ids, text, number = List(Value("int32")), Value("string"), Value("float64")
    return Features(
        prompt_ids=ids,
        responses=List(ids),
        scores=List(number),
        comparisons=List(List(Value("int32"))),
        margin=number,
        weight=number,
        prompt_id=text,
        index=Value("int64"),
        answer=text,
        source=text,
        length=Value("int64"),
        remarks=List(text),
        problem=text,
        detail=text,
        too_long=Value("bool"),
    )


def _opened(
    preferences: Preferences,
    table: datasets.Dataset,
    unit: Unit,
    max_length: int,
    fingerprint: str,
    max_rejected: float,
    may_be_empty: bool,
) -> TokenizedPreferences:
    """Return the kept examples of a table, with their report."""
    import numpy as np

    names = ("problem", "detail", "too_long", "remarks", "length", "index")
    columns = {name: table.data.column(name) for name in names}
    kept = columns["problem"].is_null().to_numpy()
    index = columns["index"].to_numpy()
    tally = Tally(preferences.report.source, read=len(table), kept=int(kept.sum()))

    def place(row: int, seen: int) -> str:
        """Return file:line if the report will show it."""
        return preferences[int(index[row])]["place"] if seen < EXAMPLES_PER_REASON else ""

    lost = np.flatnonzero(~kept).tolist()
    reasons = (columns[name].filter(~kept).to_pylist() for name in ("problem", "detail", "too_long"))
    for row, problem, detail, is_too_long in zip(lost, *reasons, strict=True):
        if is_too_long:
            tally.leave_out(place(row, tally.left_out[problem]), LeftOut(problem, detail))
        else:
            tally.reject(place(row, tally.rejected[problem]), RowError(problem, detail))
    if preferences.rules.too_long == "error" and tally.left_out:
        raise UserError(
            f"{tally.source}: {tally.left_out.total():,} prompts leave no room for a response within {max_length} "
            f"tokens (first: {tally.examples[_TOO_LONG][0]}); raise max_length, or set data.too_long=drop or "
            "truncate_prompt."
        )
    for row, remarks in enumerate(columns["remarks"].to_pylist()):
        for remark in remarks if kept[row] else ():
            tally.note(place(row, tally.noted[remark]), remark)
    report = tally.close(
        rule=unit,
        polarity=preferences.report.polarity,
        max_rejected=max_rejected,
        may_be_empty=may_be_empty,
        remedy=f"give data with what a {unit} needs, raise max_length ({max_length})",
    )
    return TokenizedPreferences(
        table=table,
        rows=np.flatnonzero(kept),
        lengths=columns["length"].to_numpy()[kept],
        unit=unit,
        fingerprint=fingerprint,
        report=report,
        preferences=preferences,
    )


@dataclass(frozen=True, eq=False)
class _Tokenization:
    """The function mapped over groups of rows, batch by batch."""

    dataset: datasets.Dataset
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str
    """Of the tokenizer."""
    encoder: Encoder
    max_length: int
    unit: Unit
    shorten: bool
    """Leave out the first turns of a prompt that is too long."""

    def __call__(self, batch: Mapping[str, list[list[int]]]) -> dict[str, list[Any]]:
        """Return the columns of the table for `batch["rows"]`, one row per group."""
        groups = batch["rows"]
        rows = self._rows([index for group in groups for index in group])
        results: list[dict[str, Any]] = []
        drafts: list[tuple[dict[str, Any], Draft, Rendered]] = []
        for group in groups:
            members = list(islice(rows, len(group)))
            result = _blank(group[0], members[0])
            results.append(result)
            try:
                example = draft(members, self.unit)
                drafts.append((result, example, self._render(example)))
            except RowError as rejection:
                result |= {"problem": rejection.reason, "detail": rejection.detail}
        encoded = self.encoder.encode(self.tokenizer, [rendered for _, _, rendered in drafts])
        for (result, example, _), ids in zip(drafts, encoded, strict=True):
            try:
                result |= _fitted(example, self._shortened(example, ids), self.max_length, self.encoder.end_of_turn)
            except RowError as rejection:
                too_long = isinstance(rejection, LeftOut)
                result |= {"problem": rejection.reason, "detail": rejection.detail, "too_long": too_long}
        return {name: [result[name] for result in results] for name in results[0]}

    def _shortened(self, example: Draft, whole: Encoded) -> Encoded:
        """Leave out the first turns until prompt and responses fit, or the last turn of the user is left.

        Turns of the system stay, and what is left begins with a user's turn.
        """
        longest = max(map(len, whole.responses), default=2)
        if not self.shorten or len(whole.prompt) + longest <= self.max_length:
            return whole
        kept = [turn for turn in example.prompt if turn["role"] in ("system", "developer")]
        turns = example.prompt[len(kept) :]
        for start in range(1, len(turns)):
            if turns[start]["role"] != "user":
                continue
            rendered = self._render(replace(example, prompt=[*kept, *turns[start:]]))
            (encoded,) = self.encoder.encode(self.tokenizer, [rendered])
            whole = replace(encoded, remarks=(*encoded.remarks, _SHORTENED))
            if len(whole.prompt) + longest <= self.max_length:
                break
        return whole

    def _render(self, example: Draft) -> Rendered:
        """Render an example; a drawn response stands for the ids it was drawn as, if they are those of its text."""
        responses: list[Message | list[int]] = list(example.responses)
        remarks: tuple[str, ...] = ()
        for i, ids in enumerate(example.drawn):
            if ids is None:
                continue
            own = example.drawn_with == self.fingerprint
            if own and decode_response(self.tokenizer, ids) == example.responses[i]["content"]:
                responses[i] = ids
            else:
                remarks = (_DRAWN_ANEW,)
        rendered = self.encoder.render(self.tokenizer, example.prompt, responses, example.tools)
        return replace(rendered, remarks=rendered.remarks + remarks)

    def _rows(self, indices: list[int]) -> Iterator[dict[str, Any]]:
        columns = cast(dict[str, list[Any]], self.dataset[indices])
        return (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))


def _blank(index: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of an example without tokens."""
    return {
        "prompt_ids": [],
        "responses": [],
        "scores": [],
        "comparisons": [],
        "margin": None,
        "weight": 1.0,
        "prompt_id": row["prompt_id"],
        "index": index,
        "answer": row["answer"],
        "source": row["source"],
        "length": 0,
        "remarks": [],
        "problem": None,
        "detail": None,
        "too_long": False,
    }


def _fitted(example: Draft, encoded: Encoded, max_length: int, end_of_turn: int) -> dict[str, Any]:
    """Cut the responses to `max_length` tokens including the prompt; `RowError` if no example remains.

    If responses of a ranking are identical after the cut, the best is kept.
    """
    prompt, responses = encoded.prompt, encoded.responses
    if not prompt:
        raise RowError("prompt has no tokens")
    room = max_length - len(prompt)
    if room < 2:
        raise LeftOut(_TOO_LONG, f"{len(prompt)} tokens of {max_length}")
    if any(response in ([], [end_of_turn]) for response in responses):
        raise RowError("response has no tokens")
    kept: dict[tuple[int, ...], float | None] = {}
    place: list[int] = []  # index of each response among the kept ones
    for response, score in zip(responses, example.scores, strict=True):
        kept.setdefault(tuple(response[:room]), score)
        place.append(list(kept).index(tuple(response[:room])))
    if len(kept) < min(2, len(responses)):
        raise RowError("identical after tokenisation", f"within {room} tokens")
    truncated = any(len(response) > room for response in responses)
    return {
        "prompt_ids": prompt,
        "responses": [list(response) for response in kept],
        "scores": list(kept.values()),
        "comparisons": sorted({(place[i], place[j]) for i, j in example.comparisons if place[i] != place[j]}),
        "margin": example.margin,
        "weight": example.weight,
        "length": len(prompt) + sum(map(len, kept)),
        "remarks": [*encoded.remarks, *([_TRUNCATED] if truncated else [])],
    }
