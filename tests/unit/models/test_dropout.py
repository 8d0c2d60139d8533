"""Our dropout is torch's, with other random numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from av1part.models.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 0.001])
def test_it_drops_its_share_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(1)
    x = torch.ones(1000, 1001)
    y = Dropout(p)(x)
    dropped = float((y == 0).float().mean())
    deviation = (p * (1 - p) / x.numel()) ** 0.5
    assert abs(dropped - p) < 4 * deviation + 2**-17
    kept = y[y != 0]
    assert torch.all(kept == kept[0])
    assert float(kept[0]) == pytest.approx(1 / (1 - p), rel=1e-4)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_nothing_and_everything(p: float) -> None:
    x = torch.randn(10, 3)
    assert torch.equal(Dropout(p)(x), x * (1 - p))


def test_values_are_dropped_independently() -> None:
    """Four values share a random word; neighbours in a word must not share their fate."""
    torch.manual_seed(2)
    dropped = (Dropout(0.5)(torch.ones(100_000, 4)) == 0).double()
    correlation = torch.corrcoef(dropped.T) - torch.eye(4)
    assert float(correlation.abs().max()) < 0.015


def test_it_is_torchs_but_for_the_numbers() -> None:
    ours = Dropout(0.3)
    assert isinstance(ours, nn.Dropout)
    x = torch.randn(7, 5, requires_grad=True)
    assert torch.equal(ours.eval()(x), x)
    ours.train()
    torch.manual_seed(3)
    first = ours(x)
    torch.manual_seed(3)
    assert torch.equal(ours(x), first), "the seed decides"
    assert not torch.equal(ours(x), first)
    first.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), first.detach())
