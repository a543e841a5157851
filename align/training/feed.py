"""What a run learns from: training, held-out and mixed-in data, tokenised and dealt to the steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from accelerate import Accelerator

from align.data.examples import tokenize
from align.errors import UserError
from align.method.online import OnlineMethod
from align.model.batch import Batch
from align.training.batches import Batches

if TYPE_CHECKING:
    from align.data import Preferences, TokenizedPreferences, Unit
    from align.method.base import Method
    from align.model.policy import Policy
    from align.settings.config import TrainerConfig
    from align.training.plan import Plan
    from align.training.step import Stepper

__all__ = ["Feed"]


class Feed:
    """The data of one run as one process sees it; batches are numbered from 0 on."""

    def __init__(
        self,
        policy: Policy,
        method: Method,
        config: TrainerConfig,
        accelerator: Accelerator,
        *,
        train: Preferences,
        heldout: Preferences | None,
        mix: Preferences | None,
    ) -> None:
        """
        Args:
            policy: Whose tokenizer counts, and whose positions bound the texts.
            method: Says which unit of the data it learns from; of an on-line method the data gives prompts.
            config: For ``max_length`` and ``seed``.
            accelerator: Who this process is.
            train: See :meth:`align.training.trainer.Trainer.fit`, as the following.
            heldout: Not read for an on-line method, which has metrics of its own samples only.
            mix: Not read for a method that mixes nothing in.

        Raises:
            UserError: No room in ``max_length``, or nothing left to learn from.
        """
        self._policy, self._method, self._accelerator = policy, method, accelerator
        self._seed = config.seed
        online = method if isinstance(method, OnlineMethod) else None
        data = self._tokenize(train, _longest(policy, config, online))
        if online:
            data = data.distinct_prompts()
        self.train = self._batches(data)
        self.heldout: Batches | None = None
        if heldout is not None and not online:
            # The limit on rejected rows guards the training data; held-out rows that do not fit are only counted.
            self.heldout = self._batches(self._tokenize(heldout, config.max_length, max_rejected=1.0))
        if not len(self.train):
            raise UserError("no row of the training data is left to learn from; see the counts of rejected rows.")
        self._mix: Batches | None = None
        if online and online.mixing:
            self._mix = self._batches(self._tokenize(mix or train, config.max_length, unit="demonstration"))

    def batch(self, number: int, plan: Plan) -> Batch:
        """This rank's share."""
        return self.train.share(self._turn(number, plan))

    def prompts(self, number: int, plan: Plan) -> tuple[Batch, list[int]]:
        """This rank's share of the prompts of a roll-out, and the rows of all of them."""
        chosen = self._turn(number, plan)
        return self.train.share(chosen), [self.train.data[i].index for i in chosen]

    def mixed(self, number: int, plan: Plan) -> Batch | None:
        """Demonstrations to mix into a step, as many as it has prompts."""
        if self._mix is None:
            return None
        size = min(max(1, plan.batch_size // plan.minibatches), len(self._mix))
        return self._mix.share(self._mix.turn(number, size, len(self._mix) // size, self._seed + 2))

    def cache_columns(self, stepper: Stepper, between: Callable[[], None]) -> None:
        """Compute the method's cached columns, by the policy as it is now; ``between`` may raise to stop."""
        for batches in (self.train, self.heldout):
            if batches is not None:
                batches.cache_columns(self._method, stepper, between)

    def _turn(self, number: int, plan: Plan) -> list[int]:
        return self.train.turn(number, plan.batch_size, plan.turns_per_epoch, self._seed)

    def _batches(self, data: TokenizedPreferences) -> Batches:
        return Batches(data, rank=self._accelerator.process_index, world=self._accelerator.num_processes)

    def _tokenize(
        self, preferences: Preferences, max_length: int, max_rejected: float | None = None, unit: Unit | None = None
    ) -> TokenizedPreferences:
        with self._accelerator.main_process_first():  # the other ranks read its cache
            return tokenize(
                self._method.learns_from(preferences),
                self._policy.tokenizer,
                max_length=max_length,
                unit=unit or self._method.unit,
                max_rejected=max_rejected,
            )


def _longest(policy: Policy, config: TrainerConfig, online: OnlineMethod | None) -> int:
    """Tokens of the longest training example: of an on-line method's the prompt, which leaves room for an answer."""
    limit = policy.max_positions
    if limit is not None and config.max_length > limit:
        raise UserError(
            f"trainer.max_length={config.max_length} is beyond the {limit} positions of the model; set "
            f"trainer.max_length={limit} or less."
        )
    if online is None:
        return config.max_length
    longest = config.max_length - online.rollout.sampling.max_new_tokens
    if longest < 2:
        raise UserError(
            f"trainer.max_length={config.max_length} leaves no room for a prompt beside an answer of "
            f"{online.rollout.sampling.max_new_tokens} tokens; raise it or lower method.max_new_tokens."
        )
    return longest
