"""The superblock network as a predictor: one pass, tiles that change nothing, the network's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from av1part.models import folded
from av1part.models.folded import folded_inference
from av1part.models.superblock import SuperblockNetwork
from av1part.models.trunk import Down
from av1part.partition import SIZES, legal_partitions
from av1part.predictors.superblock import SuperblockPredictor
from av1part.stages.choice import CASCADE

from .small import small_superblock


@pytest.fixture(scope="module")
def predictor() -> SuperblockPredictor:
    return small_superblock()


def luma(height: int, width: int, bits: int = 8) -> np.ndarray:
    rng = np.random.default_rng(2)
    return rng.integers(0, 1 << bits, (height, width)).astype(np.uint8 if bits == 8 else np.uint16)


def count_calls(
    predictor: SuperblockPredictor, calls: list[str]
) -> list[torch.utils.hooks.RemovableHandle]:
    """Note every module that is called, by its class."""
    return [
        module.register_forward_pre_hook(lambda m, _: calls.append(type(m).__name__))
        for module in predictor.module.modules()
    ]


def test_one_pass_gives_all_sizes_without_a_stage_classifier(
    predictor: SuperblockPredictor,
) -> None:
    calls: list[str] = []
    handles = count_calls(predictor, calls)
    found = predictor.predict(luma(200, 300), 8, 128)
    for handle in handles:
        handle.remove()
    assert sorted(found) == list(SIZES)
    assert calls.count("SuperblockStage") == calls.count("SuperblockNetwork") == 1
    # Every layer once: nothing is computed a size. Those with a BatchNorm are folded, and so are
    # called by their block, as those of the energies are.
    modules = list(predictor.module.modules())
    for block in ("Down", "FiLMBlock", "Merged"):
        assert calls.count(block) == sum(type(m).__name__ == block for m in modules) > 0
    alone = [m for m in modules if isinstance(m, torch.nn.Conv2d) and m.bias is not None]
    energies = [m for m in modules if isinstance(m, Down) and m.energies is not None]
    assert calls.count("Conv2d") == len(alone) - len(energies) > len(SIZES)
    assert energies
    assert not {cls.__name__ for cls in CASCADE.values()} & set(calls)


def test_layers_are_folded_once_for_all_frames(
    predictor: SuperblockPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    fold = folded._weights
    monkeypatch.setattr(folded, "_weights", lambda *of: (made.append(of), fold(*of))[1])
    predictor.predict(luma(128, 192), 8, 128)
    first = len(made)
    predictor.predict(luma(128, 192), 8, 90)
    assert len(made) == first


@pytest.mark.parametrize(("height", "width"), [(200, 300), (64, 64), (63, 130), (8, 8), (5, 200)])
def test_it_answers_as_the_network(predictor: SuperblockPredictor, height: int, width: int) -> None:
    plane = luma(height, width)
    found = predictor.predict(plane, 8, 90)
    block = torch.from_numpy(plane)[None, None]
    with torch.inference_mode(), folded_inference():
        logits = predictor.module(block, torch.tensor([90]))
    there = [size for size in SIZES if height >= size and width >= size]
    assert sorted(found) == there
    for size in there:
        rows, cols = height // size, width // size
        temperature = {16: 1.5, 64: 0.8}.get(size, 1.0)
        expected = (logits[size][0, :, :rows, :cols] / temperature).softmax(0).permute(1, 2, 0)
        np.testing.assert_allclose(found[size], expected, rtol=1e-5, atol=1e-7)
        illegal = sorted(set(range(10)) - set(legal_partitions(size, one_to_four=False)))
        assert not found[size][..., illegal].any()
        np.testing.assert_allclose(found[size].sum(-1), 1, rtol=1e-5)


def test_tiles_are_the_whole_frame(
    predictor: SuperblockPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = luma(1300, 1800)
    whole = predictor.predict(plane, 8, 60)
    shown: list[tuple[int, ...]] = []
    forward = SuperblockNetwork.forward
    monkeypatch.setattr(
        SuperblockNetwork,
        "forward",
        lambda self, block, q: (shown.append(tuple(block.shape)), forward(self, block, q))[1],
    )
    tiled = replace(predictor, pass_side=1024).predict(plane, 8, 60)
    assert len(shown) == 12
    assert max(h * w for *_, h, w in shown) < 1300 * 1800
    for size in SIZES:
        np.testing.assert_allclose(tiled[size], whole[size], rtol=1e-4, atol=1e-6)


def test_ten_bits_are_shifted_to_the_networks(predictor: SuperblockPredictor) -> None:
    plane = luma(100, 100)
    eight = predictor.predict(plane, 8, 100)
    ten = predictor.predict(plane.astype(np.uint16) << 2, 10, 100)
    assert all(np.array_equal(eight[size], ten[size]) for size in eight)


def test_its_domain_is_what_it_was_trained_on(predictor: SuperblockPredictor) -> None:
    domain = predictor.domain
    assert (domain.sizes, domain.qindexes) == (SIZES, (80, 220))
    assert (domain.bit_depths, domain.one_to_four) == ((8,), False)
