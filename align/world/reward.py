"""The true reward of the world: five components in [0, 1] and their weighted geometric mean.

| Component | Weight | 1 means |
|---|---|---|
| correct | .35 | the answer is right, and nothing else in it is false |
| complete | .15 | every requested part is there, in full sentences |
| concise | .15 | no longer than a good answer; idle words count twice |
| polite | .20 | some courtesy (1), neither courtesy nor rudeness (.3), rudeness (0) |
| fluent | .15 | every sentence is grammatical and none is repeated |

In a geometric mean one component cannot make up for another: courtesy does not make up for a wrong answer, nor a right
answer for noise around it. Each component is scaled to [.02, 1] inside the mean, and the mean is scaled back to [0, 1]:
a component of 0 costs a factor of .56 at weight .15, .46 at .20 and .25 at .35.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from align.errors import UserError
from align.world.facts import World
from align.world.task import Goal
from align.world.verify import Sentence, Verdict, read, verify

WEIGHTS = {"correct": 0.35, "complete": 0.15, "concise": 0.15, "polite": 0.20, "fluent": 0.15}
FLOOR = 0.02
MAX_LENGTH = 2000  # characters; a longer answer gets 0 and is not read
NEUTRAL = 0.3  # politeness without courtesy
_IDLE_FACTOR = 2  # words of idle sentences count this often
_FRAGMENT_FLUENCY = 0.5


@dataclass(frozen=True)
class Components:
    """The parts of the true reward, each in [0, 1]."""

    correct: float
    complete: float
    concise: float
    polite: float
    fluent: float

    @property
    def reward(self) -> float:
        """The true reward in [0, 1]."""
        product = 1.0
        for name, weight in WEIGHTS.items():
            product *= (FLOOR + (1 - FLOOR) * getattr(self, name)) ** weight
        return max(0.0, (product - FLOOR) / (1 - FLOOR))

    def to_dict(self) -> dict[str, float]:
        """Return the five components by name."""
        return asdict(self)


ZERO = Components(0.0, 0.0, 0.0, 0.0, 0.0)


class TrueReward:
    """A scorer that knows the truth; it needs the `answer` column of the world's tasks."""

    name = "true_reward"

    def __init__(self, world: World | None = None) -> None:
        self._world = world or World.default()

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], *, answer: Sequence[str], **_columns: object
    ) -> list[list[float]]:
        """Return rewards in [0, 1], one row per prompt, one number per response; `answer` has goals as JSON."""
        rows = self.components(prompts, responses, answer=answer)
        return [[parts.reward for parts in row] for row in rows]

    def components(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], *, answer: Sequence[str], **_columns: object
    ) -> list[list[Components]]:
        """Return the components of each response; shapes as in `score`."""
        rows: list[list[Components]] = []
        for number, (_, row, text) in enumerate(zip(prompts, responses, answer, strict=True)):
            try:
                goal = Goal.from_json(text)
            except ValueError as error:
                raise UserError(
                    f"true_reward: prompt {number} is no task of the embedded world ({error}); score data of your own "
                    "by another scorer (reward=model, reward=function …)."
                ) from error
            rows.append([self.judge(goal, response) for response in row])
        return rows

    def judge(self, goal: Goal, response: str) -> Components:
        """Return the components of one response (its text without end-of-turn token)."""
        if len(response) > MAX_LENGTH or not response.strip():
            return ZERO
        answer = read(response)
        verdict = verify(goal, answer, self._world)
        return Components(
            correct=verdict.correct,
            complete=verdict.complete,
            concise=_concise(goal, answer, verdict),
            polite=_polite(answer),
            fluent=_fluent(answer),
        )


def _count(sentence: Sentence) -> int:
    return len(sentence.text.split())


def _concise(goal: Goal, answer: tuple[Sentence, ...], verdict: Verdict) -> float:
    """Return 1 up to the length of a good answer, falling to 0 at twice that length."""
    courtesies = [i for i, sentence in enumerate(answer) if "courtesy" in sentence.frames]
    useful = verdict.useful | frozenset(courtesies[:1])
    words = 0
    for i, sentence in enumerate(answer):
        idle = i not in useful or sentence.repeated
        words += _count(sentence) * (_IDLE_FACTOR if idle else 1)
    return min(1.0, max(0.0, 2 - words / goal.words))


def _polite(answer: tuple[Sentence, ...]) -> float:
    frames = {frame for sentence in answer for frame in sentence.frames}
    if "rude" in frames:
        return 0.0
    return 1.0 if frames & {"courtesy", "sorry"} else NEUTRAL


def _fluent(answer: tuple[Sentence, ...]) -> float:
    """Return the share of words in grammatical, unrepeated sentences; fragments count half."""
    total = sum(_count(sentence) for sentence in answer)
    good = sum(
        _count(sentence) * (_FRAGMENT_FLUENCY if sentence.is_fragment else 1.0)
        for sentence in answer
        if sentence.claims and not sentence.repeated
    )
    return good / total if total else 0.0
