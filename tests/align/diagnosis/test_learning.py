"""Rules on losses, gradients and pairs, on both sides of their bounds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from align.diagnosis.course import Course
from tests.align.diagnosis.courses import answered, course, different, names, steady

LN2 = 0.6931471805599453
FALLING = [2.0 - 0.05 * i for i in range(20)]
"""Of which the first five average 1.9 and the last five 1.15, with an error of .05/√2·√(2/5) = .022."""


def zigzag(level: float, swing: float, n: int = 20) -> list[float]:
    """Up and down by ``swing`` about ``level``: neighbours differ by 2·swing, an error of 2·swing/√2·√(2/5)."""
    return [level + swing * (1 if i % 2 else -1) for i in range(n)]


class TestLossAtLn2:
    def found(self, loss: Sequence[float], margin: float = 0.0, **settings: int) -> bool:
        margins = [margin] * len(loss)
        return "loss at ln 2" in names(course({"train/loss": loss, "train/rewards/margins": margins}, **settings))

    @pytest.mark.parametrize(
        ("last", "margin", "said"),
        [(LN2, 0.0, True), (LN2 - 0.009, 0.019, True), (LN2 - 0.011, 0.0, False), (LN2, 0.021, False)],
    )
    def test_bounds(self, last: float, margin: float, said: bool) -> None:
        assert self.found(steady(LN2, last, 10), margin) is said

    def test_another_loss_that_happens_to_be_there(self) -> None:
        """Has no margins."""
        assert "loss at ln 2" not in names(course({"train/loss": [LN2] * 20}))

    def test_half_of_the_run_and_twenty_steps_must_be_done(self) -> None:
        """A warm-up is no illness."""
        assert not self.found([LN2] * 19)
        assert not self.found([LN2] * 20, steps=41)
        assert self.found([LN2] * 20, steps=40)

    def test_of_a_reward_model(self) -> None:
        assert "loss at ln 2" in names(course({"train/loss": [LN2] * 20, "train/margin": [0.0] * 20}))


class TestLearningRateTooLow:
    def run(self, loss: Sequence[float], same: int, norm: Sequence[float] = (1.0,) * 20) -> Course:
        """With ``same`` of 20 held-out answers as they were."""
        texts = different(20)
        after = [*texts[:same], *different(20 - same, "other")]
        metrics = {"train/loss": loss, "train/grad_norm": norm}
        return course(metrics, answered(*texts), answered(*after, scores=[1.0] * 20))

    @pytest.mark.parametrize(("same", "said"), [(16, True), (15, False)])
    def test_answers_that_stay(self, same: int, said: bool) -> None:
        assert ("learning rate too low" in names(self.run([2.0] * 20, same))) is said

    def test_a_loss_that_falls(self) -> None:
        assert "learning rate too low" not in names(self.run(FALLING, 20))
        assert "learning rate too low" in names(self.run(zigzag(2.0, 0.5), 20))

    @pytest.mark.parametrize(("last", "said"), [(0.5, True), (0.49, False), (2.0, True), (2.01, False)])
    def test_a_gradient_that_stays(self, last: float, said: bool) -> None:
        run = self.run([2.0] * 20, 20, steady(1.0, last, 10))
        assert ("learning rate too low" in names(run)) is said

    @pytest.mark.parametrize(("last", "said"), [(1.942, True), (1.938, False)])
    def test_without_answers_the_loss_must_be_flat(self, last: float, said: bool) -> None:
        """By 2 % of the 1.99 of the first five; the last five are .01 above ``last``, the noise is .04."""
        swinging = [a + b for a, b in zip(steady(2.0, last, 10), zigzag(0.0, 0.05), strict=True)]
        metrics = {"train/loss": swinging, "train/grad_norm": [1.0] * 20}
        assert ("learning rate too low" in names(course(metrics))) is said
        assert "learning rate too low" not in names(course(metrics, steps=21))

    def test_a_rate_of_zero(self) -> None:
        run = course({"train/loss": FALLING})
        assert names(run) == []
        run.settings = {"resolved": {**run.resolved, "learning_rate": 0}}
        assert "learning rate too low" in names(run)

    def test_a_loss_at_ln2_is_said_once(self) -> None:
        metrics = {"train/loss": [LN2] * 20, "train/grad_norm": [1.0] * 20, "train/rewards/margins": [0.0] * 20}
        assert names(course(metrics)) == ["loss at ln 2"]


class TestLearningRateTooHigh:
    @pytest.mark.parametrize(
        ("loss", "said"),
        [
            (steady(2.0, 2.09, 10), False),  # a twentieth is .1
            (steady(2.0, 2.5, 10), True),
            ([a + b for a, b in zip(steady(2.0, 2.5, 10), zigzag(0, 0.3), strict=True)], False),  # 3 errors are .8
            ([1.0, *[3.0] * 9, *[2.01] * 10], True),  # it rose within the first window
            ([1.0, *[3.0] * 9, *[2.0] * 10], False),
        ],
    )
    def test_a_loss_above_its_start(self, loss: list[float], said: bool) -> None:
        assert ("learning rate too high" in names(course({"train/loss": loss}))) is said

    @pytest.mark.parametrize(
        ("jumps", "said"),
        [({6: 11, 9: 11, 12: 11}, True), ({6: 11, 9: 11, 12: 10}, False), ({0: 99, 1: 99, 2: 99}, False)],
    )
    def test_a_gradient_that_jumps(self, jumps: dict[int, float], said: bool) -> None:
        """Three times, after the first five steps."""
        norms = [jumps.get(i, 1.0) for i in range(20)]
        run = course({"train/loss": FALLING, "train/grad_norm": norms})
        assert ("learning rate too high" in names(run)) is said

    def test_a_gradient_that_falls_with_the_loss(self) -> None:
        """The rest of it jumps, but never above the usual norm of the beginning."""
        norms = [1.0] * 10 + [0.2 if i % 5 == 0 else 0.01 for i in range(40)]
        assert names(course({"train/loss": steady(2.0, 0.01, 25), "train/grad_norm": norms})) == []

    def test_the_loss_of_roll_outs_says_nothing(self) -> None:
        run = course({"train/loss": steady(0.1, 2.0), "rollout/seconds/rollout": [1.0] * 10})
        assert names(run) == []


class TestOverfitting:
    @pytest.mark.parametrize(
        ("held", "said"),
        [
            ([1.8, 1.0, 1.06], True),
            ([1.8, 1.0, 1.049], False),  # a twentieth of the lowest
            ([1.8, 1.0, 1.5, 1.02], False),
            ([1.0, 1.06], False),  # two values are no course
        ],
    )
    def test_the_held_out_loss_rises_again(self, held: list[float], said: bool) -> None:
        assert ("overfitting" in names(course({"train/loss": FALLING, "heldout/loss": held}))) is said

    def test_the_training_loss_must_fall(self) -> None:
        assert "overfitting" not in names(course({"train/loss": [2.0] * 20, "heldout/loss": [1.8, 1.0, 1.5]}))

    @pytest.mark.parametrize(("held", "said"), [(0.73, True), (0.72, False)])
    def test_one_held_out_loss_above_ln2(self, held: float, said: bool) -> None:
        """1.05 · ln 2 = .728; only a loss of pairs begins there."""
        loss = [LN2] * 5 + [LN2 - 0.02 * i for i in range(15)]
        metrics = {"train/loss": loss, "heldout/loss": [held], "train/rewards/margins": [1.0] * 20}
        assert ("overfitting" in names(course(metrics))) is said
        assert "overfitting" not in names(course({"train/loss": loss, "heldout/loss": [held]}))

    def test_a_loss_that_falls_at_once_begins_at_ln2(self) -> None:
        loss = [LN2, 0.6, 0.3, 0.1, *[0.01] * 36]
        metrics = {"train/loss": loss, "heldout/loss": [1.1], "train/rewards/margins": [1.0] * 40}
        assert "overfitting" in names(course(metrics))
        metrics["train/loss"] = [1.0, *loss[1:]]  # hinge
        assert "overfitting" not in names(course(metrics))


class TestLabelsReversed:
    @pytest.mark.parametrize(("right", "said"), [(38, True), (39, False)])
    def test_held_out_pairs(self, right: int, said: bool) -> None:
        """Of 100: Wilson's interval ends at .4778 for 38 and at .4878 for 39."""
        preferred = [1.0] * right + [0.0] * (100 - right)
        start = answered(preferred=[0.5] * 100)
        run = course({"train/tokens": [1.0]}, start, answered(preferred=preferred))
        assert ("labels reversed" in names(run)) is said

    def test_of_a_reward_model(self) -> None:
        """From its report."""
        for high, said in ((0.47, True), (0.49, False)):
            run = course({"train/tokens": [1.0]})
            run.report = {"intervals": {"accuracy": {"after": {"mean": 0.4, "low": 0.3, "high": high, "n": 99}}}}
            assert ("labels reversed" in names(run)) is said

    def test_the_start_model_orders_nothing(self) -> None:
        assert names(course({"train/tokens": [1.0]}, answered(preferred=[0.0] * 99))) == []


class TestLikelihoodDisplacement:
    def found(self, now: float, reward: float, accuracy: float, phase: str = "heldout") -> bool:
        metrics = {
            f"{phase}/logps/chosen": [now],
            f"{phase}/rewards/chosen": [reward],
            f"{phase}/rewards/accuracies": [accuracy],
        }
        return "likelihood displacement" in names(course(metrics))

    @pytest.mark.parametrize(
        ("now", "reward", "accuracy", "said"),
        [
            (-61.0, -1.1, 0.7, True),  # at β = .1 by 11 nats from −50
            (-59.0, -0.9, 0.7, False),  # by 9 nats, less than a fifth
            (-2.9, -0.09, 0.7, False),  # by .9 of −2
            (-61.0, -1.1, 0.51, False),  # nothing is gained by it
            (-39.0, 1.1, 0.7, False),
        ],
    )
    def test_bounds(self, now: float, reward: float, accuracy: float, said: bool) -> None:
        assert self.found(now, reward, accuracy) is said
        assert self.found(now, reward, accuracy, "train") is said

    def test_it_takes_rewards_against_a_reference(self) -> None:
        metrics = {"heldout/rewards/chosen": [-90.0], "heldout/rewards/accuracies": [0.7]}
        assert names(course(metrics)) == []
        assert names(course({**metrics, "heldout/logps/chosen": [-90.0]}, method={})) == []


class TestNothingLearned:
    def run(
        self, wins: int, loss: Sequence[float] = (2.0,) * 20, preferred: Sequence[float] = (), **metrics: float
    ) -> Course:
        """With ``wins`` of 20 answers better than before and the others worse."""
        before = answered(*different(20), scores=[0.5] * 20, preferred=[0.5] * len(preferred))
        scores = [1.0] * wins + [0.0] * (20 - wins)
        after = answered(*different(20, "other"), scores=scores, preferred=preferred)
        series = {name.replace("__", "/"): [value] for name, value in metrics.items()}
        return course({"train/loss": loss, **series}, before, after)

    @pytest.mark.parametrize(("wins", "said"), [(14, True), (15, False), (6, True)])
    def test_the_win_rate_includes_one_half(self, wins: int, said: bool) -> None:
        """Of 20: Wilson's interval begins at .481 for 14 and at .531 for 15; for 6 it ends at .519."""
        assert names(self.run(wins)) == (["nothing learned"] if said else [])

    def test_worse_than_the_start(self) -> None:
        assert names(self.run(5)) == ["worse than the start"]

    @pytest.mark.parametrize(("right", "said"), [(59, True), (60, False)])
    def test_pairs_that_are_learned(self, right: int, said: bool) -> None:
        """Of 100: Wilson's interval begins at .492 for 59 and at .502 for 60."""
        run = self.run(10, preferred=[1.0] * right + [0.0] * (100 - right))
        assert names(run) == (["nothing learned"] if said else [])

    def test_a_held_out_loss_below_that_of_the_first_steps(self) -> None:
        """By more than twice the error of their mean of 1.96, .4/√2/√5 = .126."""
        for held, said in ((1.72, True), (1.70, False)):
            run = self.run(10, zigzag(2.0, 0.2), heldout__loss=held)
            assert ("nothing learned" in names(run)) is said, held
        assert names(self.run(10, FALLING)) == []

    def test_a_run_that_draws_must_have_raised_its_scores(self) -> None:
        for scores, said in (([0.5] * 10, True), (steady(0.5, 0.9), False)):
            run = self.run(10)
            for step, score in enumerate(scores):
                run.add(step, {"rollout/objective/scores": score})
            assert (names(run) == ["nothing learned"]) is said

    def test_at_the_end_of_the_run_and_of_enough_answers(self) -> None:
        run = self.run(10)
        run.settings = {"resolved": {"steps": 21}}
        assert names(run) == []
        few = [answered(*different(15, word), scores=[0.5] * 15) for word in ("one", "other")]
        assert names(course({"train/loss": [2.0] * 20}, *few)) == []


@pytest.mark.parametrize(
    ("norms", "steps", "said"),
    [
        ([1.0, 0.0, 0.0, 0.0], 4, True),
        ([1.0, 1.0, 0.0, 0.0], 4, True),
        ([1.0, 1.0, 1.0, 0.0], 4, False),
        ([0.0, 0.0, 0.0, 1e-12], 4, False),
        ([0.0], 1, True),
        ([1.0] * 15 + [0.0] * 5, 20, True),
        ([1.0] * 16 + [0.0] * 4, 20, False),
        ([0.0] * 4, 100, False),
        ([0.0] * 5, 100, True),
    ],
)
def test_a_gradient_that_is_0(norms: list[float], steps: int, said: bool) -> None:
    """KTO with β = 1e6: the loss is .5, and stays so."""
    run = course({"train/grad_norm": norms, "train/loss": [0.5] * len(norms)}, steps=steps)
    assert names(run) == (["no gradient"] if said else [])


def test_the_cause_of_a_gradient_that_is_0_is_said_instead() -> None:
    constant = {"train/grad_norm": [0.0] * 10, "rollout/objective/ties": [1.0] * 10}
    assert names(course(constant)) == ["constant reward"]
    same = {
        "train/grad_norm": [0.0] * 20, "train/loss": [0.6931] * 20, "train/rewards/margins": [0.0] * 20,
    }  # fmt: skip
    assert names(course(same)) == ["loss at ln 2"]
