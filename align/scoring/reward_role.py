"""Scores by the reward role of a policy."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from align.system.identity import hashed

if TYPE_CHECKING:
    from align.model.batch import Batch
    from align.model.policy import Policy


@dataclass(frozen=True)
class RoleScorer:
    """The reward role of a policy as a scorer, without a second model in memory."""

    policy: Policy
    name: str = "reward_model"

    def identity(self) -> dict[str, Any]:
        """The weights of the role, with its scale."""
        from align.model.sharding import whole_tensor  # which loads torch; methods are imported without it

        head = self.policy.roles.heads["reward"]
        digest = hashlib.sha256(f"{head.mean!r} {head.std!r}".encode())
        for name, weight in sorted(self.policy.roles.parameters("reward").items()):
            values = whole_tensor(weight.detach()).cpu().contiguous().flatten().view(torch.uint8)
            digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode() + values.numpy().tobytes())
        return {"scorer": "reward role", "weights": hashed(digest.digest())}

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
    ) -> list[list[float]]:
        """Return rewards (P, K); a prompt is the column ``messages`` if there is one, else one user turn."""
        from align.data.encoding import encode_conversations
        from align.model.batch import Batch

        encoded = encode_conversations(self.policy.tokenizer, columns.get("messages", prompts), responses)
        batch = Batch(
            prompt_ids=tuple(one.prompt for one in encoded),
            response_ids=tuple(tuple(one.responses) for one in encoded),
            rows=tuple(range(len(prompts))),
        )
        return role_scores(self.policy, batch)


def role_scores(policy: Policy, batch: Batch, *, phase: str | None = None) -> list[list[float]]:
    """Return the reward role's scalar of every response of a batch; ``phase``: see `Policy.in_micro_batches`."""
    if not batch.P:
        return []
    with policy.use("reward"):
        asked = policy.in_micro_batches(
            batch, lambda part: part.with_columns(reward_PK=policy.scalars(part)), phase=phase
        )
    rows = zip(asked["reward_PK"].tolist(), batch.response_ids, strict=True)
    return [scores[: len(responses)] for scores, responses in rows]
