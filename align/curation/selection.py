"""Few examples for instruction tuning: good ones that differ from each other (LIMA, Zhou et al. 2023).

LIMA's thousand examples were chosen by hand for quality and diversity. Here quality is a number (a score of the data,
of a scorer, or the length of the answer) and diversity means that the examples come from different clusters of prompts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from align.errors import UserError, did_you_mean
from align.scoring.scorer_inputs import prompt_text

if TYPE_CHECKING:
    from align.data import Preferences
    from align.scoring.scorer import Scorer

__all__ = ["Selection", "quality", "quality_scorer", "select"]

_SHOWN = 8
"""Sources that a summary names."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The rows that were chosen, and why."""

    rows: Sequence[int]
    """Indices, best first."""
    clusters: Mapping[int, int] = field(default_factory=dict[int, int])
    """Chosen rows by cluster of prompts."""
    sources: Mapping[str, int] = field(default_factory=dict[str, int])
    """Chosen rows by source."""
    capped: int = 0
    """Better rows that were passed over because their source was full."""
    quality: tuple[float, float] = (0.0, 0.0)
    """Mean quality of all rows, and of the chosen ones."""

    def summary(self, of: int, by: str) -> str:
        """Say what was taken `of` so many rows, whose quality is that given `by`."""
        before, after = self.quality
        shown = [f"{name or '(none)'} {count:,}" for name, count in list(self.sources.items())[:_SHOWN]]
        more = f", and {len(self.sources) - _SHOWN} more" if len(self.sources) > _SHOWN else ""
        return (
            f"{len(self.rows):,} of {of:,} rows from {len(self.clusters)} clusters of prompts; mean {by} "
            f"{before:.4g} → {after:.4g}; {self.capped:,} better rows passed over because their source was full.\n"
            f"Sources: {', '.join(shown)}{more}"
        )


def quality_scorer(by: str) -> Scorer | None:
    """Return the scorer that ``--by`` names; None for a number that the rows have themselves.

    Raises:
        UserError: It is neither.
    """
    from align.scoring.from_config import YAML, read_scorer
    from align.settings import registry

    own = ("length", "score")
    known = list(dict.fromkeys([*own, *registry.choices("scorers")]))
    if by not in known and not by.endswith(YAML):
        raise UserError(
            f"select: --by={by} is no score that rows have, and no scorer; give {', '.join(known)}, or a YAML file "
            f"with `scorer:` and its settings; a column of numbers is read as the score by "
            f"--columns='{{chosen_score: COLUMN}}'.{did_you_mean(by, known)}"
        )
    if by in own:
        return None
    try:
        return read_scorer(by)
    except UserError as error:
        remedy = "" if by.endswith(YAML) else f" Give its settings in a YAML file that begins with `scorer: {by}`."
        raise UserError(f"select: --by {error}{remedy}") from error


def quality(data: Preferences, by: str, scorer: Scorer | None) -> list[float]:
    """Return the number that rows are chosen by: a score of the data, words of the chosen answer, or a scorer's.

    Raises:
        UserError: A row has no chosen answer, or no score.
    """
    _require_all(data, "chosen", "chosen answer", "give demonstrations or pairs")
    if scorer is not None:
        from align.scoring.checked_scores import score_texts

        rows = list(data)
        return [scores[0] for scores in score_texts(scorer, rows, [[str(row["chosen"][0]["content"])] for row in rows])]
    if by == "score":
        remedy = "give --by length or a scorer, or the column of the scores by --columns='{chosen_score: COLUMN}'"
        _require_all(data, "chosen_score", "score", remedy)
        return [row["chosen_score"] for row in data]
    from align.curation.profile import WORD

    return [float(len(WORD.findall(str(row["chosen"][0]["content"])))) for row in data]


def _require_all(data: Preferences, column: str, name: str, remedy: str) -> None:
    lacking = [row["place"] for row in data if row[column] is None]
    if lacking:
        raise UserError(
            f"select: {len(lacking):,} of {len(data):,} rows have no {name} (first: {lacking[0]}); {remedy}."
        )


def select(
    data: Preferences, n: int, quality: Sequence[float], *, per_source: int | None = None, seed: int = 0
) -> Selection:
    """Choose n rows: in turn the best one left of each cluster of prompts, clusters with the best rows first.

    The clusters are k-means on the TF-IDF of the prompts' words, ``√n`` of them, so that each gives about √n rows. A
    prompt is taken once.

    Args:
        data: To choose from.
        n: Number of rows.
        quality: One number per row; more is better.
        per_source: Largest number of rows of one source.
        seed: Of the clusters.

    Raises:
        UserError: There are too few rows or prompts.
    """
    if not 0 < n <= len(data):
        raise UserError(f"select: --rows={n} of {len(data)} rows; give a number from 1 to {len(data)}.")
    if per_source is not None and per_source < 1:
        raise UserError(f"select: --per-source={per_source}; give 1 or more, or leave it out for any number.")
    prompts = [prompt_text(row["prompt"]) for row in data]
    sources = [row["source"] or "" for row in data]
    queues: dict[int, list[int]] = defaultdict(list)
    cluster_of = _clusters(prompts, max(1, round(n**0.5)), seed)
    for row in sorted(range(len(data)), key=lambda i: (-quality[i], i)):
        queues[int(cluster_of[row])].append(row)
    turn_order = sorted(queues, key=lambda cluster: (-quality[queues[cluster][0]], cluster))
    chosen: list[int] = []
    seen: set[str] = set()
    full, taken = 0, Counter[str]()
    while len(chosen) < n and any(queues.values()):
        for cluster in turn_order:
            while queues[cluster]:
                row = queues[cluster].pop(0)
                if prompts[row] in seen:
                    continue
                if per_source is not None and taken[sources[row]] >= per_source:
                    full += 1
                    continue
                seen.add(prompts[row])
                taken[sources[row]] += 1
                chosen.append(row)
                break
            if len(chosen) == n:
                break
    if len(chosen) < n:
        raise UserError(
            f"select: only {len(chosen)} rows have prompts that differ and sources with room; lower --rows={n}"
            + ("." if per_source is None else f" or raise --per-source={per_source}.")
        )
    return Selection(
        rows=chosen,
        clusters=dict(Counter(int(cluster_of[row]) for row in chosen).most_common()),
        sources=dict(taken.most_common()),
        capped=full,
        quality=(float(np.mean(quality)), float(np.mean([quality[row] for row in chosen]))),
    )


def _clusters(texts: Sequence[str], k: int, seed: int) -> NDArray[np.int64]:
    """Return the cluster of each text, by k-means on TF-IDF of words (of characters where there are few words)."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 4), max_features=20_000, sublinear_tf=True)
    # The type that scikit-learn infers for n_init is that of its default.
    means = MiniBatchKMeans(k, random_state=seed, n_init=3, batch_size=1024)  # pyright: ignore[reportArgumentType]
    found = means.fit_predict(vectors.fit_transform(texts))
    return np.asarray(found, dtype=np.int64)
