"""Stages side by side: the same answers, and what they share computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from av1part.data.serve.datamodule import BlockDataModule
from av1part.evaluation.evaluate import evaluate, evaluate_together
from av1part.evaluation.trunk import SharedTrunk
from av1part.models.backbone import ResNet18
from av1part.models.classifier import Classifier
from av1part.stages.base import StageModule
from av1part.stages.choice import STAGES

METHODS = {
    "stage1": ("scratch", None),
    "stage2": ("adapter", {"layers": [2, 4], "kind": "bottleneck", "init_std": 0.3}),
    "stage3_rect": ("frozen", None),
    "stage3_ab": ("finetune", None),
}


def build(name: str, data: BlockDataModule, seed: int) -> StageModule:
    method, adapter = METHODS[name]
    own = BlockDataModule(data.path, stage=name)
    torch.manual_seed(seed)
    return STAGES[name](
        taxonomy="v6",
        method=method,
        backbone={"width": 8},
        head={"kind": "linear"},
        loss={"kind": "focal"},
        optimizer={"lr": {}},
        scheduler={"kind": "constant"},
        data=own.facts(),
        adapter=adapter,
    ).eval()


@pytest.fixture(scope="module")
def data(small_store: Path) -> BlockDataModule:
    module = BlockDataModule(small_store, stage="stage1")
    module.setup()
    return module


@pytest.fixture
def members(data: BlockDataModule) -> dict[str, list[StageModule]]:
    """A cascade on one backbone, but for a finetuned ensemble."""
    found = {name: [build(name, data, 1)] for name in METHODS}
    found["stage3_ab"] += [build("stage3_ab", data, seed) for seed in (2, 3)]
    start = found["stage1"][0].classifier.backbone.state_dict()
    for name in ("stage2", "stage3_rect"):
        found[name][0].classifier.backbone.load_state_dict(start)
    for modules in found.values():  # so that every way is gone by some block
        for module in modules:
            logits = evaluate(module, data.batches("val")).logits
            with torch.no_grad():
                module.classifier.head[-1].bias -= torch.from_numpy(logits.mean(0))
    return found


@pytest.fixture
def levels(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Levels that were computed, 0 for a stem."""
    seen: list[int] = []
    stem, level = ResNet18.stem, ResNet18.level

    def watched_stem(self: ResNet18, x: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(0)
        return stem(self, x, *rest)

    def watched(self: ResNet18, k: int, x: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        seen.append(k)
        return level(self, k, x, *rest, **named)

    monkeypatch.setattr(ResNet18, "stem", watched_stem)
    monkeypatch.setattr(ResNet18, "level", watched)
    return seen


def test_the_answers_are_those_of_each_alone(
    data: BlockDataModule, members: dict[str, list[StageModule]]
) -> None:
    modules = [module for each in members.values() for module in each]
    together = evaluate_together(modules, data.batches("val"))
    for module, found in zip(modules, together, strict=True):
        alone = evaluate(module, data.batches("val"))
        np.testing.assert_array_equal(found.logits, alone.logits)
        np.testing.assert_array_equal(found.node, alone.node)


def test_what_they_share_is_computed_once(
    data: BlockDataModule, members: dict[str, list[StageModule]], levels: list[int]
) -> None:
    batch = data.reader("val")[np.arange(20)]
    shared = [members[name][0].classifier for name in ("stage1", "stage2", "stage3_rect")]
    blocks = SharedTrunk(shared).blocks(batch["block"], batch["qindex"])
    with torch.inference_mode():
        for index in range(3):
            blocks.logits(index)
    # Stage 1 whole; Stage 2 goes on after layer 2, where its first adapter is; Stage 3 has all.
    assert levels == [0, 1, 2, 3, 4, 3, 4]
    levels.clear()
    apart = SharedTrunk([members["stage1"][0].classifier, members["stage3_ab"][1].classifier])
    with torch.inference_mode():
        for index in range(2):
            apart.blocks(batch["block"], batch["qindex"]).logits(index)
    assert levels == [0, 1, 2, 3, 4] * 2


def test_another_bit_depth_shares_nothing(members: dict[str, list[StageModule]]) -> None:
    first, second = (members[name][0].classifier for name in ("stage1", "stage3_rect"))
    assert isinstance(second, Classifier)
    second.normalise.peak.fill_(1023)
    assert not SharedTrunk([first, second]).shared(0)


def test_planes_with_and_without_moments_are_not_shared() -> None:
    """At 8x8 the path has no stem, so that only the input tells both apart there."""
    classifiers = [
        Classifier(
            classes=2,
            bit_depth=8,
            size=8,
            backbone={"kind": "superblock", "planes": ["level"], "width": 4, "energies": energies},
            head={"kind": "linear"},
        ).eval()
        for energies in (True, False)
    ]
    block, qindex = torch.arange(128, dtype=torch.uint8).view(2, 1, 8, 8), torch.tensor([60, 200])
    shared = SharedTrunk(classifiers).blocks(block, qindex)
    for index, classifier in enumerate(classifiers):
        assert torch.equal(shared.logits(index), classifier(block, qindex))
