"""Run folders as a run leaves them, without a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from align.evaluation.measurement import Measurement, Sample, compare
from align.runs.run_folder import begin
from align.runs.tracker import Tracker, by_phase
from align.system.files import write_json

REPORT = {
    "source": "pairs.jsonl",
    "rule": "pairwise",
    "polarity": "chosen is the column `chosen`",
    "read": 1200,
    "kept": 1197,
    "rejected": {"no prompt": 2},
    "left_out": {"too long": 1},
    "noted": {},
    "examples": {"no prompt": ["pairs.jsonl:7: no prompt"], "too long": ["pairs.jsonl:9: too long"]},
    "warnings": ["Half of the rows are alike."],
}


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Make a finished run of 40 steps; ``text`` stands wherever a model, data or a person can put one."""

    def make(
        name: str = "mine", *, text: str = "text", answer: str = "", scores: float = 0.5, beta: float = 0.1
    ) -> Path:
        config = {"run_name": name, "method": {"name": "dpo", "beta": beta}, "model": {"name": text}}
        folder = begin(tmp_path / name, "new", config)
        tracker = Tracker(folder, enabled=True)
        said = text.encode("utf-8", "replace").decode()  # a file holds no lone surrogate
        before = Measurement(
            [Sample(f"{said} {i}{answer}", f"the old answer{answer}", 3, 0.0, {said: 0.25}, said) for i in range(9)]
        )
        after = Measurement(
            [Sample(f"{said} {i}{answer}", f"the {said}{answer[::-1]}", 4, 0.5, {said: scores}, said) for i in range(9)]
        )
        tracker.log_evaluation(0, before, shown=0)
        for step in range(1, 41):
            tracker.log(step, by_phase(train={"loss": 1 / step, "tokens": 100.0, "seconds": 0.5}, rollout={}))
            tracker.log(step, {f"rollout/scores/{said}": float(step)})
        tracker.log_evaluation(40, after, shown=0)
        tracker.warn(7, "kl", f"The KL is above its target ({said}): raise method.beta.")
        write_json(folder / "evaluation.json", compare(before, after))
        (folder / "command.txt").write_text(f"align method=dpo data={said}\n", encoding="utf-8")
        part = {"loading": {**REPORT, "source": said}, "tokenising": REPORT, "examples": 1197, "tokens": 90000}
        kinds = ("prompt", "chosen", "end", "pad")
        row = [{"text": said + answer, "id": number, "kind": kind} for number, kind in enumerate(kinds)]
        write_json(folder / "data.json", {"parts": {"training": {**part, "fingerprint": "abcdef"}}, "tokens": [row]})
        write_json(folder / "cost.json", {"seconds": 75.0, "first_step": 0, "peak_bytes": 3 * 2**29})
        (folder / "final").mkdir()
        return folder

    return make
