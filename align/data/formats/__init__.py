"""Formats of preference data, recognised by the columns of a file and what they hold.

A `Format` is a description with a function that turns one raw row into fields of the pairwise format. To add a format,
write it in a module of this package and list it in `BUILT_IN`; another package registers its own under the entry point
group `align.formats`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from align.data.formats import demonstrations, labelled, pairs, rankings, tokens
from align.data.formats.base import ASKED, SHARED_COLUMNS, Format, Sample, UnknownFormatError
from align.data.formats.gsm8k import GSM8K
from align.data.formats.hh import HH
from align.data.formats.instructions import INSTRUCTIONS
from align.data.formats.mapping import Renaming, after, proposed, shown_columns, shown_names, unclear_label, written
from align.data.formats.trl import IMPLICIT
from align.data.unread import Unread
from align.data.words import words_of
from align.errors import did_you_mean

__all__ = ["BUILT_IN", "Format", "Renaming", "Sample", "find_format", "known_formats"]

BUILT_IN = (
    pairs.PAIRWISE,
    pairs.LABEL_PAGE,
    HH,
    IMPLICIT,
    pairs.ULTRAFEEDBACK,
    pairs.ALPACA_PAIRS,
    pairs.ARGILLA,
    pairs.ORCA_PAIRS,
    pairs.DISTILABEL_ORCA,
    pairs.SHAREGPT_PAIRS,
    pairs.MS_SWIFT,
    pairs.TORCHTUNE,
    pairs.OPENAI_PREFERENCE,
    pairs.STACK_EXCHANGE_PAIRED,
    pairs.ANTHROPIC_EVALS,
    tokens.TOKEN_PAIRS,
    labelled.LABELLED,
    labelled.PANDALM,
    labelled.LLMBAR,
    labelled.ALPACA_EVAL,
    labelled.HALOS,
    labelled.SHP,
    labelled.HELPSTEER2_PREFERENCE,
    labelled.HELPSTEER3,
    labelled.PKU_SAFE_RLHF,
    labelled.TLDR,
    labelled.ARENA,
    labelled.ARENA_55K,
    labelled.TINKER,
    labelled.WEBGPT,
    rankings.SCORED,
    rankings.CANDIDATES,
    rankings.RANKED,
    rankings.RRHF,
    rankings.DISTILABEL,
    rankings.ULTRAFEEDBACK_RAW,
    rankings.STACK_EXCHANGE,
    rankings.NEMO_RL,
    rankings.NECTAR,
    rankings.REWARD_BENCH_2,
    rankings.HELPSTEER,
    demonstrations.KTO,
    demonstrations.KTO_ALPACA,
    demonstrations.KTO_MESSAGES,
    demonstrations.DEMONSTRATION,
    demonstrations.PROMPT_COMPLETION,
    demonstrations.MESSAGES,
    demonstrations.SHAREGPT,
    demonstrations.ALPACA,
    demonstrations.SELF_INSTRUCT,
    demonstrations.TEXT,
    demonstrations.TRANSCRIPT,
    tokens.TOKENS,
    GSM8K,
    INSTRUCTIONS,
    demonstrations.QUESTIONS,
    demonstrations.PROMPT,
)


def known_formats() -> dict[str, Format]:
    """Return all formats by name, including those of other installed packages."""
    from align.settings.registry import choices, load

    formats = {format.name: format for format in BUILT_IN}
    for name in choices("formats"):
        if name not in formats:
            formats[name] = load("formats", name)
    return formats


def find_format(name: str, sample: Sample, source: str, by_hand: Collection[str] = ()) -> Format:
    """Return the format called `name`, or for "auto" the one that fits the sample; never guess.

    If several fit, the one that requires the most columns is taken, then one that looked at the values too. With
    columns named `by_hand` the format must read these, and what it leaves out is the user's decision.

    Raises:
        UnknownFormatError: None fits, or two do; it shows the columns and the mapping that would probably work.
    """
    formats = known_formats()
    if name != "auto":
        if name not in formats:
            raise UnknownFormatError(
                f"{name!r} is not a known data format: {', '.join(sorted(formats))}.{did_you_mean(name, formats)}"
            )
        missing = formats[name].lacks(sample)
        if missing:
            raise UnknownFormatError(
                f"{source}: data.format={name} needs the column {', '.join(missing)}, but the columns are "
                f"{shown_columns(sample)}.\nName them: {_proposal(sample, formats)}"
            )
        return formats[name]
    if by_hand:
        best = _reading(frozenset(by_hand), sample, formats)
    else:
        fitting = [format for format in formats.values() if format.fits(sample)]
        best = _best(fitting, frozenset())
    if len(best) == 1 or _ask_the_same(best, sample):
        said = best[0].unread(sample)
        if said.verdicts or said.turns:  # a mapping names what is read, but does not say that a verdict is nothing
            reason, remedy = best[0].objection(said)
            raise UnknownFormatError(f"{source}: {reason}\n{remedy}")
        return best[0]
    raise UnknownFormatError(_refusal(sample, source, best, formats))


def _reading(wanted: frozenset[str], sample: Sample, formats: Mapping[str, Format]) -> list[Format]:
    """Return the formats that read the wanted columns best, if possible without leaving another out."""
    readers = [format for format in formats.values() if wanted <= format.columns and not format.lacks(sample)]
    fitting = [format for format in readers if format.recognises(sample)]
    return _best([format for format in fitting if not format.unread(sample).names] or fitting, wanted)


def _best(fitting: list[Format], wanted: frozenset[str]) -> list[Format]:
    """Return the formats that require the most of the wanted columns, then the most columns, then looked at values."""

    def claims(format: Format) -> tuple[int, int, bool]:
        return len(format.requires & wanted), format.needs, format.looks

    most = max(map(claims, fitting), default=None)
    return [format for format in fitting if claims(format) == most]


def _ask_the_same(formats: list[Format], sample: Sample) -> bool:
    """Return whether formats differ in the name of the prompt alone, and the sample has one text under all of these."""
    required = [format.requires for format in formats]
    names = frozenset[str]().union(*required) - frozenset.intersection(*required) if required else frozenset[str]()
    return bool(names) and names <= ASKED and all(len({str(row.get(n)) for n in names}) == 1 for row in sample.rows)


def _proposal(sample: Sample, formats: Mapping[str, Format]) -> str:
    """Return the mapping that would probably work, with the columns of data that it leaves out."""
    found = proposed(sample)
    renamed = after(found, sample)
    mapped = frozenset(new for new, old in found.items() if old)
    readers = _reading(mapped, renamed, formats)
    read = mapped | (readers[0].columns if readers else SHARED_COLUMNS)
    lost = [name for name in sorted(renamed.columns - read) if renamed.carries(name, any_text=True)]
    said = readers[0].unread(renamed) if readers else Unread()
    if judging := [*said.verdicts, *said.turns]:
        return f"{written(found)} data.format={readers[0].name} (if {shown_names(judging)} says nothing of the answers)"
    return written(found) + (f" (it leaves out {shown_names(lost)})" if lost else "")


def _refusal(sample: Sample, source: str, best: list[Format], formats: Mapping[str, Format]) -> str:
    """Return what the columns are, why nothing fits, and what to write: at most three lines."""
    if best:
        names = " or ".join(format.name for format in best)
        return (
            f"{source}: several formats fit the columns {shown_columns(sample)}.\n"
            f"Choose one: data.format={best[0].name} ({names}), or name the columns yourself: "
            f"{_proposal(sample, formats)}"
        )
    almost = [format for format in formats.values() if not format.lacks(sample) and format.recognises(sample)]
    mapping = _proposal(sample, formats)
    reason, remedy = "", f"Name the columns, for instance: {mapping}"
    if "better: COLUMN" in mapping and (unclear := unclear_label(sample)):
        remedy = f"{unclear}; then name the columns, for instance: {mapping}"
    if almost:
        near = max(almost, key=lambda format: format.needs)
        unread = near.unread(sample)
        said, write = near.objection(unread)
        reason = f" {said}"
        judging = unread.names == unread.verdicts and "label:" not in mapping
        if judging or unread.turns or "{}" in mapping:  # they have the names of the pairwise format already
            remedy = write
    if any("ids" in words_of(name) and sample.mostly(name, tokens.is_ids) for name in sample.columns):
        remedy = (
            "Of token ids, give prompt_ids, chosen_ids and rejected_ids, or input_ids with labels (−100 where nothing "
            'is trained), or text: row["prompt"] = tokenizer.decode(row["prompt_ids"]), and the answers likewise.'
        )
    return f"{source}: no known format fits the columns {shown_columns(sample)}.{reason}\n{remedy}"
