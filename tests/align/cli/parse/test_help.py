from __future__ import annotations

from pathlib import Path

from align.cli.parse import groups
from align.cli.parse.help import help_text


def test_every_choice_has_its_line(configs: Path) -> None:
    text = help_text(configs)
    for group in groups.names(configs):
        for choice in groups.choices(configs, group):
            description = groups.description(configs, group, choice)
            assert 20 < len(description) < 110
            assert any(line.split() == [choice, *description.split()] for line in text.splitlines())


def test_settings_are_shown_with_comment_and_default(configs: Path) -> None:
    lines = {line.split()[0]: line for line in help_text(configs).splitlines() if line.startswith("  ")}
    assert lines["method.beta"].endswith("the closer the policy stays [0.1]")
    assert lines["trainer.max_length"].endswith("[1024]")
    assert lines["adapter.r"].endswith("rank [16]")
    assert lines["trainer.steps"].endswith("optimiser steps; instead of epochs")


def test_the_settings_of_the_method_typed_are_shown(configs: Path) -> None:
    assert "method.reduction" in help_text(configs, ["method=sft", "--help"])
    assert "method.loss_type" not in help_text(configs, ["method=sft", "--help"])
