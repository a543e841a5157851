"""`Preferences`: a data set in the pairwise format, with the report of its loading."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from align.data.comparison import Comparison
from align.data.conversion import Check, Layout
from align.data.formats import Renaming
from align.data.formats.base import UnknownFormatError
from align.data.load_report import LoadReport, Tally, joined_reports, place_of
from align.data.pairs_and_rankings import PairsOf, each_turn, repaired, rows_that_pair
from align.data.progress import with_progress
from align.data.reading import WORLD, Block, RawRow, Rows, files_of, in_blocks, read_blocks, rows_in_memory
from align.data.schema import TOKENS, question_key, token_ids
from align.data.storage import batches_of, keep, read_kept, rows_of, store
from align.data.validation import LOWER_SCORE, NEGATIVE_MARGIN, REPEATED
from align.errors import UserError
from align.system.identity import hashed, sha256
from align.system.terminal import visible
from align.system.workers import core_count, in_order

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

__all__ = ["Preferences", "joined", "leaked_prompts", "require_format", "require_text"]

_SAMPLE_ROWS = 1000
_WORTH_KEEPING = 2**26
"""Bytes of the files of a source from which on its rows are kept in the datasets cache for the next run."""
_ALONE = 8
"""Blocks that are read and checked by this process, before others are started to read the rest."""
_TABLE_ROWS = 5_000
_VERSION = 4
"""Of the rows kept: raise it when the same file gives other rows."""
_SUSPICIOUS = {
    LOWER_SCORE: "swap the columns of the sides, or give scores of which the higher is better",
    NEGATIVE_MARGIN: "swap the columns of the sides, or give by how much chosen is better",
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
        if not isinstance(source, str | Path):
            hub = {"split": split, "subset": subset, "revision": revision}
            parts = [cls.load(one, format=format, columns=columns, **hub, **rules) for one in source]
            return joined(parts, expected_rows)
        name, made, files, key = str(source), Rules(**rules), files_of(source, split), None
        if sum(file.stat().st_size for file in files) >= _WORTH_KEEPING:
            contents = [[str(file), sha256(file)] for file in files]
            key = hashed([_VERSION, name, contents, format, columns, made.max_rejected, expected_rows])
        kept = None if key is None else read_kept(key)
        if kept is None:
            blocks = read_blocks(source, split, subset=subset, revision=revision)
            kept = _checked(blocks, name, format, columns or {}, made, expected_rows, files)
            if key is not None:
                keep(key, *kept)
        return cls._with_warnings(*kept, made)

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
        made, blocks = Rules(**rules), in_blocks(rows_in_memory(rows, name))
        return cls._with_warnings(*_checked(blocks, name, format, columns or {}, made, expected_rows), made)

    @classmethod
    def _with_warnings(cls, dataset: datasets.Dataset, report: LoadReport, fingerprint: str, rules: Rules) -> Self:
        for warning in report.warnings:
            _LOG.warning("%s", visible(f"{report.source}: {warning}"))
        return cls(dataset=dataset, report=report, fingerprint=fingerprint, rules=rules)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one row as a dictionary of the columns of the pairwise format and `place`."""
        return next(rows_of(self._tables[index]))

    @cached_property
    def _tables(self) -> datasets.Dataset:
        """The rows as `pyarrow.Table`: a copy of all that describes them, so it is made once and not for each row."""
        return self.dataset.with_format("arrow")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.rows()

    def rows(self, names: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the rows in order as dictionaries, with these columns or all."""
        return chain.from_iterable(map(rows_of, self.tables(names)))

    def tables(self, names: Sequence[str] | None = None) -> Iterator[Any]:
        """Yield the rows in order as `pyarrow.Table`, of a few thousand each, with these columns or all."""
        chosen = self._tables if names is None else self._tables.select_columns(list(names))
        return iter(cast("Iterable[Any]", chosen.iter(_TABLE_ROWS)))

    def select(self, indices: Iterable[int]) -> Preferences:
        """Return the rows at `indices`, in that order."""
        chosen = list(indices)
        digest = hashlib.sha256(json.dumps([self.fingerprint, chosen]).encode()).hexdigest()
        return replace(self, dataset=self.dataset.select(chosen), fingerprint=digest)

    def rewritten(self, rewrite: Callable[[Mapping[str, Any]], Iterable[Mapping[str, Any]]]) -> Preferences:
        """Replace each row by those that `rewrite` returns for it; they are not checked again."""
        return self._regrouped([[i] for i in range(len(self))], lambda rows: rewrite(rows[0]))

    def as_pairs(self, *, join_answers: bool = True) -> Preferences:
        """Replace rankings by the pairs that pairwise methods learn (`Rules.pairs`), unpaired answers too.

        A good and a bad answer to one prompt that stand in rows of their own become a pair, if `join_answers`.
        """
        names = ("ranking", "prompt_id", "chosen", "rejected")
        columns: dict[str, list[Any]] = {name: [] for name in names}
        for batch in self.tables(names):
            for name in names:
                column: Any = batch[name]
                columns[name] += (column.is_valid() if name in ("chosen", "rejected") else column).to_pylist()
        groups = rows_that_pair(*columns.values(), join_answers=join_answers)
        if len(groups) == len(self) and not any(columns["ranking"]):
            return self
        return self._regrouped(groups, lambda rows: repaired(rows, self.rules.pairs, self.rules.seed))

    def as_demonstrations(self) -> Preferences:
        """Make every assistant's turn of a conversation a demonstration, if `Rules.train_on` asks for all."""
        return self if self.rules.train_on == "last" else self.rewritten(each_turn)

    def decoded(self, tokenizer: PreTrainedTokenizerBase) -> Preferences:
        """Replace token ids by the text that they are, which scorers read; rows of text stay."""
        if not _are_tokens(self.dataset.data.column("prompt")):
            return self
        return self.rewritten(lambda row: [_decoded(row, tokenizer)])

    def _regrouped(
        self, groups: Iterable[list[int]], rewrite: Callable[[Sequence[dict[str, Any]]], Iterable[Mapping[str, Any]]]
    ) -> Preferences:
        def rows() -> Iterator[tuple[Mapping[str, Any], str]]:
            for group in groups:
                members = list(rows_of(self._tables[group]))
                place, *_ = (row.pop("place") for row in members)
                yield from ((made, place) for made in rewrite(members))

        dataset, fingerprint = store(batches_of(rows()))
        return replace(self, dataset=dataset, fingerprint=fingerprint)

    def questions(self) -> list[str]:
        """Return the :func:`align.data.schema.question_key` of every row."""
        return [question_key(row["prompt"], row["prompt_id"]) for row in self.rows(["prompt", "prompt_id"])]

    def train_test_split(self, heldout: int | float, seed: int) -> tuple[Preferences, Preferences]:
        """Return (train, heldout), divided as `split_rows` does."""
        kept, held = self.split_rows(heldout, seed)
        return self.select(kept), self.select(held)

    def split_rows(self, heldout: int | float, seed: int) -> tuple[list[int], list[int]]:
        """Return the rows to train on and those held out, with all rows of a prompt on the same side.

        Args:
            heldout: number of prompts (int), or fraction of them (float; at least one prompt).
            seed: the order in which prompts are held out depends only on the seed and each prompt's text, so other
                rows in the data change little.
        """
        rows_of: dict[str, list[int]] = {}
        for index, key in enumerate(self.questions()):
            rows_of.setdefault(key, []).append(index)
        count = heldout
        if isinstance(heldout, float):
            count = min(max(round(heldout * len(rows_of)), 1), len(rows_of) - 1) if 0 < heldout < 1 else 0
        if not 0 < count < len(rows_of):
            remedy = f"give a number of prompts below {len(rows_of)} or a fraction between 0 and 1"
            if len(rows_of) == 1:
                remedy = "add rows with other prompts, or set data.heldout_size=0"
            raise UserError(f"data.heldout_size={heldout} of {len(rows_of)} prompts leaves one side empty; {remedy}.")
        order = sorted(rows_of, key=lambda key: hashlib.sha256(f"{seed} {key}".encode()).digest())
        held = {index for key in order[: int(count)] for index in rows_of[key]}
        return [i for i in range(len(self)) if i not in held], sorted(held)


def _decoded(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    texts = {
        name: [{"role": None, "content": str(tokenizer.decode(token_ids(row[name][0]), skip_special_tokens=True))}]
        for name in ("prompt", "chosen", "rejected")
        if row[name] and row[name][0]["role"] == TOKENS
    }
    return {**row, **texts}


def _are_tokens(prompts: Any) -> bool:
    """Return whether a column of prompts has one of token ids."""
    from pyarrow import compute

    pc: Any = compute  # its functions are made when it is imported
    return bool(pc.any(pc.equal(pc.struct_field(pc.list_flatten(prompts), "role"), TOKENS)).as_py())


def require_text(
    source: str | Path | Sequence[str | Path],
    *,
    format: str,
    columns: Mapping[str, str | None],
    needs: str,
    **hub: Any,
) -> None:
    """Check, by the first rows of a source, that they are no token ids, where something `needs` text.

    Raises:
        UserError: They are, or the source cannot be read.
    """
    for one in [source] if isinstance(source, str | Path) else source:
        head, renaming, layout = _begun(one, format, columns, **hub)
        if _are_tokens(Check(layout, renaming)(Rows(head)).batch.column("prompt")):
            raise UserError(
                f"{one}: the prompts are token ids, and {needs} needs text; decode them in the file, with "
                'row["prompt"] = tokenizer.decode(row["prompt_ids"]), and the answers likewise.'
            )


def require_format(
    source: str | Path | Sequence[str | Path], *, split: str, format: str, columns: Mapping[str, str | None]
) -> None:
    """Raise `UserError` where the first rows of files here are in no format; large ones and the hub come later."""
    for one in [source] if isinstance(source, str | Path) else source:
        files = [] if one in WORLD else files_of(one, split)
        if files and sum(file.stat().st_size for file in files) < _WORTH_KEEPING:
            _begun(one, format, columns, split=split)


def _begun(
    source: str | Path, format: str, columns: Mapping[str, str | None], **hub: Any
) -> tuple[list[RawRow], Renaming, Layout]:
    """Return the first rows of a source, and how they are read."""
    head, _ = _beginning(read_blocks(source, **hub))
    renaming = Renaming.of(head, columns, str(source))
    by_hand = [new for new, old in columns.items() if old is not None]
    return head, renaming, Layout.of([renaming(row) for row in head], format, by_hand, str(source))


def leaked_prompts(train: Preferences, heldout: Preferences) -> list[str]:
    """Return the places (file:line) of the rows of `heldout` whose prompt also occurs in `train`."""
    seen = set(train.questions())
    return [place for key, place in zip(heldout.questions(), heldout.dataset["place"], strict=True) if key in seen]


def joined(parts: Sequence[Preferences], expected_rows: int | None = None) -> Preferences:
    """Put sources together, each of which was read in its own format."""
    import datasets

    if not parts:
        raise UserError("data: an empty list; name at least one source.")
    report = joined_reports([part.report for part in parts])
    _require_rows(report.source, report.read, expected_rows)
    digest = hashlib.sha256(json.dumps([part.fingerprint for part in parts]).encode()).hexdigest()
    dataset = datasets.concatenate_datasets([part.dataset for part in parts])
    return replace(parts[0], dataset=dataset, report=report, fingerprint=digest)


def _require_rows(source: str, read: int, expected: int | None) -> None:
    if expected is not None and read != expected:
        raise UserError(
            f"{source}: {read} rows, but data.expected_rows={expected}; the file may have been cut off, "
            "copy it again or correct the number."
        )


def _checked(
    blocks: Iterator[Block],
    source: str,
    format_name: str,
    columns: Mapping[str, str | None],
    rules: Rules,
    expected_rows: int | None,
    files: Sequence[Path] = (),
) -> tuple[datasets.Dataset, LoadReport, str]:
    """Read and check all rows; return the valid ones with the report and their fingerprint."""
    tally = Tally(source)
    head, blocks = _beginning(blocks)
    renaming = Renaming.of(head, columns, source)
    by_hand = [new for new, old in columns.items() if old is not None]
    several = files if format_name == "auto" and len(files) > 1 else []
    try:
        layout = Layout.of([renaming(row) for row in head], format_name, by_hand, source)
    except UnknownFormatError:
        if several:  # the first rows may be those of two formats
            Layout.of_file(several[0], renaming, by_hand).require_of_all(several, renaming, by_hand, source)
        raise
    if several:
        layout.require_of_all(several, renaming, by_hand, source)
    check, comparison = Check(layout, renaming), Comparison(tally)
    found = in_order(check, check.whole(blocks), alone=_ALONE, processes=core_count())
    dataset, fingerprint = store(comparison.add(block) for block in with_progress(found, source))
    comparison.close()
    _require_rows(source, tally.read, expected_rows)
    report = tally.close(
        rule=layout.format.name,
        polarity=layout.format.polarity,
        max_rejected=rules.max_rejected,
        remedy="repair them",
    )
    for remark, remedy in _SUSPICIOUS.items():
        if (count := report.noted.get(remark, 0)) * 2 > report.kept:
            places = ", ".join(place_of(example, remark) for example in report.examples[remark])
            raise UserError(f"{source}: {remark} in {count:,} of {report.kept:,} rows ({places}); {remedy}.")
    return dataset, report, fingerprint


def _beginning(blocks: Iterator[Block]) -> tuple[list[RawRow], Iterator[Block]]:
    """Return the first rows, and all blocks."""
    head: list[RawRow] = []
    taken: list[Block] = []
    while len(head) < _SAMPLE_ROWS and (following := next(blocks, None)) is not None:
        taken.append(following)
        head += islice(following, _SAMPLE_ROWS - len(head))
    return head, chain(taken, blocks)
