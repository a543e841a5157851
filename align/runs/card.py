"""The model card of ``final/``: what was trained from what, how, with which result, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def model_card(
    *,
    base: str,
    adapters: bool,
    settings: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None,
) -> str:
    """Markdown with the metadata block that the hub reads; ``settings`` hold the method's ``name`` and all else."""
    method = str(settings["name"])
    lines = [
        "---",
        f"library_name: {'peft' if adapters else 'transformers'}",
        f"base_model: {base}",
        f"tags: [{method.lower()}, preference-alignment]",
        "---",
        "",
        f"# {base}, trained with {method}",
        "",
        f"Base model `{base}`; method {method}.",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in settings.items()),
        "",
    ]
    if evaluation is not None:
        lines += ["## Held-out prompts", "", "| metric | before | after |", "|---|---|---|"]
        lines += [
            f"| {name} | {_number(values['before'])} | {_number(values['after'])} |"
            for name, values in evaluation.get("metrics", {}).items()
        ]
        if "win_rate" in evaluation:
            win = evaluation["win_rate"]
            lines += [
                "",
                f"Win rate over the start model by {win['by']}: {win['mean']:.1%} "
                f"(95 % interval {win['low']:.1%} to {win['high']:.1%}, {win['n']} prompts).",
            ]
        lines.append("")
    lines += ["## Use", "", "```python", *_usage(base, adapters), "```", ""]
    return "\n".join(lines)


def _usage(base: str, adapters: bool) -> list[str]:
    if not adapters:
        return [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'model = AutoModelForCausalLM.from_pretrained("PATH OF THIS FOLDER")',
            'tokenizer = AutoTokenizer.from_pretrained("PATH OF THIS FOLDER")',
        ]
    return [
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'base = AutoModelForCausalLM.from_pretrained("{base}")',
        'model = PeftModel.from_pretrained(base, "PATH OF THIS FOLDER")',
        'tokenizer = AutoTokenizer.from_pretrained("PATH OF THIS FOLDER")',
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
