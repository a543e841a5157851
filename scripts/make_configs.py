"""Generate the parts of ``configs/`` that come from dataclasses: fields, defaults and, as comments, field docstrings.

Run it with ``make configs`` after a change of a setting or a method. Other files of ``configs/``, and in
``config.yaml`` the first paragraph and the last one, are written by hand.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from align.settings import registry
from align.settings.adapter import Adapter
from align.settings.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainerConfig, WandbConfig
from align.settings.sampling import SamplingConfig
from align.settings.type_checks import defaults

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
_WIDTH = 120
BLOCKS = {
    "trainer": TrainerConfig,
    "sampling": SamplingConfig,
    "evaluation": EvaluationConfig,
    "wandb": WandbConfig,
}
# File, dataclass and the line that --help shows; that of a method is the first line of its docstring.
GROUPS = (
    ("model/custom.yaml", ModelConfig, "Your own: a folder or a Hugging Face name in model.name (or model=NAME)"),
    (
        "data/custom.yaml",
        DataConfig,
        "Your own pairs: a file, a datasets folder or a Hugging Face name in data.train (or data=FILE)",
    ),
    ("adapter/lora.yaml", Adapter, "LoRA on every linear layer"),
)


def files(configs: Path = CONFIGS) -> dict[str, str]:
    """Return the text of each generated file by its place in ``configs/``."""
    texts = {file: "\n".join([f"# {title}", *lines(cls), ""]) for file, cls, title in GROUPS}
    for name in registry.choices("methods", shipped=True):
        cls = registry.load("methods", name)
        title = cls.__doc__.splitlines()[0].replace("``", "").rstrip(".")
        texts[f"method/{name}.yaml"] = "\n".join([f"# {title}", f"name: {name}", *lines(cls), ""])
    by_hand = (configs / "config.yaml").read_text(encoding="utf-8").split("\n\n")
    return {**texts, "config.yaml": "\n\n".join([by_hand[0], *blocks(), by_hand[-1]])}


def blocks() -> Iterator[str]:
    """Yield the generated paragraphs of ``config.yaml``."""
    groups = {path.name for path in CONFIGS.iterdir()}
    own = [f.name for f in dataclasses.fields(RunConfig) if f.name not in {*groups, *BLOCKS, "settings"}]
    yield "\n".join(lines(RunConfig, own, run_name=None))
    for name, cls in BLOCKS.items():
        # Everything random depends on the seed of the run.
        kept = [f.name for f in dataclasses.fields(cls) if f.name != "seed"]
        yield "\n".join([f"{name}:  # {comment(cls.__doc__ or '')}", *(f"  {line}" for line in lines(cls, kept))])


def lines(cls: Any, names: list[str] | None = None, **replaced: Any) -> Iterator[str]:
    """Yield ``field: default  # comment`` of a dataclass; its own fields come before those it inherits."""
    values, comments = {**defaults(cls), **replaced}, field_docstrings(cls)
    bases = [vars(base).get("__annotations__", {}) for base in cls.__mro__]
    origin = {name: max(i for i, fields in enumerate(bases) if name in fields) for name in values}
    for name in names or sorted(values, key=lambda name: origin[name]):
        value, said = plain(values[name]), comment(comments[name])
        line = f"{name}: {value}  # {said}"
        if len(line) <= _WIDTH:
            yield line
        else:  # a mapping, which may be broken
            yield f"{name}:  # {said}"
            kept = value.replace(": ", ":\u00a0")  # no break between a name and its value
            broken = textwrap.wrap(kept, _WIDTH, initial_indent="  ", subsequent_indent="   ")
            yield from (part.replace("\u00a0", " ") for part in broken)


def field_docstrings(cls: type) -> dict[str, str]:
    """Return the string below each field, of the class itself or the nearest base that has one."""
    found: dict[str, str] = {}
    for base in filter(dataclasses.is_dataclass, reversed(cls.__mro__)):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for statement, below in zip(definition.body, definition.body[1:], strict=False):
            match statement, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = text
    return found


def plain(value: Any) -> str:
    """Write a value as YAML in one line."""
    return (
        yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=math.inf).removesuffix("...\n").strip()
    )


def comment(docstring: str) -> str:
    """Make a comment of a docstring: one line, in lower case, without backticks and the final stop."""
    text = " ".join(docstring.split()).replace("``", "").rstrip(".")
    first = text.partition(" ")[0]
    return text[0].lower() + text[1:] if first[1:].islower() or len(first) == 1 else text


if __name__ == "__main__":
    for file, text in files().items():
        (CONFIGS / file).write_text(text, encoding="utf-8")
