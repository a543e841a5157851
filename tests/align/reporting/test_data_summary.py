"""The summary of the data that a run writes, and its report reads back."""

from __future__ import annotations

from pathlib import Path

from align.data import Preferences
from align.data.examples import tokenize
from align.model.policy import Policy
from align.reporting.data_summary import read_tokens, write_data_summary
from align.system.files import read_json


def test_counts_fingerprints_and_three_examples(
    tiny_policy: Policy, pair_rows: list[dict[str, str]], tmp_path: Path
) -> None:
    data = Preferences.from_rows(pair_rows)
    examples = tokenize(data, tiny_policy.tokenizer, max_length=200, unit="pair")
    write_data_summary(tmp_path, examples, None, tiny_policy.tokenizer)
    found = read_json(tmp_path / "data.json")
    assert list(found["parts"]) == ["training"]
    part = found["parts"]["training"]
    assert (part["examples"], part["tokens"], part["fingerprint"]) == (40, int(sum(examples.lengths)), data.fingerprint)
    assert (part["loading"]["read"], part["tokenising"]["kept"]) == (40, 40)
    rows = read_tokens(found)
    assert len(rows) == 6  # both sides of rows 0, 13 and 26
    texts = ["".join(token.text for token in row if token.kind in ("chosen", "rejected")) for row in rows]
    assert texts == [pair_rows[i][side] for i in (0, 13, 26) for side in ("chosen", "rejected")]
