"""A finished run read back: its settings, and its policy beside the model that it began from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import UserError, nearest
from align.runs.run_folder import is_run, read_config

if TYPE_CHECKING:
    from align.model.policy import Policy
    from align.settings.config import RunConfig

__all__ = ["TrainedRun", "load_model", "require_models"]


@dataclass(frozen=True)
class TrainedRun:
    """A run that has left its trained model and ``config.yaml``."""

    weights: Path
    """``final/``, or ``best/``."""
    settings: dict[str, Any]
    """The content of ``config.yaml``."""

    @classmethod
    def find(cls, model: str) -> TrainedRun | None:
        """Read the run whose folder, ``final/`` or ``best/`` this is; None for other models."""
        place = Path(model)
        weights = place / "final" if (place / "final").is_dir() else place
        if weights.name not in ("final", "best") or not weights.is_dir() or not is_run(weights.parent):
            return None
        return cls(weights, read_config(weights.parent))

    @property
    def defaults(self) -> dict[str, Any]:
        """Options of ``align evaluate`` that the run's own evaluation had, by name."""
        evaluation, trainer = self.settings.get("evaluation") or {}, self.settings.get("trainer") or {}
        found = {name: evaluation.get(name) for name in ("prompts", "max_new_tokens", "temperature", "top_p")}
        found |= {"max_length": trainer.get("max_length"), "seed": self.settings.get("seed", trainer.get("seed"))}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def trained(self) -> list[str]:
        """The roles that were trained."""
        return (self.settings.get("resolved") or {}).get("trains", ["policy"])

    @property
    def note(self) -> str | None:
        """A sentence for the user on a policy that does not answer prompts, or was not trained."""
        if "policy" not in self.trained:
            return (
                f"{self.weights.parent} trained {' and '.join(self.trained)}, not a policy: what answers here is "
                "the untrained start model."
            )
        if not (self.settings.get("resolved") or {}).get("generates", True):
            return (
                f"{self.weights.parent} trained its policy to compare responses, not to write them: answers to prompts "
                "are not its purpose."
            )
        return None

    @property
    def scorer(self) -> Path:
        """Folder that a scorer takes as its model, where the run trained one."""
        return self.weights if "policy" in self.trained else self.weights / self.trained[0]

    def config(self) -> RunConfig:
        """Return the settings of the run as objects.

        Raises:
            UserError: The run was not composed of configuration files, or something it names is gone.
        """
        from align.cli.parse.compose import run_config

        plain = {name: value for name, value in self.settings.items() if name != "resolved"}
        if "data" not in plain:
            raise UserError(f"{self.weights.parent} does not record its data; add --data.")
        return run_config(plain)

    def load(self, **settings: Any) -> Policy:
        """Load the policy, with the model that the run began from as its reference (none where the run kept none).

        ``settings`` of the model replace the run's.
        """
        from align.model.policy import Policy
        from align.model.roles import SharedBase

        model = self.settings.get("model")
        kept = ("dtype", "layout", "attention", "quantization")
        own = {name: model[name] for name in kept if name in model} if isinstance(model, dict) else {}
        policy = Policy.load_saved(self.weights, **{**own, **settings})
        start = self.weights.parent / "final" / "reference"
        if start.is_dir():
            policy.require(("reference",))
            policy.roles.load("reference", start)
        elif isinstance(policy.roles, SharedBase):
            policy.roles.refer_to_base()
        return policy


def require_models(*models: str | None) -> None:
    """Refuse words that name neither a run nor a model, before anything is loaded.

    Raises:
        UserError: There is no such folder or hub name; or the folder is another one, as that of a comparison is.
    """
    for model in filter(None, models):
        _require_model(model)


def _require_model(model: str) -> None:
    from align.cli.launch.recipe import CANDIDATES
    from align.model.sources import require_found
    from align.settings.config import ModelConfig, is_missing

    folder = Path(model).expanduser()
    if TrainedRun.find(model) is not None or model.startswith("world/"):
        return
    if not folder.is_dir():
        beside = [entry.name for entry in folder.parent.iterdir() if entry.is_dir()] if folder.parent.is_dir() else []
        near = nearest(folder.name, beside)
        none = f"{model}: there is no such run or model"
        remedy = (
            f'Did you mean "{folder.parent / near}"?'
            if near
            else "Give the folder of a run (runs/NAME), or a model as in model.name."
        )
        if is_missing(model) or folder.is_file():
            raise UserError(f"{none}. {remedy}")
        try:
            require_found(ModelConfig(name=model))
        except UserError as error:
            raise UserError(f"{none} here, and none could be had from the hub. {remedy}") from error
        return
    if is_run(folder) and (folder / CANDIDATES).is_file():
        raise UserError(f"{model} has drawn candidates and trained nothing; name the run that learnt from them.")
    if is_run(folder) and not any((folder / name).is_file() for name in _OF_A_MODEL):
        raise UserError(
            f"{model} is a run that has left no model yet; finish it with the words of the run and "
            f"run_name={folder.name} if_exists=resume."
        )
    if any((folder / name).is_file() for name in _OF_A_MODEL):
        return
    inside = sorted(
        str(entry)
        for place in (folder, folder / "runs")
        for entry in place.glob("*/")
        if TrainedRun.find(str(entry)) is not None
    )
    if inside:
        kind = "is a comparison" if (folder / "compare.json").is_file() else "holds several runs"
        raise UserError(f"{model} {kind}; name one of its runs: {', '.join(inside[:3])}{' …' * (len(inside) > 3)}.")
    raise UserError(f"{model} is the folder of neither a run nor a model; give one with config.yaml or config.json.")


_OF_A_MODEL = ("config.json", "adapter_config.json")


def load_model(model: str, start: str | None, **settings: Any) -> Policy:
    """Load a run's policy, a saved adapter, a model with an adapter, or a model.

    The reference is the model that a run began from, and the model without its adapter otherwise; a model alone has
    none. ``settings`` are fields of :class:`align.settings.config.ModelConfig`.
    """
    from align.model.policy import Policy
    from align.model.roles import SharedBase

    run = TrainedRun.find(model)
    if run is not None and start is None:
        return run.load(**settings)
    if start is not None:
        policy = Policy.load(model, start=start, **settings)
    elif (Path(model) / "adapter_config.json").is_file():
        policy = Policy.load_saved(model, **settings)
    else:
        return Policy.load(model, adapter=None, **settings)
    assert isinstance(policy.roles, SharedBase)
    policy.roles.refer_to_base()
    return policy
