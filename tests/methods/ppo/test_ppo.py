"""PPO as a method: details that decide whether it works, its settings, and what it learns."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from align import Policy, Preferences, Trainer, TrainerConfig
from align.errors import UserError
from align.evaluation.evaluator import Evaluator
from align.model.batch import Batch
from align.runs.tracker import of_phase, read_records
from align.sampling.params import SamplingParams
from align.settings.adapter import Adapter
from methods import PPO

Rows = list[dict[str, str]]
Metrics = dict[str, float]


class Plain:
    """Share of ASCII among the characters of a response."""

    name = "plain"

    def score(self, _: Any, responses: Sequence[Sequence[str]], **__: Any) -> list[list[float]]:
        return [[sum(map(str.isascii, text)) / max(1, len(text)) for text in row] for row in responses]


def run(
    model: Path, rows: Rows, folder: Path, *, adapter: bool = True, scorer: Any = Plain(), **settings: Any
) -> tuple[Policy, list[Metrics]]:
    """A short run; ``method_…`` settings are the method's. Returns the policy and the records of its steps."""
    method = {"max_new_tokens": 12, "missing_eos": "none", "temperature": 1.0, "epochs": 2, "minibatches": 2}
    method |= {name.removeprefix("method_"): settings.pop(name) for name in list(settings) if "method_" in name}
    config = {"steps": 8, "batch_size": 8, "learning_rate": 1e-2, "max_length": 200, "save_steps": None} | settings
    policy = Policy.load(str(model), adapter=Adapter(r=4) if adapter else None)
    trainer = Trainer(policy, folder, TrainerConfig(**config))
    result = trainer.fit(PPO(**method), Preferences.from_rows(rows), scorer=scorer)
    records = [r for r in read_records(result.folder / "metrics.jsonl") if "train/learning_rate" in r]
    return policy, [{"step": r["step"], **of_phase(r, "train"), **of_phase(r, "rollout")} for r in records]


def drawn(values: Sequence[float], reference: Sequence[float], value: Sequence[float], score: float) -> Batch:
    """A roll-out of one response with these log-probabilities."""
    batch = Batch((torch.arange(3, 6).tolist(),), ((list(range(6, 6 + len(values))),),), (0,))

    def tokens(x: Sequence[float]) -> torch.Tensor:
        return torch.tensor([[list(x)]])

    return batch.with_columns(
        old_logp_PKT=tokens(values),
        reference_logp_PKT=tokens(reference),
        old_value_PKT=tokens(value),
        entropy_PKT=torch.zeros(1, 1, len(values)),
        score_PK=torch.tensor([[score]]),
        ended_PK=torch.tensor([[True]]),
    )


def several(K: int) -> Batch:
    """A roll-out of K random responses of one to five tokens to each of five prompts."""
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 6, (5, K), generator=draw).tolist()
    batch = Batch(((1, 2),) * 5, tuple(tuple([3] * n for n in row) for row in lengths), tuple(range(5)))
    names = ("old_logp_PKT", "reference_logp_PKT", "old_value_PKT", "entropy_PKT")
    mask_PKT = batch.mask_PKT
    return batch.with_columns(
        **{name: torch.randn(mask_PKT.shape, generator=draw) * mask_PKT for name in names},
        score_PK=torch.randn(5, K, generator=draw),
        ended_PK=torch.ones(5, K, dtype=torch.bool),
    )


def at_once(compute: Sequence[Any], batches: Sequence[Batch]) -> list[Any]:
    """The experience of each rank, whose sums run over all of them: each is a thread, and they meet at every sum."""
    meeting, parts = threading.Barrier(len(batches), timeout=30), [torch.zeros(0)] * len(batches)

    def of_rank(rank: int) -> Any:
        def total(mine: torch.Tensor) -> torch.Tensor:
            parts[rank] = mine
            meeting.wait()
            whole = torch.stack(parts).sum(0)
            meeting.wait()
            return whole

        return compute[rank](batches[rank], {}, total)

    with ThreadPoolExecutor(len(batches)) as pool:
        return list(pool.map(of_rank, range(len(batches))))


VECTOR = ([-1.0, -0.5, -2.0], [-1.2, -0.4, -1.5], [0.1, 0.3, 0.2], 1.0)


class TestLearn:
    def test_vector(self) -> None:
        experience = PPO().compute_advantages(drawn(*VECTOR), {}, lambda x: x)
        assert experience.batch["advantage_PKT"][0, 0].tolist() == pytest.approx([0.841984, -1.405011, 0.563028], 1e-5)
        assert experience.batch["return_PKT"][0, 0].tolist() == pytest.approx([0.944312, 0.98875, 1.025], abs=1e-6)
        means = {name: float(a) / float(b) for name, (a, b) in experience.metrics.items()}
        assert means["objective/kl"] == pytest.approx(-0.4)
        assert means["objective/non_score_reward"] == pytest.approx(0.02)
        assert means["objective/rlhf_reward"] == pytest.approx(1.02)

    @pytest.mark.parametrize(
        ("settings", "ended", "scores"),
        [
            ({}, True, 4.0),
            ({}, False, -1.0),  # replaced
            ({"missing_eos": "subtract"}, False, 3.0),
            ({"missing_eos": "none"}, False, 4.0),
            ({"score_clip": 1.5}, True, 1.5),
            ({"score_clip": 1.5, "missing_eos": "subtract"}, False, 0.5),
            ({"overlong_buffer": 2, "max_new_tokens": 4}, True, 3.5),  # one of the two last tokens
            ({"whiten_rewards": True}, False, -1.0),
            ({"kl_in": "loss"}, False, -1.0),
            ({"advantage": "rloo", "responses": 2}, True, 4.0),
        ],
    )
    def test_the_rewards_that_are_logged_add_up(self, settings: dict[str, Any], ended: bool, scores: float) -> None:
        """``rlhf_reward = scores + non_score_reward``, with β·KL = .05·(−.4) of the vector."""
        batch = drawn(*VECTOR[:3], 4.0).with_columns(ended_PK=torch.tensor([[ended]]))
        if settings.get("responses") == 2:
            batch = Batch(batch.prompt_ids, (batch.response_ids[0] * 2,), (0,)).with_columns(
                **{name: column.repeat_interleave(2, 1) for name, column in batch.columns.items()}
            )
        experience = PPO(**settings).compute_advantages(batch, {}, lambda x: x)
        means = {name: float(a) / float(b) for name, (a, b) in experience.metrics.items()}
        assert means["objective/scores"] == pytest.approx(scores)
        assert means["objective/non_score_reward"] == pytest.approx(0.02)
        assert means["objective/rlhf_reward"] == pytest.approx(scores + 0.02)

    def test_kl_in_the_loss_leaves_the_reward_alone(self) -> None:
        method = PPO(kl_in="loss", whiten_advantages=False, lam=1.0)
        experience = method.compute_advantages(drawn(*VECTOR), {}, lambda x: x)
        assert experience.batch["return_PKT"][0, 0].tolist() == pytest.approx([1.0, 1.0, 1.0])

    def test_a_response_that_was_cut_off(self) -> None:
        batch = drawn(*VECTOR).with_columns(ended_PK=torch.tensor([[False]]))
        for settings, expected in [
            ({}, -1.0),
            ({"missing_eos": "subtract", "eos_score": -0.25}, 0.75),
            ({"missing_eos": "none"}, 1.0),
            ({"missing_eos": "none", "score_clip": 0.5}, 0.5),
            ({"score_clip": 0.5}, -1.0),  # the clip bounds the scorer, not the penalty for a missing end
            ({"missing_eos": "subtract", "eos_score": -2.0, "score_clip": 0.5}, -1.5),
        ]:
            method = PPO(beta=0.0, lam=1.0, **settings)
            assert method.compute_advantages(batch, {}, lambda x: x).batch["return_PKT"][
                0, 0, 0
            ].item() == pytest.approx(expected)

    def test_the_adaptive_weight_moves_towards_its_target(self) -> None:
        method = PPO(kl_target=6.0, kl_horizon=10.0)
        state = method.compute_advantages(drawn(*VECTOR), {}, lambda x: x).state
        assert state["beta"] == pytest.approx(0.05 * (1 - 0.2 / 10))  # a KL of −.4 is below the target
        steered = PPO(kl_target=6.0, lam=1.0, whiten_advantages=False)  # 1 − β·(−.4), with the β of the state
        returned = steered.compute_advantages(drawn(*VECTOR), {"beta": 0.5}, lambda x: x).batch["return_PKT"]
        assert returned[0, 0, 0].item() == pytest.approx(1.2)
        again = method.compute_advantages(drawn(*VECTOR), state, lambda x: x)
        assert again.batch["beta_P"].item() == pytest.approx(state["beta"])
        assert again.state["beta"] < state["beta"]

    def test_scores_are_divided_by_their_running_deviation(self) -> None:
        method = PPO(normalize_scores=True, beta=0.0, lam=1.0)
        first = method.compute_advantages(drawn(*VECTOR[:3], 3.0), {}, lambda x: x)
        second = method.compute_advantages(drawn(*VECTOR[:3], 1.0), first.state, lambda x: x)
        assert second.batch["return_PKT"][0, 0, 0].item() == pytest.approx(1.0)  # of 3 and 1 the deviation is 1

    def test_the_policy_waits_for_as_many_rollouts_as_set(self) -> None:
        method, state, waits = PPO(value_warmup=2), {}, list[float]()
        for _ in range(3):
            experience = method.compute_advantages(drawn(*VECTOR), state, lambda x: x)
            state = experience.state
            waits.append(experience.batch["warming_P"].item())
        assert waits == [1.0, 1.0, 0.0]

    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"whiten_rewards": True, "normalize_scores": True},
            {"kl_target": 1.0, "kl_horizon": 20.0},
            {"advantage": "rloo", "responses": 2},
            {"advantage": "group", "responses": 2, "group_scale": "batch"},
        ],
        ids=str,
    )
    def test_ranks_that_share_a_rollout_come_to_what_one_does(self, settings: dict[str, Any]) -> None:
        """Columns, metrics and state: nothing is taken from a rank's own prompts alone."""
        method, whole = PPO(**settings), several(K=settings.get("responses", 1))
        alone = method.compute_advantages(whole, {}, lambda x: x)
        shares = [[0, 2, 4], [1, 3]]
        shared = at_once([method.compute_advantages] * 2, [whole.select(share) for share in shares])
        for share, experience in zip(shares, shared, strict=True):
            assert experience.state == pytest.approx(alone.state)
            expected = alone.batch.select(share)
            for name, column in experience.batch.columns.items():
                torch.testing.assert_close(column, expected[name], msg=name)
        for name, (total, weight) in alone.metrics.items():
            parts = [experience.metrics[name] for experience in shared]
            mean = sum(float(part[0]) for part in parts) / sum(float(part[1]) for part in parts)
            assert mean == pytest.approx(float(total) / float(weight), rel=1e-5), name


class TestRuns:
    @pytest.mark.usefixtures("without_charts")
    @pytest.mark.parametrize(("adapter", "temperature"), [(True, 1.0), (False, 1.0), (True, 0.7)])
    def test_without_learning_nothing_moves(
        self, adapter: bool, temperature: float, tiny_model: Path, pair_rows: Rows, tmp_path: Path
    ) -> None:
        settings = {"adapter": adapter, "method_temperature": temperature, "learning_rate": 0.0}
        _, records = run(tiny_model, pair_rows, tmp_path / "run", **settings)
        for record in records:
            assert record["val/ratio"] == 1
            assert record["policy/approxkl"] == 0
        kls = [record["objective/kl"] for record in records if "objective/kl" in record]
        assert kls == [0.0, 0.0]

    @pytest.mark.parametrize(
        "advantage", ["gae", *(pytest.param(name, marks=pytest.mark.slow) for name in ("rloo", "group"))]
    )
    def test_it_raises_the_reward(self, advantage: str, tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
        settings: dict[str, Any] = {
            "method_advantage": advantage,
            "method_responses": 4,
            "method_beta": 0.0,
            "steps": 60,
        }
        settings |= {"adapter": False, "learning_rate": 1e-2, "schedule": "constant", "batch_size": 16}
        _, records = run(tiny_model, pair_rows, tmp_path / "run", **settings)
        scores = [record["objective/scores"] for record in records if "objective/scores" in record]
        assert len(scores) == 15
        assert sum(scores[-3:]) / 3 > sum(scores[:3]) / 3 + 0.1

    @pytest.mark.usefixtures("without_charts")
    def test_micro_batches_and_layout_change_nothing(self, tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
        settings: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.1, "steps": 4, "method_responses": 3}
        whole, _ = run(tiny_model, pair_rows, tmp_path / "whole", tokens_per_microbatch=100_000, **settings)
        cut, _ = run(tiny_model, pair_rows, tmp_path / "cut", tokens_per_microbatch=100, **settings)
        for role in ("policy", "value"):
            before, after = whole.roles.parameters(role), cut.roles.parameters(role)
            assert max((before[n] - after[n]).abs().max().item() for n in before) < 1e-5
            assert max(p.abs().max().item() for n, p in before.items() if "lora_B" in n or "score" in n) > 1e-4

    def test_log_probabilities_are_those_at_the_sampling_temperature(self, tiny_policy: Policy) -> None:
        batch = Batch(((3, 4, 5),), (((6, 7, 8),),), (0,))
        tiny_policy.require(("value",))
        asked = PPO(temperature=0.7, advantage="rloo", responses=2).ask_roles(tiny_policy, batch)
        for role, column in (("policy", "old_logp_PKT"), ("reference", "reference_logp_PKT")):
            with tiny_policy.use(role), torch.no_grad():
                logits = tiny_policy.model(torch.tensor([[3, 4, 5, 6, 7, 8]]), use_cache=False).logits[0, 2:5]
            expected = torch.log_softmax(logits / 0.7, -1)[range(3), [6, 7, 8]]
            assert asked[column][0, 0].tolist() == pytest.approx(expected.tolist(), abs=1e-5)

    def test_the_value_begins_as_the_reward_and_learns(self, tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
        for rate in (0.0, 1e-2):
            policy = Policy.load(str(tiny_model), adapter=Adapter(r=4))
            policy.require(("reward",))
            config = TrainerConfig(steps=1, batch_size=8, learning_rate=rate, max_length=200, save_steps=None)
            method = PPO(max_new_tokens=8, value_init="reward")
            Trainer(policy, tmp_path / str(rate), config).fit(method, Preferences.from_rows(pair_rows))
            values, rewards = (policy.roles.parameters(role) for role in ("value", "reward"))
            assert all(torch.equal(values[name], rewards[name]) for name in rewards) is (rate == 0)

    def test_roles_that_are_not_trained_stay(self, tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
        policy = Policy.load(str(tiny_model), adapter=Adapter(r=4))
        policy.require(("reward",))
        before = {name: p.clone() for name, p in policy.roles.parameters("reward").items()}
        config = TrainerConfig(steps=4, batch_size=8, learning_rate=1e-2, max_length=200, save_steps=None)
        method = PPO(max_new_tokens=8, value_init="reward")
        Trainer(policy, tmp_path / "run", config).fit(method, Preferences.from_rows(pair_rows))
        for name, parameter in policy.roles.parameters("reward").items():
            assert torch.equal(parameter, before[name])

    @pytest.mark.parametrize("adapter", [Adapter(r=4), None], ids=["lora", "full"])
    def test_the_value_begins_as_a_copy_of_the_reward(self, adapter: Adapter | None, tiny_model: Path) -> None:
        """Weights, head, mean and deviation; with ``zero`` as nothing."""
        policy = Policy.load(str(tiny_model), adapter=adapter)
        policy.require(("reward", "value"))
        with torch.no_grad():
            for parameter in policy.roles.parameters("reward").values():
                parameter.add_(0.1 * torch.randn_like(parameter))
        policy.roles.heads["reward"].mean, policy.roles.heads["reward"].std = 0.5, 2.0
        PPO(value_init="zero").begin(policy)
        assert policy.roles.parameters("value")["score.weight"].abs().max() == 0
        PPO(value_init="reward").begin(policy)
        reward, value = policy.roles.parameters("reward"), policy.roles.parameters("value")
        assert reward.keys() == value.keys()
        assert all(torch.equal(reward[name], value[name]) for name in reward)
        assert (policy.roles.heads["value"].mean, policy.roles.heads["value"].std) == (0.5, 2.0)

    def test_value_warm_up_leaves_the_policy_alone(self, tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
        policy, _ = run(tiny_model, pair_rows, tmp_path / "run", method_value_warmup=2, method_ptx_coef=0.0)
        assert all(p.abs().max() == 0 for n, p in policy.roles.parameters("policy").items() if "lora_B" in n)
        assert policy.roles.parameters("value")["score.weight"].abs().max() > 0

    def test_early_stop_leaves_the_rest_of_a_rollout(self, tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
        _, records = run(tiny_model, pair_rows, tmp_path / "run", method_target_kl=1e-12, method_minibatches=1)
        assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6, 7, 8]  # the first pass has ratio 1
        _, records = run(
            tiny_model, pair_rows, tmp_path / "more", method_target_kl=1e-12, method_minibatches=1, method_epochs=4
        )
        assert [record["step"] for record in records] == [1, 2, 5, 6]

    def test_demonstrations_are_mixed_in(self, tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
        losses: dict[float, list[float]] = {}
        for coefficient in (1e-9, 1.0):
            settings = {"method_ptx_coef": coefficient, "steps": 24, "batch_size": 16}
            _, records = run(tiny_model, pair_rows, tmp_path / str(coefficient), **settings)
            losses[coefficient] = [record["loss/mixed"] for record in records]
        assert sum(losses[1.0][-4:]) < sum(losses[1e-9][-4:]) - 1

    def test_the_best_policy_is_kept(self, tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
        policy = Policy.load(str(tiny_model), adapter=None)
        data, heldout = Preferences.from_rows(pair_rows).train_test_split(8, seed=0)
        evaluator = Evaluator.from_preferences(
            policy, heldout, None, max_length=200, sampling=SamplingParams(max_new_tokens=8), scorers=(Plain(),)
        )
        settings: dict[str, Any] = {"steps": 12, "batch_size": 8, "max_length": 200, "learning_rate": 3e-3}
        config = TrainerConfig(**settings, eval_steps=4, save_steps=4, keep_checkpoints=9, samples=0)
        method = PPO(max_new_tokens=8, advantage="rloo", responses=4, missing_eos="none", beta=0.1)
        result = Trainer(policy, tmp_path / "run", config).fit(method, data, heldout, evaluator, scorer=Plain())
        records = read_records(result.folder / "metrics.jsonl")
        merits = {
            int(r["step"]): r["evaluation/plain"] - 0.1 * r["evaluation/kl"]
            for r in records
            if "evaluation/plain" in r and r["step"] > 0
        }
        assert len(merits) == 3
        kept = json.loads((result.folder / "best" / "merit.json").read_text())
        best = max(merits, key=lambda step: merits[step])
        assert kept["step"] == best
        assert kept["merit"] == pytest.approx(merits[best])
        (file,) = (result.folder / "checkpoints" / f"step-{best:08d}" / "parts").glob("*.safetensors")
        saved = load_file(file)
        weights = load_file(result.folder / "best" / "model.safetensors")
        assert {f"weights/policy.{name}" for name in weights} <= saved.keys()
        assert all(torch.equal(saved[f"weights/policy.{name}"], weights[name]) for name in weights)

    def test_samplers_probabilities_are_the_trainers(self, tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
        _, records = run(tiny_model, pair_rows, tmp_path / "run", method_temperature=0.7, method_top_p=0.9)
        differences = [record["sampling/logp_difference_max"] for record in records if "objective/kl" in record]
        assert all(difference < 1e-4 for difference in differences)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"advantage": "rloo"}, "responses=1"),
        ({"advantage": "gea"}, "advantage must be gae, rloo or group, not 'gea'. Did you mean \"gae\""),
        ({"clip": 1.5}, r"method\.clip=1\.5"),
        ({"beta": -1.0}, r"method\.beta=-1"),
        ({"lam": 1.1}, r"method\.lam=1\.1"),
        ({"dual_clip": 1.0}, r"method\.dual_clip=1\.0"),
        ({"kl_target": 6.0, "beta": 0.0}, r"method\.kl_target"),
        ({"overlong_buffer": 64}, r"method\.overlong_buffer"),
        ({"minibatches": 0}, r"method\.minibatches=0"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"missing_eos": "subtract", "eos_score": 1.0}, r"method\.eos_score=1\.0"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        PPO(**settings)


def test_rewards_must_come_from_somewhere(tiny_policy: Policy, pair_rows: Rows, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="PPO needs rewards"):
        Trainer(tiny_policy, tmp_path / "run", TrainerConfig(max_length=200)).fit(
            PPO(), Preferences.from_rows(pair_rows)
        )


def test_prompts_need_room_for_an_answer(tiny_policy: Policy, pair_rows: Rows, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trainer\.max_length=40 leaves no room for a prompt beside an answer of 64"):
        Trainer(tiny_policy, tmp_path / "run", TrainerConfig(max_length=40)).fit(
            PPO(), Preferences.from_rows(pair_rows), scorer=Plain()
        )
