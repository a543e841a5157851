"""The text of ``--help``, from file names, first lines and comments of ``configs/`` alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from align.cli.parse import groups

__all__ = ["help_text"]

_USAGE = """\
Align a language model on preference pairs.

  accelerate launch scripts/run.py [group=choice] [key=value] …
  python scripts/run.py …                                  one process
  torchrun --nproc-per-node 2 scripts/run.py …             several processes on CPU
  python scripts/run.py -m method=sft,dpo seed=1,2         one run for each combination
"""
_EXAMPLES = """\
Examples
  python scripts/run.py method=dpo                                     embedded model and pairs, offline
  python scripts/run.py method=dpo dry_run=true                        what it would do
  python scripts/run.py method=dpo method.beta=0.5 trainer.steps=100
  python scripts/run.py method=sft model=Qwen/Qwen3-0.6B data=pairs.jsonl adapter.r=32
  python scripts/run.py method=ppo reward=math data=questions.jsonl     a reward that needs no training
  python scripts/run.py method=dpo run_name=first if_exists=resume     continue after an interruption
"""
_GROUPS = (
    ("Methods", "method"),
    ("Recipes, several methods one after the other", "recipe"),
    ("Models", "model"),
    ("Data", "data"),
    ("Rewards of PPO and of candidates, also a YAML file", "reward"),
    ("Adapters", "adapter"),
    ("Experiments, settings on top of the others", "experiment"),
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
    "wandb.mode",
)


def help_text(configs: Path, words: Sequence[str] = ()) -> str:
    """Return usage, choices, settings and examples, for the method that `words` choose."""
    text = (configs / "config.yaml").read_text(encoding="utf-8")
    chosen = re.findall(r"^  - method: (\w+)", text, flags=re.MULTILINE)  # by default
    method = next((word.partition("=")[2] for word in words if word.startswith("method=")), chosen[0])
    parts = [_USAGE]
    for title, group in _GROUPS:
        choices = sorted(groups.choices(configs, group), key=lambda choice: (choice == "custom", choice))
        rows = [(choice, groups.description(configs, group, choice)) for choice in choices]
        parts.append(_table(f"{title} ({group}=…)", rows))
    if (configs / "method" / f"{method}.yaml").exists():
        own = [row for row in _comments(configs / "method" / f"{method}.yaml", "method.") if row[1]]
        parts.append(_table(f"Settings of method={method}", own))
    comments = dict(_comments(configs / "config.yaml", ""))
    for group, file in (("model", "custom"), ("data", "custom"), ("adapter", "lora")):
        comments.update(_comments(configs / group / f"{file}.yaml", f"{group}."))
    most_used = [(key, comments[key]) for key in _MOST_USED]
    parts.append(_table("Most used settings (all are in configs/)", most_used))
    parts.append(_EXAMPLES)
    return "\n".join(parts)


def _table(title: str, rows: list[tuple[str, str]]) -> str:
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join([title, *(f"  {name:<{width}}  {text}" for name, text in rows), ""])


def _comments(file: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """Each key of a YAML file of at most two levels, with its default and comment."""
    section = ""
    for line in file.read_text(encoding="utf-8").splitlines():
        found = re.fullmatch(r"( *)(\w+):(?: +(.*?))??(?:  # (.*))?", line)
        if not found:
            continue
        indent, name, default, comment = found.groups()
        if not indent:
            section = "" if default else f"{name}."
        key = f"{section}{name}" if indent else name
        if default:
            text = comment or ""
            yield f"{prefix}{key}", f"{text} [{default}]" if text and default not in ("null", "???") else text
