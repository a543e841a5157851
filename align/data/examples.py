"""Preferences as token ids: examples of one unit, computed once per data, tokenizer and length.

The cached Arrow file has one row per possible example. Rejected ones are included with their reason, so the report
can be made from the file. Its name is the fingerprint. It is written under a temporary name and renamed, so ranks that
compute it at the same time replace each other's file with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, cast, get_args, overload
from uuid import uuid4

from align.data.encoding import Encoder
from align.data.formats import known_formats
from align.data.load_report import EXAMPLES_PER_REASON, LeftOut, LoadReport, RowError, Tally
from align.data.pairs_and_rankings import group_rows
from align.data.schema import Example, Unit
from align.data.storage import cache_folder
from align.data.tokenization import TOO_LONG, WEIGHTLESS, Tokenization
from align.errors import UserError, did_you_mean, require_kind

if TYPE_CHECKING:
    import datasets
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from align.data.preferences import Preferences

__all__ = ["TokenizedPreferences", "require_rows", "tokenize", "tokenizer_fingerprint"]

_VERSION = 8
"""Part of the fingerprint: raise it when the same input gives other ids."""

_MISSING = frozenset({"chosen is null", "rejected is null", "fewer than two responses", "chosen and rejected are null"})
"""Reasons that no length changes."""
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
    """The rows that `Example.index` counts, as they were before tokenisation; token ids as text."""

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

    def questions(self) -> list[str]:
        """Return the :meth:`Preferences.questions` of every example."""
        of_rows = self.preferences.questions()
        return [of_rows[row] for row in self.table.select(self.rows)["index"]]

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
            prompt_id merged, best first), "prompt" (K=0) or "judgement" (the sides that a row has; rankings become
            pairs).
        max_rejected: largest fraction of rejected examples; None: that of the preferences.
        may_be_empty: no example may be left.

    Raises:
        UserError: for too many rejected examples, conversations without a chat template, or a wrong argument.
    """
    if unit not in get_args(Unit):
        raise UserError(f"unit={unit!r} is not one of {', '.join(get_args(Unit))}.{did_you_mean(unit, get_args(Unit))}")
    if max_length < 3:
        raise UserError(f"max_length={max_length} leaves no room for a prompt, a response and its end; raise it.")
    given = preferences
    if unit == "pair":
        preferences = preferences.as_pairs()
    if unit == "judgement":
        preferences = preferences.as_pairs(join_answers=False)
    if unit == "demonstration":
        preferences = preferences.as_demonstrations()
    limit = preferences.rules.max_rejected if max_rejected is None else max_rejected
    shortened = preferences.rules.too_long == "truncate_prompt"
    tokens_of = tokenizer_fingerprint(tokenizer)
    fingerprint = _sha256([_VERSION, preferences.fingerprint, tokens_of, max_length, unit, shortened])
    table = _computed(preferences, tokenizer, tokens_of, max_length, unit, fingerprint)
    opened = _opened(given, preferences, table, unit, max_length, fingerprint, limit, may_be_empty)
    return replace(opened, preferences=preferences.decoded(tokenizer))


def require_rows(**given: object) -> None:
    """Check that what a caller in Python gives as data is data, or None; the keyword is the name of the argument.

    Raises:
        UserError: It is the name of a file, say, or a list of rows.
    """
    from align.data.preferences import Preferences

    kinds = (Preferences, TokenizedPreferences, NoneType)
    require_kind(kinds, "give what Preferences.load(FILE) or Preferences.from_rows(ROWS) returns", **given)


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
    tokens_of: str,
    max_length: int,
    unit: Unit,
    fingerprint: str,
) -> datasets.Dataset:
    """Return the table of examples from the cache, or compute and cache it."""
    import datasets
    import pyarrow as pa
    from datasets.table import InMemoryTable

    groups = group_rows(preferences.dataset.select_columns("prompt_id")[:]["prompt_id"], unit)
    folder = cache_folder()
    path = None if folder is None else folder / f"{fingerprint}.arrow"
    if path is not None:
        with suppress(pa.ArrowInvalid, OSError):  # missing or damaged: compute it
            table = datasets.Dataset.from_file(str(path))
            if len(table) == len(groups):
                return table
    tokenization = Tokenization(
        preferences.dataset,
        tokenizer,
        tokens_of,
        Encoder.of(tokenizer),
        max_length,
        unit,
        preferences.rules.too_long == "truncate_prompt",
        _features().arrow_schema,
    )
    with closing(tokenization.batches(groups)) as batches:
        shown = _with_progress(batches, len(groups), f"Tokenizing {unit}s")
        if path is not None:
            _write(path, tokenization.schema, shown)
            return datasets.Dataset.from_file(str(path))
        return datasets.Dataset(InMemoryTable(pa.Table.from_batches(shown, tokenization.schema)))


def _with_progress(batches: Iterable[pa.RecordBatch], total: int, what: str) -> Iterator[pa.RecordBatch]:
    from datasets.utils import tqdm

    with tqdm(total=total, desc=what, unit=" examples") as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch))


def _write(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write a file whole or not at all."""
    import pyarrow as pa

    partial = path.with_suffix(f".{uuid4().hex}.partial")
    try:
        with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _features() -> datasets.Features:
    from datasets import Features, List, Value

    ids, text, number = List(Value("int32")), Value("string"), Value("float64")
    return Features(
        prompt_ids=ids,
        responses=List(ids),
        scores=List(number),
        comparisons=List(List(Value("int32"))),
        good=List(Value("bool")),
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
        left_out=Value("bool"),
    )


def _opened(
    given: Preferences,
    preferences: Preferences,
    table: datasets.Dataset,
    unit: Unit,
    max_length: int,
    fingerprint: str,
    max_rejected: float,
    may_be_empty: bool,
) -> TokenizedPreferences:
    """Return the kept examples of a table, with their report; `given` is the data before it became pairs."""
    import numpy as np

    names = ("problem", "detail", "left_out", "remarks", "length", "index")
    columns = {name: table.data.column(name) for name in names}
    kept = columns["problem"].is_null().to_numpy()
    index = columns["index"].to_numpy()
    tally = Tally(preferences.report.source, read=len(table), kept=int(kept.sum()))

    def place(row: int, seen: int) -> str:
        """Return file:line if the report will show it."""
        return preferences[int(index[row])]["place"] if seen < EXAMPLES_PER_REASON else ""

    lost = np.flatnonzero(~kept).tolist()
    reasons = (columns[name].filter(~kept).to_pylist() for name in ("problem", "detail", "left_out"))
    for row, problem, detail, is_left_out in zip(lost, *reasons, strict=True):
        if is_left_out:
            tally.leave_out(place(row, tally.left_out[problem]), LeftOut(problem, detail))
        else:
            tally.reject(place(row, tally.rejected[problem]), RowError(problem, detail))
    if preferences.rules.too_long == "error" and tally.left_out[TOO_LONG]:
        raise UserError(
            f"{tally.source}: {tally.left_out[TOO_LONG]:,} prompts leave no room for a response within {max_length} "
            f"tokens (first: {tally.examples[TOO_LONG][0]}); raise max_length, or set data.too_long=drop or "
            "truncate_prompt."
        )
    for row, remarks in enumerate(columns["remarks"].to_pylist()):
        for remark in remarks if kept[row] else ():
            tally.note(place(row, tally.noted[remark]), remark)
    limit = 1.0 if may_be_empty else max_rejected
    if unit in ("pair", "ranking") and tally.rejected.total() > limit * len(table):
        _require_both_sides(given, tally, unit)
    report = tally.close(
        rule=unit,
        polarity=preferences.report.polarity,
        max_rejected=max_rejected,
        may_be_empty=may_be_empty,
        remedy=_remedy(tally, unit, max_length),
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


def _remedy(tally: Tally, unit: Unit, max_length: int) -> str:
    needed = f"give data with what a {unit} needs"
    if tally.left_out[WEIGHTLESS] and not tally.kept:
        needed += ", and weights above 0"
    if tally.left_out[TOO_LONG] or tally.rejected.keys() - _MISSING:
        return f"{needed}, raise max_length ({max_length})"
    if not tally.kept and "rejected is null" in tally.rejected:
        return f"{needed}, or take a method that learns from demonstrations (supervised)"
    return needed


def _require_both_sides(given: Preferences, tally: Tally, unit: Unit) -> None:
    """Say what can be done with answers that are only known to be good or bad, if the data is of such."""
    format = known_formats().get(given.report.rule)
    if format is None or format.gives != "unpaired":
        return
    names = ["prompt_id", "chosen", "rejected"]
    sides: dict[str, list[bool]] = defaultdict(list)
    for batch in given.tables(names):
        for prompt_id, is_good in zip(
            batch["prompt_id"].to_pylist(), batch["chosen"].is_valid().to_pylist(), strict=True
        ):
            sides[prompt_id].append(is_good)
    good, bad = (sum(len(side) for side in sides.values() if set(side) == {kind}) for kind in (True, False))
    remedy = "give such prompts"
    if tally.kept:
        remedy += f", leave the others out (data.max_rejected={_enough(tally.rejected.total(), tally.read)})"
    if any(map(any, sides.values())):
        lost = sum(side.count(False) for side in sides.values())
        remedy += f", or fine-tune on the good ones (supervised, with data.max_rejected={_enough(lost, len(given))})"
    remedy += ", or take a method that learns from judgements, each answer for itself"
    raise UserError(
        f"{tally.source}: a {unit} needs a good and a bad answer to one prompt; {tally.kept:,} prompts have both, but "
        f"{good:,} good and {bad:,} bad answers stand alone; {remedy}."
    )


def _enough(lost: int, rows: int) -> str:
    """Return the share that is lost, rounded up to a twentieth with some room for rows that are held out."""
    return f"{min(1.0, math.floor(20 * lost / rows + 1) / 20):g}"
