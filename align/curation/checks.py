"""Checks of preference data: bad rows, duplicates, contradictions, leakage, and what the labels can teach.

A reward model or a policy can only learn what tells chosen from rejected. If their lengths do, or single words, that is
what it will learn first; the accuracies of a length rule and of a bag of words say so before a GPU is spent.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from align.curation.profile import WORD
from align.data.formats import known_formats
from align.data.load_report import place_of
from align.data.preferences import leaked_prompts
from align.data.schema import answer_key, question_key
from align.data.validation import BOTH_POLARITIES, LOWER_SCORE
from align.evaluation.statistics import Estimate, rate

if TYPE_CHECKING:
    from align.data import LoadReport, Preferences, TokenizedPreferences

__all__ = ["Finding", "Severity", "check", "label_signal"]

Severity = Literal["note", "warning", "error"]
EXAMPLES = 3
NEAR = 0.8
"""Jaccard similarity of their word triples from which on two prompts are nearly the same."""
_PERMUTATIONS = 128
_FEWEST = 50
"""Pairs below which no accuracy of a rule is measured."""
_FOLDS = 5
_SAMPLE = 20_000
"""Pairs, evenly spaced, on which the accuracy of rules is measured where there are more."""


@dataclass(frozen=True)
class Finding:
    """One thing that a check found."""

    name: str
    severity: Severity
    count: int
    of: int
    """Rows that were looked at."""
    sentence: str
    places: Sequence[str] = ()
    """The first places, ``file:line``."""


def check(
    data: Preferences, heldout: Preferences | None = None, tokenized: TokenizedPreferences | None = None
) -> list[Finding]:
    """Return what is worth knowing about the data, gravest first.

    Args:
        data: Loaded with ``max_rejected=1``, so that bad rows are reported instead of raised.
        heldout: Data that must not share prompts with it.
        tokenized: The same data as a model's tokens, for what the template does with it.
    """
    findings = [*_bad_rows(data.report), *_missing_sides(data), *_duplicates(data), *_labels(data)]
    if heldout is not None:
        findings += _leakage(data, heldout)
    if tokenized is not None:
        findings += _bad_rows(tokenized.report, as_tokens=True)
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted(findings, key=lambda finding: order[finding.severity])


def _bad_rows(report: LoadReport, *, as_tokens: bool = False) -> Iterator[Finding]:
    kinds: tuple[tuple[Mapping[str, int], Severity], ...] = (
        (report.rejected, "error"),
        (report.left_out, "warning"),
        (report.noted, "note"),
    )
    verbs = {"error": "rejected", "warning": "left out", "note": "kept, but"}
    for counts, severity in kinds:
        for reason, count in counts.items():
            if reason == BOTH_POLARITIES:  # a finding of its own
                continue
            grave: Severity = "error" if reason == LOWER_SCORE else severity
            places = [place_of(example, reason) for example in report.examples[reason]]
            named = f"as tokens: {reason}" if as_tokens else reason
            yield Finding(reason, grave, count, report.read, f"{verbs[severity]}: {named}", places)
    if not as_tokens:
        for warning in report.warnings:
            yield Finding("column", "note", report.read, report.read, warning)


def _missing_sides(data: Preferences) -> Iterator[Finding]:
    """Find the rows without one of the sides in data of pairs; unpaired answers have one each, as they should."""
    formats = known_formats()
    if any(name in formats and formats[name].gives == "unpaired" for name in data.report.rule.split(" and ")):
        return
    lacking = np.flatnonzero(~_has_both_sides(data))
    if 0 < len(lacking) < len(data):
        sentence = "rows have no chosen or no rejected answer, which methods that learn from pairs need"
        yield Finding("missing sides", "warning", len(lacking), len(data), sentence, _places(data, lacking))


def _has_both_sides(data: Preferences) -> Any:
    valid = [
        table["chosen"].is_valid().to_numpy() & table["rejected"].is_valid().to_numpy()
        for table in data.tables(["chosen", "rejected"])
    ]
    return np.concatenate([np.zeros(0, bool), *valid])


def _places(data: Preferences, rows: Iterable[int]) -> list[str]:
    """Return the places of the first of some rows."""
    return [data[int(row)]["place"] for row in islice(rows, EXAMPLES)]


def _duplicates(data: Preferences) -> Iterator[Finding]:
    prompts, wholes, pairs = _hashes(data)
    _, first = np.unique(wholes, return_index=True)
    if repeated := len(wholes) - len(first):
        again = np.setdiff1d(np.arange(len(wholes)), first)
        yield Finding("duplicates", "warning", repeated, len(data), "rows occur more than once", _places(data, again))
    both = _turned_round(pairs)
    if len(both):
        sentence = "pairs occur with both polarities: one of the two labels is wrong"
        yield Finding("contradictions", "error", len(both), len(data), sentence, _places(data, both))
    asked, different = np.unique(prompts[first], return_counts=True)
    if sharing := int(np.isin(prompts, asked[different > 1]).sum()):
        sentence = f"rows share a prompt with another one that differs ({len(asked):,} prompts in all)"
        yield Finding("repeated prompts", "note", sharing, len(data), sentence)


def _hashes(data: Preferences) -> tuple[Any, Any, Any]:
    """Return a hash of each row's prompt, of the whole row, and of its pair.

    That of a pair is the same in any order but for its last bit, which is the order; it is 0 for a row that is no pair.
    """
    prompts, wholes, pairs = array("Q"), array("Q"), array("Q")
    for row in data.rows(["prompt", "prompt_id", "tools", "chosen", "rejected"]):
        asked = f"{question_key(row['prompt'], row['prompt_id'])} {row['tools']}"
        chosen, rejected = (answer_key(row[side][0]) if row[side] else None for side in ("chosen", "rejected"))
        prompts.append(_hash(asked))
        wholes.append(_hash(f"{asked} {[chosen, rejected]}"))
        pair = 0
        if chosen is not None and rejected is not None:
            pair = _hash(f"{asked} {sorted([chosen, rejected])}") & ~1 | (chosen < rejected)
        pairs.append(pair)
    return np.asarray(prompts), np.asarray(wholes), np.asarray(pairs)


def _turned_round(pairs: Any) -> Any:
    """Return for every pair that occurs in both orders the first row with the other order than its first."""
    rows = np.flatnonzero(pairs)
    _, first, same = np.unique(pairs[rows] >> 1, return_index=True, return_inverse=True)
    other = np.flatnonzero(pairs[rows] != pairs[rows][first][same])
    _, earliest = np.unique(same[other], return_index=True)
    return rows[np.sort(other[earliest])]


def _hash(text: str) -> int:
    """Stand for a text where there is no room for all of them."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _labels(data: Preferences) -> Iterator[Finding]:
    signal = label_signal(data)
    if signal is None:
        return
    for name, what in (("length", "length alone"), ("words", "a bag of words")):
        estimate: Estimate = signal[name]
        severity: Severity = "warning" if estimate.low is not None and estimate.low > 0.7 else "note"
        sentence = f"{what} orders {estimate.percent('pairs')} of the pairs as labelled; {_meant(estimate)}"
        yield Finding(f"signal of {name}", severity, round(estimate.mean * estimate.n), estimate.n, sentence)
    longer = signal.get("longer")
    if longer is None:
        return
    sentence = f"the longer answer is chosen in {longer.percent('pairs')}"
    if equal := signal["length"].n - longer.n:
        sentence += f"; {equal:,} more have answers of equal length"
    yield Finding("longer is chosen", "note", round(longer.mean * longer.n), longer.n, sentence)


def _meant(estimate: Estimate) -> str:
    """Return what is to be done about a rule that reads no meaning and orders so many pairs."""
    if not estimate.above_half:
        return "it gives nothing away, so nothing is to be done"
    if estimate.low is None or estimate.low <= 0.7:
        return "a model has learnt more than that if it orders more"
    return "a model may learn nothing else: add pairs that it orders wrongly, or compare models at equal length"


def label_signal(data: Preferences) -> dict[str, Estimate] | None:
    """Return how well rules that read no meaning order the pairs; None for fewer than 50 pairs, or all of one prompt.

    ``longer``: the share of the pairs of different lengths whose chosen answer has more words; missing where all
    lengths are equal. ``length``: the accuracy of a logistic regression on the difference of lengths; ``words``: of one
    on the differences of words' counts. Both are measured on fifths of the prompts that they were not fitted to. Of
    more than 20,000 pairs so many are looked at, evenly spaced.
    """
    pairs = np.flatnonzero(_has_both_sides(data))
    if len(pairs) < _FEWEST:
        return None
    count = min(len(pairs), _SAMPLE)
    rows = list(data.select(pairs[np.arange(count) * len(pairs) // count].tolist()))
    sides = [[str(row[side][0]["content"]) for row in rows] for side in ("chosen", "rejected")]
    prompts = [row["prompt_id"] for row in rows]
    if len(set(prompts)) < 2:
        return None
    lengths = [np.array([len(WORD.findall(text)) for text in texts], dtype=float) for texts in sides]
    differences = lengths[0] - lengths[1]
    unequal = np.flatnonzero(differences)
    longer = (differences[unequal] > 0).astype(float)
    return {
        **({"longer": rate(longer, [prompts[i] for i in unequal])} if len(unequal) else {}),
        "length": rate(_accuracy(_standardised(differences)[:, None], prompts), prompts),
        "words": rate(_accuracy(_word_differences(*sides), prompts), prompts),
    }


def _standardised(values: Any) -> Any:
    return values / (values.std() or 1.0)


def _word_differences(chosen: Sequence[str], rejected: Sequence[str]) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(max_features=20_000, token_pattern=WORD.pattern, sublinear_tf=True)
    vectors.fit([*chosen, *rejected])
    return vectors.transform(chosen) - vectors.transform(rejected)


def _accuracy(differences: Any, prompts: Sequence[str]) -> Any:
    """Return for each pair whether a logistic regression on other prompts orders it right: 1, ½ for a tie, or 0."""
    from sklearn.linear_model import LogisticRegression

    names = sorted(set(prompts))
    order = np.random.default_rng(0).permutation(len(names))
    fold_of = {name: int(order[i]) % _FOLDS for i, name in enumerate(names)}
    folds = np.array([fold_of[prompt] for prompt in prompts])
    right = np.full(len(prompts), 0.5)
    for fold in range(_FOLDS):
        inside, outside = folds == fold, folds != fold
        if not inside.any():
            continue
        # Without an intercept and with every pair in both orders, no side is preferred for its place.
        model = LogisticRegression(fit_intercept=False, max_iter=200)
        both = _stacked(differences[outside])
        model.fit(both, np.repeat([1, 0], int(outside.sum())))
        scores = np.asarray(model.decision_function(differences[inside]))
        right[inside] = 0.5 * (scores > 0) + 0.5 * (scores >= 0)
    return right


def _stacked(differences: Any) -> Any:
    from scipy.sparse import issparse, vstack

    return vstack([differences, -differences]) if issparse(differences) else np.concatenate([differences, -differences])


def _leakage(data: Preferences, heldout: Preferences) -> Iterator[Finding]:
    """Find prompts of the held-out data in the training data, exactly and nearly (MinHash)."""
    train = set(data.questions())
    exact = leaked_prompts(data, heldout)
    if exact:
        sentence = "held-out rows ask what the training data asks"
        yield Finding("leakage", "error", len(exact), len(heldout), sentence, exact[:EXAMPLES])
    asked = zip(heldout.questions(), heldout, strict=True)
    others = {key: (_text(row["prompt"]), row["place"]) for key, row in asked if key not in train}
    near = _near((_text(row["prompt"]) for row in data.rows(["prompt"])), others)
    if near:
        sentence = f"held-out prompts are nearly those of the training data (Jaccard similarity {NEAR:g} or more)"
        yield Finding("near leakage", "warning", len(near), len(others), sentence, near[:EXAMPLES])


def _text(prompt: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(str(message["content"]) for message in prompt)


def _near(texts: Iterable[str], others: Mapping[str, tuple[str, str]]) -> list[str]:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=NEAR, num_perm=_PERMUTATIONS)
    hashed: dict[str, MinHash] = {}
    for key, (text, _) in others.items():
        if shingles := _shingles(text):
            hashed[key] = MinHash(num_perm=_PERMUTATIONS)
            hashed[key].update_batch(shingles)
            index.insert(key, hashed[key])
    found: Counter[str] = Counter()
    seen: set[int] = set()
    for text in texts:
        shingles = _shingles(text)
        if not shingles or (key := _hash(text)) in seen:
            continue
        seen.add(key)
        own = MinHash(num_perm=_PERMUTATIONS)
        own.update_batch(shingles)
        found.update(str(key) for key in index.query(own) if hashed[str(key)].jaccard(own) >= NEAR)
    return [others[key][1] for key in others if key in found]


def _shingles(text: str) -> list[bytes]:
    """Return the triples of words of a text, of characters where it has fewer than five words."""
    words = WORD.findall(text.lower())
    if len(words) < 5:
        words = list("".join(words))
    return [" ".join(words[i : i + 3]).encode() for i in range(max(1, len(words) - 2))] if words else []


def as_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return the findings as plain values."""
    return [asdict(finding) for finding in findings]
