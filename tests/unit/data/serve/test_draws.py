"""Random numbers of a node: the same whatever else is asked for, and distributed as promised."""

from __future__ import annotations

import pytest
import torch

from av1part.data.serve.draws import MOST_DEVIATIONS, NodeDraws
from av1part.partition import SYMMETRIES

COUNT = 20_000
NODE = torch.arange(COUNT)


def test_draws_are_a_function_of_seed_epoch_and_node() -> None:
    draws = NodeDraws(COUNT, 1, 0)
    first = draws.symmetries(NODE)
    assert torch.equal(first.flip(0), draws.symmetries(NODE.flip(0)))
    assert torch.equal(first[5:9], draws.symmetries(NODE[5:9]))
    for other in (NodeDraws(COUNT, 1, 1), NodeDraws(COUNT, 2, 0)):
        agree = (first == other.symmetries(NODE)).float().mean()
        assert abs(agree - 1 / 8) < 0.02
    share = torch.bincount(first, minlength=len(SYMMETRIES)) / COUNT
    assert (share - 1 / 8).abs().max() < 0.01


def test_further_nodes_leave_the_draws_of_the_others() -> None:
    few, many = NodeDraws(100, 1, 0), NodeDraws(COUNT, 1, 0)
    node = NODE[:100]
    assert torch.equal(few.symmetries(node), many.symmetries(node))
    assert torch.equal(few.noise(node, 64), many.noise(node, 64))


def test_a_draw_tells_nothing_of_another() -> None:
    draws = NodeDraws(COUNT, 3, 4)
    symmetry, label = draws.symmetries(NODE), draws.classes(NODE, 8)
    noise = draws.noise(NODE, 1)[:, 0]
    assert abs((symmetry == label).float().mean() - 1 / 8) < 0.01
    for drawn in (symmetry, label):
        assert abs(torch.corrcoef(torch.stack([drawn.float(), noise]))[0, 1]) < 0.03


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_random_classes_are_equally_likely(classes: int) -> None:
    drawn = NodeDraws(COUNT, 1, 2).classes(NODE, classes)
    share = torch.bincount(drawn, minlength=classes) / COUNT
    assert (share - 1 / classes).abs().max() < 0.015


@pytest.mark.parametrize("samples", [256, (64 + 2 * 256) ** 2], ids=["block", "largest block"])
def test_noise_is_standard_normal_and_another_of_every_node(samples: int) -> None:
    """The largest block is one of 64x64 with the widest margin, 256."""
    noise = NodeDraws(COUNT, 1, 0).noise(NODE[-40:], samples)
    assert noise.shape == (40, samples)
    assert noise.abs().max() <= MOST_DEVIATIONS
    assert abs(noise.mean()) < 0.05
    assert noise.std() == pytest.approx(0.987, abs=0.03)  # cut off at three deviations
    assert len(noise[:, 0].unique()) == 40
