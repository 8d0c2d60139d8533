"""The predictor answers what `pipeline` answers of the same nodes, calibration and all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from av1part.cascade.analysis import analyse
from av1part.cascade.choices import Choices
from av1part.cascade.predictor import CascadePredictor
from av1part.cascade.run import ask_every_stage
from av1part.data.serve.datamodule import BlockDataModule
from av1part.evaluation.evaluate import evaluate
from av1part.options import Ensemble
from av1part.stages.base import STAGES, StageModule

Seeds = dict[str, tuple[int, ...]]
SINGLE = {"stage1": (1,), "stage2": (1,), "stage3_rect": (1,), "stage3_ab": (1,)}
SEVERAL = {"stage1": (1, 2), "stage2": (1,), "stage3_rect": (1, 2), "stage3_ab": (1, 2, 3)}


def cascade(data: BlockDataModule, seeds: Seeds) -> dict[str, list[StageModule]]:
    """Build untrained stages whose classes are about equally frequent, so that all are reached."""
    members: dict[str, list[StageModule]] = {}
    for name, own in seeds.items():
        facts = BlockDataModule(data.path, stage=name, taxonomy=data.taxonomy_name).facts()
        for seed in own:
            torch.manual_seed(seed)
            module = STAGES[name](
                taxonomy=data.taxonomy_name,
                method="scratch",
                backbone={"width": 4},
                head={"kind": "linear"},
                loss={"kind": "focal"},
                optimizer={"lr": {}},
                scheduler={"kind": "constant"},
                data=facts,
            ).eval()
            with torch.no_grad():  # so that answers are not all alike
                module.classifier.head[-1].weight *= 50
            logits = evaluate(module, data.batches("val")).logits
            with torch.no_grad():
                module.classifier.head[-1].bias -= torch.from_numpy(logits.mean(0))
            members.setdefault(name, []).append(module)
    return members


@pytest.fixture(scope="module", params=["v6", "v6_1to4"])
def data(
    request: pytest.FixtureRequest, small_store: Path, one_to_four_store: Path
) -> BlockDataModule:
    path = small_store if request.param == "v6" else one_to_four_store
    module = BlockDataModule(path, stage="stage1", taxonomy=request.param)
    module.setup()
    return module


def several(data: BlockDataModule, seeds: Seeds) -> Seeds:
    return seeds if data.taxonomy_name == "v6" else {**seeds, "stage3_1to4": (1,)}


@pytest.mark.parametrize("ensemble", ["mean", "vote"])
@pytest.mark.parametrize("seeds", [SINGLE, SEVERAL], ids=["single", "several"])
def test_it_answers_as_the_pipeline_does(
    data: BlockDataModule, seeds: Seeds, ensemble: Ensemble
) -> None:
    members = cascade(data, several(data, seeds))
    nodes, _ = ask_every_stage(members, data, "val", "cpu")
    temperatures = {s: tuple(0.2 + 0.1 * i for i in range(len(m))) for s, m in members.items()}
    choices = Choices(0.5, temperatures)
    expected = analyse(
        nodes,
        train_counts=np.ones(10),
        split="val",
        protocol="by_sequence",
        ensemble=ensemble,
        choices=choices,
    )
    batch = data.reader("val")[np.arange(len(data.reader("val")))]
    blocks = (batch["block"], batch["qindex"])
    for batch_size in (7, 2048):
        predictor = CascadePredictor(members, choices, ensemble=ensemble, batch_size=batch_size)
        np.testing.assert_allclose(
            predictor.distribution(*blocks), expected.probabilities, atol=1e-5
        )
        same = predictor.predict(*blocks) == expected.prediction
        assert same.mean() > 0.99, "but for ties in the last bit"
    reached = set(expected.prediction.tolist())
    for ways in ({0}, {1, 2}, {4, 5, 6, 7}):
        assert reached & ways, "a stage was not reached"
    uncalibrated = CascadePredictor(
        members, Choices.without_fit({s: len(m) for s, m in members.items()})
    )
    assert np.abs(uncalibrated.distribution(*blocks) - expected.probabilities).max() > 0.01


def test_of_no_blocks_it_says_nothing(data: BlockDataModule) -> None:
    members = cascade(data, several(data, SINGLE))
    predictor = CascadePredictor(members, Choices.without_fit(dict.fromkeys(members, 1)))
    batch = data.reader("val")[np.arange(1)]
    assert predictor.predict(batch["block"][:0], batch["qindex"][:0]).shape == (0,)
    types = len(predictor.taxonomy.partitions)
    assert predictor.distribution(batch["block"][:0], batch["qindex"][:0]).shape == (0, types)


def test_half_precision_mostly_agrees(data: BlockDataModule) -> None:
    members = cascade(data, several(data, SEVERAL))
    choices = Choices.without_fit({stage: len(m) for stage, m in members.items()})
    batch = data.reader("val")[np.arange(len(data.reader("val")))]
    whole, half = (
        CascadePredictor(members, choices, precision=precision).predict(
            batch["block"], batch["qindex"]
        )
        for precision in ("32-true", "bf16-mixed")
    )
    assert 0.9 < (whole == half).mean() <= 1
