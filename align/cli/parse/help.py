"""The text of ``--help``, read from the files of ``configs/``: names, first lines, comments and defaults."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from align.cli.parse import groups
from align.settings import registry

__all__ = ["help_text"]

_USAGE = """\
Align a language model on preference pairs.

  align [group=choice] [key=value] …                       one process; in a checkout also python scripts/run.py …
  accelerate launch --quiet scripts/run.py …               the devices that `accelerate config` named
  torchrun --nproc-per-node 2 scripts/run.py …             several processes on CPU
  align -m method=sft,dpo seed=1,2                         one run for each combination
  align -c runs/NAME/config.yaml [key=value] …             a run again, or with a change
  align {commands} …{blanks}another command; its --help says more
"""
_EXAMPLES = """\
Examples
  align method=dpo                                         embedded model and pairs, offline
  align method=dpo dry_run=true                            say what it would do, write nothing
  align method=dpo method.beta=0.5 trainer.steps=100
  align method=sft model=Qwen/Qwen3-0.6B data=pairs.jsonl adapter.r=32
  align method=ppo reward=math data=questions.jsonl        a reward that needs no training
  align method=dpo run_name=first if_exists=resume         continue after an interruption
"""
_GROUPS = (
    ("Methods", "method"),
    ("Recipes, several methods one after the other", "recipe"),
    ("Models", "model"),
    ("Data", "data"),
    ("Rewards for methods that draw responses, also a YAML file", "reward"),
    ("Adapters", "adapter"),
    ("Presets, settings on top of the others", "preset"),
)
_MOST_USED = (
    "run_name",
    "if_exists",
    "dry_run",
    "seed",
    "trainer.learning_rate",
    "trainer.epochs",
    "trainer.steps",
    "trainer.batch_size",
    "trainer.tokens_per_microbatch",
    "trainer.max_length",
    "trainer.precision",
    "trainer.save_steps",
    "trainer.eval_steps",
    "adapter.r",
    "model.name",
    "model.start",
    "data.train",
    "data.heldout",
    "trackers",
    "wandb.mode",
)


def help_text(configs: Path, words: Sequence[str] = ()) -> str:
    """Return usage, choices, settings and examples, for the method and the model that `words` choose."""
    model, method = (groups.chosen(configs, words, group) for group in ("model", "method"))
    commands = "|".join(registry.choices("commands"))
    parts = [_USAGE.format(commands=commands, blanks=" " * max(1, 49 - len(commands)))]
    for title, group in _GROUPS:
        choices = sorted(groups.choices(configs, group), key=lambda choice: (choice == "custom", choice))
        rows = [(choice, groups.description(configs, group, choice)) for choice in choices]
        parts.append(_table(f"{title} ({group}=…)", rows))
    if (configs / "method" / f"{method}.yaml").exists():
        own = [row for row in _comments(configs / "method" / f"{method}.yaml", "method.") if row[1]]
        parts.append(_table(f"Settings of method={method}", own))
    parts.append(_tuned(configs, model, method))
    comments = dict(_comments(configs / "config.yaml", ""))
    for group, file in (("model", "custom"), ("data", "custom"), ("adapter", "lora")):
        comments.update(_comments(configs / group / f"{file}.yaml", f"{group}."))
    most_used = [(key, comments[key]) for key in _MOST_USED]
    parts.append(_table(f"Most used settings (all of them are in {configs})", most_used))
    parts.append(_EXAMPLES)
    return "\n".join(parts)


def _tuned(configs: Path, model: str, method: str) -> str:
    """Return the settings tuned for this model with this method, written as they would be typed."""
    pair = f"model={model} with method={method}"
    file = groups.tuned_file(configs, model, method)
    if file is None:
        return f"No settings are tuned for {pair}: the defaults apply.\n"
    rows = [(f"{key}={default}", comment) for key, default, comment in _keys(file, "")]
    return _table(f"Tuned for {pair}: used instead of the defaults unless you type another value", rows)


def _table(title: str, rows: list[tuple[str, str]]) -> str:
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join([title, *(f"  {name:<{width}}  {text}" for name, text in rows), ""])


def _comments(file: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield each key of a YAML file with its comment, followed by its default in brackets."""
    for key, default, comment in _keys(file, prefix):
        yield key, f"{comment} [{default}]" if comment and default not in ("null", "???") else comment


def _keys(file: Path, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Yield each key of a YAML file of at most two levels, with its default and comment."""
    section = ""
    for line in file.read_text(encoding="utf-8").splitlines():
        found = re.fullmatch(r"( *)(\w+):(?: +(.*?))??(?:  # (.*))?", line)
        if not found:
            continue
        indent, name, default, comment = found.groups()
        if not indent:
            section = "" if default else f"{name}."
        if default:
            yield f"{prefix}{section if indent else ''}{name}", default, comment or ""
