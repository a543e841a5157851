"""Preference pairs for the benchmarks: those of HH-RLHF where they are, else generated ones of the same lengths."""

from __future__ import annotations

import json
from pathlib import Path

HH = Path(__file__).resolve().parents[3] / "shared/data/hh-rlhf-harmless-test/test.jsonl.gz"

QUANTILES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
LENGTHS = {
    "prompt": (11, 16, 18, 31, 95, 166, 268, 339, 530, 823),
    "chosen": (2, 7, 9, 15, 28, 53, 88, 117, 190, 261),
    "rejected": (2, 7, 10, 18, 36, 65, 107, 143, 243, 559),
}
"""Tokens at the `QUANTILES` of the 2,303 usable pairs of HH-RLHF's ``harmless-base`` test split (Bai et al. 2022),
under a byte-level BPE of 16,384 tokens trained on their texts; turn markers and end of turn are counted."""

_WORDS = """
the of and a to in is you that it he was for on are as with his they I at be this have from or one had by word but not
what all were we when your can said there use an each which she do how their if will up other about out many then them
these so some her would make like him into time has look two more write go see number no way could people my than first
water been call who oil its now find long down day did get come made may part
"""
"""Each is one token with its blank, in nearly every tokenizer."""


def find_pairs(folder: Path, seed: int) -> Path:
    """Return the file of HH pairs, or that of generated ones, which is then written to ``folder``."""
    if HH.is_file():
        return HH
    (folder / "generated").mkdir()
    return write_pairs(folder / "generated" / "pairs.jsonl", rows=2303, seed=seed)


def write_pairs(file: Path, *, rows: int, seed: int) -> Path:
    """Write pairs of random words whose lengths have the distribution of HH-RLHF, independent of each other."""
    import numpy as np

    rng, words = np.random.default_rng(seed), _WORDS.split()
    lengths = {side: np.interp(rng.random(rows), QUANTILES, values) for side, values in LENGTHS.items()}
    # The template around a prompt is nearly a token for each letter where the tokenizer is trained on these words
    # alone; a response ends in the end of turn.
    markers = {"prompt": 29, "chosen": 1, "rejected": 1}
    with file.open("w", encoding="utf-8") as stream:
        for row in range(rows):
            texts = {
                side: rng.choice(words, max(1, round(lengths[side][row]) - markers[side])).tolist() for side in LENGTHS
            }
            stream.write(json.dumps({side: " ".join(text) for side, text in texts.items()}) + "\n")
    return file
