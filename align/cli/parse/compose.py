"""Makes a checked `RunConfig` of overrides: Hydra composes, the dataclasses of `align.settings.config` decide."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from align.cli.parse import groups
from align.cli.parse import unknown_keys as checks
from align.cli.parse.first_look import look
from align.errors import Mistakes, UserError
from align.settings import registry
from align.settings.adapter import Adapter
from align.settings.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainerConfig, WandbConfig
from align.settings.interpolation import resolved
from align.settings.sampling import SamplingConfig
from align.settings.type_checks import build, defaults

__all__ = ["compose_run", "register_methods", "run_config"]


def compose_run(
    configs: Path, overrides: Sequence[str], *, recipe: Sequence[str] = (), swept: Sequence[str] = ()
) -> RunConfig:
    """Compose the configuration of one run and check all of it.

    `recipe` are the words of a recipe, before which those of a preset and `overrides` go. `swept` names the keys
    that differ between the runs of a multirun; those that the default name does not show are added to it, so that no
    two runs share a folder.
    """
    mistakes = Mistakes()
    names = groups.names(configs)
    chosen = [o for o in overrides if _key(o) in names or o.startswith(("hydra.", "hydra/"))]
    given = [o for o in overrides if o not in chosen]
    with _errors_of_hydra(overrides or [str(configs)]):
        config, choices = _compose(configs, chosen)
        known = cast("dict[str, Any]", OmegaConf.to_container(config))  # what a ${…} names may come with an override
        for word in [*recipe, *given]:
            with mistakes.noted():
                checks.check_key(word, known, choices)
        given = [word for word in given if checks.is_known(word, known)]
        preset = choices.get("preset")
        of_preset = _keys_of(configs / "preset" / f"{preset}.yaml") if preset else []
        recipe = [word for word in recipe if _key(word) not in of_preset]
        # Hydra would apply them in the same way, but then `known` needs a composition of its own.
        parsed = OverridesParser.create().parse_overrides([*recipe, *given])
    for override in parsed:
        with mistakes.noted(), _errors_of_hydra([str(override.input_line)]):
            key = override.key_or_group
            OmegaConf.update(config, key, override.value(), merge=True, force_add=checks.is_mapping(key))
    with _errors_of_hydra(overrides or [str(configs)]):
        plain = resolved(config)
    length = {"trainer.steps", "trainer.epochs"}
    by_rank = (list(map(_key, given)), of_preset, list(map(_key, recipe)))
    _give_way(plain, next((keys for keys in by_rank if length & set(keys)), []))
    for check in (checks.check_additions, checks.check_complete):
        with mistakes.noted():
            check(plain)
    with mistakes.noted():
        checks.check_name(choices["method"], plain["method"], known["method"])
    plain["method"]["name"] = known["method"]["name"]
    sections = _sections(plain, mistakes)
    look(plain["method"], sections, mistakes)
    can_be_named = {"model", "data"} <= sections.keys()
    name = _run_name(plain, choices, [o for o in overrides if _key(o) in swept]) if can_be_named else "none"
    made: RunConfig | None = None
    with mistakes.noted():
        made = _put_together(plain, {**_STAND_INS, **sections}, name)
    mistakes.require_none()
    assert made is not None
    return made


def _keys_of(file: Path) -> list[str]:
    """Return the keys that a preset sets."""
    content: Any = OmegaConf.to_container(OmegaConf.load(file)) if file.exists() else {}
    return [f"{group}.{name}" for group, own in content.items() if isinstance(own, dict) for name in own]


def _give_way(plain: Mapping[str, Any], asked: Sequence[str]) -> None:
    """Drop ``trainer.steps`` of a file where `asked` gives ``trainer.epochs``, and the other way round."""
    for name, other in (("steps", "epochs"), ("epochs", "steps")):
        if f"trainer.{name}" in asked and f"trainer.{other}" not in asked:
            plain["trainer"][other] = None


def register_methods(configs: Path, overrides: Sequence[str]) -> None:
    """Make methods of other packages known to Hydra, with the fields and defaults of their class.

    Imports those that `overrides` choose and nothing else.
    """
    chosen = {name for o in overrides if _key(o) == "method" for name in re.split(r"[=,\s]+", o)}
    for name in registry.choices("methods"):
        if name in chosen and not (configs / "method" / f"{name}.yaml").exists():
            settings = defaults(registry.load("methods", name))
            ConfigStore.instance().store(group="method", name=name, node={"name": name, **settings})


def _key(override: str) -> str:
    return override.partition("=")[0].strip()


def _compose(configs: Path, chosen: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
    """Compose the configuration with its groups; returns it with the choice made in each group."""
    with initialize_config_dir(version_base="1.3", config_dir=str(configs.resolve())):
        config = compose("config", overrides=list(chosen), return_hydra_config=True)
    choices = OmegaConf.to_container(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
        config.pop("recipe", None)  # read by align.cli.parse.job
    return config, cast("dict[str, str]", choices)


@contextmanager
def _errors_of_hydra(words: Sequence[str]) -> Generator[None]:
    """Turn an error of Hydra or OmegaConf into one sentence that begins with `words`."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{' '.join(words)}: {lines[0].strip().rstrip('.')}.") from error


def _run_name(plain: Mapping[str, Any], choices: Mapping[str, str], swept: Sequence[str]) -> Any:
    """Return the name given, or method-model-data-seed; in a multirun with the `swept` values that it does not show."""
    name, shown = plain["run_name"], {"run_name"}
    if isinstance(name, (int, float)):
        name = str(name)  # run_name=2026
    if name is None:
        model, data = choices["model"], choices["data"]
        model = Path(plain["model"]["name"]).name if model == "custom" else model
        train = plain["data"]["train"]
        first = train if isinstance(train, str) else train[0]
        data = re.sub(r"[*?\[\]]+", "_", Path(first).name.partition(".")[0]) if data == "custom" else data
        name = f"{choices['method']}-{model}-{data}-seed{plain['seed']}"
        shown = {"method", "model", "model.name", "data", "data.train", "seed"}
        name = _clean(name)
    for override in swept:
        if _key(override) not in shown:
            value = override.partition("=")[2]
            name = f"{name}-{_clean(_key(override).rpartition('.')[2])}={_clean(value)}"
    return name


def _clean(text: str) -> str:
    return re.sub(r"[^\w.+,@-]+", "_", text)


def run_config(plain: Mapping[str, Any]) -> RunConfig:
    """Build the settings of a whole configuration, such as a run has left."""
    mistakes = Mistakes()
    sections = _sections(plain, mistakes)
    mistakes.require_none()
    return _put_together(plain, sections, plain["run_name"])


_SECTIONS: Mapping[str, Any] = {
    "model": ModelConfig,
    "adapter": Adapter,
    "data": DataConfig,
    "trainer": TrainerConfig,
    "sampling": SamplingConfig,
    "evaluation": EvaluationConfig,
    "wandb": WandbConfig,
}


_STAND_INS = {"model": ModelConfig(name="world/base"), "data": DataConfig(train="world")}
"""For sections that have no defaults, where they are wrong and the rest is still checked."""


def _sections(plain: Mapping[str, Any], mistakes: Mistakes) -> dict[str, Any]:
    """Build each section; those with mistakes are left out."""
    sections: dict[str, Any] = {}
    for name, cls in _SECTIONS.items():
        with mistakes.noted(f"{name}."):  # a sentence begins with the field's name; the user needs the key
            sections[name] = build(cls, plain.get(name) or {}) if plain.get(name) or name != "adapter" else None
    return sections


def _put_together(plain: Mapping[str, Any], sections: Mapping[str, Any], run_name: Any) -> RunConfig:
    method = dict(plain["method"])
    named = {"run_name": run_name, "method": method.pop("name"), "settings": method, "reward": plain.get("reward")}
    values = {name: value for name, value in plain.items() if name not in _SECTIONS}
    return build(RunConfig, {**values, **sections, **named})
