"""Model cards of ``final/`` and ``final/reward``: base, method, settings, results, and code that loads the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from align.runs.report import format_count, format_metric, win_rate_sentences


def model_card(
    *,
    base: str,
    adapters: bool,
    settings: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None,
    purpose: str,
    answers: bool = True,
) -> ModelCard:
    """Make the card of a trained policy with the metadata that the hub reads.

    Args:
        base: The base model: a hub name, ``world/…`` for an embedded one, or a folder relative to the run's.
        adapters: True if ``final/`` holds an adapter, False for a whole model.
        settings: The method's ``name`` and every setting of the run.
        evaluation: The content of ``evaluation.json``, where there is one.
        purpose: What the method trains, in a sentence.
        answers: The policy answers prompts.
    """
    remark = "" if answers else "It is asked questions of its own and does not answer prompts."
    return _card(
        base,
        adapters,
        settings,
        evaluation,
        purpose,
        remark=remark,
        task="text-generation",
        usage=_usage(base, adapters),
    )


def reward_card(
    *, base: str, adapters: bool, settings: Mapping[str, Any], evaluation: Mapping[str, Any] | None, purpose: str
) -> ModelCard:
    """Make the card of a trained reward model, ``final/reward``; arguments as for :func:`model_card`."""
    usage = [
        "from reward.models.reward_model import RewardModelScorer",
        "",
        'scorer = RewardModelScorer(model="final/reward")',
        'print(scorer.score(["Is a cat an animal?"], [["Yes, it is.", "No."]]))  # a reward for each response',
    ]
    return _card(base, adapters, settings, evaluation, purpose, remark="", task="text-classification", usage=usage)


def start_card(*, base: str, adapters: bool, trained: Sequence[str]) -> ModelCard:
    """Make the card of ``final/`` where another role than the policy was trained."""
    folders = " and ".join(f"`{role}/`" for role in trained)
    data = ModelCardData(base_model=_short(base), library_name=_library(adapters))
    lines = [f"# {_short(base)}, as training began", ""]
    lines += [f"The model in this folder was not trained. What was trained is in {folders}.", ""]
    return ModelCard("\n".join(["---", data.to_yaml(), "---", "", *lines]))


def _card(
    base: str,
    adapters: bool,
    settings: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None,
    purpose: str,
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
        eval_results=_results(evaluation or {}, task) or None,
    )
    lines = [f"# {name}", "", f"Base model `{_short(base)}`; method {method}. {purpose} {remark}".strip(), ""]
    lines += ["| setting | value |", "|---|---|"]
    lines += [f"| {key} | {_without_paths(value)} |" for key, value in settings.items()]
    if evaluation is not None:
        found = evaluation.get("intervals", {})
        lines += ["", "## Held-out data", "", "| metric, 95 % interval | before | after | n |", "|---|---|---|---|"]
        for metric, values in evaluation.get("metrics", {}).items():
            of = found.get(metric, {})
            cells = [format_metric(values[when], of.get(when)) for when in ("before", "after")]
            lines.append(f"| {metric} | {' | '.join(cells)} | {format_count(of)} |")
        lines += ["", *evaluation.get("notes", ()), *win_rate_sentences(evaluation)]
    lines += ["", "## Use", "", "In the run folder, where this folder is `final`:", ""]
    lines += ["```python", *usage, "```", ""]
    return ModelCard("\n".join(["---", data.to_yaml(), "---", "", *lines]))


def _library(adapters: bool) -> str:
    return "peft" if adapters else "transformers"


def _short(base: str) -> str:
    """The name of a folder without its place on this machine."""
    return Path(base).name if base.startswith(".") else base


def _without_paths(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_without_paths(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _results(evaluation: Mapping[str, Any], task: str) -> list[EvalResult]:
    """The metrics after training, as the hub's ``model-index``."""
    found = {name: values["after"] for name, values in evaluation.get("metrics", {}).items()}
    if "win_rate" in evaluation:
        found["win_rate"] = evaluation["win_rate"]["mean"]
    return [
        EvalResult(
            task_type=task,
            dataset_type="held-out",
            dataset_name="held-out data",
            metric_type=name,
            metric_value=value,
        )
        for name, value in found.items()
        if value is not None
    ]


def _usage(base: str, adapters: bool) -> list[str]:
    transformers = "from transformers import AutoModelForCausalLM, AutoTokenizer"
    tokenizer = 'tokenizer = AutoTokenizer.from_pretrained("final")'
    if not adapters:
        return [transformers, "", 'model = AutoModelForCausalLM.from_pretrained("final")', tokenizer]
    embedded = base.startswith("world/")
    place = f'asset("{base.removeprefix("world/")}")' if embedded else f'"{base}"'
    return [
        "from peft import PeftModel",
        transformers,
        *(["", "from align.world import asset"] if embedded else []),
        "",
        f"base = AutoModelForCausalLM.from_pretrained({place})",
        'model = PeftModel.from_pretrained(base, "final")',
        tokenizer,
    ]
