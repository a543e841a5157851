"""Scores, GAE, whitening and the critic-free advantages: the vector of docs/methods.md, closed forms, padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from methods.ppo.advantages import gae, group, missing_eos, moments, place_score, rloo, whiten
from methods.ppo.kl import per_token_kl

LOGP, REFERENCE, VALUE, SCORE, BETA = [-1.0, -0.5, -2.0], [-1.2, -0.4, -1.5], [0.1, 0.3, 0.2], 1.0, 0.05
NAN = float("nan")


def token_mask(lengths: list[list[int]], padding: int = 0) -> Tensor:
    """Lengths of P × K responses, 0 where there is none."""
    length_PK = torch.tensor(lengths)
    return torch.arange(int(length_PK.max()) + padding) < length_PK[..., None]


def tokens(values: list[float], mask_PKT: Tensor) -> Tensor:
    """These values in the order of the mask, NaN where nothing is."""
    x_PKT = torch.full(mask_PKT.shape, NAN)
    x_PKT[mask_PKT] = torch.tensor(values)
    return x_PKT


@pytest.fixture
def ragged() -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, values, mask: three prompts, K = 3 (one, two and three responses), NaN beyond the mask."""
    mask_PKT = token_mask([[5, 0, 0], [1, 7, 0], [2, 3, 4]], padding=2)
    generator = torch.Generator().manual_seed(1)
    reward_PKT, value_PKT = (torch.randn(mask_PKT.shape, generator=generator) for _ in range(2))
    reward_PKT[~mask_PKT] = value_PKT[~mask_PKT] = NAN
    return reward_PKT, value_PKT, mask_PKT


@pytest.mark.parametrize("padding", [0, 1, 5])
def test_vector(padding: int) -> None:
    mask_PKT = token_mask([[3, 0]], padding)
    logp, reference, value = (tokens(x, mask_PKT) for x in (LOGP, REFERENCE, VALUE))
    reward = place_score(torch.tensor([[SCORE, NAN]]), mask_PKT) - BETA * per_token_kl(logp, reference, mask_PKT)
    advantage, returns = gae(reward, value, mask_PKT, gamma=1.0, lam=0.95)
    whitened = whiten(advantage, mask_PKT)
    for found, expected in [
        (reward, [-0.01, 0.005, 1.025]),
        (advantage, [0.844312, 0.68875, 0.825]),
        (returns, [0.944312, 0.98875, 1.025]),
        (whitened, [0.841984, -1.405011, 0.563028]),
    ]:
        assert found[mask_PKT].tolist() == pytest.approx(expected, abs=1e-6)
        assert torch.equal(found[~mask_PKT], torch.zeros(int((~mask_PKT).sum())))


def test_gae_is_monte_carlo_at_one(ragged: tuple[Tensor, Tensor, Tensor]) -> None:
    """γ = λ = 1: the sum of the rewards from here on, less the value."""
    reward, value, mask = ragged
    advantage, returns = gae(reward, value, mask, gamma=1, lam=1)
    future = torch.where(mask, reward, 0).flip(-1).cumsum(-1).flip(-1)
    torch.testing.assert_close(returns[mask], future[mask])
    torch.testing.assert_close(advantage[mask], (future - value)[mask])


def test_gae_is_the_td_error_at_zero(ragged: tuple[Tensor, Tensor, Tensor]) -> None:
    reward, value, mask = ragged
    advantage, _ = gae(reward, value, mask, gamma=0.9, lam=0)
    following = torch.where(mask, value, 0).roll(-1, -1)  # the last position is padding: 0 comes round
    torch.testing.assert_close(advantage[mask], (reward + 0.9 * following - value)[mask])


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (0.0, 0.7)])
def test_gae_is_its_definition(gamma: float, lam: float, ragged: tuple[Tensor, Tensor, Tensor]) -> None:
    """The double sum of the paper, one response at a time, without padding."""
    reward, value, mask = ragged
    advantage, returns = gae(reward, value, mask, gamma=gamma, lam=lam)
    for p, k in (mask.any(-1)).nonzero().tolist():
        r, v = (x[p, k][mask[p, k]].double().numpy() for x in (reward, value))
        delta = r + gamma * np.append(v[1:], 0) - v
        expected = [sum((gamma * lam) ** i * d for i, d in enumerate(delta[t:])) for t in range(len(r))]
        np.testing.assert_allclose(advantage[p, k][mask[p, k]], expected, atol=2e-6)
        np.testing.assert_allclose(returns[p, k][mask[p, k]], expected + v, atol=2e-6)


def test_gae_has_no_gradient(ragged: tuple[Tensor, Tensor, Tensor]) -> None:
    reward, value, mask = ragged
    assert not any(x.requires_grad for x in gae(reward, value.requires_grad_(), mask, gamma=1, lam=0.95))


def test_padding_on_the_left_is_refused(ragged: tuple[Tensor, Tensor, Tensor]) -> None:
    reward, value, mask = (x.flip(-1) for x in ragged)
    with pytest.raises(AssertionError, match="right"):
        gae(reward, value, mask, gamma=1, lam=1)
    with pytest.raises(AssertionError, match="right"):
        place_score(torch.zeros(3, 3), mask)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.lists(st.integers(0, 6), min_size=2, max_size=2), min_size=1, max_size=4).filter(
        lambda rows: any(map(any, rows))
    ),
    padding=st.integers(0, 4),
    seed=st.integers(0, 1000),
)
def test_padding_and_missing_responses_change_nothing(lengths: list[list[int]], padding: int, seed: int) -> None:
    """A batch, and the same with more padding, one more response that is missing, and NaN where nothing is."""
    mask = token_mask(lengths)
    generator = torch.Generator().manual_seed(seed)
    reward, value = (torch.randn(mask.shape, generator=generator) for _ in range(2))
    wide = token_mask([[*row, 0] for row in lengths], padding)
    advantage, returns = gae(reward, value, mask, gamma=0.99, lam=0.95)
    wide_advantage, wide_returns = gae(
        tokens(reward[mask].tolist(), wide), tokens(value[mask].tolist(), wide), wide, gamma=0.99, lam=0.95
    )
    assert torch.equal(advantage[mask], wide_advantage[wide])
    assert torch.equal(returns[mask], wide_returns[wide])
    filled = tokens(advantage[mask].tolist(), wide)
    for shift_mean in (True, False):
        torch.testing.assert_close(
            whiten(advantage, mask, shift_mean=shift_mean)[mask], whiten(filled, wide, shift_mean=shift_mean)[wide]
        )


def test_whiten() -> None:
    mask = token_mask([[3, 2], [0, 6]], padding=1)
    x = tokens([5.0, -1, 2, 8, 8, 0.5, 3, 1, 9, 4, 2.5], mask)
    values = x[mask].double().numpy()
    expected = (values - values.mean()) / values.std()
    np.testing.assert_allclose(whiten(x, mask)[mask], expected, atol=1e-6)
    np.testing.assert_allclose(whiten(x, mask, shift_mean=False)[mask], expected + values.mean(), atol=1e-6)
    assert whiten(x, mask).dtype == torch.float32


def test_whiten_over_ranks() -> None:
    """Two shares of a roll-out, one of them large beside its spread, become what the whole becomes."""
    generator = torch.Generator().manual_seed(0)
    x = 1000 + torch.randn(4, 2, 5, generator=generator)
    mask = token_mask([[5, 3], [1, 0], [2, 2], [4, 4]])
    shares = [slice(0, 1), slice(1, 4)]
    total = torch.stack([moments(x[share], mask[share]) for share in shares]).sum(0)
    assert total.dtype == torch.float64
    assert total[0] == mask.sum()
    found = torch.cat([whiten(x[share], mask[share], total) for share in shares])
    torch.testing.assert_close(found, whiten(x, mask))
    values = x[mask].double()
    torch.testing.assert_close(
        found[mask].double(), (values - values.mean()) / values.std(correction=0), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("lengths", [[[3, 2]], [[1, 0]]])
def test_whiten_without_spread(lengths: list[list[int]]) -> None:
    mask = token_mask(lengths)
    x = torch.where(mask, 0.3, NAN)
    assert torch.equal(whiten(x, mask), torch.zeros_like(x))
    assert torch.equal(whiten(x, mask, shift_mean=False)[mask], x[mask])


def test_whiten_of_large_equal_values() -> None:
    """Rounding makes Σx²/n − mean² of these −2e-6 in float64."""
    x = torch.full((1, 1, 57), 98765.43)
    torch.testing.assert_close(whiten(x, torch.ones_like(x, dtype=torch.bool)), torch.zeros_like(x))


def test_a_rank_without_tokens() -> None:
    mask = torch.zeros(2, 2, 3, dtype=torch.bool)
    x = torch.full(mask.shape, NAN)
    assert torch.equal(moments(x, mask), torch.zeros(3, dtype=torch.float64))
    assert torch.equal(whiten(x, mask), torch.zeros_like(x))


SCORES = torch.tensor([[1.0, 2, 6, 3], [0.5, 0.5, NAN, NAN], [4, NAN, NAN, NAN], [NAN, 0, 1, NAN]])
VALID = ~SCORES.isnan()


def test_rloo() -> None:
    """Each score less the mean of the others, by hand; nothing to compare the third prompt's with."""
    expected = [[1 - 11 / 3, 2 - 10 / 3, 6 - 2, 3 - 3], [0, 0, 0, 0], [0, 0, 0, 0], [0, -1, 1, 0]]
    torch.testing.assert_close(rloo(SCORES, VALID), torch.tensor(expected))


def test_group() -> None:
    """Deviations of the first prompt are −2, −1, 3, 0 with sample variance 14/3; of the last −½, ½ with ½."""
    centred = torch.tensor([[-2.0, -1, 3, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, -0.5, 0.5, 0]])
    torch.testing.assert_close(group(SCORES, VALID, scale="none"), centred)
    std = torch.tensor([(14 / 3) ** 0.5, 1, 1, 0.5**0.5])
    torch.testing.assert_close(group(SCORES, VALID), centred / (std[:, None] + 1e-4))
    std_of_all = float(np.std([1, 2, 6, 3, 0.5, 0.5, 4, 0, 1], ddof=1))
    torch.testing.assert_close(group(SCORES, VALID, scale="batch"), centred / (std_of_all + 1e-4))


def test_group_over_ranks() -> None:
    total = moments(SCORES[:1], VALID[:1]) + moments(SCORES[1:], VALID[1:])
    found = [group(SCORES[i], VALID[i], scale="batch", statistics=total) for i in (slice(1), slice(1, 4))]
    torch.testing.assert_close(torch.cat(found), group(SCORES, VALID, scale="batch"))


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_one_response_each_teaches_nothing(scale: Any) -> None:
    score, valid = torch.tensor([[3.0], [5.0]]), torch.ones(2, 1, dtype=torch.bool)
    assert torch.equal(group(score, valid, scale=scale), torch.zeros(2, 1))
    assert torch.equal(rloo(score, valid), torch.zeros(2, 1))
    assert torch.equal(group(score[:1], valid[:1], scale=scale), torch.zeros(1, 1))
    assert torch.equal(group(score, ~valid, scale=scale), torch.zeros(2, 1))
    assert torch.equal(rloo(score, ~valid), torch.zeros(2, 1))


def test_place_score() -> None:
    mask = token_mask([[3, 1], [0, 2]], padding=1)
    found = place_score(torch.tensor([[0.5, -1.0], [NAN, 2.0]]), mask)
    expected = [[[0, 0, 0.5, 0], [-1.0, 0, 0, 0]], [[0, 0, 0, 0], [0, 2.0, 0, 0]]]
    assert torch.equal(found, torch.tensor(expected))


def test_missing_eos() -> None:
    score, ended = torch.tensor([[2.0, 3.0]]), torch.tensor([[True, False]])
    assert missing_eos(score, ended, how="replace", value=-1.0).tolist() == [[2.0, -1.0]]
    assert missing_eos(score, ended, how="subtract", value=1.5).tolist() == [[2.0, 1.5]]
    assert missing_eos(score, ended, how="none", value=9.0).tolist() == [[2.0, 3.0]]
    with pytest.raises(AssertionError, match="reward a missing end"):
        missing_eos(score, ended, how="subtract", value=-1.0)
