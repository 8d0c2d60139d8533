"""The superblock network: its planes, what a node sees, types that cannot be, any frame size."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from av1part.models.planes import MOMENTS, InputPlanes, coarser, log_costs
from av1part.models.summary import count_parameters
from av1part.models.superblock import SuperblockNetwork
from av1part.models.trunk import STRIDES
from av1part.partition import SIZES, Partition, legal_partitions, taxonomy
from av1part.quantiser import AC_STEPS


def network(*, bit_depth: int = 8, types: str = "v6_1to4", **options: Any) -> SuperblockNetwork:
    """A small network whose every layer changes its answer, also those that begin at zero."""
    torch.manual_seed(3)
    built = SuperblockNetwork(
        taxonomy=taxonomy(types), bit_depth=bit_depth, **({"width": 2} | options)
    ).eval()
    for name, parameter in built.named_parameters():
        if "bn2" in name or "film" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return built


def noise(height: int, width: int, bits: int = 8, seed: int = 0) -> torch.Tensor:
    samples = np.random.default_rng(seed).integers(0, 1 << bits, (1, 1, height, width))
    return torch.from_numpy(samples.astype(np.uint8 if bits == 8 else np.int16))


def test_planes_are_what_their_names_say() -> None:
    block, qindex = noise(40, 50), torch.tensor([128])
    level, detail, steps = InputPlanes(8)(block, qindex)[0].double().numpy()
    luma = block[0, 0].double().numpy()
    padded = np.pad(luma, 8, "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (17, 17))
    mean = windows.mean((2, 3))
    np.testing.assert_allclose(level, (luma - 128) / 64, rtol=1e-6)
    np.testing.assert_allclose(detail, (luma - mean) / 16, atol=1e-5)
    expected = np.tanh((luma - mean) * 8 / AC_STEPS[128])
    np.testing.assert_allclose(steps, expected, atol=1e-5)


@pytest.mark.parametrize("bits", [8, 10])
def test_energies_are_those_of_each_cell(bits: int) -> None:
    """Carried from stride to stride, against sums over each cell's samples."""
    block, qindex = noise(64, 128, bits), torch.tensor([150])
    carried = InputPlanes(bits, moments=True)(block, qindex)[:, -MOMENTS:]
    luma = block[0, 0].double().numpy() / 2 ** (bits - 8) * 8 / AC_STEPS[150]
    across, down = np.zeros_like(luma), np.zeros_like(luma)
    across[:, 1:], down[1:] = np.diff(luma, axis=1) ** 2, np.diff(luma, axis=0) ** 2
    for stride in STRIDES:
        carried = coarser(carried)

        def cells(plane: np.ndarray[Any, Any], side: int = stride) -> np.ndarray[Any, Any]:
            return plane.reshape(64 // side, side, 128 // side, side).swapaxes(1, 2)

        found = log_costs(carried)[0].double().numpy()
        own = [cells(luma).var((2, 3)), *(cells(e).mean((2, 3)) for e in (across, down))]
        expected = [*(0.3 * np.log(energy + 0.01) for energy in own)]
        for scale in (s for s in STRIDES if s <= stride):
            half = scale // 2
            quarter = luma.reshape(64 // half, half, 128 // half, half).mean((1, 3))
            (a, b), (c, d) = ([quarter[i::2, j::2] for j in (0, 1)] for i in (0, 1))
            bands = np.array([a - b + c - d, a + b - c - d, a - b - c + d])
            of_cells = bands.reshape(3, 64 // stride, stride // scale, 128 // stride, -1)
            expected += [*(0.3 * np.log((of_cells**2 / 4).mean((2, 4)) + 0.01))]
            # The sums of the four quarters' samples over the side: orthonormal.
            coefficients = of_cells * half**2 / scale
            expected += [*np.log1p(np.abs(coefficients)).mean((2, 4))]
        np.testing.assert_allclose(found, np.array(expected), atol=2e-4)


def test_without_energies_no_layer_takes_them() -> None:
    built = network(energies=False)
    assert not any("energies" in name for name in built.state_dict())
    assert built.normalise(noise(64, 64), torch.tensor([9])).shape[1] == len(built.normalise.planes)


def test_ten_bits_of_the_same_picture_give_the_same_planes() -> None:
    block, qindex = noise(24, 24), torch.tensor([99])
    ten = block.to(torch.int16) * 4
    both = (InputPlanes(10, moments=True)(ten, qindex), InputPlanes(8, moments=True)(block, qindex))
    torch.testing.assert_close(*both)


def test_steps_are_the_standards() -> None:
    assert len(AC_STEPS) == 256
    assert (AC_STEPS[0], AC_STEPS[1], AC_STEPS[128], AC_STEPS[255]) == (4, 8, 176, 1828)
    assert all(a < b for a, b in itertools.pairwise(AC_STEPS))


@pytest.mark.parametrize("planes", [[], ["level", "level"], ["colour"]])
def test_planes_that_cannot_be_are_refused(planes: list[str]) -> None:
    with pytest.raises(ValueError, match="planes must be some of"):
        InputPlanes(8, planes)


def test_scaled_samples_are_refused() -> None:
    with pytest.raises(TypeError, match="integers until this layer"):
        network()(torch.rand(1, 1, 64, 64), torch.tensor([80]))


def test_default_size_is_the_documented_one() -> None:
    built = SuperblockNetwork(taxonomy=taxonomy("v6_1to4"), bit_depth=8)
    assert count_parameters(built) == 688_754
    assert built.reach == 513
    grouped = [p for group in built.parameter_groups().values() for p in group]
    assert {id(p) for p in grouped} == {id(p) for p in built.parameters()}
    assert len(grouped) == len(list(built.parameters()))


@pytest.mark.parametrize("types", ["v6", "v6_1to4"])
def test_types_that_cannot_be_have_probability_zero(types: str) -> None:
    found = network(types=types)(noise(64, 128), torch.tensor([80]))
    assert sorted(found) == list(SIZES)
    for size, logits in found.items():
        assert logits.shape == (1, 10, 64 // size, 128 // size)
        probabilities = logits.softmax(1)
        legal = legal_partitions(size, one_to_four=types == "v6_1to4")
        for partition in Partition:
            of_type = probabilities[:, partition]
            assert (of_type > 0).all() if partition in legal else (of_type == 0).all()


@settings(deadline=None, max_examples=12)
@given(height=st.integers(1, 150), width=st.integers(1, 150), bits=st.sampled_from([8, 10]))
def test_any_frame_is_that_frame_with_its_edge_repeated(height: int, width: int, bits: int) -> None:
    built, block = network(bit_depth=bits), noise(height, width, bits)
    found = built(block, torch.tensor([200]))
    rows, cols = -(-height // 64), -(-width // 64)
    for size, logits in found.items():
        assert logits.shape[2:] == (rows * 64 // size, cols * 64 // size)
        assert torch.isfinite(logits[:, built.types[size]]).all()


@pytest.mark.parametrize("depth", [1, 2])
def test_what_is_beyond_reach_changes_nothing(depth: int) -> None:
    built = network(depth=depth, width=4).double()
    built.normalise.float()
    side, size = 64 * (2 * (built.reach // 64 + 1) + 1), 8
    block, qindex = noise(side, 64), torch.tensor([128])
    cell = side // 2 // 8
    base = logits_of(built, block, qindex)[size][..., cell, 4]
    top = 8 * cell

    def changed(row: int) -> bool:
        other = block.clone()
        other[:, :, row] = 255 - other[:, :, row]
        return not torch.equal(base, logits_of(built, other, qindex)[size][..., cell, 4])

    assert changed(top - 1)
    assert changed(top + 8)
    assert not changed(top - built.reach - 1)
    assert not changed(top + 8 + built.reach)
    # Not a bound far off: a block of the deepest stride is seen.
    assert changed(top - built.reach // 2)


def logits_of(built: SuperblockNetwork, block: torch.Tensor, qindex: torch.Tensor) -> Any:
    planes, moments = built.normalise.apart(block, qindex)
    assert moments is not None
    maps = built.backbone(planes.double(), moments.double(), qindex)
    return {s: built.of_all_types(s, built.head[str(s)](x)) for s, x in maps.items()}


def test_a_crop_is_the_frame_away_from_its_border() -> None:
    built = network()
    margin = -(-built.reach // 64) * 64
    side = 2 * margin + 192
    block, qindex = noise(side, side, seed=1), torch.tensor([60])
    with torch.no_grad():
        whole = built(block, qindex)
        crop = built(block[..., 64:, 64:], qindex)  # its own right and lower edge are the frame's
    for size in SIZES:
        skip = margin // size
        inside = crop[size][..., skip:, skip:]
        assert inside.shape[2] > 0
        same = whole[size][..., skip + 64 // size :, skip + 64 // size :]
        torch.testing.assert_close(inside, same, rtol=1e-4, atol=1e-4)


def test_same_input_same_bits() -> None:
    built, block = network(), noise(100, 130)
    first, second = (built(block, torch.tensor([90])) for _ in range(2))
    assert all(torch.equal(first[size], second[size]) for size in SIZES)


def test_qindex_changes_the_answer_by_film_alone() -> None:
    built = network(planes=["level"], energies=False)
    block = noise(64, 64)
    low, high = (built(block, torch.tensor([q])) for q in (20, 220))
    assert not torch.equal(low[16], high[16])
    for name, parameter in built.named_parameters():
        if "film" in name:
            torch.nn.init.zeros_(parameter)
    low, high = (built(block, torch.tensor([q])) for q in (20, 220))
    assert torch.equal(low[16], high[16])


def test_every_parameter_gets_a_gradient() -> None:
    built = network()
    found = built(noise(128, 128), torch.tensor([80]))
    loss = sum(found[size][:, built.types[size]].log_softmax(1).square().mean() for size in SIZES)
    assert isinstance(loss, torch.Tensor)
    torch.autograd.backward(loss)
    without = [n for n, p in built.named_parameters() if p.grad is None or not p.grad.any()]
    # A unit of a network this narrow may be dead; a whole layer is not.
    assert not [name for name in without if "weight" in name]
    assert len(built.backbone.down) == len(STRIDES)


def test_it_learns_where_a_node_is_cut() -> None:
    """Steps of 12 samples across or along 8x8 nodes: each cell must see its own node."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, (1, 16, 16))
    luma = np.full((1, 128, 128), 128)
    for row, col in np.ndindex(16, 16):
        half = [(slice(0, 0),), (slice(4),), (slice(None), slice(4))][label[0, row, col]]
        luma[0, 8 * row : 8 * row + 8, 8 * col : 8 * col + 8][half] += 12
    luma += rng.integers(-2, 3, luma.shape)
    block, target = torch.from_numpy(luma.astype(np.uint8))[:, None], torch.from_numpy(label)
    torch.manual_seed(0)
    built = SuperblockNetwork(taxonomy=taxonomy("v6"), bit_depth=8, width=8)
    optimizer = torch.optim.AdamW(built.parameters(), lr=5e-3)
    for _ in range(60):
        logits = built(block, torch.tensor([80]))[8][:, :4]
        optimizer.zero_grad()
        torch.autograd.backward(torch.nn.functional.cross_entropy(logits, target))
        optimizer.step()
    assert (logits.argmax(1) == target).float().mean() > 0.98
