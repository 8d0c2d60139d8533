"""Augmenter of a batch: whole samples, labels that fit, draws that repeat, nothing in place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from av1part.data.serve.augment import (
    Augmenter,
    add_noise,
    apply_symmetries,
    change_levels,
    mix_up,
    soft_labels,
)
from av1part.data.serve.blocks import Batch
from av1part.data.serve.draws import MOST_DEVIATIONS, NodeDraws
from av1part.partition import RECTANGLES, SYMMETRIES, Partition, Stage, Symmetry, taxonomy

AB = taxonomy("v6").stage("stage3_ab")
RECT = taxonomy("v6").stage("stage3_rect")


def batch_of(count: int, bit_depth: int = 8, side: int = 16, *, stage: Stage = AB) -> Batch:
    """Random blocks of a stage's types, at two qindexes."""
    rng = np.random.default_rng(count)
    block = rng.integers(0, 1 << bit_depth, (count, 1, side, side))
    types = rng.choice(sorted(stage.population), count)
    return {
        "block": torch.from_numpy(block).to(torch.uint8 if bit_depth == 8 else torch.int16),
        "partition": torch.from_numpy(types.astype(np.int64)),
        "qindex": torch.from_numpy(rng.choice([80, 220], count)),
        "node": torch.from_numpy(rng.permutation(count)),
    }


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


@given(
    depth=st.sampled_from([8, 10]),
    level=st.integers(0, 1 << 16),
    least=st.integers(0, 200),
    span=st.integers(0, 55),
)
def test_levels_keep_every_difference_and_the_range(
    depth: int, level: int, least: int, span: int
) -> None:
    rng = np.random.default_rng(span)
    drawn = rng.integers(least, least + span + 1, (1, 1, 8, 8))
    block = torch.from_numpy(drawn).to(torch.uint8 if depth == 8 else torch.int16)
    changed = change_levels(block, torch.tensor([level]), depth)
    assert changed.dtype == block.dtype
    assert 0 <= int(changed.min()) <= int(changed.max()) < 1 << depth
    sign = -1 if level & 1 else 1
    assert torch.equal(changed.int().diff(), sign * block.int().diff())


@pytest.mark.parametrize("negated", [0, 1])
def test_every_shift_that_cuts_nothing_off_occurs(negated: int) -> None:
    block = torch.tensor([[[[100, 103]]]], dtype=torch.uint8)
    least = {
        int(change_levels(block, torch.tensor([2 * shift + negated]), 8).min())
        for shift in range(256)
    }
    assert least == set(range(253))


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


@given(
    st.sampled_from([8, 10]),
    st.floats(0.01, 1.0),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 4]),
    st.floats(0, 0.5),
)
def test_noise_is_bounded_by_the_contrast_of_the_block(
    bit_depth: int, share: float, seed: int, context: int, spread: float
) -> None:
    """The study's sigma was hundreds of times what its blocks held."""
    peak = (1 << bit_depth) - 1
    side = 16 + 2 * context
    batch = batch_of(12, bit_depth, side)
    # From flat to the full range, around the middle.
    wide = batch["block"].double() / peak - 0.5
    batch["block"] = ((wide * 2 * spread + 0.5) * peak).round().to(batch["block"].dtype)
    draws = NodeDraws(12, seed, 3)
    noisy = add_noise(batch, share, draws, bit_depth=bit_depth, context=context)
    assert noisy["block"].dtype == batch["block"].dtype
    assert all(noisy[k] is batch[k] for k in ("partition", "qindex", "node"))
    inner = batch["block"][..., context : side - context, context : side - context].double()
    moved = (noisy["block"].double() - batch["block"].double()).abs().amax((1, 2, 3))
    bound = MOST_DEVIATIONS * share * inner.std((-2, -1), correction=0)[:, 0] + 0.5 + 1e-3
    assert (moved <= bound).all()
    assert moved.max() <= (0.5 * MOST_DEVIATIONS * share * 2 * spread + 1) * peak
    assert noisy["block"].min() >= 0
    assert noisy["block"].max() <= peak


@pytest.mark.parametrize("bit_depth", [8, 10])
def test_a_flat_block_stays_flat_whatever_surrounds_it(bit_depth: int) -> None:
    batch = batch_of(20, bit_depth, 24)
    batch["block"][..., 4:20, 4:20] = 77
    noisy = add_noise(batch, 1.0, NodeDraws(20, 1, 0), bit_depth=bit_depth, context=4)
    assert torch.equal(noisy["block"], batch["block"])


@pytest.mark.parametrize("bit_depth", [8, 10])
def test_noise_has_the_deviation_asked_for(bit_depth: int) -> None:
    batch = batch_of(200, bit_depth)
    peak = (1 << bit_depth) - 1
    batch["block"] = (batch["block"] // 4 + peak // 3).to(batch["block"].dtype)  # far from clipping
    noisy = add_noise(batch, 0.2, NodeDraws(200, 1, 0), bit_depth=bit_depth)
    moved = (noisy["block"].double() - batch["block"].double())[:, 0]
    share = moved.std((-2, -1)) / batch["block"][:, 0].double().std((-2, -1))
    assert share.mean() == pytest.approx(0.2, rel=0.03)
    assert abs(moved.mean()) < 0.02 * peak / 4
    if bit_depth == 10:  # at 8 bits one deviation is four steps, too coarse to tell
        within = (moved.abs() < moved.std()).double().mean()
        assert within == pytest.approx(0.683, abs=0.02), "Gaussian"


def test_noise_is_a_function_of_seed_epoch_and_node() -> None:
    batch = batch_of(64)
    order = torch.arange(63, -1, -1)
    draws = NodeDraws(64, 1, 2)
    noise = {"share": 0.3, "bit_depth": 8}
    noisy = add_noise(batch, draws=draws, **noise)["block"]
    turned = add_noise({k: v[order] for k, v in batch.items()}, draws=draws, **noise)
    assert torch.equal(turned["block"][order], noisy)
    few = add_noise({k: v[:7] for k, v in batch.items()}, draws=draws, **noise)
    assert torch.equal(few["block"], noisy[:7]), "whatever else is in the batch"
    for other in (NodeDraws(64, 1, 3), NodeDraws(64, 2, 2)):
        assert not torch.equal(add_noise(batch, draws=other, **noise)["block"], noisy)


def mixed(batch: Batch, alpha: float = 1.0, seed: int = 0) -> Batch:
    return mix_up(batch, alpha, np.random.default_rng(seed))


@given(st.integers(1, 40), st.floats(0.05, 5.0), st.integers(0, 1000), st.sampled_from([8, 10]))
def test_mixtures_are_of_two_blocks_and_their_labels_alike(
    count: int, alpha: float, seed: int, bit_depth: int
) -> None:
    """Each block tells its number by its samples and its label, so the weights can be read off."""
    batch = batch_of(count, bit_depth)
    number = torch.arange(count)
    peak = (1 << bit_depth) - 1
    batch["block"][:] = (number * peak // 40).view(-1, 1, 1, 1)
    batch["target"] = torch.eye(count)
    after = mixed(batch, alpha, seed)
    assert after["block"].dtype == batch["block"].dtype
    assert all(after[k] is batch[k] for k in ("partition", "qindex", "node"))
    torch.testing.assert_close(after["target"].sum(1), torch.ones(count))
    for i, row in enumerate(after["target"]):
        partners = set(row.nonzero().flatten().tolist()) | {i}
        assert len(partners) <= 2
        assert {int(batch["qindex"][j]) for j in partners} == {int(batch["qindex"][i])}
        expected = (row.double() * (number * peak // 40)).sum()
        assert (after["block"][i] - expected).abs().max() <= 0.5 + 1e-3


def test_everyone_gets_another_partner_where_there_is_one() -> None:
    batch = batch_of(64) | {"target": torch.eye(64)}
    batch["qindex"][:3] = torch.tensor([5, 6, 6])
    after = mixed(batch)["target"]
    assert torch.equal(after[0], batch["target"][0]), "alone with its qindex"
    assert after[1, 2] > 0
    assert after[2, 1] > 0
    assert ((after > 0).sum(1)[1:] == 2).all()
    assert ((after > 0).sum(0)[1:] == 2).all(), "a permutation: each is a partner once"


def test_weights_are_of_the_beta_distribution() -> None:
    batch = batch_of(4000, side=2)
    batch |= {"target": torch.eye(2)[(batch["node"] % 2)], "qindex": torch.zeros(4000).long()}
    for alpha in (0.2, 1.0, 4.0):
        drawn = np.random.default_rng(0).beta(alpha, alpha, 4000)
        weight = mixed(batch, alpha)["target"].gather(1, (batch["node"] % 2)[:, None])[:, 0]
        differ = weight < 1
        np.testing.assert_allclose(weight[differ], drawn[differ.numpy()], atol=1e-6)
        assert drawn.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


def test_foreign_blocks_have_soft_labels_and_own_ones_their_class() -> None:
    batch = batch_of(300, stage=taxonomy("v6").stage("stage2"))
    own = torch.from_numpy(RECT.labels)[batch["partition"]] >= 0
    nearest = soft_labels(batch, RECT, NodeDraws(300, 1, 0))
    assert torch.equal(nearest, torch.from_numpy(RECT.targets)[batch["partition"]])
    random = soft_labels(batch, RECT, NodeDraws(300, 1, 0), foreign="random")
    assert torch.equal(random[own], nearest[own])
    assert set(random[~own].flatten().tolist()) == {0.0, 1.0}
    assert torch.equal(random[~own].sum(1), torch.ones(int((~own).sum())))
    for seed, epoch in ((1, 1), (2, 0)):
        other = soft_labels(batch, RECT, NodeDraws(300, seed, epoch), foreign="random")
        assert not torch.equal(other[~own], random[~own])


@pytest.mark.parametrize("bit_depth", [8, 10])
def test_all_at_once_repeats_and_changes_nothing_given(bit_depth: int) -> None:
    options = {"symmetries": True, "noise": 0.1, "mixup": 0.4, "foreign": "nearest"}
    augment = Augmenter(RECT, 5, bit_depth, 64, **options)  # type: ignore[arg-type]
    batch = batch_of(64, bit_depth, stage=taxonomy("v6").stage("stage2"))
    before = {k: v.clone() for k, v in batch.items()}
    first, again = (augment(batch, epoch=2, step=9) for _ in range(2))
    assert all(torch.equal(batch[k], before[k]) for k in before)
    assert batch.keys() == before.keys()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert first["block"].dtype == batch["block"].dtype
    for other in ({"epoch": 3, "step": 9}, {"epoch": 2, "step": 10}):
        assert not torch.equal(augment(batch, **other)["block"], first["block"])
    assert not torch.equal(augment(batch, epoch=2, step=9, rank=1)["block"], first["block"])


def test_soft_labels_are_of_the_types_after_the_symmetry() -> None:
    batch = batch_of(64, stage=RECT)
    turned = apply_symmetries(batch, NodeDraws(64, 5, 2).symmetries(batch["node"]))
    augment = Augmenter(RECT, 5, 8, 64, symmetries=True, foreign="nearest")
    after = augment(batch, epoch=2, step=0)
    labels = torch.from_numpy(RECT.labels)[turned["partition"]]
    assert torch.equal(after["target"].argmax(1), labels)
    assert not torch.equal(labels, torch.from_numpy(RECT.labels)[batch["partition"]])


def test_what_is_off_leaves_the_batch_alone() -> None:
    batch = batch_of(8)
    assert Augmenter(AB, 5, 8, 8)(batch, epoch=0, step=0) is batch


def labels_after(defects: tuple[str, ...]) -> torch.Tensor:
    """Return the label of each type under each symmetry, int64 (8, 8)."""
    types = torch.arange(8)
    batch = {"features": torch.zeros(8, 1), "partition": types}
    turned = [apply_symmetries(batch, torch.full((8,), i), defects) for i in range(8)]
    return torch.stack([each["partition"] for each in turned])


def test_mirror_labels_swaps_the_labels_of_the_other_mirror() -> None:
    """A defect on purpose: the study's HorizontalFlip swapped HORZ_A with HORZ_B."""
    right, wrong = labels_after(()), labels_after(("mirror_labels",))
    left_right = SYMMETRIES.index(Symmetry(left_right=True))
    top_bottom = SYMMETRIES.index(Symmetry(top_bottom=True))
    for mirror, swapped in ((left_right, "HORZ"), (top_bottom, "VERT")):
        a, b = (Partition[f"{swapped}_{end}"] for end in "AB")
        expected = torch.arange(8)
        expected[[a, b]] = expected[[b, a]]
        assert torch.equal(wrong[mirror], expected)
        assert not torch.equal(wrong[mirror], right[mirror])
    # Turned twice both mirrors act, and the labels are right.
    both = SYMMETRIES.index(Symmetry(top_bottom=True, left_right=True))
    assert torch.equal(wrong[both], right[both])
    # RECT and coarser classes do not see it.
    assert torch.equal(wrong[:, :4], right[:, :4])


def test_turn_labels_leaves_horizontal_and_vertical_as_they_are() -> None:
    right, wrong = labels_after(()), labels_after(("turn_labels",))
    for index, symmetry in enumerate(SYMMETRIES):
        rect = wrong[index, [Partition.HORZ, Partition.VERT]].tolist()
        assert rect == [Partition.HORZ, Partition.VERT]
        assert torch.equal(wrong[index], right[index]) != symmetry.transpose


def test_a_training_batch_has_the_wrong_labels_on_purpose_alone() -> None:
    batch = {
        "block": painted(Partition.VERT_A).expand(64, 1, 16, 16).clone(),
        "partition": torch.full((64,), int(Partition.VERT_A)),
        "qindex": torch.full((64,), 80),
        "node": torch.arange(64),
    }
    healthy, own = (
        Augmenter(AB, 5, 8, 64, symmetries=True, defects=defects)(batch, epoch=2, step=9)
        for defects in ((), ("mirror_labels",))
    )
    assert torch.equal(healthy["block"], own["block"])
    assert not torch.equal(healthy["partition"], own["partition"])
    painted_as = [regions(block) for block in healthy["block"]]
    assert painted_as == [frozenset(RECTANGLES[Partition(int(p))]) for p in healthy["partition"]]
    assert painted_as != [frozenset(RECTANGLES[Partition(int(p))]) for p in own["partition"]]
