"""A run's method and scorers, made of its settings; without torch, so that what is wrong with them is told at once."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from align.cli.parse.first_look import make_method
from align.errors import UserError, first_line
from align.model.sources import resolve
from align.scoring.from_config import YAML, make_scorer, settings_of
from align.settings.config import ModelConfig, RunConfig
from align.world import TrueReward

if TYPE_CHECKING:
    from align.method.base import Method
    from align.scoring.scorer import Scorer

__all__ = [
    "Rival",
    "Run",
    "Scorers",
    "assemble",
    "check_data",
    "check_sources",
    "make_scorers",
    "settings_of_heldout",
    "source_folder",
]


@dataclass(frozen=True)
class Rival:
    """A model that a trained one is measured against."""

    model: ModelConfig
    role: str
    """As it is called in sentences: the model that drew the candidates …"""


@dataclass(frozen=True)
class Run:
    """The settings of a run and its method."""

    config: RunConfig
    method: Method
    rival: Rival | None = None
    """Another model than the one that training begins from, to compare the trained one with."""
    round: int = 1
    """Of drawing and training."""
    part_of: str | None = None
    """The name of the recipe's run of which it is a stage."""
    is_last: bool = True
    """No other stage of a recipe follows."""

    @property
    def needs_reward(self) -> bool:
        """True if this run draws responses that must be scored; a run on finished candidates draws none."""
        only_trains = self.config.stage == "train" and self.method.candidates is not None
        return self.method.needs_reward and not only_trains


@dataclass(frozen=True)
class Scorers:
    """The scorers of a run."""

    evaluation: tuple[Scorer, ...]
    """The first one decides the win rate."""
    reward: Scorer | None
    """Of ``reward=``, where something asks it."""


def assemble(config: RunConfig) -> Run:
    """Build the method, which checks the ranges of its settings."""
    return Run(config, make_method(config.method, config.settings))


def make_scorers(run: Run) -> Scorers:
    """Make the scorers; their settings are checked here."""
    config = run.config
    name = config.evaluation.scorer
    asked = name == "auto" or run.needs_reward
    reward = make_scorer(config.reward) if config.reward is not None and asked else None
    if name == "none":
        return Scorers((), reward)
    if name != "auto":
        place = name if name.endswith(YAML) else "evaluation"
        return Scorers((make_scorer(settings_of(name), place),), reward)
    scorers: list[Scorer] = []
    evaluated = config.data.sources if config.data.heldout is None else (config.data.heldout,)
    if all(source.partition("/")[0] == "world" for source in evaluated):
        scorers.append(TrueReward())
    if reward is not None and not (scorers and isinstance(reward, TrueReward)):
        scorers.append(reward)
    return Scorers(tuple(scorers), reward)


def check_data(config: RunConfig) -> None:
    """Look at the first rows of the files of data.

    Raises:
        UserError: One cannot be read, or is in no format.
    """
    from align.data.preferences import require_format

    data = config.data
    own = {name: getattr(data, name) for name in ("format", "columns")}
    require_format(data.train, split=data.split, **own)
    if data.heldout is not None:
        given = {name: getattr(data, f"heldout_{name}") for name in own}
        own |= {name: value for name, value in given.items() if value is not None}
        with settings_of_heldout():
            require_format(data.heldout, split=data.heldout_split, **own)


@contextmanager
def settings_of_heldout() -> Generator[None]:
    """Let an error on ``data.heldout`` name its settings, not those of the training data."""
    try:
        yield
    except UserError as error:
        named = r"\bdata\.(format|columns|subset|revision|split)\b"
        raise UserError(re.sub(named, r"data.heldout_\1", str(error))) from error


def check_sources(method: Method) -> None:
    """Look for the models that draw besides the policy, without their weights."""
    for source in method.candidates.sources if method.candidates is not None else ():
        source_folder(source, weights=False)


def source_folder(source: str, *, weights: bool = True) -> Path:
    """Return the folder of a model that draws besides the policy; of the hub a copy, with weights only if asked for."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    folder = Path(resolve(source, "method.sources"))
    if folder.is_dir():
        return folder
    files = ["*.json", *(("*.safetensors", "*.model", "*.txt", "*.jinja") if weights else ())]
    try:
        return Path(snapshot_download(source, allow_patterns=files))
    except (HFValidationError, OSError) as error:
        raise UserError(
            f"method.sources={source}: there is no such folder, nor could it be had from the hub "
            f"({first_line(error)}); give adapters on the same base, or models with the same tokenizer."
        ) from error
