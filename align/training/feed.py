"""What a run learns from: training, held-out and mixed-in data, tokenised and dealt to the steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from accelerate import Accelerator

from align.data.examples import TokenizedPreferences, tokenize
from align.errors import UserError
from align.method.online import OnlineMethod
from align.model.batch import Batch
from align.training.batches import Batches

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from align.data import Preferences
    from align.method.base import Method
    from align.model.policy import Policy
    from align.settings.config import TrainerConfig
    from align.training.plan import Plan
    from align.training.step import Stepper

__all__ = ["Feed", "tokenize_for"]


class Feed:
    """The data of one run as one process sees it; batches are numbered from 0 on."""

    def __init__(
        self,
        policy: Policy,
        method: Method,
        config: TrainerConfig,
        accelerator: Accelerator,
        *,
        train: Preferences | TokenizedPreferences,
        heldout: Preferences | TokenizedPreferences | None,
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
        _require_positions(policy, config)
        if not isinstance(train, TokenizedPreferences):
            with accelerator.main_process_first():  # the other ranks read its cache
                train = tokenize_for(method, train, policy.tokenizer, config.max_length)
        self.train = self._batches(train)
        self.heldout: Batches | None = None
        if heldout is not None and not online:
            # The limit on rejected rows guards the training data; held-out rows that do not fit are only counted.
            if not isinstance(heldout, TokenizedPreferences):
                with accelerator.main_process_first():
                    heldout = tokenize_for(method, heldout, policy.tokenizer, config.max_length, max_rejected=1.0)
            self.heldout = self._batches(heldout)
        if not len(self.train):
            raise UserError("no row of the training data is left to learn from; see the counts of rejected rows.")
        self._mix: Batches | None = None
        if online and online.mixing:
            rows = mix or train.preferences
            with accelerator.main_process_first():
                examples = tokenize(rows, policy.tokenizer, max_length=config.max_length, unit="demonstration")
            self._mix = self._batches(examples)

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


def tokenize_for(
    method: Method,
    data: Preferences,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    max_rejected: float | None = None,
) -> TokenizedPreferences:
    """Tokenise data as the method learns from it: its rows, its unit, each distinct prompt of an on-line method once.

    Args:
        method: That will train.
        data: Training or held-out data.
        tokenizer: Of the policy.
        max_length: Tokens of prompt and response together (``trainer.max_length``).
        max_rejected: Share of the examples that may be rejected; None: that of the data.

    Raises:
        UserError: An on-line method's longest response leaves no room for a prompt, or too many rows are rejected.
    """
    longest, unit = _longest(method, max_length), method.unit
    examples = tokenize(method.learns_from(data), tokenizer, max_length=longest, unit=unit, max_rejected=max_rejected)
    return examples.distinct_prompts() if unit == "prompt" else examples


def _longest(method: Method, max_length: int) -> int:
    """Tokens of the longest example: a prompt that is answered in training must leave room for the response."""
    if not isinstance(method, OnlineMethod):
        return max_length
    response = method.rollout.sampling.max_new_tokens
    if max_length - response < 2:
        raise UserError(
            f"trainer.max_length={max_length} leaves no room for a prompt beside an answer of {response} tokens; raise "
            "it or lower method.max_new_tokens."
        )
    return max_length - response


def _require_positions(policy: Policy, config: TrainerConfig) -> None:
    limit = policy.max_positions
    if limit is not None and config.max_length > limit:
        raise UserError(
            f"trainer.max_length={config.max_length} is beyond the {limit} positions of the model; set "
            f"trainer.max_length={limit} or less."
        )
