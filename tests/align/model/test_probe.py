"""The bounds of the probes: 8 units in the last place, 1000 for rows that share a batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from align.errors import UserError
from align.model.probe import Probe, Prober, choose_layout
from tests.align.model.test_tree_layout import CONFIGS, policy_of, prober

LARGEST = 4.0  # of the log-probabilities: differences are relative to it, but never to less than 1
EPS = 2.0**-23


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Prober]:
    """A prober of a model that looks ahead and is disturbed by its batch so much."""
    policy = policy_of(copy.deepcopy(CONFIGS["llama"]), "eager")

    def make(ahead: float = 0.0, noise: float = 0.0, largest: float = LARGEST) -> Prober:
        monkeypatch.setattr(Prober, "_looking_ahead", lambda *_: ahead)
        monkeypatch.setattr(Prober, "_noise", lambda _: (torch.tensor([-largest, -0.1]), noise))
        return prober(policy)

    return make


@pytest.mark.parametrize("largest", [LARGEST, 0.5])
def test_how_much_may_change(largest: float, found: Callable[..., Prober]) -> None:
    unit = EPS * max(1.0, largest)
    found(ahead=7.9 * unit, largest=largest)
    with pytest.raises(UserError, match="is no causal language model: a later token changes"):
        found(ahead=8.1 * unit, largest=largest)
    found(noise=999 * unit, largest=largest)
    with pytest.raises(UserError, match="with the rows that share its batch"):
        found(noise=1001 * unit, largest=largest)


@pytest.mark.parametrize(("noise", "units"), [(0.0, 8.0), (0.5, 8.0), (100.0, 800.0)])
def test_equally_right_computations_differ_by_eight_times_the_noise(
    noise: float, units: float, found: Callable[..., Prober]
) -> None:
    unit = EPS * LARGEST
    probe: Any = found(noise=noise * unit)
    expected = torch.zeros(3)
    for factor, exact in ((0.99, True), (1.01, False)):
        other = torch.tensor([0.0, -factor * units * unit, 0.0])  # the largest, not the mean
        assert probe._judged(expected, other).exact is exact


def test_equal_infinities_are_no_difference(found: Callable[..., Prober]) -> None:
    probe: Any = found()
    infinite = torch.tensor([-torch.inf, 0.0])
    assert probe._judged(infinite, infinite) == Probe(True, "largest difference 0.0e+00 nats")
    assert not probe._judged(infinite, torch.zeros(2)).exact


def test_log_probabilities_that_are_not_finite_are_refused(found: Callable[..., Prober]) -> None:
    with pytest.raises(UserError, match="gives log-probabilities that are not finite"):
        found(largest=float("inf"))


@pytest.mark.parametrize(
    ("wanted", "exact", "layout", "words"),
    [
        ("flat", True, "flat", "layout: flat, as asked"),
        ("auto", True, "tree", "layout: tree, each prompt computed once (so much)"),
        ("tree", True, "tree", "layout: tree, each prompt computed once (so much)"),
        ("auto", False, "flat", "layout: flat, because the tree is not exact on this model (so much)"),
    ],
)
def test_the_layout_that_is_chosen(
    wanted: str, exact: bool, layout: str, words: str, found: Callable[..., Prober], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(Prober, "tree", lambda _, *, fused_head: asked.append(fused_head) or Probe(exact, "so much"))
    assert choose_layout(found(), wanted, fused_head=False) == (layout, words)
    assert asked == ([] if wanted == "flat" else [False])


def test_a_tree_that_is_not_exact_is_refused(found: Callable[..., Prober], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Prober, "tree", lambda _, *, fused_head: Probe(False, f"so much {fused_head}"))
    with pytest.raises(UserError, match=r"model\.layout=tree is not exact on this model \(so much True\)"):
        choose_layout(found(), "tree")


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "mistral with window"])
def test_padding_on_the_left_is_not_seen(name: str) -> None:
    """gpt2 and opt have learnt positions, which must begin after the padding."""
    probe = prober(policy_of(copy.deepcopy(CONFIGS[name]), "eager")).left_padding()
    assert probe.exact, probe.detail


def test_a_model_whose_logits_are_not_its_output_embedding_is_seen() -> None:
    policy = policy_of(copy.deepcopy(CONFIGS["llama"]), "eager")
    assert prober(policy).head().exact
    policy.model.register_forward_hook(lambda _, __, out: out.__class__(logits=out.logits * 1.01))
    assert not prober(policy).head().exact


def test_the_window_is_put_back_also_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    config = copy.deepcopy(CONFIGS["mistral with window"])
    config.sliding_window = 20
    policy = policy_of(config, "eager")
    probe = prober(policy)
    windows: list[int] = []

    def broken(*_: Any) -> Probe:
        windows.append(policy.model.config.sliding_window)
        raise KeyError

    monkeypatch.setattr(Prober, "_compare", broken)
    with pytest.raises(KeyError):
        probe.tree(fused_head=True)
    assert windows == [6]
    assert policy.model.config.sliding_window == 20
