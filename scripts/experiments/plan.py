"""An experiment as its file states it: the claim, what is run, and the rule by which it is judged.

Words of an arm may name what other arms and data sets left: ``{final.reward}`` is the folder of what the arm `reward`
trained with the same seed, ``{run.draw}`` that of its run, ``{data.train}`` the file of a data set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf

from align.errors import UserError, did_you_mean
from align.settings.type_checks import Count, Settings, build

__all__ = ["PLACE", "Arm", "Experiment", "Measure", "Part", "experiments", "read"]

PLACE = re.compile(r"\{(final|run|data)\.([\w.-]+)\}")


@dataclass(frozen=True, kw_only=True)
class Measure(Settings):
    """Prompts of a kind, and how they are answered and scored."""

    prompts: Mapping[str, Any]
    """The data set: see `experiments.data`."""
    scorers: tuple[str, ...] = ("true_reward",)
    """Names, or folders of reward models as ``{final.reward}/reward``; the first is the score."""
    temperature: float = 0.7
    max_new_tokens: Count = 64
    loss: bool = False
    """Also the loss on the chosen answers of the rows, nats per answer token."""
    arms: tuple[str, ...] = ()
    """Those measured on it; none: all."""


@dataclass(frozen=True, kw_only=True)
class Arm(Settings):
    """Something that is trained and measured."""

    words: tuple[str, ...] = ()
    """Of its run; none: the start model."""
    shots: int = 0
    """Answered examples before each prompt, from the data set `train`."""
    best_of: int = 0
    """Answers to each prompt, of which the second scorer of the measure chooses one; 0: a single answer."""
    helper: bool = False
    """Trained for other arms; not measured."""
    offset: int = 0
    """Added to the seed of its run, not to that of its data."""
    seeds: Count | None = None
    """Runs; null: as many as the experiment has."""
    x: float | None = None
    """Place in the chart."""
    line: str | None = None
    """Arms of the same line are joined in the chart."""


@dataclass(frozen=True, kw_only=True)
class Part(Settings):
    """A part of the claim, and the rule of its verdict.

    The interval is that of Σ c·mean over the arms. ``above``: reproduced if it lies above 0, not reproduced if it lies
    below ``least``, the smallest difference that would be worth having. ``within``: reproduced if it lies in ± that,
    not reproduced if it lies outside. ``not_below``: reproduced if it lies above minus that, not reproduced if below.
    """

    says: str
    contrast: Mapping[str, float]
    """Coefficient of each arm."""
    of: str
    """A measure, or a quantity of one: ``seen.loss``, ``seen.kl``, ``seen.length``, ``seen.proxy``."""
    rule: Literal["above", "within", "not_below"] = "above"
    margin: float = 0.0
    """``least`` of above; ± of within; below which not_below is contradicted."""
    statistic: Literal["mean", "spread", "frontier"] = "mean"
    """spread: log of the ratio of the standard deviations over runs, of two arms; frontier: mean score over the common
    range of KL, of two lines."""


@dataclass(frozen=True, kw_only=True)
class Experiment(Settings):
    """One file of ``configs/experiment/``."""

    title: str
    claims: tuple[int, ...]
    """Numbers of the claims that it decides on."""
    published: str
    source: str
    prediction: str
    seeds: Count = 3
    first_seed: int = 0
    """Of the runs; those on which settings were chosen begin from 100."""
    shared: tuple[str, ...] = ()
    """Words of every arm."""
    data: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, "Mapping[str, Any]"])
    measures: Mapping[str, Mapping[str, Any]]
    arms: Mapping[str, Mapping[str, Any]]
    parts: tuple[Mapping[str, Any], ...]
    chart: Mapping[str, str] = field(default_factory=dict[str, str])
    """``x`` and ``y`` with their labels, ``log`` for a logarithmic x."""
    fits: Mapping[str, Literal["best_of_n", "reinforcement"]] = field(default_factory=dict[str, Any])
    """Form of the true reward over the distance from `start`, for a line: see `experiments.fits`."""
    remarks: str = ""
    """For the page of results."""

    @property
    def all_arms(self) -> dict[str, Arm]:
        """Arms by name."""
        return {name: build(Arm, arm) for name, arm in self.arms.items()}

    @property
    def all_measures(self) -> dict[str, Measure]:
        """Measures by name."""
        return {name: build(Measure, measure) for name, measure in self.measures.items()}

    @property
    def all_parts(self) -> list[Part]:
        """The parts of the claim."""
        return [build(Part, part) for part in self.parts]

    def check(self) -> None:
        """Arms, data and measures that are named exist."""
        arms, lines = self.all_arms, {arm.line for arm in self.all_arms.values()}
        for name, arm in arms.items():
            for kind, other in PLACE.findall(" ".join(arm.words)):
                if other not in (self.data if kind == "data" else arms):
                    raise UserError(f"{name}: {kind}.{other} is not there.")
        for part in self.all_parts:
            known = lines if part.statistic == "frontier" else arms
            for name in part.contrast:
                if name not in known:
                    raise UserError(f"{part.says}: there is no {name}.{did_you_mean(name, [str(n) for n in known])}")
            if part.of.partition(".")[0] not in self.measures:
                raise UserError(f"{part.says}: {part.of} is not measured.")


def read(file: Path) -> Experiment:
    """Read an experiment.

    Raises:
        UserError: A name or value in it is wrong, or there is no such file.
    """
    if not file.is_file():
        raise UserError(f"{file}: there is no such file.")
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(file))
        return build(Experiment, content)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def experiments(folder: Path) -> dict[str, Path]:
    """Return the files of the experiments by name."""
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}
