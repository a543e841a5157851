"""`Preferences`: a data set in the pairwise format, with the report of its loading."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from align.data.formats import Format, Sample, find_format, mapped
from align.data.formats.hh import spoken
from align.data.load_report import LeftOut, LoadReport, RowError, Tally
from align.data.messages import MEDIA, kind
from align.data.pairs_and_rankings import PairsOf, each_turn, repaired, rows_that_pair
from align.data.reading import RawRow, read_rows, rows_in_memory
from align.data.schema import Row, answer_key, arrow_schema, present, prompt_key
from align.data.validation import LOWER_SCORE, REPEATED, valid_row
from align.errors import UserError

if TYPE_CHECKING:
    import datasets

__all__ = ["Preferences", "leaked_prompts"]

_SAMPLE_ROWS = 1000
_CHUNK_ROWS = 10_000
_SUSPICIOUS = {
    LOWER_SCORE: "swap the columns of the sides, or give scores of which the higher is better",
    REPEATED: "leave the prompt out of the answers",
}
"""Remark that most rows must not have → remedy."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Settings of what is learnt from the rows; they go with the data into tokenisation."""

    max_rejected: float = 0.01
    """Largest fraction of rejected rows, in loading and again in tokenisation."""
    too_long: Literal["drop", "truncate_prompt", "error"] = "drop"
    """Of a prompt that leaves no room for a response: it is left out, loses its first turns, or is an error."""
    pairs: PairsOf = "all"
    """Pairs that pairwise methods learn from a ranking; together they weigh one prompt."""
    train_on: Literal["last", "all"] = "last"
    """Turns of the assistant that a demonstration trains: the answer, or those of the prompt too."""
    seed: int = 0
    """Of the pairs `best_random`."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_rejected <= 1:
            raise UserError(
                f"data.max_rejected={self.max_rejected} is a fraction of the rows; give a number from 0 to 1."
            )


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """An immutable, Arrow-backed data set of prompts with chosen and rejected responses.

    Made by `load` or `from_rows`, which check every row; the constructor checks nothing.
    """

    dataset: datasets.Dataset
    """Columns `align.data.schema.COLUMNS` and `place`; prompt and responses are lists of {role, content}."""
    report: LoadReport
    """Report of the loading; a selection of rows keeps it."""
    fingerprint: str
    """Hash of the rows, the same in every process."""
    rules: Rules = field(default_factory=Rules)

    @classmethod
    def load(
        cls,
        source: str | Path | Sequence[str | Path],
        *,
        format: str = "auto",
        columns: Mapping[str, str | None] | None = None,
        split: str = "train",
        subset: str | None = None,
        revision: str | None = None,
        expected_rows: int | None = None,
        **rules: Any,
    ) -> Preferences:
        """Read preference data and check every row.

        Args:
            source: a file: JSON lines, a JSON list or an object around one, CSV, TSV, Parquet or Arrow, also compressed
                (gzip, zstd, xz, bz2); a pattern of files; a folder of such files or one written by
                `datasets.save_to_disk`; a hub name; embedded data: "world", "world/heldout", "world/demonstrations",
                "world/prompts"; or a list of these.
            format: name of a format, or "auto" to recognise it by its columns.
            columns: name that a format has for a column → the name it has here (None: the same), or a path into one:
                ``{"prompt": "conversations[0].value", "chosen": "good"}``.
            split: split of a folder or hub data set.
            subset: subset (configuration) of a hub data set.
            revision: branch, tag or commit of a hub data set.
            expected_rows: number of rows of the source, to detect a file cut off at the end of a row.
            **rules: fields of `Rules`.

        Raises:
            UserError: if the source cannot be read, no format fits its columns, it has no usable row, or too many rows
                are rejected; the message has counts by reason and the first places.
        """
        name = str(source) if isinstance(source, str | Path) else ", ".join(map(str, source))
        rows = mapped(read_rows(source, split, subset=subset, revision=revision), columns or {}, name)
        return _loaded(rows, name, format, _by_hand(columns), Rules(**rules), expected_rows)

    @classmethod
    def from_rows(
        cls,
        rows: Iterable[Mapping[str, Any]],
        *,
        format: str = "auto",
        columns: Mapping[str, str | None] | None = None,
        expected_rows: int | None = None,
        name: str = "rows",
        **rules: Any,
    ) -> Preferences:
        """Like `load`, from rows in memory; reports show `name` in place of a file."""
        raw = mapped(rows_in_memory(rows, name), columns or {}, name)
        return _loaded(raw, name, format, _by_hand(columns), Rules(**rules), expected_rows)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one row as a dictionary of the columns of the pairwise format and `place`."""
        return _as_given(self.dataset[index])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(_as_given, cast(Iterable[dict[str, Any]], self.dataset))

    def select(self, indices: Iterable[int]) -> Preferences:
        """Return the rows at `indices`, in that order."""
        chosen = list(indices)
        digest = hashlib.sha256(json.dumps([self.fingerprint, chosen]).encode()).hexdigest()
        return replace(self, dataset=self.dataset.select(chosen), fingerprint=digest)

    def rewritten(self, rewrite: Callable[[Mapping[str, Any]], Iterable[Mapping[str, Any]]]) -> Preferences:
        """Replace each row by the rows that `rewrite` returns for it; they are not checked again."""
        return self._regrouped([[i] for i in range(len(self))], lambda rows: rewrite(rows[0]))

    def as_pairs(self) -> Preferences:
        """Replace rankings by the pairs that pairwise methods learn (`Rules.pairs`), unpaired answers too.

        A good and a bad answer to one prompt that stand in rows of their own become a pair.
        """
        names = ("ranking", "prompt_id", "chosen", "rejected")
        ranking, prompt_id, chosen, rejected = (self.dataset.data.column(name) for name in names)
        has_chosen, has_rejected = (column.is_valid().to_pylist() for column in (chosen, rejected))
        groups = rows_that_pair(ranking.to_pylist(), prompt_id.to_pylist(), has_chosen, has_rejected)
        if len(groups) == len(self) and ranking.null_count == len(self):
            return self
        return self._regrouped(groups, lambda rows: repaired(rows, self.rules.pairs, self.rules.seed))

    def as_demonstrations(self) -> Preferences:
        """Make every assistant's turn of a conversation a demonstration, if `Rules.train_on` asks for all."""
        return self if self.rules.train_on == "last" else self.rewritten(each_turn)

    def _regrouped(
        self, groups: Iterable[list[int]], rewrite: Callable[[Sequence[dict[str, Any]]], Iterable[Mapping[str, Any]]]
    ) -> Preferences:
        digest = hashlib.sha256()

        def rows() -> Iterator[tuple[Mapping[str, Any], str]]:
            for group in groups:
                members = [self[index] for index in group]
                place, *_ = (row.pop("place") for row in members)
                for made in rewrite(members):
                    digest.update(json.dumps(made).encode())
                    yield made, place

        dataset = _dataset(rows(), digest)
        return replace(self, dataset=dataset, fingerprint=digest.hexdigest())

    def train_test_split(self, heldout: int | float, seed: int) -> tuple[Preferences, Preferences]:
        """Return (train, heldout), with all rows of a prompt on the same side.

        Args:
            heldout: number of prompts (int), or fraction of them (float; at least one prompt).
            seed: the order in which prompts are held out depends only on the seed and each prompt's text, so other
                rows in the data change little.
        """
        rows_of: dict[str, list[int]] = {}
        for index, prompt in enumerate(self.dataset["prompt"]):
            rows_of.setdefault(prompt_key(prompt), []).append(index)
        count = heldout
        if isinstance(heldout, float):
            count = min(max(round(heldout * len(rows_of)), 1), len(rows_of) - 1) if 0 < heldout < 1 else 0
        if not 0 < count < len(rows_of):
            raise UserError(
                f"data.heldout_size={heldout} of {len(rows_of)} prompts leaves one side empty; give a number of "
                f"prompts below {len(rows_of)} or a fraction between 0 and 1."
            )
        order = sorted(rows_of, key=lambda key: hashlib.sha256(f"{seed} {key}".encode()).digest())
        held = {index for key in order[: int(count)] for index in rows_of[key]}
        return self.select(i for i in range(len(self)) if i not in held), self.select(sorted(held))


def _as_given(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of Arrow with the fields alone that its messages have."""
    for name in ("prompt", "chosen", "rejected"):
        if row[name] is not None:
            row[name] = [present(message) for message in row[name]]
    return row


def leaked_prompts(train: Preferences, heldout: Preferences) -> list[str]:
    """Return the places (file:line) of the rows of `heldout` whose prompt also occurs in `train`."""
    seen = {prompt_key(prompt) for prompt in train.dataset["prompt"]}
    return [
        place
        for prompt, place in zip(heldout.dataset["prompt"], heldout.dataset["place"], strict=True)
        if prompt_key(prompt) in seen
    ]


def _by_hand(columns: Mapping[str, str | None] | None) -> list[str]:
    return [new for new, old in (columns or {}).items() if old is not None]


def _loaded(
    rows: Iterator[RawRow],
    source: str,
    format_name: str,
    by_hand: Sequence[str],
    rules: Rules,
    expected_rows: int | None,
) -> Preferences:
    tally = Tally(source)
    head = list(islice(rows, _SAMPLE_ROWS))
    layout = _Layout.of(head, format_name, by_hand, source)
    digest = hashlib.sha256()
    dataset = _dataset(_valid_rows(chain(head, rows), layout, tally, digest), digest)
    if expected_rows is not None and tally.read != expected_rows:
        raise UserError(
            f"{source}: {tally.read} rows, but data.expected_rows={expected_rows}; the file may have been cut off, "
            "copy it again or correct the number."
        )
    report = tally.close(
        rule=layout.format.name,
        polarity=layout.format.polarity,
        max_rejected=rules.max_rejected,
        remedy="repair them",
    )
    for remark, remedy in _SUSPICIOUS.items():
        if (count := report.noted.get(remark, 0)) * 2 > report.kept:
            places = ", ".join(place.split(": ")[0] for place in report.examples[remark])
            raise UserError(f"{source}: {remark} in {count:,} of {report.kept:,} rows ({places}); {remedy}.")
    for warning in report.warnings:
        _LOG.warning("%s: %s", source, warning)
    return Preferences(dataset=dataset, report=report, fingerprint=digest.hexdigest(), rules=rules)


@dataclass(frozen=True)
class _Layout:
    """Format and column types of most rows of a source; a row that differs is rejected, never filled in."""

    format: Format
    kinds: Mapping[str, str]
    """Columns that the format reads and most rows have → type of most of their values."""

    @classmethod
    def of(cls, head: list[RawRow], format_name: str, by_hand: Sequence[str], source: str) -> _Layout:
        usable = [
            cast(Mapping[str, Any], row.value) for row in head if not row.problem and isinstance(row.value, Mapping)
        ]
        if not usable:
            raise UserError(
                f"{source}: no row to learn from ({len(head)} read, none of them an object); give rows with columns."
            )
        columns = Counter(frozenset(row) for row in usable).most_common(1)[0][0]
        found = find_format(format_name, Sample(columns, usable), source, by_hand)
        kinds: dict[str, str] = {}
        for name in sorted(columns & found.columns):
            counts = Counter(kind(row[name]) for row in usable if row.get(name) is not None)
            kinds[name] = counts.most_common(1)[0][0] if counts else "null"
        return cls(found, kinds)

    def check(self, row: Mapping[str, Any]) -> None:
        """Reject a row that lacks a column or has another type of value in it than most rows."""
        for name, usual in self.kinds.items():
            if name not in row:
                raise RowError("missing column", f'no "{name}"')
            actual = kind(row[name])
            if {actual, usual} == {"text", "messages"}:
                raise RowError("column changes type", f'"{name}" is {actual}, in most rows {usual}')


def _valid_rows(rows: Iterable[RawRow], layout: _Layout, tally: Tally, digest: Any) -> Iterator[tuple[Row, str]]:
    """Yield every valid row with its place; count rejections and remarks in `tally`."""
    prompts: dict[tuple[str, str], str] = {}
    orientations: dict[bytes, bool] = {}
    for raw, item in _converted(rows, layout, tally):
        notes: dict[str, None] = {}
        try:
            row = valid_row(spoken(item), notes.setdefault)
            key = prompt_key(row["prompt"], row["tools"])
            for name in ("prompt_id", "ranking"):
                if (label := row[name]) is not None and prompts.setdefault((name, label), key) != key:
                    raise RowError(f"{name} stands for two prompts", label)
        except RowError as rejection:
            tally.reject(raw.place, rejection)
            continue
        if _contradicts(row, key, orientations):
            notes.setdefault("pair also occurs with the other polarity")
        for remark in notes:
            tally.note(raw.place, remark)
        tally.kept += 1
        digest.update(json.dumps(row).encode())
        yield row, raw.place


def _converted(rows: Iterable[RawRow], layout: _Layout, tally: Tally) -> Iterator[tuple[RawRow, Mapping[str, Any]]]:
    """Yield the fields that each row, or each group of rows, becomes; count those that cannot be converted."""
    format = layout.format
    usable = _usable(rows, layout, tally)
    groups: Iterable[Iterable[RawRow]] = ([row] for row in usable)
    if format.gather is not None:
        groups = (list(group) for _, group in groupby(usable, key=lambda row: row.value[format.gather]))  # pyright: ignore
    for group in groups:
        members = list(group)
        values = [cast(Mapping[str, Any], row.value) for row in members]
        try:
            made = list(format.convert(values[0]) if format.gather is None else format.convert_group(values))
        except LeftOut as reason:
            tally.leave_out(members[0].place, reason)
            continue
        except RowError as rejection:
            tally.reject(members[0].place, rejection)
            continue
        for name in {name for value in values for name in value} - format.columns:
            tally.warn(f'column "{name}" is not read')
        for item in made:
            yield members[0], item


def _usable(rows: Iterable[RawRow], layout: _Layout, tally: Tally) -> Iterator[RawRow]:
    """Yield the rows that have the columns of the layout."""
    for raw in rows:
        tally.read += 1
        try:
            if raw.problem or not isinstance(raw.value, Mapping):
                raise RowError(raw.problem or "not an object")
            fields = cast(Mapping[str, Any], raw.value)
            if media := [name for name in MEDIA if fields.get(name)]:
                raise RowError("images, video and sound cannot be read", f'column "{media[0]}"')
            layout.check(fields)
        except RowError as rejection:
            tally.reject(raw.place, rejection)
            continue
        yield raw


def _contradicts(row: Row, key: str, orientations: dict[bytes, bool]) -> bool:
    """Return whether the same pair came before with the other polarity."""
    if not row["chosen"] or not row["rejected"]:
        return False
    sides = [answer_key(row["chosen"][0]), answer_key(row["rejected"][0])]
    identity = hashlib.sha256(json.dumps([key, *sorted(sides)]).encode()).digest()[:16]
    return orientations.setdefault(identity, sides[0] < sides[1]) != (sides[0] < sides[1])


def _dataset(rows: Iterable[tuple[Mapping[str, Any], str]], digest: Any) -> datasets.Dataset:
    """Collect rows and their places in chunks; `digest` is complete only after the last row."""
    import datasets
    import pyarrow as pa
    from datasets.table import InMemoryTable

    schema, chunks, left = arrow_schema(), list[Any](), iter(rows)
    while chunk := [{**row, "place": place} for row, place in islice(left, _CHUNK_ROWS)]:
        chunks.append(pa.RecordBatch.from_pylist(chunk, schema=schema))
    return datasets.Dataset(
        InMemoryTable(pa.Table.from_batches(chunks, schema=schema)), fingerprint=digest.hexdigest()[:16]
    )
