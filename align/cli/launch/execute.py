"""Hands a checked run to the library: data, model, method, trainer. The first module that imports PyTorch."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from align.cli.console import process_count, report, say
from align.data.examples import tokenize
from align.errors import ScorerError, UserError
from align.settings import registry
from align.settings.adapter import Adapter
from align.settings.checking import build
from align.settings.config import RunConfig

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from align.data import Preferences, TokenizedPreferences
    from align.evaluation.evaluator import Evaluator
    from align.method.base import Method
    from align.model.policy import Policy
    from align.scoring.scorer import Scorer

__all__ = ["execute", "load_data", "make_method", "make_scorers", "tokenize_for"]


def execute(config: RunConfig) -> int:
    """Do the run, or say what it would do; returns the exit code.

    Raises:
        UserError: What was found wrong once data and model were looked at.
    """
    method = make_method(config)
    if config.stage == "sample" and method.candidates is None:
        raise UserError(
            f"stage=sample: method={config.method} draws no candidates as it is set; choose rft, or rrhf or slic with "
            "method.samples."
        )
    scorers = make_scorers(config)
    _hide_noise()
    _join_processes()
    architecture = _read_architecture(config)
    if config.dry_run:
        from align.cli.launch.dry_run import dry_run

        dry_run(config, method, architecture)
        return 0
    from align.system.signals import Interrupted
    from align.training.step import TrainingError

    try:
        if config.stage == "sample":
            _sample(config, method)
        else:
            _train(config, method, scorers)
    except Interrupted as interrupted:
        report(f"Run {config.run_name}: {interrupted}.")
        return interrupted.exit_code
    except (ScorerError, TrainingError) as error:
        report(f"Error: {error}")
        return 1
    return 0


def make_method(config: RunConfig) -> Method:
    """Build the method from its settings; the class checks their ranges, and here its sources are looked for."""
    cls = registry.load("methods", config.method)
    try:
        method = build(cls, config.settings)
    except ValueError as error:
        message = str(error)
        field = message.partition(" ")[0].partition("=")[0]
        raise UserError(f"method.{message}" if field in config.settings else message) from error
    if config.stage == "sample" and method.candidates is not None:
        for source in method.candidates.sources:
            _source_folder(source, weights=False)
    return method


def make_scorers(config: RunConfig) -> tuple[Scorer, ...]:
    """Make the scorers of the evaluation, the decisive one first; their settings are checked here."""
    from align.scoring.from_config import make_scorer

    name = config.evaluation.scorer
    if name == "none":
        return ()
    if name != "auto":
        return (make_scorer({"scorer": name}, "evaluation"),)
    scorers: list[Scorer] = []
    if "world" in (config.data.train.partition("/")[0], (config.data.heldout or "").partition("/")[0]):
        scorers.append(make_scorer({"scorer": "true_reward"}))
    if config.reward is not None and not (scorers and config.reward.get("scorer") == "true_reward"):
        scorers.append(make_scorer(config.reward))
    return tuple(scorers)


def load_data(config: RunConfig) -> tuple[Preferences, Preferences | None]:
    """Return the training data and what is held out from it."""
    from align.data import Preferences, leaked_prompts

    data = config.data
    train = Preferences.load(
        data.train,
        format=data.format,
        split=data.split,
        max_rejected=data.max_rejected,
        expected_rows=data.expected_rows,
    )
    say(train.report.summary())
    if data.heldout is not None:
        heldout = Preferences.load(
            data.heldout, format=data.format, split=data.heldout_split, max_rejected=data.max_rejected
        )
        say(heldout.report.summary())
        leaked = leaked_prompts(train, heldout)
        if leaked:
            report(f"Warning: {len(leaked):,} rows of data.heldout ask what data.train asks (first: {leaked[0]}).")
        return train, heldout
    if data.heldout_size == 0:
        return train, None
    size = data.heldout_size
    train, heldout = train.train_test_split(int(size) if size >= 1 else size, config.seed)
    say(f"{len(heldout):,} of these rows are held out, no prompt of theirs is trained on")
    return train, heldout


def tokenize_for(config: RunConfig, method: Method, train: Preferences) -> TokenizedPreferences:
    """Return `train` as the method will see it, without loading the model."""
    from align.model.loading import load_tokenizer
    from align.system.processes import process_state

    tokenizer = load_tokenizer(config.model)
    with process_state().main_process_first():
        rows = method.learns_from(train)
        tokens = tokenize(rows, tokenizer, max_length=config.trainer.max_length, unit=method.unit)
    return tokens.distinct_prompts() if method.unit == "prompt" else tokens


def _hide_noise() -> None:
    # PEFT 0.21 asks transformers 5 for a name that it deprecates.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
    # The embedded adapter names its base as world/base, which is a folder of the installed package.
    warnings.filterwarnings("ignore", message=".*base_model_name_or_path. was renamed.*")


def _join_processes() -> None:
    """Join the processes that torchrun or accelerate started, on the CPU too."""
    if process_count() > 1:
        from align.system.processes import process_state

        process_state()


def _read_architecture(config: RunConfig) -> PretrainedConfig:
    """Return the model's own configuration; what it cannot do is said before weights and data are loaded."""
    from transformers import AutoConfig

    from align.model.loading import resolve

    model, longest = config.model, config.trainer.max_length
    try:
        architecture: PretrainedConfig = AutoConfig.from_pretrained(
            resolve(model.name), revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise UserError(f"model.name={model.name}: {str(error).strip().splitlines()[0].rstrip('.')}.") from error
    positions = getattr(architecture.get_text_config(), "max_position_embeddings", None)
    if positions is not None and longest > positions:
        raise UserError(
            f"trainer.max_length={longest} is beyond the {positions} positions of {model.name}: "
            f"set trainer.max_length={positions} or less."
        )
    return architecture


def _train(config: RunConfig, method: Method, scorers: Sequence[Scorer]) -> None:
    train, heldout = load_data(config)
    tokenize_for(config, method, train)  # raises before weights load what it would raise after; cached for the trainer
    policy = _load_policy(config)
    from align.data import Preferences
    from align.scoring.from_config import make_scorer
    from align.scoring.reward_role import RoleScorer
    from align.training.trainer import Trainer

    trainer = Trainer(
        policy,
        Path(config.output_root) / config.run_name,
        dataclasses.replace(config.trainer, seed=config.seed),
        if_exists=config.if_exists,
        wandb=config.wandb,
        run_config=config.plain(),
    )
    rewards = _rewards(config, method, policy)
    if config.reward is not None and "reward" in policy.roles.names:  # the role scores; no second model is loaded
        name = make_scorer(config.reward).name
        scorers = [RoleScorer(policy) if scorer.name == name else scorer for scorer in scorers]
    evaluator = _evaluator(config, policy, heldout, scorers)
    mix = Preferences.load(config.data.mix, format=config.data.format) if config.data.mix else None
    trainer.fit(method, train, heldout, evaluator, scorer=rewards, mix=mix)


def _sample(config: RunConfig, method: Method) -> None:
    """Draw what the method learns from into the folder of the run, with the rows that are held out."""
    from align.candidates.drawing import draw, read_summary, save_rows
    from align.cli.launch.recipe import CANDIDATES, HELDOUT
    from align.runs import folder as runfolder
    from align.system.processes import on_first

    assert method.candidates is not None
    train, heldout = load_data(config)
    policy = _load_policy(config)
    sources = [_load_source(config, source) for source in method.candidates.sources]

    def make_folder() -> Path:
        made = runfolder.begin(Path(config.output_root) / config.run_name, config.if_exists, config.plain())
        if heldout is not None and (config.data.heldout is None or config.data.format != "auto"):
            save_rows(heldout, made / HELDOUT)
        return made

    folder = on_first(make_folder)
    drawn = draw(
        [policy, *sources],
        train,
        method.candidates,
        folder / CANDIDATES,
        scorer=_rewards(config, method, policy),
        max_length=config.trainer.max_length,
        seed=config.seed,
        settings={"reward": config.reward},
    )
    counts = read_summary(folder / CANDIDATES) or {}
    say(
        ", ".join(
            f"{name} {count:,.0f}" if count == int(count) else f"{name} {count:.3f}" for name, count in counts.items()
        )
    )
    say(f"{len(drawn):,} rows: {folder / CANDIDATES}")


def _rewards(config: RunConfig, method: Method, policy: Policy) -> Scorer | None:
    """What scores responses that are drawn; None: the reward role, which a reward model on this base becomes."""
    from align.method.online import OnlineMethod
    from align.scoring.from_config import make_scorer

    if config.reward is None or not (isinstance(method, OnlineMethod) or config.stage == "sample"):
        return None
    folder = Path(str(config.reward.get("model")))
    if config.reward.get("scorer") == "reward_model" and policy.roles.can_load(folder):
        policy.require(("reward",))
        policy.roles.load("reward", folder)
        return None
    return make_scorer(config.reward)


def _load_policy(config: RunConfig) -> Policy:
    from align.model.policy import Policy

    return Policy.load(config.model, adapter=config.adapter, seed=config.seed)


def _load_source(config: RunConfig, source: str) -> Policy:
    """A model, or an adapter on the policy's base, that draws besides the policy; settings of the model are as there.

    What its adapter is like is its own business, code that a model brings is not run.
    """
    folder = _source_folder(source)
    model = dataclasses.replace(config.model, start=str(folder))
    if not (folder / "adapter_config.json").exists():
        model = dataclasses.replace(model, name=str(folder), start=None, revision=None, trust_remote_code=False)
    adapter = None if config.adapter is None else Adapter()
    try:
        return _load_policy(dataclasses.replace(config, model=model, adapter=adapter))
    except UserError as error:
        raise UserError(f"method.sources={source} cannot be loaded: {error}") from error


def _source_folder(source: str, *, weights: bool = True) -> Path:
    """The folder of a source; of a name on the hub the local copy, which has the weights only if asked for."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    from align.model.loading import resolve

    folder = Path(resolve(source, "method.sources"))
    if folder.is_dir():
        return folder
    files = ["*.json", *(("*.safetensors", "*.model", "*.txt", "*.jinja") if weights else ())]
    try:
        return Path(snapshot_download(source, allow_patterns=files))
    except (HFValidationError, OSError) as error:
        raise UserError(
            f"method.sources={source}: there is no such folder, nor could it be had from the hub "
            f"({str(error).splitlines()[0]}); give adapters on the same base, or models with the same tokenizer."
        ) from error


def _evaluator(
    config: RunConfig, policy: Policy, heldout: Preferences | None, scorers: Sequence[Scorer]
) -> Evaluator | None:
    from align.evaluation.evaluator import Evaluator
    from align.sampling.sampler import SamplingParams

    settings = config.evaluation
    if heldout is None or settings.prompts == 0:
        return None
    return Evaluator.from_preferences(
        policy,
        prompts=heldout,
        pairs=heldout if any(heldout.dataset["rejected"]) else None,
        max_length=config.trainer.max_length,
        limit=settings.prompts,
        scorers=scorers,
        sampling=SamplingParams(
            temperature=settings.temperature, top_p=settings.top_p, max_new_tokens=settings.max_new_tokens
        ),
        seed=config.seed,
    )
