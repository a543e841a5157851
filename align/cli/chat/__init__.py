"""The command ``align chat``: a conversation with a model in the terminal, or one answer for each line of a pipe."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli.console import hide_noise, report
from align.errors import UserError

if TYPE_CHECKING:
    from align.cli.chat.session import Session, Speaker
    from align.cli.chat.terminal import Terminal
    from align.cli.trained_run import TrainedRun

__all__ = ["main"]

_LONGEST = 512
"""Tokens of an answer, if the model has positions for twice as many."""


def main(words: Sequence[str]) -> int:
    """Talk as `words` describe until the person leaves or the lines end; returns the exit code."""
    arguments = _parser().parse_args(words)
    try:
        return _talk(arguments)
    except UserError as error:
        report(f"Error: {error}")
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="align chat",
        description="Talk to a model; /help lists the commands. Lines from a pipe are answered one after the other.",
    )
    parser.add_argument("model", help="folder of a run, or model as in model.name (world/base)")
    parser.add_argument("--start", help="PEFT adapter on the model, as in model.start (world/sft)")
    parser.add_argument(
        "--against", metavar="RUN", help="run or model for /compare (default: the model before training)"
    )
    parser.add_argument("--against-start", metavar="ADAPTER", help="PEFT adapter on that model")
    parser.add_argument(
        "--scorer", action="append", default=[], help="a scorer's name, YAML file, or a run's folder; repeatable"
    )
    parser.add_argument(
        "--pairs", type=Path, default=Path("chat.jsonl"), metavar="FILE", help="where /save puts pairs (chat.jsonl)"
    )
    parser.add_argument("--system", help="system turn")
    run = "default: the run's, else"
    parser.add_argument("--temperature", type=float, help=f"0 is greedy ({run} 0.7)")
    parser.add_argument("--top-p", type=float, help=f"nucleus sampling ({run} 1)")
    parser.add_argument("--max-new-tokens", type=int, help=f"longest answer ({run} {_LONGEST})")
    parser.add_argument("--seed", type=int, help=f"seed of the sampling ({run} 0)")
    return parser


def _talk(arguments: argparse.Namespace) -> int:
    from align.cli.chat.commands import converse
    from align.cli.chat.terminal import Terminal

    hide_noise()
    if arguments.pairs.suffix != ".jsonl":
        raise UserError(f"--pairs={arguments.pairs}: pairs are kept as JSON lines; give a name that ends in .jsonl.")
    terminal = Terminal.standard(interactive=sys.stdin.isatty() and sys.stdout.isatty())
    session = _session(arguments, terminal)
    if terminal.interactive:
        terminal.say(f"{session.model.name} answers; /help lists the commands, Ctrl-D leaves.")
    return converse(session, terminal)


def _session(arguments: argparse.Namespace, terminal: Terminal) -> Session:
    """Load what was named: scorers first, as their mistakes show at once."""
    from align.cli.trained_run import TrainedRun, require_models
    from align.sampling.params import SamplingParams
    from align.scoring.from_config import read_scorer

    if arguments.against_start is not None and arguments.against is None:
        raise UserError("--against-start is an adapter on the model of --against; name that too.")
    require_models(arguments.model, arguments.against)
    run = TrainedRun.find(arguments.model) if arguments.start is None else None
    settings = _settings(arguments, run)
    sampling = {name: settings[name] for name in ("temperature", "top_p")}
    SamplingParams(**sampling, max_new_tokens=settings.get("max_new_tokens", _LONGEST))  # wrong ones are refused early
    scorers = [read_scorer(word) for word in arguments.scorer]
    model = _speaker(arguments.model, arguments.start)
    for note in (*model.policy.notes, *([run.note] if run is not None and run.note is not None else [])):
        terminal.say(note)
    positions = model.policy.max_positions
    longest = settings.get("max_new_tokens", _LONGEST if positions is None else min(_LONGEST, positions // 2))
    from align.cli.chat.session import Session

    return Session(
        model,
        _rival(arguments, model),
        SamplingParams(**sampling, max_new_tokens=longest),
        terminal=terminal,
        system=arguments.system,
        scorers=scorers,
        pairs=arguments.pairs,
        seed=settings["seed"],
    )


def _settings(arguments: argparse.Namespace, run: TrainedRun | None) -> dict[str, Any]:
    """Return what is typed, else what the run's own evaluation had, else the defaults."""
    names = ("temperature", "top_p", "max_new_tokens", "seed")
    typed = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    return {"temperature": 0.7, "top_p": 1.0, "seed": 0, **(run.defaults if run is not None else {}), **typed}


def _speaker(model: str, start: str | None) -> Speaker:
    from align.cli.chat.session import Speaker
    from align.cli.trained_run import load_model

    return Speaker(model if start is None else f"{model} with {start}", load_model(model, start), "policy")


def _rival(arguments: argparse.Namespace, model: Speaker) -> Speaker | None:
    """Return the model of ``--against``, else the one that training began from; None where there is none."""
    from align.cli.chat.session import Speaker

    if arguments.against is None:
        has = "reference" in model.policy.roles.names
        return Speaker("the start model", model.policy, "reference") if has else None
    rival = _speaker(arguments.against, arguments.against_start)
    if rival.continues_text != model.continues_text:
        alone = rival if rival.continues_text else model
        raise UserError(f"{alone.name} has no chat template and the other model has one; compare models of one kind.")
    return rival
