from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SCORERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["align.scorers"]
NAMED_BY_WHAT_THEY_HOLD = {"function", "length_corrected", "weighted_sum"}


@pytest.mark.parametrize("name", SCORERS)
def test_registered_scorers_have_a_name_and_a_score(name: str) -> None:
    module, _, attribute = SCORERS[name].partition(":")
    scorer = getattr(import_module(module), attribute)
    assert callable(scorer.score)
    if module.startswith("reward.") and name not in NAMED_BY_WHAT_THEY_HOLD:
        assert scorer.name == name


def test_scorers_by_rule_are_made_before_torch_is_imported() -> None:
    of_models = {"reward.models.reward_model", "reward.models.tournament"}
    modules = {target.partition(":")[0] for target in SCORERS.values() if target.startswith("reward.")} - of_models
    program = f"import sys, {', '.join(sorted(modules))}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def test_public_names_are_those_of_the_registered_classes() -> None:
    import reward

    methods = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["align.methods"]
    targets = [target for target in (*SCORERS.values(), *methods.values()) if target.startswith("reward.")]
    assert set(reward.__all__) == {target.partition(":")[2] for target in targets} | {"RewardServer"}
    for name in reward.__all__:
        assert getattr(reward, name).__name__ == name
    with pytest.raises(AttributeError, match="'reward' has no attribute 'Nothing'"):
        reward.Nothing  # noqa: B018  # pyright: ignore


def test_the_readme_lists_every_scorer_with_settings_that_it_has() -> None:
    table = re.findall(r"^\| `(\w+)` \| .* \| `(\{scorer: .*\})` \|$", (ROOT / "reward/README.md").read_text(), re.M)
    assert {name for name, _ in table} == SCORERS.keys()
    for name, settings in table:
        values = yaml.safe_load(settings.replace("{…}", "0"))
        assert values.pop("scorer") == name
        module, _, attribute = SCORERS[name].partition(":")
        assert values.keys() <= inspect.signature(getattr(import_module(module), attribute)).parameters.keys(), name
