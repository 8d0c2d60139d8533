"""Losses: known values, hard and soft labels, and every parameter acts."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from av1part.models.losses import (
    LOSSES,
    build_loss,
    effective_number_weights,
    inverse_count_weights,
)

COUNTS = [700, 200, 100]


def gradient(kind: str, target: torch.Tensor, counts: list[int], **options: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(len(target), len(counts), generator=generator, requires_grad=True)
    build_loss(counts, kind=kind, **options)(logits, target).backward()
    assert logits.grad is not None
    return logits.grad


def test_cross_entropy_is_torchs() -> None:
    logits, labels = torch.randn(16, 3), torch.arange(16) % 3
    for options in ({"kind": "cross_entropy"}, {"kind": "focal", "gamma": 0.0}):
        loss = build_loss(COUNTS, **options)(logits, labels)
        torch.testing.assert_close(loss, functional.cross_entropy(logits, labels))


def test_focal_by_hand() -> None:
    """-(1 - p)^2 ln p for p = 1/3, twice."""
    loss = build_loss(COUNTS, kind="focal", gamma=2.0)(torch.zeros(2, 3), torch.tensor([0, 2]))
    assert loss.item() == pytest.approx(4 / 9 * 1.0986123)


def test_cost_sensitive_is_the_mean_of_weight_times_cross_entropy() -> None:
    logits, labels = torch.randn(16, 3), torch.arange(16) % 3
    weight = torch.linspace(0, 3, 16)
    loss, plain = (build_loss(COUNTS, kind=k) for k in ("cost_sensitive", "cross_entropy"))
    each = functional.cross_entropy(logits, labels, reduction="none")
    # Over the samples: twice the weights are twice the loss.
    torch.testing.assert_close(loss(logits, labels, weight), (weight * each).sum() / 16)
    torch.testing.assert_close(loss(logits, labels, 2 * weight), (weight * each).sum() / 8)
    for unweighed in (loss(logits, labels), loss(logits, labels, torch.ones(16))):
        assert torch.equal(unweighed, plain(logits, labels))


CASES: dict[tuple[str, str], list[tuple[Any, Any]]] = {
    ("cross_entropy", "smoothing"): [(0.0, 0.1)],
    ("focal", "gamma"): [(2.0, 1.0), (2.0, 0.0)],
    ("focal", "alpha"): [(None, [1.0, 2.0]), ([3.0, 1.0], [1.0, 3.0])],
    ("focal", "smoothing"): [(0.0, 0.1)],
    ("cb_focal", "beta"): [(0.9999, 0.99), (0.9999, 0.0)],
    ("cb_focal", "gamma"): [(2.0, 1.0)],
    ("cb_focal", "smoothing"): [(0.0, 0.1)],
    ("balanced", "power"): [(1.0, 0.0), (1.0, 0.5)],
    ("balanced", "gamma"): [(0.0, 2.0)],
    ("balanced", "smoothing"): [(0.0, 0.1)],
    ("cost_sensitive", "smoothing"): [(0.0, 0.1)],
    ("hard_negative", "ratio"): [(3.0, 1.0)],
    ("hard_negative", "smoothing"): [(0.0, 0.1)],
}
"""Loss and parameter to pairs of values that must give different gradients, for two classes."""


OF_THE_WEIGHTS = {("cost_sensitive", "power"), ("cost_sensitive", "cap")}
"""Parameters that act on the weights of the samples: tests/unit/data/serve/test_costs.py."""


def test_every_parameter_has_a_case() -> None:
    parameters = {
        (kind, name)
        for kind, builder in LOSSES.items()
        for name in list(inspect.signature(builder).parameters)[1:]
    }
    assert parameters == CASES.keys() | OF_THE_WEIGHTS


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    ("kind", "parameter", "first", "second"),
    [(*key, *pair) for key, pairs in CASES.items() for pair in pairs],
)
def test_every_parameter_changes_the_gradient(
    kind: str, parameter: str, first: Any, second: Any, soft: bool
) -> None:
    """The study's focal alpha was ignored for more than one logit."""
    labels = (torch.arange(32) % 5 == 0).long()
    target = functional.one_hot(labels, 2) * 0.8 + 0.1 if soft else labels
    gradients = [
        gradient(kind, target, [700, 200], **{parameter: value}) for value in (first, second)
    ]
    assert not torch.allclose(*gradients)


@pytest.mark.parametrize("classes", [2, 3, 4, 7])
def test_alpha_weighs_every_class(classes: int) -> None:
    labels = torch.arange(5 * classes) % classes
    plain = gradient("focal", labels, [1] * classes)
    for index in range(classes):
        alpha = [3.0 if i == index else 1.0 for i in range(classes)]
        changed = gradient("focal", labels, [1] * classes, alpha=alpha) != plain
        assert torch.equal(changed.any(1), labels == index)


def test_focal_loss_of_two_classes_is_torchvisions() -> None:
    logit, labels = torch.randn(40), torch.arange(40) % 2
    loss = build_loss([1, 1], kind="focal", gamma=1.5, alpha=[0.75, 0.25])
    ours = loss(torch.stack([torch.zeros(40), logit], 1), labels)
    theirs = sigmoid_focal_loss(logit, labels.float(), alpha=0.25, gamma=1.5, reduction="mean")
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("alpha", [None, [1.0, 2.0, 0.5]])
@pytest.mark.parametrize("soft", [False, True])
def test_smoothing_weights_and_soft_targets_are_torchs(
    smoothing: float, alpha: list[float] | None, soft: bool
) -> None:
    logits, target = torch.randn(16, 3), torch.arange(16) % 3
    if soft:
        target = torch.rand(16, 3).softmax(1)
    loss = build_loss(COUNTS, kind="focal", gamma=0.0, alpha=alpha, smoothing=smoothing)
    weight = None if alpha is None else torch.tensor(alpha)
    theirs = functional.cross_entropy(
        logits, target, weight=weight, label_smoothing=smoothing, reduction="none"
    )
    torch.testing.assert_close(loss(logits, target), theirs.mean())


def test_one_hot_targets_give_what_labels_gave_before() -> None:
    """Bit for bit the formula of the class alone, and its gradient."""
    labels = torch.arange(64) % 3
    for gamma, alpha in ((2.0, None), (0.5, [3.0, 1.0, 0.2]), (0.0, [3.0, 1.0, 0.2])):
        logits = (4 * torch.randn(64, 3)).requires_grad_()
        log_p = functional.log_softmax(logits, 1).gather(1, labels[:, None]).squeeze(1)
        each = -log_p
        if gamma:
            each = each * (1 - log_p.exp()).clamp_min(1e-8) ** gamma
        if alpha:
            each = each * torch.tensor(alpha)[labels]
        (before,) = torch.autograd.grad(each.mean(), logits)
        loss = build_loss(COUNTS, kind="focal", gamma=gamma, alpha=alpha)
        for target in (labels, functional.one_hot(labels, 3).float()):
            value = loss(logits, target)
            assert torch.equal(value, each.mean())
            assert torch.equal(torch.autograd.grad(value, logits)[0], before)


def test_weights_follow_a_soft_target() -> None:
    """A mixture of two classes costs the mixture of their losses."""
    logits = torch.randn(1, 3)
    loss = build_loss(COUNTS, kind="cb_focal")
    parts = [loss(logits, torch.tensor([c])) for c in (0, 2)]
    mixed = loss(logits, torch.tensor([[0.3, 0.0, 0.7]]))
    torch.testing.assert_close(mixed, 0.3 * parts[0] + 0.7 * parts[1])


def kept(logits: torch.Tensor, target: torch.Tensor, **options: Any) -> list[int]:
    """Samples that hard negative mining keeps: those with a gradient."""
    logits = logits.clone().requires_grad_()
    build_loss([9, 1], kind="hard_negative", **options)(logits, target).backward()
    assert logits.grad is not None
    return logits.grad.abs().sum(1).nonzero().flatten().tolist()


def test_the_hardest_negatives_are_kept() -> None:
    cut = torch.tensor([0.1, 2.0, -1.0, 0.5, 0.2, 1.0, -3.0, 0.3])  # logit of PARTITION
    logits = torch.stack([torch.zeros(8), cut], 1)
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 1, 0])
    assert kept(logits, labels) == [1, 3, 5, 6]
    assert kept(logits, labels, ratio=1.0) == [1, 6]
    assert kept(logits, labels, ratio=2.9) == [1, 5, 6], "at most ratio"
    assert kept(logits, labels, ratio=99.0) == list(range(8))
    each = functional.cross_entropy(logits, labels, reduction="none")
    loss = build_loss([9, 1], kind="hard_negative")(logits, labels)
    torch.testing.assert_close(loss, each[[1, 3, 5, 6]].mean())


def test_without_positives_as_many_are_kept_as_one_would_allow() -> None:
    logits = torch.stack([torch.zeros(8), torch.arange(8.0)], 1)
    assert kept(logits, torch.zeros(8, dtype=torch.int64)) == [5, 6, 7]
    assert kept(logits, torch.ones(8, dtype=torch.int64)) == list(range(8)), "all positives"


def test_equally_hard_negatives_do_not_exceed_the_ratio() -> None:
    assert kept(torch.zeros(10, 2), torch.tensor([1] + 9 * [0])) == [0, 1, 2, 3]


def test_a_sample_that_is_half_positive_is_kept_as_one() -> None:
    logits = torch.stack([torch.zeros(6), -torch.arange(6.0)], 1)
    share = torch.tensor([0.0, 0.2, 0.0, 0.1, 0.5, 0.9])
    assert kept(logits, torch.stack([1 - share, share], 1), ratio=1.0) == [0, 1, 4, 5]


def test_weights_follow_cui() -> None:
    weights = effective_number_weights([10, 1000], beta=0.99)
    raw = [0.01 / (1 - 0.99**10), 0.01 / (1 - 0.99**1000)]
    assert weights == pytest.approx([w * 2 / sum(raw) for w in raw])
    assert effective_number_weights([5, 0], beta=0.9)[1] > 0


def test_balanced_classes_have_equal_shares_at_any_count() -> None:
    """Where beta 0.9999 counts a class of a million samples like one of fifty thousand."""
    counts = [1_000_000, 50_000, 200]
    shares = [n * w for n, w in zip(counts, inverse_count_weights(counts, 1.0), strict=True)]
    assert shares == pytest.approx([shares[0]] * 3)
    first, second, _ = effective_number_weights(counts, 0.9999)
    assert second / first == pytest.approx(1, abs=0.01)
    loss = build_loss(counts, kind="balanced")
    theirs = nn.CrossEntropyLoss(torch.tensor([1 / n for n in counts]))
    labels, logits = torch.arange(3).repeat_interleave(torch.tensor([20, 7, 3])), torch.randn(30, 3)
    weights = torch.tensor(inverse_count_weights(counts, 1.0))[labels]
    torch.testing.assert_close(
        loss(logits, labels) * 30 / weights.sum(), theirs(logits, labels).float()
    )


def test_the_power_of_balance() -> None:
    assert inverse_count_weights([900, 100], 0.0) == [1, 1]
    assert inverse_count_weights([900, 100], 0.5) == pytest.approx([0.5, 1.5])
    assert inverse_count_weights([900, 100], 1.0) == pytest.approx([0.2, 1.8])
    assert inverse_count_weights([900, 100], 1e300) == [0, 2]
    assert inverse_count_weights([5, 0, 5], 2.0) == pytest.approx([1, 1, 1])
    assert inverse_count_weights([0, 0], 1.0) == [1, 1]


def test_smoothing_does_not_raise_a_class_without_samples() -> None:
    """It had the weight of a class of one sample, so that smoothing raised it above all others."""
    labels = torch.arange(3).repeat_interleave(torch.tensor([89, 43, 28]))
    logits = torch.zeros(4, requires_grad=True)
    loss = build_loss([8898, 4350, 2752, 0], kind="cb_focal", smoothing=0.1)
    loss(logits.expand(len(labels), 4), labels).backward()
    assert logits.grad[3] > 0, "descent lowers it"
    assert effective_number_weights([5, 0, 5], 0.9) == pytest.approx([1, 1, 1])
    assert effective_number_weights([0, 0], 0.9) == [1, 1]


def test_a_perfect_prediction_has_a_finite_gradient() -> None:
    logits = torch.tensor([[200.0, -200.0, -200.0]], requires_grad=True)
    build_loss(COUNTS, kind="focal", gamma=0.5)(logits, torch.tensor([0])).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("kind", LOSSES)
def test_unknown_parameters_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        build_loss([2, 1], kind=kind, nonsense=1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "hinge"}, "kind"),
        ({"kind": "focal", "alpha": [1.0, 2.0]}, "2 weights for 3 classes"),
        ({"kind": "focal", "alpha": "abc"}, "list of numbers"),
        ({"kind": "focal", "alpha": 3.0}, "list of numbers"),
        ({"kind": "focal", "alpha": [1.0, None, 1.0]}, "list of numbers"),
        ({"kind": "focal", "alpha": [1.0, -1.0, 1.0]}, "not negative"),
        ({"kind": "focal", "alpha": [0, 0, 0]}, "not all 0"),
        ({"kind": "focal", "alpha": [1.0, float("nan"), 1.0]}, "finite"),
        ({"kind": "hard_negative"}, "two classes"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build_loss(COUNTS, **options)
