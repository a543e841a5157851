"""Few-shot prompts written out by hand."""

from __future__ import annotations

import pytest

from align.data import Preferences
from align.data.few_shot import with_shots
from align.errors import UserError


def test_turns_stand_between_the_system_turn_and_the_question() -> None:
    prompts = Preferences.from_rows(
        [
            {
                "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}],
                "chosen": [{"role": "assistant", "content": "Me."}],
                "rejected": [{"role": "assistant", "content": "You."}],
            }
        ]
    )
    examples = Preferences.from_rows(
        [
            {
                "prompt": [{"role": "user", "content": "When?"}],
                "chosen": [{"role": "assistant", "content": "Now."}],
                "rejected": [{"role": "assistant", "content": "Never."}],
            }
        ]
    )
    [row] = with_shots(prompts, examples, 1)
    assert [(turn["role"], turn["content"]) for turn in row["prompt"]] == [
        ("system", "Be brief."),
        ("user", "When?"),
        ("assistant", "Now."),
        ("user", "Who?"),
    ]
    assert row["chosen"][0]["content"] == "Me."


def test_plain_text_has_paragraphs() -> None:
    prompts = Preferences.from_rows([{"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"}])
    examples = Preferences.from_rows([{"prompt": "1 + 1 =", "chosen": " 2", "rejected": " 3"}])
    [row] = with_shots(prompts, examples, 1)
    assert row["prompt"][0]["content"] == "1 + 1 = 2\n\n2 + 2 ="


def test_every_prompt_has_the_same_examples_and_never_itself() -> None:
    rows = [{"prompt": f"{i}?", "chosen": f"a{i}", "rejected": f"b{i}"} for i in range(6)]
    data = Preferences.from_rows(rows)
    asked = with_shots(data.select([0, 1]), data, 3, seed=1)
    told = [row["prompt"][0]["content"].rsplit("\n\n", 1) for row in asked]
    assert told[0][0] == told[1][0]
    assert [own for _, own in told] == ["0?", "1?"]
    assert not {"0?a0", "1?a1"} & set(told[0][0].split("\n\n"))
    assert len(told[0][0].split("\n\n")) == 3
    assert with_shots(data.select([0]), data, 3, seed=2)[0]["prompt"] != asked[0]["prompt"]


def test_too_few_examples_are_a_sentence() -> None:
    data = Preferences.from_rows([{"prompt": f"{i}?", "chosen": "a", "rejected": "b"} for i in range(3)])
    with pytest.raises(UserError, match=r"2 single-turn examples .* shots=4"):
        with_shots(data.select([0]), data, 4)
