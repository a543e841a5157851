"""The model card of ``final/``: base, method, settings, results, and code that loads the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from align.runs.report import format_number, win_rate_sentence


def model_card(
    *, base: str, adapters: bool, settings: Mapping[str, Any], evaluation: Mapping[str, Any] | None
) -> ModelCard:
    """Make the card with the metadata that the hub reads.

    Args:
        base: The base model: a hub name, a folder, or ``world/…`` for an embedded one.
        adapters: True if ``final/`` holds an adapter, False for a whole model.
        settings: The method's ``name`` and every setting of the run.
        evaluation: The content of ``evaluation.json``, where there is one.
    """
    method = str(settings["name"])
    name = f"{base}, trained with {method}"
    results = _results(evaluation or {})
    data = ModelCardData(
        base_model=base,
        library_name="peft" if adapters else "transformers",
        tags=[method.lower(), "preference-alignment"],
        model_name=name,
        eval_results=results or None,
    )
    lines = [f"# {name}", "", f"Base model `{base}`; method {method}.", ""]
    lines += ["| setting | value |", "|---|---|", *(f"| {key} | {value} |" for key, value in settings.items()), ""]
    if evaluation is not None:
        lines += ["## Held-out data", "", "| metric | before | after |", "|---|---|---|"]
        lines += [
            f"| {metric} | {format_number(values['before'])} | {format_number(values['after'])} |"
            for metric, values in evaluation.get("metrics", {}).items()
        ]
        lines += ["", win_rate_sentence(evaluation["win_rate"])] if "win_rate" in evaluation else []
        lines.append("")
    lines += ["## Use", "", "In the run folder, where this folder is `final`:", ""]
    lines += ["```python", *_usage(base, adapters), "```", ""]
    return ModelCard("\n".join(["---", data.to_yaml(), "---", "", *lines]))


def _results(evaluation: Mapping[str, Any]) -> list[EvalResult]:
    """The metrics after training, as the hub's ``model-index``."""
    found = {name: values["after"] for name, values in evaluation.get("metrics", {}).items()}
    if "win_rate" in evaluation:
        found["win_rate"] = evaluation["win_rate"]["mean"]
    return [
        EvalResult(
            task_type="text-generation",
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
