"""Every experiment's file is whole: its runs can be composed, and its rules name what is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from experiments.page import page
from experiments.plan import PLACE, Experiment, experiments, read

from align.cli.compare.words import compose
from align.errors import UserError
from align.settings.type_checks import build
from align.world import asset

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
FILES = experiments(CONFIGS / "experiment")


@pytest.mark.parametrize("name", FILES)
def test_every_run_can_be_composed(name: str, tmp_path: Path) -> None:
    experiment = read(FILES[name])
    (tmp_path / "x.jsonl").write_text("")
    (tmp_path / "candidates.jsonl").write_text("")
    for file in (*asset("base").iterdir(), *asset("sft").iterdir()):  # a model and an adapter, whichever is asked for
        (tmp_path / file.name).symlink_to(file)
    for arm in experiment.all_arms.values():
        words = {word.partition("=")[0]: word for word in (*experiment.shared, *arm.words)}.values()
        if arm.words:

            def place(found: Any) -> str:
                return str(tmp_path / "x.jsonl" if found[1] == "data" else tmp_path)

            compose(CONFIGS, [PLACE.sub(place, word) for word in words])


def test_the_eleven_claims_are_all_put_to_the_test() -> None:
    claims = [claim for file in FILES.values() for claim in read(file).claims]
    assert sorted(claims) == list(range(1, 12))


@pytest.mark.parametrize("name", FILES)
def test_claim_prediction_and_source_are_stated(name: str) -> None:
    experiment = read(FILES[name])
    assert FILES[name].read_text().startswith(f"# Claim {experiment.claims[0]}: ")
    for text in (experiment.published, experiment.source, experiment.prediction):
        assert len(text) > 40
    assert experiment.seeds >= 3


def _minimal() -> dict[str, Any]:
    return yaml.safe_load(
        """
        {title: t, claims: [1], published: p, source: s, prediction: q,
         measures: {seen: {prompts: {make: prompts, n: 4}}},
         arms: {a: {words: [method=sft]}, b: {words: [method=dpo]}},
         parts: [{says: a over b, contrast: {a: 1, b: -1}, of: seen}]}
        """
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"parts": [{"says": "x", "contrast": {"a": 1, "bb": -1}, "of": "seen"}]}, "x: there is no bb"),
        ({"parts": [{"says": "x", "contrast": {"a": 1, "b": -1}, "of": "sen"}]}, "x: sen is not measured"),
        ({"arms": {"a": {"words": ["data={data.train}"]}, "b": {}}}, "a: data.train is not there"),
        ({"arms": {"a": {"wrds": []}, "b": {}}}, "wrds is not a setting of Arm"),
    ],
)
def test_a_wrong_name_is_a_sentence(change: dict[str, Any], said: str) -> None:
    build(Experiment, _minimal())
    with pytest.raises(UserError, match=said):
        build(Experiment, _minimal() | change)


def test_the_page_of_results_is_made_of_what_is_there() -> None:
    docs = CONFIGS.parent / "docs"
    assert page(docs) == (docs / "results.md").read_text(encoding="utf-8")
