"""docs/methods.md has every method, and its vectors are the ones that tests assert."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
VECTORS = {
    "SFT": (0.84, 0.80, 2.1),
    "Reward model": (0.227613, 0.974077, 0.600845),
    "Ranker": (0.9, 0.2, 0.6, 0.8, 0.75),
    "DPO and its losses": (0.658760, 0.568382, 0.489632, 18.49, 22.404444, 0.93, 0.206691, 43.29, 2.641024),
    "SimPO": (1.952978, 0.798139, 2.107163),
    "ORPO": (0.541325, 0.195870, 1.112819, 0.639100),
    "CPO": (1.787192, 1.207192, 0.858300),
    "KTO": (0.492501, 0.490001, 0.462570, 0.450166),
    "BCO": (0.675800, 0.609470),
    "RRHF": (3.8, 0.6, 0.533333, 1.133333),
    "SLiC-HF": (2.8, 4.4, 1.6),
    "RFT": (7, 14, 993),
    "Candidates and rounds": (0.367879, 0.135335, 0.914452, 0.085548),
    "PPO and PPO-ptx": (0.844312, 0.944312, 0.841984, 1.405011, 0.120438, 0.849383, 0.225253, 0.097913, 0.172623),
    "RLOO": (2.666667, 1.333333, 1.02),
    "GRPO": (0.925777, 0.462889, 1.388666, 0.707007),
    "Dr. GRPO": (0.125,),
    "DAPO": (0.3125, 0.5),
    "GSPO": (0.147581,),
    "CISPO": (0.475, 0.55),
    "REINFORCE++": (1, 1.5),
    "On-line DPO": (0.201413, 3),
    "LoRA": (14.071068, 8.778175, 6.5),
    "LIMA": (0.1, 0.2, 0.3, 0.136364),
    "STILTs": (1,),
    "MTL": (0.921659, 0.073733, 0.461538, 0.415240),
    "ICL": (1, 2),
}


def numbers(texts: Iterable[str], decimals: int = 0) -> set[float]:
    """Absolute values of the numbers in some texts that have at least so many decimals."""
    found = [number for text in texts for number in re.findall(r"(?<![\w.])\d*\.?\d+(?!\w)", text)]
    return {float(number) for number in found if len(number.partition(".")[2]) >= decimals}


def named_tests(section: str) -> list[str]:
    """The tests that a section names."""
    files = re.findall(r"`(tests/\S+?\.py)`", SECTIONS[section])
    return [(ROOT / file).read_text(encoding="utf-8") for file in files]


def test_every_section_has_a_vector() -> None:
    assert set(SECTIONS) == set(VECTORS)
    assert all("Source" in text and "Defaults" in text and "Test vector" in text for text in SECTIONS.values())


@pytest.mark.parametrize("section", VECTORS)
def test_the_vector_is_on_the_page_and_in_the_tests_it_names(section: str) -> None:
    wanted = set(VECTORS[section])
    assert wanted <= numbers([SECTIONS[section]])
    assert wanted <= numbers(named_tests(section))


@pytest.mark.parametrize("section", SECTIONS)
def test_every_number_of_six_decimals_is_asserted(section: str) -> None:
    assert numbers([SECTIONS[section]], decimals=6) <= numbers(named_tests(section))


def test_every_method_is_on_the_page() -> None:
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    table = PAGE.partition("\n## ")[0]
    for name, target in entries["align.methods"].items():
        module = target.partition(":")[0].replace(".", "/")
        (row,) = [line for line in table.splitlines() if f"| `{name}` |" in line]
        assert any(f"`{path}`" in row for path in (f"{module}.py", f"{module.rpartition('/')[0]}/"))
