from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

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
    assert "method.divergence" not in help_text(configs, ["method=sft", "--help"])


def test_the_default_method_is_the_one_of_the_configuration(configs: Path, tmp_path: Path) -> None:
    other = shutil.copytree(configs, tmp_path / "configs")
    file = other / "config.yaml"
    file.write_text(file.read_text().replace("- method: dpo ", "- method: sft "))
    assert "Settings of method=dpo" in help_text(configs)
    assert "Settings of method=sft" in help_text(other)


def test_tuned_settings_are_shown_as_they_would_be_typed(configs: Path) -> None:
    text = help_text(configs)
    title = "Tuned for model=world with method=dpo: used instead of the defaults unless you type another value\n"
    assert title in text
    assert re.search(r"^  method\.beta=0\.5 +strength of the tie to the reference$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("file", sorted((Path(__file__).resolve().parents[4] / "configs/tuned").glob("*.yaml")))
def test_every_tuned_setting_is_shown(file: Path, configs: Path) -> None:
    model, _, method = file.stem.rpartition("-")
    section = help_text(configs, [f"model={model}", f"method={method}"]).partition("Tuned for ")[2].partition("\n\n")[0]
    shown = OmegaConf.from_dotlist([line.split()[0] for line in section.splitlines()[1:]])
    assert shown == OmegaConf.load(file)


def test_a_model_without_tuned_settings_is_told_so(configs: Path) -> None:
    text = help_text(configs, ["model=qwen3-0.6b"])
    assert "No settings are tuned for model=qwen3-0.6b with method=dpo: the defaults apply." in text


def test_the_other_commands_are_named(configs: Path) -> None:
    names = "chat|compare|dashboard|data|diagnose|doctor|evaluate|export|label|report|serve-reward"
    assert f"align {names} …" in help_text(configs)
