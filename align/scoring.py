"""Scorers as a configuration names them: ``scorer: NAME`` and the settings of that scorer.

A setting that itself has ``scorer:`` is a scorer too, so that they nest::

    scorer: weighted_sum
    scorers:
      quality: {scorer: reward_model, model: runs/reward/final/reward}
      brevity: {scorer: length, maximum: 60}
    weights: {quality: 1.0, brevity: 0.2}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, cast

from align import registry
from align.config import build
from align.errors import UserError
from align.scores import score

if TYPE_CHECKING:
    from align.batch import Batch
    from align.evaluation import Scorer
    from align.policy import Policy


YAML = (".yaml", ".yml")
"""Endings of files that describe a scorer."""


def make_scorer(settings: Mapping[str, Any], place: str = "reward") -> Scorer:
    """Make the scorer that ``settings`` describe; ``place`` is the key they stand under.

    Raises:
        UserError: There is no such scorer, or one of its settings is wrong.
    """
    name = settings.get("scorer")
    if not isinstance(name, str):
        raise UserError(f"{place}.scorer is missing: name one of {', '.join(registry.choices('scorers'))}.")
    try:
        cls: Any = registry.load("scorers", name)
    except UserError as error:
        raise UserError(f"{place}.scorer: {error}") from error
    values = {key: _made(value, f"{place}.{key}") for key, value in settings.items() if key != "scorer"}
    try:
        return build(cast("type[Any]", cls), values) if is_dataclass(cls) else cls(**values)
    except (UserError, TypeError) as error:
        raise UserError(f"{place} ({name}): {error}") from error


def _made(value: Any, place: str) -> Any:
    if not isinstance(value, Mapping):
        return value
    if "scorer" in value:
        return make_scorer(value, place)
    return {key: _made(inner, f"{place}.{key}") for key, inner in value.items()}


def read_scorer(word: str) -> Scorer:
    """Make the scorer of a command-line word: a registered name, or a YAML file with ``scorer:`` and its settings.

    Raises:
        UserError: Neither, or the file is not readable, or the scorer cannot be made.
    """
    settings = read_settings(word) if word.endswith(YAML) else {"scorer": word}
    return make_scorer(settings, word)


def read_settings(file: str) -> dict[str, Any]:
    """The settings of a scorer in a YAML file; raises `UserError` where it is not readable or holds none."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        settings = OmegaConf.to_container(OmegaConf.load(file), resolve=True)
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{file} cannot be read: {str(error).splitlines()[0]}.") from error
    if not isinstance(settings, Mapping):
        raise UserError(f"{file} holds no settings; write `scorer: NAME` in it.")
    if "scorer" not in settings:
        raise UserError(f"{file}: `scorer:` is missing: name one of {', '.join(registry.choices('scorers'))}.")
    return {str(key): value for key, value in settings.items()}


@dataclass(frozen=True)
class RoleScorer:
    """The reward role of a policy as a scorer: no second model in memory."""

    policy: Policy
    name: str = "reward_model"
    tokens_per_batch: int = 16384

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
    ) -> list[list[float]]:
        """Rewards (P, K); a prompt is its column ``messages`` where there is one, else one user turn."""
        from align.batch import Batch
        from align.data.tokenization import encode_prompt, encode_response

        tokenizer = self.policy.tokenizer
        batch = Batch(
            prompt_ids=tuple(encode_prompt(tokenizer, prompt) for prompt in columns.get("messages", prompts)),
            response_ids=tuple(tuple(encode_response(tokenizer, text) for text in row) for row in responses),
            rows=tuple(range(len(prompts))),
        )
        return role_scores(self.policy, batch, tokens=self.tokens_per_batch)


def role_scores(policy: Policy, batch: Batch, *, tokens: int = 16384) -> list[list[float]]:
    """The reward role's scalar of every response of a batch whose ``rows`` count its prompts from 0."""
    import torch

    scores: list[list[float]] = [[] for _ in range(batch.P)]
    with torch.no_grad(), policy.use("reward"):
        for part in batch.micro_batches(tokens, policy.layout):
            for p, row in zip(part.rows, policy.scalars(part).tolist(), strict=True):
                scores[p] = row[: len(batch.response_ids[p])]
    return scores


def score_texts(
    scorer: Scorer, rows: Sequence[Mapping[str, Any]], responses: Sequence[Sequence[str]]
) -> list[list[float]]:
    """Scores (P, K) of K responses to the prompts of these rows of a data set; every one a finite number.

    Raises:
        ScorerError: Scores are missing, or are no finite numbers.
    """
    return score(scorer, [prompt_text(row["prompt"]) for row in rows], responses, **scorer_columns(rows))


def scorer_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """What a scorer gets beside prompts and responses, one value per prompt."""
    return {
        "messages": [row["prompt"] for row in rows],
        "chosen": [row["chosen"][0]["content"] if row["chosen"] else None for row in rows],
        "answer": [row["answer"] for row in rows],
        "source": [row["source"] for row in rows],
    }


def prompt_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """A prompt of the shared schema as readable text: its only message, or the whole conversation."""
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)
