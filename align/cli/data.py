"""The command ``align data``: convert, check, show, stats, mix and select preference data."""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from align.cli.console import hide_noise, report, say, with_options
from align.errors import UserError, did_you_mean
from align.system.files import disk_faults

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from align.data import Preferences, TokenizedPreferences
    from align.data.schema import Unit

__all__ = ["main"]

_SEVERITY = {"note": 0, "warning": 1, "error": 3}
"""Exit codes of ``check``; 2 is a mistake in the command, as everywhere."""


def main(words: Sequence[str]) -> int:
    """Run the subcommand that `words` describe; return the exit code."""
    arguments = _parser().parse_args(words)
    hide_noise()
    try:
        return int(arguments.run(arguments) or 0)
    except UserError as error:
        report(f"Error: {with_options(str(error), vars(arguments))}")
        return 2
    except KeyboardInterrupt:
        report("Stopped; the same command goes on with what is written already.")
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="align data", description="Convert, check, show, mix and select preference data of any known format."
    )
    commands = parser.add_subparsers(required=True, metavar="convert|check|show|stats|mix|select")
    convert = _command(commands, "convert", _convert, "write data of any format in the pairwise format")
    convert.add_argument("--out", type=Path, required=True, help="a .jsonl or .parquet file")
    convert.add_argument("--max-rejected", type=float, default=0.01, help="share of bad rows that is accepted (0.01)")
    check = _command(commands, "check", _check, "find bad rows, duplicates, leakage, and what the labels can teach")
    check.add_argument("--heldout", help="data that must not share prompts with it, read alike")
    check.add_argument("--heldout-split", default="test", help="its split (default test)")
    check.add_argument("--json", action="store_true", help="print JSON")
    _with_model(check)
    show = _command(commands, "show", _show, "show rows as the tokens that a method trains on")
    show.add_argument("--rows", type=int, default=3, help="number of rows, spread over the data (default 3)")
    show.add_argument("--html", type=Path, help="write a page instead of the terminal")
    _with_model(show, required=True)
    stats = _command(commands, "stats", _stats, "lengths, turns, sources, scores and margins")
    stats.add_argument("--json", action="store_true", help="print JSON")
    stats.add_argument("--out", type=Path, metavar="PICTURE", help="draw the lengths into a .png file")
    _with_model(stats)
    mix = commands.add_parser("mix", help="mix several sources into one file")
    mix.set_defaults(run=_mix)
    mix.add_argument("sources", nargs="+", metavar="NAME=SOURCE", help="each source with the name it gets")
    mix.add_argument("--out", type=Path, required=True, help="a .jsonl file")
    mix.add_argument("--rates", choices=("proportional", "temperature", "equal"), default="proportional")
    mix.add_argument("--cap", type=int, help="size from which on a source counts no more (K)")
    mix.add_argument("--temperature", type=float, default=1.0, help="of the rates: r^(1/T)")
    mix.add_argument("--rows", type=int, help="of the mixture (default: all, a capped source up to its cap)")
    mix.add_argument("--seed", type=int, default=0)
    select = _command(commands, "select", _select, "choose few good rows that differ from each other (LIMA)")
    select.add_argument("--rows", type=int, required=True, help="number of rows to choose")
    select.add_argument("--out", type=Path, required=True, help="a .jsonl file")
    select.add_argument("--by", default="length", help="score (of the data), length, or a scorer (default: length)")
    select.add_argument("--per-source", type=int, help="largest number of rows of one source")
    select.add_argument("--seed", type=int, default=0)
    return parser


def _command(commands: Any, name: str, run: Any, words: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
    parser.set_defaults(run=run)
    parser.add_argument("source", nargs="+", help="files, patterns, folders, hub names or world")
    parser.add_argument("--format", default="auto", help="name of a format (default: recognised)")
    parser.add_argument("--columns", help="columns under other names: '{prompt: problem, chosen: good}'")
    parser.add_argument("--split", default="train", help="split of a folder or hub data set")
    parser.add_argument("--subset", help="subset (configuration) of a hub data set")
    parser.add_argument("--revision", help="branch, tag or commit of a hub data set")
    return parser


def _with_model(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    parser.add_argument(
        "--model", required=required, help="a model (a choice of model=, a path or hub name): its template"
    )
    parser.add_argument("--chat-template", help="bundled name or a Jinja file")
    parser.add_argument("--max-length", type=int, default=1024, help="tokens of prompt and response (default 1024)")
    units = ("pair", "demonstration", "ranking", "prompt", "judgement")
    parser.add_argument("--unit", choices=units, help="what the method reads (default: what the data has)")


def _load(arguments: argparse.Namespace, source: Sequence[str] | None = None, **rules: Any) -> Preferences:
    from align.data import Preferences

    sources = list(source or arguments.source)
    names = ("format", "split", "subset", "revision")
    settings = {name: value for name in names if (value := getattr(arguments, name, None)) is not None}
    settings["columns"] = _columns(getattr(arguments, "columns", None))
    return Preferences.load(sources[0] if len(sources) == 1 else sources, **settings | rules)


def _columns(typed: str | None) -> dict[str, str] | None:
    """Return a mapping of columns, written as in a run."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from align.cli.parse.command import quoted_columns

    if typed is None:
        return None
    try:
        columns: Any = OverridesParser.create().parse_override(f"data.columns={typed}").value()
    except HydraException as error:
        quoted = quoted_columns(f"data.columns={typed}")
        remedy = f"a path or name of a column needs quotes: {quoted}" if quoted else "give '{prompt: problem}'."
        raise UserError(f"--columns={typed} cannot be read: {remedy}") from error
    if not isinstance(columns, Mapping) or not all(isinstance(name, str) for name in columns.values()):
        raise UserError(f"--columns={typed}: not of the form '{{prompt: problem}}'.")
    return {str(new): str(old) for new, old in cast(Mapping[Any, Any], columns).items()}


def _tokenizer(arguments: argparse.Namespace) -> PreTrainedTokenizerBase:
    from align.cli.parse import groups
    from align.cli.parse.compose import compose_run
    from align.model.loading import load_tokenizer
    from align.settings.config import ModelConfig

    configs, model = groups.find_configs(), ModelConfig(name=arguments.model)
    known = groups.choices(configs, "model")
    if arguments.model in known and not Path(arguments.model).exists():
        model = compose_run(configs, [f"model={arguments.model}"]).model
    if arguments.chat_template is not None:
        model = replace(model, chat_template=arguments.chat_template)
    try:
        return load_tokenizer(model)
    except UserError as error:
        nearest = did_you_mean(arguments.model, {*known} - {arguments.model})
        raise UserError(f"{error}{nearest}".replace("model.name=", "--model=")) from error


def _unit(arguments: argparse.Namespace, data: Preferences) -> Unit:
    """Return what is asked for, or what the data has: pairs (also of answers that stand alone), answers or prompts."""
    if arguments.unit is not None:
        return arguments.unit
    if any(map(_has_both, data)) or any(map(_has_both, data.as_pairs())):
        return "pair"
    return "demonstration" if any(row["chosen"] for row in data) else "prompt"


def _has_both(row: Mapping[str, Any]) -> bool:
    return bool(row["chosen"] and row["rejected"])


def _tokenized(
    arguments: argparse.Namespace, data: Preferences, tokenizer: PreTrainedTokenizerBase
) -> TokenizedPreferences:
    from align.data import tokenize

    unit, length = _unit(arguments, data), arguments.max_length
    return tokenize(data, tokenizer, max_length=length, unit=unit, max_rejected=1.0, may_be_empty=True)


def _tokenized_if_asked(arguments: argparse.Namespace, data: Preferences) -> TokenizedPreferences | None:
    return _tokenized(arguments, data, _tokenizer(arguments)) if arguments.model is not None else None


def _convert(arguments: argparse.Namespace) -> None:
    _require_new(arguments.out, ".jsonl", ".parquet")
    data = _load(arguments, max_rejected=arguments.max_rejected)
    say(data.report.summary())
    _write(data, arguments.out)


def _check(arguments: argparse.Namespace) -> int:
    from rich.table import Table

    from align.curation.checks import as_json, check
    from align.system.console import PlainConsole

    data = _load(arguments, max_rejected=1.0)
    heldout = None
    if arguments.heldout:
        heldout = _load(arguments, [arguments.heldout], max_rejected=1.0, split=arguments.heldout_split)
    findings = check(data, heldout, _tokenized_if_asked(arguments, data))
    if arguments.json:
        print(json.dumps({"report": data.report.summary(), "findings": as_json(findings)}))
    else:
        console = PlainConsole()
        console.print(data.report.summary().splitlines()[0])
        if not findings:
            console.print("Nothing is wrong with it, as far as these checks see.")
            return 0
        table = Table(title="Findings", title_justify="left")
        for column in ("severity", "count", "of", "what", "where"):
            table.add_column(column, justify="right" if column in ("count", "of") else "left")
        for found in findings:
            places = ", ".join(found.places)
            table.add_row(found.severity, f"{found.count:,}", f"{found.of:,}", found.sentence, places)
        console.print(table)
    return max((_SEVERITY[found.severity] for found in findings), default=0)


def _show(arguments: argparse.Namespace) -> None:
    from align.curation.display import LEGEND, as_html, as_text, tokens_of
    from align.data.encoding import end_of_turn_id
    from align.system.console import PlainConsole

    data = _load(arguments, max_rejected=1.0)
    spread = max(50, 5 * arguments.rows)  # some may not fit
    tokenizer = _tokenizer(arguments)
    tokenized = _tokenized(arguments, data.select(range(0, len(data), max(1, len(data) // spread))), tokenizer)
    if not len(tokenized):
        raise UserError(f"{data.report.source}: no {tokenized.unit} fits; {tokenized.report.summary()}")
    end = end_of_turn_id(tokenizer)
    count = min(max(1, arguments.rows), len(tokenized))
    examples = [tokenized[i * len(tokenized) // count] for i in range(count)]
    rows = [row for example in examples for row in tokens_of(example, tokenizer, end)]
    if arguments.html is not None:
        as_html(rows, arguments.html, title=data.report.source)
        say(f"{len(rows)} rows of tokens are in {arguments.html}.")
        return
    console = PlainConsole()
    console.print("; ".join(f"{kind}: {words}" for kind, words in LEGEND.items()), style="dim")
    for row in rows:
        console.rule(style="dim")
        console.print(as_text(row))


def _stats(arguments: argparse.Namespace) -> None:
    from rich.table import Table

    from align.curation.profile import plot_profile, profile
    from align.system.console import PlainConsole

    data = _load(arguments, max_rejected=1.0)
    found = profile(data, _tokenized_if_asked(arguments, data))
    if arguments.out is not None:
        plot_profile(data, arguments.out)
    if arguments.json:
        print(json.dumps(found))
        return
    console = PlainConsole()
    kinds = ", ".join(f"{count:,} {name}" for name, count in found["kinds"].items())
    console.print(f"{data.report.source}: {found['rows']:,} rows ({kinds}), {found['prompts']:,} prompts")
    table = Table()
    columns = ("n", "mean", "least", "median", "p90", "p99", "most")
    for column in ("quantity", *columns):
        table.add_column(column, justify="left" if column == "quantity" else "right")
    for name, values in found["distributions"].items():
        table.add_row(name, *(_short(values[column]) for column in columns))
    console.print(table)
    if len(found["sources"]) > 1:
        console.print("Sources: " + ", ".join(f"{name} {n:,}" for name, n in found["sources"].items()))


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _mix(arguments: argparse.Namespace) -> None:
    from align.curation.mixing import mixing_rates, write_mixture

    _require_new(arguments.out, ".jsonl")
    pairs = [word.partition("=") for word in arguments.sources]
    if wrong := [name for name, _, source in pairs if not name or not source]:
        raise UserError(f"mix: {wrong[0]!r} is not of the form NAME=SOURCE.")
    sources = {name: _load(arguments, [source]) for name, _, source in pairs}
    if len(sources) < len(pairs):
        raise UserError("mix: two sources have the same name; give each its own.")
    sizes = {name: len(data) for name, data in sources.items()}
    rates = mixing_rates(sizes, arguments.rates, cap=arguments.cap, temperature=arguments.temperature)
    n = arguments.rows or sum(min(size, arguments.cap or size) for size in sizes.values())
    with _disk_faults(arguments.out):
        write_mixture(sources, rates, n, arguments.out, seed=arguments.seed)
    for name, rate in rates.items():
        say(f"{name}: {sizes[name]:,} rows, {rate:.1%} of the mixture")


def _select(arguments: argparse.Namespace) -> None:
    from align.curation.selection import quality, quality_scorer, select

    _require_new(arguments.out, ".jsonl", ".parquet")
    scorer = quality_scorer(arguments.by)
    data = _load(arguments)
    values = quality(data, arguments.by, scorer)
    found = select(data, arguments.rows, values, per_source=arguments.per_source, seed=arguments.seed)
    _write(data.select(found.rows), arguments.out)
    say(found.summary(len(data), arguments.by))


def _write(data: Preferences, out: Path) -> None:
    """Write rows in the pairwise format, whole or not at all."""
    from align.data.writing import write_parquet, write_rows

    with _disk_faults(out):
        if out.suffix == ".parquet":
            write_parquet(data.dataset, out)
        else:
            write_rows(data, out)
    report(f"written to {out}")


def _disk_faults(out: Path) -> AbstractContextManager[None]:
    return disk_faults(f"--out={out} cannot be written", "name another place")


def _require_new(out: Path, *kinds: str) -> None:
    if out.suffix not in kinds:
        raise UserError(f"--out={out}: give a {' or '.join(kinds)} file.")
    if not out.absolute().parent.is_dir():
        raise UserError(f"--out={out}: there is no folder {out.absolute().parent}; make it.")
    if out.exists():  # perhaps the very data that are read
        raise UserError(f"--out={out} is there already; give another name, or delete it.")
