"""Losses: known values, and every parameter acts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from av1part.models.losses import LOSSES, build_loss, effective_number_weights

COUNTS = [700, 200, 100]


def gradient(**options: Any) -> torch.Tensor:
    logits = torch.randn(32, 3, generator=torch.Generator().manual_seed(2), requires_grad=True)
    labels = torch.arange(32) % 3
    build_loss(COUNTS, **options)(logits, labels).backward()
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


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("focal", {"gamma": 2.0}, {"gamma": 1.0}),
        ("focal", {"alpha": None}, {"alpha": [1.0, 2.0, 3.0]}),
        ("focal", {"alpha": [3.0, 2.0, 1.0]}, {"alpha": [1.0, 2.0, 3.0]}),
        ("cb_focal", {"gamma": 2.0}, {"gamma": 1.0}),
        ("cb_focal", {"beta": 0.9999}, {"beta": 0.99}),
        ("cb_focal", {"beta": 0.9999}, {"beta": 0.0}),
    ],
)
def test_every_parameter_changes_the_gradient(
    kind: str, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """The study's focal alpha was ignored for more than one logit."""
    assert not torch.allclose(gradient(kind=kind, **first), gradient(kind=kind, **second))


def test_weights_follow_cui() -> None:
    weights = effective_number_weights([10, 1000], beta=0.99)
    raw = [0.01 / (1 - 0.99**10), 0.01 / (1 - 0.99**1000)]
    assert weights == pytest.approx([w * 2 / sum(raw) for w in raw])
    assert effective_number_weights([5, 0], beta=0.9)[1] > 0


def test_a_perfect_prediction_has_a_finite_gradient() -> None:
    logits = torch.tensor([[200.0, -200.0, -200.0]], requires_grad=True)
    build_loss(COUNTS, kind="focal", gamma=0.5)(logits, torch.tensor([0])).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("kind", LOSSES)
def test_unknown_parameters_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        build_loss(COUNTS, kind=kind, nonsense=1)


def test_unknown_kind_and_wrong_alpha_are_refused() -> None:
    with pytest.raises(ValueError, match="kind"):
        build_loss(COUNTS, kind="hinge")
    with pytest.raises(ValueError, match="2 weights for 3 classes"):
        build_loss(COUNTS, kind="focal", alpha=[1.0, 2.0])
