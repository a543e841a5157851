"""The command ``align export``: a run as one folder that transformers and servers of models load."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from align.cli.console import hide_noise, report, say
from align.errors import UserError

__all__ = ["main"]


def main(words: Sequence[str]) -> int:
    """Write the folder that `words` describe; returns the exit code."""
    arguments = _parser().parse_args(words)
    try:
        _export(arguments)
    except UserError as error:
        report(f"Error: {error}")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="align export",
        description="Merge a run's adapter into its base and write one stand-alone model with tokenizer, chat template "
        "and the tokens that end an answer: for transformers, transformers serve, vLLM and llama.cpp's converter.",
    )
    parser.add_argument("model", help="folder of a run, or model as in model.name (world/base)")
    parser.add_argument("folder", type=Path, help="where the model is written; must not exist")
    parser.add_argument("--start", help="PEFT adapter on the model, as in model.start (world/sft)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the weights (default: the run's)")
    return parser


def _export(arguments: argparse.Namespace) -> None:
    folder: Path = arguments.folder
    if folder.exists():
        raise UserError(f"{folder} exists, and nothing is overwritten; name a folder that does not.")
    from align.cli.trained_run import TrainedRun, load_model, require_models
    from align.runs.run_folder import require_writable
    from align.system.files import disk_faults, new_folder

    hide_noise()
    require_writable(folder, "name another place")
    require_models(arguments.model)
    run = TrainedRun.find(arguments.model) if arguments.start is None else None
    if run is not None and "policy" not in run.trained:
        raise UserError(
            f"{arguments.model} trained {' and '.join(run.trained)}, not a policy: there is no model that answers to "
            f"write. {run.scorer} is what it trained, for transformers and PEFT (its README.md says how)."
        )
    if run is not None and run.note is not None:
        report(run.note)
    dtype = {} if arguments.dtype is None else {"dtype": arguments.dtype}
    policy = load_model(arguments.model, arguments.start, quantization=None, **dtype)  # 4 bits hold no merged weights
    for note in policy.notes:
        say(note)
    try:
        with disk_faults(f"{folder} cannot be written", "name another place"), new_folder(folder) as partial:
            difference = policy.merge_and_export(partial)
    except OSError as error:  # a name that is too long, say
        raise UserError(f"{folder} cannot be written: {error.strerror}.") from error
    merged = f" Merged and adapter logits differ by at most {difference:.1g}." if policy.uses_adapters else ""
    say(f"{folder} holds the whole model.{merged}")
