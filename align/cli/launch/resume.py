"""Answers to ``if_exists=resume`` that need neither data nor model: the run is finished, or it is another one.

A run keeps the identity of all that its command names as ``inputs.json``: settings with defaults filled in, hashes of
the files and folders they name, the code of a reward function. It is compared before anything is loaded. The trainer
compares again, by what was loaded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli.console import process_count, say
from align.cli.launch.run import Run, Scorers
from align.data.reading import matching
from align.errors import UserError, slip_of
from align.runs.checkpoint import newest_version, require_current_version
from align.runs.run_folder import read_config, read_inputs, require_run
from align.scoring.identity import scorer_identity
from align.system.identity import content_hash, differences, hashed, require_same
from align.system.redaction import redact
from align.training.identity import (
    ACCEPTED_BY,
    LENGTH_FOLLOWS,
    WORLD_SIZE,
    chooses_best,
    engine_settings,
    method_settings,
    trainer_settings,
)

if TYPE_CHECKING:
    from align.settings.config import ModelConfig, RunConfig

__all__ = ["command_inputs", "is_finished", "say_that_it_begins"]


def is_finished(run: Run, scorers: Scorers) -> bool:
    """Return whether the run that is to be resumed has ended, as far as can be told before anything is loaded.

    Raises:
        UserError: It is a run of something else, each difference is named; or an earlier version began it.
    """
    config = run.config
    folder = Path(config.output_root) / config.run_name
    saved = read_inputs(folder)
    if saved is None:
        if run.part_of is None:
            require_run(folder)
            say_that_it_begins(folder)
        return False
    finished = (folder / "final").exists()
    found = differences(saved, redact(command_inputs(run, scorers)), LENGTH_FOLLOWS)
    if config.resume_world_size == "any":
        found = [clause for clause in found if not clause.startswith(WORLD_SIZE)]
    if finished and found and all(clause.startswith(_LENGTH) for clause in found):
        raise UserError(
            f"{folder} cannot be resumed: {'; '.join(found)}. It is finished, and its learning rate fell to its end "
            "with the last step: more would make it another run. Begin a new one from its model, or give "
            "trainer.schedule=constant trainer.warmup=0 from the start where a run is to be lengthened later."
        )
    require_same(folder, found, ACCEPTED_BY)
    version = newest_version(folder / "checkpoints")
    if version is not None and not finished:
        require_current_version(folder, version)
    return finished and not _is_longer(folder, config)


_LENGTH = ("trainer.steps ", "trainer.epochs ")


def _is_longer(folder: Path, config: RunConfig) -> bool:
    """Return whether more steps are asked for than a finished run has done; by epochs only the data can tell."""
    before = read_config(folder)
    steps, resolved = config.trainer.steps, before.get("resolved") or {}
    if steps is not None:
        return steps > resolved.get("steps", steps)
    given = before.get("trainer") or {}
    return given.get("steps") is not None or config.trainer.epochs != given.get("epochs")


def say_that_it_begins(folder: Path) -> None:
    """Refuse a name that looks mistyped; say of another one that there is nothing to resume."""
    if folder.exists():
        return
    runs = [entry.name for entry in folder.parent.iterdir() if entry.is_dir()] if folder.parent.is_dir() else []
    if near := slip_of(folder.name, runs):
        raise UserError(
            f"if_exists=resume: there is no run {folder.name} in {folder.parent}. Did you mean run_name={near}? "
            "To begin a run of this name, leave if_exists=resume out.",
            instead={"run_name": near},
        )
    say(f"There is no run {folder} to resume: it begins.")


def command_inputs(run: Run, scorers: Scorers) -> dict[str, Any]:
    """Return the identity of all that decides what a command does and leaves, by the names of its settings."""
    config, method = run.config, run.method
    draws = config.stage == "sample"
    trainer = trainer_settings(method, config.trainer, adapters=config.adapter is not None) | {"seed": config.seed}
    if draws:
        trainer = {name: trainer[name] for name in ("max_length", "seed")}
    inputs: dict[str, Any] = {
        "method": method_settings(method),
        "trainer": trainer,
        "adapter": _adapter(config),
        "model": _model(config.model),
        "data": _data(config, mixing=bool(method.mixing)),
        "reward": scorer_identity(scorers.reward) if scorers.reward is not None and run.needs_reward else None,
        WORLD_SIZE: process_count(),
        **engine_settings(config.sampling.engine),
    }
    if method.candidates is not None and method.candidates.sources:
        inputs["method"]["sources"] = hashed([_content(source) for source in method.candidates.sources])
    if not draws and chooses_best(method, config.trainer):
        settings = config.evaluation
        inputs["evaluation"] = {
            "prompts": settings.prompts,
            "sampling": [settings.temperature, settings.top_p, settings.max_new_tokens],
            "scorers": {scorer.name: scorer_identity(scorer) for scorer in scorers.evaluation},
            "data.heldout": _content(config.data.heldout),
        }
    return inputs


def _adapter(config: RunConfig) -> Any:
    adapter = config.adapter
    if adapter is None:
        return "none"
    return dataclasses.asdict(adapter) | {"alpha": adapter.scale_numerator}


def _model(model: ModelConfig) -> Mapping[str, Any]:
    return {
        "name": _content(model.name),
        "start": _content(model.start),
        "reference": _content(model.reference),
        "revision": model.revision,
        "dtype": model.dtype,
        "chat_template": _content(model.chat_template),
        "chat_template_kwargs": dict(model.chat_template_kwargs),
        "quantization": model.quantization,
    }


def _data(config: RunConfig, *, mixing: bool) -> Mapping[str, Any]:
    data = config.data
    split = {"heldout_size": data.heldout_size} if data.heldout is None else {}
    return {
        "train": _contents(data.train),
        "format": data.format,
        "subset": data.subset,
        "revision": data.revision,
        "too_long": data.too_long,
        "pairs": data.pairs,
        "train_on": data.train_on,
        **({"max_prompts": data.max_prompts} if data.max_prompts is not None else {}),
        **({name: getattr(data, name) for name in ("select", "select_per_source")} if data.select is not None else {}),
        **({"select_by": _content(data.select_by)} if data.select is not None else {}),
        **({name: getattr(data, name) for name in ("rates", "cap", "temperature")} if data.rates is not None else {}),
        "columns": {name: column for name, column in data.columns.items() if column is not None},
        "split": data.split,
        "mix": _content(data.mix) if mixing else None,
        **split,
    }


def _contents(train: str | tuple[str, ...]) -> str | None:
    """Return the content of the training data; of several files one hash, in which their order counts."""
    sources = (train,) if isinstance(train, str) else train
    contents = [_content(str(file)) for source in sources for file in (matching(source) or [source])]
    return contents[0] if len(contents) == 1 else hashed(contents)


def _content(name: str | None) -> str | None:
    """Return the hash of a file or folder; a bundled name, or one on the hub, stays as it is."""
    if name is None:
        return None
    path = Path(name).expanduser()
    return content_hash(path) if path.exists() else name
