"""Findings of small sets by hand, and what rules without meaning get on data where the answer is known."""

from __future__ import annotations

import random
from typing import Any

from align.curation.checks import Finding, as_json, check, label_signal
from align.data import Preferences, tokenize

WORDS = [f"w{number}" for number in range(40)]


def loaded(rows: list[dict[str, Any]], name: str = "rows") -> Preferences:
    return Preferences.from_rows(rows, max_rejected=1.0, name=name)


def found(findings: list[Finding]) -> dict[str, tuple[str, int, int, tuple[str, ...]]]:
    return {one.name: (one.severity, one.count, one.of, tuple(one.places)) for one in findings}


def pair(prompt: str, chosen: str = "a", rejected: str = "b", **fields: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **fields}


def test_sound_data_has_no_finding() -> None:
    assert check(loaded([pair("p"), pair("q")])) == []


def test_bad_rows_columns_and_remarks() -> None:
    rows = [pair("p", mood="good"), pair("q", "", mood="good"), pair("r", "same", "same", mood="good")]
    findings = check(loaded(rows))
    assert found(findings) == {
        "empty chosen": ("error", 1, 3, ("rows:2",)),
        "identical pair": ("error", 1, 3, ("rows:3",)),
        "column": ("note", 3, 3, ()),
    }
    assert findings[-1].sentence == 'column "mood" is not read'


def test_duplicates_contradictions_and_repeated_prompts() -> None:
    """Row 2 repeats row 1, row 3 turns it round; these three share a prompt."""
    rows = [pair("p"), pair("p"), pair("p", "b", "a"), pair("q"), pair("r")]
    assert found(check(loaded(rows))) == {
        "contradictions": ("error", 1, 5, ("rows:3",)),
        "duplicates": ("warning", 1, 5, ("rows:2",)),
        "repeated prompts": ("note", 3, 5, ()),
    }


def test_scores_against_the_labels() -> None:
    scores = [(2.0, 1.0), (1.0, 2.0), (1.0, 1.0), (None, 3.0)]
    rows = [pair(f"p{n}", chosen_score=high, rejected_score=low) for n, (high, low) in enumerate(scores)]
    assert found(check(loaded(rows))) == {"chosen has a lower score than rejected": ("error", 1, 4, ("rows:2",))}


def test_leakage_exact_and_near() -> None:
    """Ten words have eight triples; another last word leaves seven of nine in both, a Jaccard similarity of 7/9."""
    long = "one two three four five six seven eight nine ten"
    longer = f"{long} eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"
    train = loaded([pair("exactly this"), pair(longer), pair(long), pair("far away")])
    heldout = [pair("exactly this"), pair(longer.upper()), pair(long[:-3] + "x"), pair("wholly other words than those")]
    findings = found(check(train, loaded(heldout, "held")))
    assert findings == {
        "leakage": ("error", 1, 4, ("held:1",)),
        "near leakage": ("warning", 1, 3, ("held:2",)),
    }


def test_what_a_template_and_a_length_leave_out(tiny_policy: Any) -> None:
    rows = loaded([pair("p"), pair("p" * 200)])
    tokens = tokenize(rows, tiny_policy.tokenizer, max_length=100, max_rejected=1.0)
    (finding,) = check(rows, tokenized=tokens)
    assert (finding.name, finding.severity, finding.count) == ("prompt longer than max_length", "warning", 1)
    assert finding.sentence == "left out: as tokens: prompt longer than max_length"


def constructed(chosen: Any, rejected: Any, n: int = 200) -> Preferences:
    """Return pairs of texts that functions of a generator make."""
    generator = random.Random(0)
    return loaded([pair(f"p{i}", f"c{i} " + chosen(generator), f"r{i} " + rejected(generator)) for i in range(n)])


def some(least: int, most: int) -> Any:
    return lambda generator: " ".join(generator.choices(WORDS, k=generator.randint(least, most)))


def test_labels_that_length_decides() -> None:
    signal = label_signal(constructed(some(12, 20), some(2, 9)))
    assert signal is not None
    assert (signal["longer"].mean, signal["length"].mean) == (1.0, 1.0)
    findings = found(check(constructed(some(12, 20), some(2, 9))))
    assert findings["signal of length"][:3] == ("warning", 200, 200)
    assert findings["longer is chosen"][:3] == ("note", 200, 200)


def test_labels_that_a_word_decides() -> None:
    """Ten words each: length says nothing, and every pair is a tie of lengths."""
    signal = label_signal(constructed(lambda g: "good " + some(9, 9)(g), lambda g: "bad " + some(9, 9)(g)))
    assert signal is not None
    assert signal["words"].mean == 1.0
    assert signal["length"].mean == 0.5
    assert "longer" not in signal


def test_answers_of_equal_length_are_counted_apart() -> None:
    """Of 60 pairs 20 are of equal length; of the other 40 the longer answer is chosen in 30."""
    sizes = [(2, 2)] * 20 + [(3, 2)] * 30 + [(2, 3)] * 10
    rows = [pair(f"p{n}", " ".join(WORDS[:c]), " ".join(WORDS[-r:])) for n, (c, r) in enumerate(sizes)]
    (finding,) = [one for one in check(loaded(rows)) if one.name == "longer is chosen"]
    assert (finding.count, finding.of) == (30, 40)
    assert finding.sentence.startswith("the longer answer is chosen in 75")
    assert finding.sentence.endswith("; 20 more have answers of equal length")


def test_rows_without_a_side_among_pairs() -> None:
    rows = [pair("p"), {**pair("q"), "rejected": None}, {**pair("r"), "chosen": None}]
    assert found(check(loaded(rows)))["missing sides"] == ("warning", 2, 3, ("rows:2", "rows:3"))
    alone = [{**pair("q"), "rejected": None}, {**pair("r"), "rejected": None}]
    assert check(loaded(alone)) == []
    unpaired = [{"prompt": f"p{n}", "completion": "a", "label": n < 2} for n in range(3)]
    assert check(loaded(unpaired)) == []


def test_random_labels_have_no_signal() -> None:
    signal = label_signal(constructed(some(5, 15), some(5, 15), n=400))
    assert signal is not None
    for name, estimate in signal.items():
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low < 0.5 < estimate.high, name
        assert 0.4 < estimate.mean < 0.6, name
    assert {one.severity for one in check(constructed(some(5, 15), some(5, 15)))} == {"note"}


def test_what_a_signal_means_is_said() -> None:
    def said(data: Preferences) -> dict[str, str]:
        return {f.name: f.sentence.partition("; ")[2] for f in check(data) if f.name.startswith("signal of")}

    assert said(constructed(some(5, 15), some(5, 15), n=400))["signal of length"].startswith("it gives nothing away")
    assert said(constructed(some(12, 20), some(2, 9)))["signal of length"].startswith("a model may learn nothing else")


def test_few_pairs_have_no_accuracy() -> None:
    assert label_signal(constructed(some(5, 9), some(5, 9), n=49)) is None
    assert label_signal(constructed(some(5, 9), some(5, 9), n=50)) is not None


def test_pairs_of_one_prompt_have_no_accuracy_on_other_prompts() -> None:
    assert label_signal(loaded([pair("p", f"good {n}", f"bad {n}") for n in range(60)])) is None


def test_findings_as_plain_values() -> None:
    finding = Finding("duplicates", "warning", 1, 2, "rows occur more than once", ["a:1"])
    assert as_json([finding]) == [
        {
            **{"name": "duplicates", "severity": "warning", "count": 1, "of": 2},
            **{"sentence": "rows occur more than once", "places": ["a:1"]},
        }
    ]
