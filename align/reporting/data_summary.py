"""``data.json`` of a run: how its data were read, and a few examples as the tokens that its method sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.curation.display import Token, tokens_of
from align.data.encoding import end_of_turn_id
from align.system.files import write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from align.data import TokenizedPreferences

__all__ = ["DATA", "read_tokens", "write_data_summary"]

DATA = "data.json"
_EXAMPLES = 3


def write_data_summary(
    folder: Path,
    train: TokenizedPreferences,
    heldout: TokenizedPreferences | None,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Write the reports of loading and tokenising, and examples evenly spaced over those of training."""
    parts = {"training": train, **({"held-out": heldout} if heldout is not None else {})}
    end, count = end_of_turn_id(tokenizer), min(_EXAMPLES, len(train))
    examples = [train[i * len(train) // count] for i in range(count)]
    write_json(
        folder / DATA,
        {
            "parts": {
                name: {
                    "loading": asdict(data.preferences.report),
                    "tokenising": asdict(data.report),
                    "examples": len(data),
                    "tokens": int(data.lengths.sum()),
                    "fingerprint": data.preferences.fingerprint,
                }
                for name, data in parts.items()
            },
            "tokens": [
                [asdict(token) for token in row] for example in examples for row in tokens_of(example, tokenizer, end)
            ],
        },
    )


def read_tokens(data: Mapping[str, Any]) -> Sequence[Sequence[Token]]:
    """Return the rows of tokens in the content of ``data.json``."""
    return [[Token(**token) for token in row] for row in data["tokens"]]
