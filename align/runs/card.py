"""Model cards of ``final/`` and ``final/reward``: base, method, settings, results, and code that loads the model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from align.model.naming import without_places
from align.runs.report import MEANINGS, MODELS, format_count, format_metric, win_rate_sentences
from align.system.terminal import visible

if TYPE_CHECKING:
    from align.data import Preferences

_QUESTION = "Is a cat an animal?"


@dataclass(frozen=True)
class Origin:
    """Where a trained model comes from: its data, by name and fingerprint, and its reward."""

    data: str
    fingerprint: str
    heldout: str | None
    """None: nothing is held out."""
    heldout_fingerprint: str | None
    reward: str | None
    """Name of the scorer that rewarded it; None: nothing did."""

    @classmethod
    def of(cls, train: Preferences, heldout: Preferences | None, reward: str | None) -> Origin:
        """Name the data of a run; of files only the last part of their path."""
        return cls(
            data=_public(train.report.source),
            fingerprint=train.fingerprint,
            heldout=None if heldout is None else _public(heldout.report.source),
            heldout_fingerprint=None if heldout is None else heldout.fingerprint,
            reward=reward,
        )


def _public(sources: str) -> str:
    """Return the names of data without their places on this machine."""
    names = sources.split(", ")
    local = [Path(name).is_absolute() or has_magic(name) or Path(name).expanduser().exists() for name in names]
    return ", ".join(Path(name).name if is_local else name for name, is_local in zip(names, local, strict=True))


def model_card(
    *,
    base: str,
    adapters: bool,
    settings: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None,
    purpose: str,
    origin: Origin,
    chat: bool,
    answers: bool = True,
) -> ModelCard:
    """Make the card of a trained policy with the metadata that the hub reads.

    Args:
        base: The base model: a hub name, ``world/…`` for an embedded one, or a folder relative to the run's.
        adapters: True if ``final/`` holds an adapter, False for a whole model.
        settings: The method's ``name`` and every setting of the run.
        evaluation: The content of ``evaluation.json``, where there is one.
        purpose: What the method trains, in a sentence.
        origin: Its data and its reward.
        chat: The tokenizer has a chat template.
        answers: The policy answers prompts.
    """
    remark = "" if answers else "It is asked questions of its own and does not answer prompts."
    return _card(
        base,
        adapters,
        settings,
        evaluation,
        purpose,
        origin,
        remark=remark,
        task="text-generation",
        usage=[*_usage(base, adapters), *(_generation(base, adapters, chat=chat) if answers else ())],
    )


def reward_card(
    *,
    base: str,
    adapters: bool,
    settings: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None,
    purpose: str,
    origin: Origin,
) -> ModelCard:
    """Make the card of a trained reward model, ``final/reward``; arguments as for :func:`model_card`."""
    usage = [
        "from reward.models.reward_model import RewardModelScorer",
        "",
        'scorer = RewardModelScorer(model="final/reward")',
        f'print(scorer.score(["{_QUESTION}"], [["Yes, it is.", "No."]]))  # a reward for each response',
    ]
    task = "text-classification"
    return _card(base, adapters, settings, evaluation, purpose, origin, remark="", task=task, usage=usage)


def start_card(*, base: str, adapters: bool, trained: Sequence[str]) -> ModelCard:
    """Make the card of ``final/`` where another role than the policy was trained."""
    folders = " and ".join(f"`{role}/`" for role in trained)
    data = ModelCardData(base_model=_short(base), library_name=_library(adapters))
    lines = [f"# {_cell(_short(base))}, as training began", ""]
    lines += [f"The model in this folder was not trained. What was trained is in {folders}.", ""]
    return ModelCard("\n".join(["---", data.to_yaml(), "---", "", *lines]))


def _card(
    base: str,
    adapters: bool,
    settings: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None,
    purpose: str,
    origin: Origin,
    *,
    remark: str,
    task: str,
    usage: Sequence[str],
) -> ModelCard:
    method = str(settings["name"])
    name = f"{_short(base)}, trained with {method}"
    data = ModelCardData(
        base_model=_short(base),
        library_name=_library(adapters),
        tags=[method.lower(), "preference-alignment"],
        model_name=name,
        datasets=[source for source in origin.data.split(", ") if _HUB.fullmatch(source)] or None,
        eval_results=_results(evaluation or {}, task, origin) or None,
    )
    lines = [
        f"# {_cell(name)}",
        "",
        f"Base model {_code(_short(base))}; method {method}. {purpose} {remark}".strip(),
        "",
    ]
    lines += ["| setting | value |", "|---|---|"]
    lines += [f"| {key} | {_cell(_without_paths(value))} |" for key, value in settings.items()]
    lines += ["", "## Data and reward", "", *_origin(origin)]
    if evaluation is not None:
        found = evaluation.get("intervals", {})
        lines += ["", "## Held-out data", "", "| metric, 95 % interval | before | after | n |", "|---|---|---|---|"]
        for metric, values in evaluation.get("metrics", {}).items():
            of = found.get(metric, {})
            cells = [format_metric(values[when], of.get(when)) for when in ("before", "after")]
            lines.append(f"| {_cell(metric)} | {' | '.join(cells)} | {format_count(of)} |")
        lines += ["", *map(_cell, (*without_places(evaluation.get("notes", ())), *win_rate_sentences(evaluation)))]
    lines += ["", "## Use", "", "In the run folder, where this folder is `final`:", ""]
    lines += ["```python", *usage, "```", ""]
    return ModelCard("\n".join(["---", data.to_yaml(), "---", "", *lines]))


_HUB = re.compile(r"(?!world/)[\w.-]+/(?!.*\.(jsonl?|csv|parquet|arrow|txt)(\..*)?$)[\w.-]+")
"""Names on the hub; ``world/…`` is data of this package."""


def _origin(origin: Origin) -> list[str]:
    lines = [f"- Trained on {_cell(origin.data)}, fingerprint `{origin.fingerprint}`."]
    if origin.heldout is not None:
        lines.append(f"- Measured on {_cell(origin.heldout)}, held out, fingerprint `{origin.heldout_fingerprint}`.")
    return [*lines, f"- Reward: {_cell(origin.reward)}." if origin.reward is not None else "- No reward was asked."]


def _cell(value: Any) -> str:
    """Return a value as plain text of a Markdown table."""
    text = visible(str(value)).replace("\n", " ")
    return re.sub(r"([\\|`<>]|(?<=\])\()", r"\\\1", text)


def _code(text: str) -> str:
    """Return a text between the signs of code, which it cannot end."""
    return f"`{visible(text)}`" if "`" not in text else _cell(text)


def _library(adapters: bool) -> str:
    return "peft" if adapters else "transformers"


def _short(base: str) -> str:
    """The name of a folder without its place on this machine."""
    return Path(base).name if base.startswith(".") else base


def _without_paths(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_without_paths(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else without_places(value)


def _results(evaluation: Mapping[str, Any], task: str, origin: Origin) -> list[EvalResult]:
    """The metrics after training, as the hub's ``model-index``."""
    found = {
        name: (f"{name}: {MEANINGS[name]}" if name in MEANINGS else name, values["after"])
        for name, values in evaluation.get("metrics", {}).items()
    }
    if win := evaluation.get("win_rate"):
        found["win_rate"] = (f"win rate over {MODELS[0]}, by {win['by']}", win["mean"])
    heldout = origin.heldout or "held-out data"
    return [
        EvalResult(
            task_type=task,
            dataset_type=heldout,
            dataset_name=heldout,
            dataset_args=None if origin.heldout is None else {"fingerprint": origin.heldout_fingerprint},
            metric_type=name,
            metric_name=meaning,
            metric_value=value,
        )
        for name, (meaning, value) in found.items()
        if value is not None
    ]


def _usage(base: str, adapters: bool) -> list[str]:
    """Return code that loads the policy; a base that lies in a folder is found by the adapter's own record of it."""
    if _is_folder(base, adapters):
        return ["from align import Policy", "", 'policy = Policy.load_saved("final")']
    transformers = "from transformers import AutoModelForCausalLM, AutoTokenizer"
    tokenizer = 'tokenizer = AutoTokenizer.from_pretrained("final")'
    if not adapters:
        return [transformers, "", 'model = AutoModelForCausalLM.from_pretrained("final")', tokenizer]
    embedded = base.startswith("world/")
    place = f'asset("{base.removeprefix("world/")}")' if embedded else json.dumps(base)
    return [
        "from peft import PeftModel",
        transformers,
        *(["", "from align.world import asset"] if embedded else []),
        "",
        f"base = AutoModelForCausalLM.from_pretrained({place})",
        'model = PeftModel.from_pretrained(base, "final")',
        tokenizer,
    ]


def _generation(base: str, adapters: bool, *, chat: bool) -> list[str]:
    """Return code that lets the policy answer."""
    if _is_folder(base, adapters):
        return [f'print(policy.generate("{_QUESTION}"))']
    asked = [
        f'messages = [{{"role": "user", "content": "{_QUESTION}"}}]',
        'options = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}',
        "prompt = tokenizer.apply_chat_template(messages, **options)",
    ]
    return [
        "",
        *(asked if chat else [f'prompt = tokenizer("{_QUESTION}", return_tensors="pt")']),
        "answer = model.generate(**prompt, max_new_tokens=64)[0, prompt.input_ids.shape[1] :]",
        "print(tokenizer.decode(answer, skip_special_tokens=True))",
    ]


def _is_folder(base: str, adapters: bool) -> bool:
    return adapters and base.startswith(".")
