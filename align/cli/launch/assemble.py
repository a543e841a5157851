"""Makes objects of settings: method, scorers, data, tokens, models, evaluator. Each is made once and handed on."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli.console import report, say
from align.cli.launch.curate import curate
from align.cli.launch.run import Run, Scorers, settings_of_heldout, source_folder
from align.data import Preferences, leaked_prompts
from align.data.encoding import ends_every_turn
from align.data.preferences import joined, require_text
from align.errors import UserError
from align.model.architecture import require_positions
from align.model.classifier import require_classifier
from align.model.loading import load_architecture, load_tokenizer
from align.model.roles import SCALAR_ROLES
from align.scoring.checked_scores import require_all, score_part
from align.scoring.scorer_inputs import prompt_text, scorer_columns
from align.settings.adapter import Adapter
from align.settings.config import DataConfig, RunConfig
from align.system.processes import Processes
from align.training.feed import tokenize_for

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from align.data import TokenizedPreferences
    from align.evaluation.evaluator import Evaluator
    from align.model.policy import Policy
    from align.scoring.scorer import Scorer

__all__ = [
    "DataRead",
    "load_data",
    "load_mix",
    "load_policy",
    "load_source",
    "make_evaluator",
    "read_architecture",
    "read_data",
    "read_tokenizer",
    "require_rows_of_text",
    "take_reward_role",
    "tokenize_data",
    "try_scorers",
]


def try_scorers(run: Run, scorers: Scorers, train: Preferences, heldout: Preferences | None) -> None:
    """Ask each scorer once, about the first row that it will see, so that it fails before weights are loaded.

    Not asked is what loads weights of its own or asks another machine (``costly``).

    Raises:
        ScorerError: It fails in the user's code, or gives no usable score.
        UserError: The data lacks what it needs.
    """
    asked = [(scorers.reward, train)] if run.needs_reward else []
    if heldout is not None and run.config.evaluation.prompts:
        asked += [(scorer, heldout) for scorer in scorers.evaluation]
    for scorer, data in asked:
        row = data[0]
        texts = [str(side[0]["content"]) for side in (row["chosen"], row["rejected"]) if side] or ["Yes.", "No."]
        for part in _parts(scorer):
            if not getattr(part, "costly", False):
                found = score_part(part.name, part, [prompt_text(row["prompt"])], [texts], **scorer_columns([row]))
                if part is scorer:  # alone it must apply everywhere
                    require_all(found, part.name)


def _parts(scorer: Any) -> list[Scorer]:
    """Return the scorers inside a combination, or the scorer itself."""
    if scorer is None:
        return []
    values: list[Any] = list(getattr(scorer, "__dict__", {}).values())
    nested = [inner for value in values for inner in (value.values() if isinstance(value, Mapping) else [value])]
    parts = [part for inner in nested if callable(getattr(inner, "score", None)) for part in _parts(inner)]
    return parts or [scorer]


# Data


@dataclass(frozen=True)
class DataRead:
    """The data of a run, before rows to train on are chosen."""

    data: Preferences
    sizes: Sequence[int]
    """Rows of each source, in order."""
    rows: Sequence[int]
    """Of ``data``, those that are not held out."""
    heldout: Preferences | None


def load_data(config: RunConfig) -> tuple[Preferences, Preferences | None]:
    """Load the training data, chosen or mixed as the settings say, and what is held out from it."""
    read = read_data(config)
    return curate(config, read.data, read.rows, read.sizes), read.heldout


def read_data(config: RunConfig) -> DataRead:
    """Load the data, and hold out what the settings say."""
    data = config.data
    own = {name: getattr(data, name) for name in ("format", "columns", "subset", "revision")}
    rules = _rules(config)
    with Processes().first_goes_first():  # the other ranks read its cache
        every, sizes = _load_train(data, own | rules)
    say(every.report.summary())
    rows, heldout = list(range(len(every))), None
    if data.heldout is not None:
        if data.heldout_size != DataConfig.heldout_size:
            say(
                f"Note: data.heldout_size={data.heldout_size:g} is not used, since the held-out rows are those of "
                f"data.heldout={data.heldout}; set data.heldout=null to hold out some of data.train instead."
            )
        given = {name: getattr(data, f"heldout_{name}") for name in own}
        own |= {name: value for name, value in given.items() if value is not None}
        with settings_of_heldout():
            heldout = Preferences.load(data.heldout, split=data.heldout_split, **own, **rules)
        say(heldout.report.summary())
        leaked = leaked_prompts(every, heldout)
        if leaked:
            report(f"Warning: {len(leaked):,} rows of data.heldout ask what data.train asks (first: {leaked[0]}).")
    elif data.heldout_size:
        size = data.heldout_size
        rows, held = every.split_rows(int(size) if size >= 1 else size, config.seed)
        heldout = every.select(held)
        say(f"{len(heldout):,} of these rows are held out, no prompt of theirs is trained on")
    return DataRead(every, sizes, rows, heldout)


def _load_train(data: DataConfig, settings: Mapping[str, Any]) -> tuple[Preferences, list[int]]:
    """Load the training data; returns it with the number of rows of each of its sources."""
    if isinstance(data.train, str):
        every = Preferences.load(data.train, split=data.split, expected_rows=data.expected_rows, **settings)
        return every, [len(every)]
    parts = [Preferences.load(source, split=data.split, **settings) for source in data.train]
    return joined(parts, data.expected_rows), [len(part) for part in parts]


def require_rows_of_text(run: Run) -> None:
    """Refuse rows that are token ids where candidates are drawn, which are text, before any stage is run.

    Raises:
        UserError: They are, or the data cannot be read.
    """
    data = run.config.data
    own = {name: getattr(data, name) for name in ("format", "columns", "split", "subset", "revision")}
    require_text(data.train, needs=f"method={run.config.method}, which draws candidates,", **own)


def load_mix(run: Run) -> Preferences | None:
    """Load the demonstrations to mix in, if the method does."""
    data = run.config.data
    if data.mix is None or not run.method.mixing:  # of a recipe, another stage may
        return None
    try:
        return Preferences.load(data.mix, **_rules(run.config))
    except UserError as error:  # there is no mapping for it
        command = f"align data convert {shlex.quote(data.mix)} --out mix.jsonl"
        raise UserError(str(error).replace("data.columns=", f"{command} --columns=")) from error


def _rules(config: RunConfig) -> dict[str, Any]:
    """Return what holds for all data of a run."""
    names = ("max_rejected", "too_long", "pairs", "train_on")
    return {name: getattr(config.data, name) for name in names} | {"seed": config.seed}


def read_tokenizer(config: RunConfig) -> tuple[PreTrainedTokenizerBase, list[str]]:
    """Load the model's tokenizer; returns it with notes for the user."""
    notes: list[str] = []
    tokenizer = load_tokenizer(config.model, notes)
    if config.data.train_on == "all" and not ends_every_turn(tokenizer):
        notes.append(
            "data.train_on=all, but the chat template does not end every turn in its end-of-turn token; "
            "model.chat_template=chatml does, or a template of your own"
        )
    return tokenizer, notes


def tokenize_data(
    run: Run, train: Preferences, heldout: Preferences | None, tokenizer: PreTrainedTokenizerBase
) -> tuple[TokenizedPreferences, TokenizedPreferences | None]:
    """Tokenise both as the method sees them; held-out prompts alone give it no metrics."""
    method, length = run.method, run.config.trainer.max_length
    with Processes().first_goes_first():  # the other ranks read its cache
        examples = tokenize_for(method, train, tokenizer, length)
        if heldout is None or method.rollout is not None:
            return examples, None
        return examples, tokenize_for(method, heldout, tokenizer, length, heldout=True)


# Models


def read_architecture(run: Run) -> PretrainedConfig:
    """Read the model's configuration; check trainer.max_length and the roles against it before anything is loaded."""
    model = run.config.model
    architecture = load_architecture(model)
    require_positions(architecture, run.config.trainer.max_length, model.name)
    if any(role in SCALAR_ROLES for role in run.method.roles):
        require_classifier(architecture)
    return architecture


def load_policy(
    config: RunConfig, tokenizer: PreTrainedTokenizerBase | None = None, notes: Sequence[str] = ()
) -> Policy:
    """Load the policy, with a `tokenizer` that is loaded already and the `notes` on it."""
    from align.model.policy import Policy

    sharding = config.trainer.sharding
    policy = Policy.load(config.model, adapter=config.adapter, seed=config.seed, tokenizer=tokenizer, sharding=sharding)
    policy.notes = (*notes, *policy.notes)
    return policy


def load_source(config: RunConfig, source: str) -> Policy:
    """Load a model, or an adapter on the policy's base, that draws besides the policy, with the policy's settings.

    An adapter keeps its own rank and targets. Code that a model brings is not run.
    """
    folder = source_folder(source)
    model = dataclasses.replace(config.model, start=str(folder))
    if not (folder / "adapter_config.json").exists():
        model = dataclasses.replace(model, name=str(folder), start=None, revision=None, trust_remote_code=False)
    adapter = None if config.adapter is None else Adapter()
    try:
        return load_policy(dataclasses.replace(config, model=model, adapter=adapter))
    except UserError as error:
        raise UserError(f"method.sources={source} cannot be loaded: {error}") from error


def take_reward_role(policy: Policy, reward: Scorer | None) -> bool:
    """Load the reward role of `policy` from a reward model on the same base; returns False for other scorers.

    No second model is then kept in memory.
    """
    folder: Path | None = getattr(reward, "role_folder", None)
    if folder is None or not policy.roles.can_load(folder):
        return False
    policy.require(("reward",))
    policy.roles.load("reward", folder)
    return True


# Evaluation


def make_evaluator(
    config: RunConfig,
    policy: Policy,
    heldout: Preferences | None,
    tokens: TokenizedPreferences | None,
    scorers: Sequence[Scorer],
) -> Evaluator | None:
    """Make the evaluator on held-out prompts, and pairs where there are any; `tokens` is `heldout` tokenised."""
    from align.evaluation.evaluator import Evaluator
    from align.sampling.params import SamplingParams

    settings = config.evaluation
    if heldout is None or settings.prompts == 0:
        return None
    is_pairs = tokens is not None and tokens.unit == "pair" and tokens.preferences is heldout
    pairs = tokens if is_pairs else heldout
    return Evaluator.from_preferences(
        policy,
        prompts=heldout,
        pairs=pairs if any(heldout.dataset["rejected"]) else None,
        max_length=config.trainer.max_length,
        limit=settings.prompts,
        scorers=scorers,
        sampling=SamplingParams(
            temperature=settings.temperature, top_p=settings.top_p, max_new_tokens=settings.max_new_tokens
        ),
        seed=config.seed,
        tokens_per_batch=config.trainer.tokens_per_microbatch,
    )
