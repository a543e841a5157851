"""The identity of a run: all that decides what is learnt, which a resumed run must share, and all that only rounds.

===================== ============================================== =======================================
Part                  Value                                          Owner
===================== ============================================== =======================================
method                name and hyper-parameters                      :func:`method_settings`
trainer               settings, with the method's defaults filled in :func:`trainer_settings`
adapter, model        LoRA settings, type and quantisation           the policy
the start model       bytes of all weights before the first step     :mod:`align.model.fingerprint`
the tokenizer, data   hashes of rules, chat template, rows and ids   :mod:`align.data.examples`
reward                settings, code, files or weights of the scorer :mod:`align.scoring.identity`
evaluation            only where it chooses ``best/``                :class:`align.evaluation.evaluator.Evaluator`
sampling              the engine, where it is not the built-in one   :func:`engine_settings`
===================== ============================================== =======================================

Free are the settings that change nothing of it: how often is saved, logged and shown, how many checkpoints are kept,
``eval_steps`` where no evaluation chooses ``best/``, and the length of training where the learning rate of a step does
not depend on it (`can_be_lengthened`). The size of micro-batches, gradient checkpointing, sharding, layout,
attention, versions and device change the rounding, so that one may lower the memory of a run; another value is said.
"""

from __future__ import annotations

import dataclasses
import platform
from typing import TYPE_CHECKING, Any, cast

import torch

from align.data.examples import tokenizer_fingerprint
from align.method.base import Method
from align.runs.run_folder import package_versions
from align.scoring.identity import code_hash, scorer_identity
from align.scoring.reward_role import RoleScorer
from align.system.identity import Identity, hashed
from align.system.redaction import redact
from align.system.user_code import OF_USER

if TYPE_CHECKING:
    from align.data import Preferences, TokenizedPreferences
    from align.evaluation.evaluator import Evaluator
    from align.model.policy import Policy
    from align.scoring.scorer import Scorer
    from align.settings.config import TrainerConfig

__all__ = [
    "ACCEPTED_BY",
    "FOLLOWS",
    "LENGTH_FOLLOWS",
    "can_be_lengthened",
    "chooses_best",
    "engine_settings",
    "method_settings",
    "run_identity",
    "trainer_settings",
]

_ROUNDING = ("tokens_per_microbatch", "gradient_checkpointing", "sharding")
_FREE = ("keep_checkpoints", "log_steps", "save_steps", "samples", "eval_steps", *_ROUNDING)
_COMPUTING = ("torch", "transformers", "peft", "trl", "accelerate", "numpy", "tokenizers", "liger-kernel")
_ADAPTER = {
    **{"r": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "rslora": "use_rslora", "dora": "use_dora"},
    **{name: name for name in ("bias", "rank_pattern", "alpha_pattern", "modules_to_save", "layers_to_transform")},
}  # our name → PEFT's

WORLD_SIZE = "the number of processes"
ACCEPTED_BY = {WORLD_SIZE: "resume_world_size=any"}
"""Parts of an identity that may differ where a setting says so."""
LENGTH_FOLLOWS = {f"trainer.{name}": ("trainer.schedule", "trainer.warmup") for name in ("steps", "epochs")}
"""Of a run that can be lengthened there is no length to compare: see :func:`can_be_lengthened`."""

FOLLOWS = {
    **LENGTH_FOLLOWS,
    "the start model": ("model.", "adapter", "trainer.seed", "reward"),
    "the tokenizer": ("the chat template",),
    "the tokens of the data": ("data.", "the tokenizer", "the chat template", "trainer.max_length", "method"),
    "evaluation": ("trainer.eval_steps", "the tokenizer", "the chat template", "trainer.max_length", "reward"),
}
"""Parts of an identity, and those whose difference explains theirs (see :func:`align.system.identity.differences`)."""


def run_identity(
    method: Method,
    config: TrainerConfig,
    policy: Policy,
    data: TokenizedPreferences,
    *,
    scorer: Scorer | None,
    mix: Preferences | None,
    evaluator: Evaluator | None,
    world_size: int,
    engine: str = "local",
) -> Identity:
    """Return the identity of a run whose ``policy`` is as it was before the first step."""
    from align.model.fingerprint import weights_fingerprint  # with torch, as below

    rewarded = RoleScorer(policy) if scorer is None and method.rollout is not None else scorer
    learnt: dict[str, Any] = {
        "method": method_settings(method),
        "trainer": trainer_settings(method, config, adapters=policy.uses_adapters),
        "adapter": _adapter(policy),
        "model": {
            "dtype": str(policy.model.dtype).removeprefix("torch."),
            "quantization": "4bit" if getattr(policy.model, "is_loaded_in_4bit", False) else None,
        },
        "the start model": hashed(weights_fingerprint(policy)),
        "the chat template": hashed(policy.tokenizer.chat_template),
        "the tokenizer": hashed(tokenizer_fingerprint(policy.tokenizer)),
        "data": {
            "train": hashed(data.preferences.fingerprint),
            "mix": hashed(mix.fingerprint) if mix is not None and method.mixing else None,
        },
        "the tokens of the data": hashed(data.fingerprint),
        "reward": None if rewarded is None else scorer_identity(rewarded),
        "evaluation": evaluator.identity() if evaluator is not None and chooses_best(method, config) else None,
        WORLD_SIZE: world_size,
        **engine_settings(engine),
    }
    return Identity(redact(learnt), _computed(config, policy))


def engine_settings(engine: str) -> dict[str, Any]:
    """Return what counts of the engine: its name, which decides the random numbers; never the address of a server."""
    return {} if engine == "local" else {"sampling": {"engine": engine}}


def method_settings(method: Method) -> dict[str, Any]:
    """Name and hyper-parameters of a method; of one in a file of the user's its code too."""
    settings = {"name": type(method).__name__, **dataclasses.asdict(method)}  # pyright: ignore[reportArgumentType]
    return settings | ({"code": code_hash(type(method))} if type(method).__module__.startswith(OF_USER) else {})


def trainer_settings(method: Method, config: TrainerConfig, *, adapters: bool) -> dict[str, Any]:
    """Settings that decide what is learnt, with the method's defaults for those that are None."""
    settings = {name: value for name, value in dataclasses.asdict(config).items() if name not in _FREE}
    default = method.optimization
    defaults = {
        "learning_rate": default.learning_rate if adapters else default.full_learning_rate,
        "epochs": default.epochs if config.steps is None else None,
        "batch_size": default.batch_size,
        "schedule": default.schedule,
        "warmup": default.warmup,
    }
    settings |= {name: value for name, value in defaults.items() if settings[name] is None}
    if can_be_lengthened(settings["schedule"], settings["warmup"]):
        settings |= {"steps": None, "epochs": None}
    return settings | {"eval_steps": config.eval_steps if chooses_best(method, config) else None}


def can_be_lengthened(schedule: str, warmup: float) -> bool:
    """Return whether the learning rate of a step is the same however many steps follow."""
    return schedule == "constant" and (warmup == 0 or warmup >= 1)


def chooses_best(method: Method, config: TrainerConfig) -> bool:
    """Return whether the evaluations of a run choose the policy of ``best/``."""
    return config.eval_steps is not None and type(method).merit is not Method.merit


def _adapter(policy: Policy) -> Any:
    from align.model.roles import SharedBase

    if not isinstance(policy.roles, SharedBase):
        return "none"
    lora: Any = policy.roles.peft_model.peft_config["policy"]
    targets = lora.target_modules
    settings = {ours: getattr(lora, theirs) for ours, theirs in _ADAPTER.items()}
    return {**settings, "targets": targets if isinstance(targets, str) else sorted(targets)}


def _computed(config: TrainerConfig, policy: Policy) -> dict[str, Any]:
    device, network = policy.device, cast("Any", policy.model.config)
    return {
        "trainer": {name: getattr(config, name) for name in _ROUNDING},
        "model": {"layout": policy.layout, "packed": policy.packed, "attention": network._attn_implementation},
        "the device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "python": platform.python_version(),
        **package_versions(_COMPUTING),
    }
