"""A drawing that was stopped goes on where it was, and with nothing that has changed since."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from align.candidates.drawing import draw
from align.candidates.store import GrowingFile
from align.data import Preferences
from align.errors import ScorerError, UserError
from align.model.policy import Policy
from align.system.signals import Interrupted
from reward import Length
from tests.align.candidates.letters import PLAN, Letters, content


class TestGoingOn:
    """However a drawing is stopped, going on gives the file of an uninterrupted one."""

    @pytest.fixture
    def whole(self, tiny_policy: Policy, data: Preferences, tmp_path: Path) -> tuple[bytes, dict[str, Any]]:
        draw(tiny_policy, data, PLAN, tmp_path / "whole.jsonl", scorer=Letters())
        return content(tmp_path / "whole.jsonl")

    def test_a_scorer_that_fails_in_the_middle(
        self, tiny_policy: Policy, data: Preferences, tmp_path: Path, whole: tuple[bytes, dict[str, Any]]
    ) -> None:
        def fail() -> None:
            raise ScorerError("the scorer is down; start it.")

        file = tmp_path / "c.jsonl"
        first = Letters(at=3, act=fail)
        with pytest.raises(ScorerError, match=r"the scorer is down; start it. 16 of 40 prompts are in .*c\.jsonl"):
            draw(tiny_policy, data, PLAN, file, scorer=first)
        assert content(file)[1]["done"] == 16
        second = Letters()
        draw(tiny_policy, data, PLAN, file, scorer=second)
        assert content(file) == whole
        assert not set(first.asked) & set(second.asked)
        assert len(first.asked) + len(second.asked) == 40

    @pytest.mark.parametrize("when", ["before the rows", "inside the rows", "before the state", "after the state"])
    def test_a_kill_at_any_point_of_writing(
        self,
        when: str,
        tiny_policy: Policy,
        data: Preferences,
        tmp_path: Path,
        whole: tuple[bytes, dict[str, Any]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        class KilledError(Exception):
            pass

        file, append, write = tmp_path / "c.jsonl", GrowingFile.append, GrowingFile._write_state
        chunks = itertools.count()

        def dying_append(self: GrowingFile, rows: Any, **state: Any) -> None:
            if next(chunks) == 2 and when != "before the state":
                if when == "inside the rows":
                    with self.file.open("ab") as stream:
                        stream.write(json.dumps(rows[0]).encode()[:50])
                if when == "after the state":
                    append(self, rows, **state)
                raise KilledError
            append(self, rows, **state)

        def dying_write(self: GrowingFile) -> None:
            if self.state["done"] == 24 and when == "before the state":
                raise KilledError
            write(self)

        with monkeypatch.context() as patch:
            patch.setattr(GrowingFile, "append", dying_append)
            patch.setattr(GrowingFile, "_write_state", dying_write)
            with pytest.raises(KilledError):
                draw(tiny_policy, data, PLAN, file, scorer=Letters())
        assert file.read_bytes() not in (b"", whole[0])
        draw(tiny_policy, data, PLAN, file, scorer=Letters())
        assert content(file) == whole

    def test_a_signal(
        self, tiny_policy: Policy, data: Preferences, tmp_path: Path, whole: tuple[bytes, dict[str, Any]]
    ) -> None:
        file = tmp_path / "c.jsonl"
        with pytest.raises(Interrupted) as caught:
            draw(
                tiny_policy,
                data,
                PLAN,
                file,
                scorer=Letters(at=2, act=lambda: os.kill(os.getpid(), signal.SIGTERM)),
            )
        assert caught.value.exit_code == 143
        assert content(file)[1]["done"] == 8
        draw(tiny_policy, data, PLAN, file, scorer=Letters())
        assert content(file) == whole

    def test_a_finished_file_is_not_drawn_again(
        self, tiny_policy: Policy, data: Preferences, tmp_path: Path, whole: tuple[bytes, dict[str, Any]]
    ) -> None:
        scorer = Letters()
        draw(tiny_policy, data, PLAN, tmp_path / "whole.jsonl", scorer=scorer)
        assert scorer.asked == []
        assert content(tmp_path / "whole.jsonl") == whole

    def test_other_settings_data_weights_and_seeds_are_refused(
        self, tiny_policy: Policy, data: Preferences, tmp_path: Path, whole: tuple[bytes, dict[str, Any]]
    ) -> None:
        import torch

        file = tmp_path / "whole.jsonl"
        with pytest.raises(UserError, match=r"samples is 3 in the run and 4 now"):
            draw(tiny_policy, data, replace(PLAN, samples=4), file, scorer=Letters())
        with pytest.raises(UserError, match=r"cannot be resumed: seed is 0 in the run and 1 now\."):
            draw(tiny_policy, data, PLAN, file, scorer=Letters(), seed=1)
        with pytest.raises(UserError, match=r"resumed: reward\.scorer is Letters in the run and Length now"):
            draw(tiny_policy, data, PLAN, file, scorer=Length(maximum=3))
        with pytest.raises(UserError, match=r"resumed: the prompts is not the same\."):
            draw(tiny_policy, data.select(range(8)), PLAN, file, scorer=Letters())
        with torch.no_grad():
            next(iter(tiny_policy.roles.parameters("policy").values())).add_(0.1)
        with pytest.raises(UserError, match=r"resumed: the model that draws is not the same\."):
            draw(tiny_policy, data, PLAN, file, scorer=Letters())
        assert content(file) == whole

    @pytest.mark.parametrize(
        ("change", "clause"),
        [
            ({"keep_unfinished": False}, "keep_unfinished is true in the run and false now"),
            ({"include_data": False}, "include_data is true in the run and false now"),
            (
                {"sampling": replace(PLAN.sampling, temperature=0.8)},
                "sampling.temperature is 0.7 in the run and 0.8 now",
            ),
            ({"sampling": replace(PLAN.sampling, max_new_tokens=5)}, "sampling.max_new_tokens is 4 in the run"),
        ],
    )
    def test_another_plan_is_refused_by_name(
        self,
        change: dict[str, Any],
        clause: str,
        tiny_policy: Policy,
        data: Preferences,
        tmp_path: Path,
        whole: tuple[bytes, dict[str, Any]],
    ) -> None:
        with pytest.raises(UserError, match=re.escape(clause)):
            draw(tiny_policy, data, replace(PLAN, **change), tmp_path / "whole.jsonl", scorer=Letters())
        assert content(tmp_path / "whole.jsonl") == whole

    def test_files_that_are_not_ours(self, tiny_policy: Policy, data: Preferences, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"name it NAME\.jsonl"):
            draw(tiny_policy, data, PLAN, tmp_path / "c.txt", scorer=Letters())
        (tmp_path / "c.jsonl").write_text("{}\n")
        with pytest.raises(UserError, match=r"no c\.json that says how it was made"):
            draw(tiny_policy, data, PLAN, tmp_path / "c.jsonl", scorer=Letters())
        draw(tiny_policy, data, PLAN, tmp_path / "d.jsonl", scorer=Letters())
        (tmp_path / "d.jsonl").write_text("{}\n")
        with pytest.raises(UserError, match="cut short"):
            draw(tiny_policy, data, PLAN, tmp_path / "d.jsonl", scorer=Letters())
