"""Reward modelling and scorers: everything that gives a response a number, under one interface.

Scorers follow :class:`align.scoring.scorer.Scorer`. Configurations find them by name through the ``align.scorers``
entry points; other packages add theirs the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from align.system.lazy import lazy

if TYPE_CHECKING:
    from reward.combinations.cosine_length import CosineLength
    from reward.combinations.ensemble import Ensemble
    from reward.combinations.length_correction import LengthCorrected
    from reward.combinations.weighted_sum import WeightedSum
    from reward.functions import FunctionScorer
    from reward.models.reward_model import RewardModelScorer
    from reward.models.tournament import RankerScorer
    from reward.remote.http import HttpScorer
    from reward.remote.judge import Judge
    from reward.remote.server import RewardServer
    from reward.training.modelling import RewardModel
    from reward.training.ranker import Ranker
    from reward.verifiers.answers import ExactMatch, JsonSchema, MultipleChoice
    from reward.verifiers.ifeval import IFEval
    from reward.verifiers.math_answers import Math
    from reward.verifiers.overlong import SoftOverlong
    from reward.verifiers.rules import Language, Length, Regex, Repetition
    from reward.verifiers.tag_count import TagCount
    from reward.verifiers.token_f1 import TokenF1

__all__ = [
    "CosineLength",
    "Ensemble",
    "ExactMatch",
    "FunctionScorer",
    "HttpScorer",
    "IFEval",
    "JsonSchema",
    "Judge",
    "Language",
    "Length",
    "LengthCorrected",
    "Math",
    "MultipleChoice",
    "Ranker",
    "RankerScorer",
    "Regex",
    "Repetition",
    "RewardModel",
    "RewardModelScorer",
    "RewardServer",
    "SoftOverlong",
    "TagCount",
    "TokenF1",
    "WeightedSum",
]

__getattr__ = lazy(
    "reward",
    {
        "CosineLength": "reward.combinations.cosine_length",
        "Ensemble": "reward.combinations.ensemble",
        "ExactMatch": "reward.verifiers.answers",
        "FunctionScorer": "reward.functions",
        "HttpScorer": "reward.remote.http",
        "IFEval": "reward.verifiers.ifeval",
        "JsonSchema": "reward.verifiers.answers",
        "Judge": "reward.remote.judge",
        "Language": "reward.verifiers.rules",
        "Length": "reward.verifiers.rules",
        "LengthCorrected": "reward.combinations.length_correction",
        "Math": "reward.verifiers.math_answers",
        "MultipleChoice": "reward.verifiers.answers",
        "Ranker": "reward.training.ranker",
        "RankerScorer": "reward.models.tournament",
        "Regex": "reward.verifiers.rules",
        "Repetition": "reward.verifiers.rules",
        "RewardModel": "reward.training.modelling",
        "RewardModelScorer": "reward.models.reward_model",
        "RewardServer": "reward.remote.server",
        "SoftOverlong": "reward.verifiers.overlong",
        "TagCount": "reward.verifiers.tag_count",
        "TokenF1": "reward.verifiers.token_f1",
        "WeightedSum": "reward.combinations.weighted_sum",
    },
)
