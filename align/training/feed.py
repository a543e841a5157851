"""What a run learns from: training, held-out and mixed-in data, tokenised and dealt to the steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator

from align.data.examples import TokenizedPreferences, tokenize
from align.errors import UserError
from align.method.online import OnlineMethod
from align.model.batch import Batch
from align.system.processes import process_state
from align.training.batches import Batches

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from align.data import Preferences
    from align.method.base import Method
    from align.model.policy import Policy
    from align.settings.config import TrainerConfig
    from align.training.plan import Plan
    from align.training.step import Stepper

__all__ = ["Feed", "heldout_examples", "training_examples"]


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
            train = training_examples(method, train, policy.tokenizer, max_length=config.max_length)
        self.train = self._batches(train)
        self.heldout: Batches | None = None
        if heldout is not None and not online:
            if not isinstance(heldout, TokenizedPreferences):
                heldout = heldout_examples(method, heldout, policy.tokenizer, max_length=config.max_length)
            self.heldout = self._batches(heldout)
        if not len(self.train):
            raise UserError("no row of the training data is left to learn from; see the counts of rejected rows.")
        self._mix: Batches | None = None
        if online and online.mixing:
            data = method.learns_from(mix or train.preferences)
            examples = _tokenize(data, policy.tokenizer, max_length=config.max_length, unit="demonstration")
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


def training_examples(
    method: Method, data: Preferences, tokenizer: PreTrainedTokenizerBase, *, max_length: int
) -> TokenizedPreferences:
    """Tokenise what a method trains on; of an on-line method the distinct prompts that leave room for a response.

    Raises:
        UserError: ``max_length`` is too short, or too many rows are rejected.
    """
    online = method if isinstance(method, OnlineMethod) else None
    if online:
        response = online.rollout.sampling.max_new_tokens
        if max_length - response < 2:
            raise UserError(
                f"trainer.max_length={max_length} leaves no room for a prompt beside an answer of {response} tokens; "
                "raise it or lower method.max_new_tokens."
            )
        max_length -= response
    examples = _tokenize(method.learns_from(data), tokenizer, max_length=max_length, unit=method.unit)
    return examples.distinct_prompts() if online else examples


def heldout_examples(
    method: Method, data: Preferences, tokenizer: PreTrainedTokenizerBase, *, max_length: int
) -> TokenizedPreferences:
    """Tokenise held-out data for the method's own metrics.

    Rows that do not fit are only counted: the limit on rejected rows guards the training data.
    """
    return _tokenize(method.learns_from(data), tokenizer, max_length=max_length, unit=method.unit, max_rejected=1.0)


def _tokenize(data: Preferences, tokenizer: PreTrainedTokenizerBase, **settings: Any) -> TokenizedPreferences:
    with process_state().main_process_first():  # the other ranks read its cache
        return tokenize(data, tokenizer, **settings)


def _require_positions(policy: Policy, config: TrainerConfig) -> None:
    limit = policy.max_positions
    if limit is not None and config.max_length > limit:
        raise UserError(
            f"trainer.max_length={config.max_length} is beyond the {limit} positions of the model; set "
            f"trainer.max_length={limit} or less."
        )
