"""Roll-outs by a sampler without a model: six prompts, four to a roll-out, two responses to each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from align import Policy, Preferences, TrainerConfig
from align.method.base import Experience
from align.model.batch import Batch
from align.sampling.params import Response
from align.system.processes import Processes
from align.training.feed import Feed
from align.training.rollout import Rollouts, make_source
from methods import PPO

Rows = list[dict[str, str]]
K = 2


class Ends:
    """The last character code of a response as its score, and the words it was asked with."""

    name = "ends"

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def score(self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Any) -> list[list[float]]:
        self.asked.append((list(prompts), [list(row) for row in responses], columns.get("answer")))
        return [[float(ord(text[-1])) for text in row] for row in responses]


class FakeSampler:
    """Draws by seed and key: ``chr(97 + key)`` and the number of the sample; notes what it was asked."""

    asked: ClassVar[list[Any]] = []

    def __init__(self, policy: Any, sampling: Any) -> None:
        self.policy, self.sampling = policy, sampling

    def generate(self, prompts: Any, *, n: int, seed: int, keys: Sequence[int], **_: Any) -> list[list[Response]]:
        self.asked.append((self.policy.role, self.sampling.temperature, n, seed, tuple(keys), torch.is_grad_enabled()))
        assert len(prompts) == len(keys)
        return [[self.draw(key, k) for k in range(n)] for key in keys]

    def draw(self, key: int, k: int) -> Response:
        letters = [self.policy.tokenizer.convert_tokens_to_ids(c) for c in f"{chr(97 + key)}{k if key else 'z'}"]
        return Response([*letters, 2], [-1.0 - key, -2.0, -3.0 - k], finished=k == 0)


class Plain(PPO):
    """Keeps what it is asked, and counts in its state."""

    seen: ClassVar[list[tuple[str, bool, bool]]] = []

    def ask_roles(self, policy: Policy, batch: Batch) -> Batch:
        self.seen.append((policy.role, torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        return batch.with_columns(old_logp_PKT=batch["sampler_logp_PKT"] + batch["score_PK"][..., None] / 1000)

    def compute_advantages(self, batch: Batch, state: Any, total: Any) -> Experience:
        del total
        return Experience(batch, {"own": (torch.tensor(3.0), 2.0)}, {"rollouts": state.get("rollouts", 0) + 1.0})


def make(
    policy: Policy,
    scorer: Any = None,
    processes: Processes | None = None,
    *,
    seed: int = 5,
    cls: type[Plain] = Plain,
    **method: Any,
) -> Rollouts:
    """Six prompts, four to a roll-out, two responses to each."""
    rows = [{"prompt": f"prompt {i}", "answer": f"answer {i}", "chosen": "a", "rejected": "b"} for i in range(6)]
    config = TrainerConfig(batch_size=4, max_length=100, seed=seed, tokens_per_microbatch=60)
    kind = cls(**{"max_new_tokens": 8, "responses": K, "temperature": 0.5, "epochs": 1, **method})
    data = Preferences.from_rows(rows)
    feed = Feed(policy, kind, config, processes or Processes(), train=data, heldout=None, mix=None)
    source = make_source(feed, policy, kind, scorer, processes or Processes(), config)
    assert isinstance(source, Rollouts)
    return source
