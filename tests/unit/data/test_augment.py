"""Symmetries on a batch: pixels and labels turn together, and nothing stored changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from av1part.data.augment import apply_symmetries, draw_symmetries
from av1part.partition import RECTANGLES, SYMMETRIES, Partition


def painted(partition: Partition) -> torch.Tensor:
    """A 16x16 block in which each rectangle of the type is filled with its own number."""
    block = np.zeros((16, 16), dtype=np.uint8)
    for number, (row, col, height, width) in enumerate(RECTANGLES[partition], start=1):
        block[4 * row : 4 * (row + height), 4 * col : 4 * (col + width)] = number
    return torch.from_numpy(block)[None, None]


def regions(block: torch.Tensor) -> frozenset[tuple[int, int, int, int]]:
    """The rectangles of a painted block, in quarters."""
    found = []
    for number in block.unique():
        rows, cols = torch.nonzero(block[0] == number, as_tuple=True)
        top, left = int(rows.min()), int(cols.min())
        height, width = int(rows.max()) + 1 - top, int(cols.max()) + 1 - left
        assert height * width == len(rows)
        found.append((top // 4, left // 4, height // 4, width // 4))
    return frozenset(found)


@pytest.mark.parametrize("partition", Partition)
@pytest.mark.parametrize("index", range(8))
def test_label_follows_the_pixels(partition: Partition, index: int) -> None:
    """The study swapped HORZ_A with HORZ_B on a left-right mirror, and turned RECT unlabelled."""
    batch = {
        "block": painted(partition),
        "partition": torch.tensor([int(partition)]),
        "qindex": torch.tensor([80]),
        "node": torch.tensor([5]),
    }
    turned = apply_symmetries(batch, torch.tensor([index]))
    label = Partition(int(turned["partition"]))
    assert regions(turned["block"][0]) == frozenset(RECTANGLES[label])


def test_the_given_batch_is_not_changed() -> None:
    batch = {
        "block": torch.randint(0, 256, (64, 1, 16, 16)).to(torch.uint8),
        "partition": torch.arange(64) % 8,
        "qindex": torch.full((64,), 80),
        "node": torch.arange(64),
    }
    before = {k: v.clone() for k, v in batch.items()}
    turned = apply_symmetries(batch, torch.arange(64) % 8)
    assert all(torch.equal(batch[k], before[k]) for k in batch)
    assert not torch.equal(turned["block"], batch["block"])
    assert turned["block"].dtype == torch.uint8


def test_draws_are_a_function_of_seed_epoch_and_node() -> None:
    node = torch.arange(20_000)
    first = draw_symmetries(node, seed=1, epoch=0)
    assert torch.equal(first.flip(0), draw_symmetries(node.flip(0), seed=1, epoch=0))
    for other in (draw_symmetries(node, 1, 1), draw_symmetries(node, 2, 0)):
        agree = (first == other).float().mean()
        assert abs(agree - 1 / 8) < 0.02
    share = torch.bincount(first, minlength=len(SYMMETRIES)) / len(node)
    assert (share - 1 / 8).abs().max() < 0.01
