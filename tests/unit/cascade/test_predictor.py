"""The predictor against `pipeline`: the same types and distributions, and fewer stages computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from av1part.cascade.analysis import CascadeResult, analyse
from av1part.cascade.choices import Choices, fit_choices
from av1part.cascade.members import evaluate_members
from av1part.cascade.predictor import CascadePredictor
from av1part.cascade.routing import PASS_ALL, route
from av1part.data.serve.datamodule import BlockDataModule
from av1part.evaluation.evaluate import evaluate
from av1part.evaluation.trunk import SharedBlocks
from av1part.metrics.intervals import Bootstrap
from av1part.options import Ensemble
from av1part.partition import IGNORED
from av1part.stages.base import StageModule
from av1part.stages.choice import STAGES

Members = dict[str, list[StageModule]]
Cascade = tuple[BlockDataModule, Members]

ENSEMBLES = {"stage1": 3, "stage2": 2, "stage3_ab": 3}
"""Members of the stages that have several."""


def build(name: str, data: BlockDataModule, seed: int) -> StageModule:
    """A stage whose blocks go every way, and whose logits are large enough for temperatures."""
    facts = BlockDataModule(data.path, stage=name, taxonomy=data.taxonomy_name).facts()
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
    logits = evaluate(module, data.batches("val")).logits
    with torch.no_grad():
        module.classifier.head[-1].weight *= 3 / logits.std(0).max()
        logits = evaluate(module, data.batches("val")).logits
        module.classifier.head[-1].bias -= torch.from_numpy(np.median(logits, 0))
    return module


@pytest.fixture(scope="module", params=["v6", "v6_1to4"])
def cascade(request: pytest.FixtureRequest, small_store: Path, one_to_four_store: Path) -> Cascade:
    store = small_store if request.param == "v6" else one_to_four_store
    data = BlockDataModule(store, stage="stage1", taxonomy=request.param)
    data.setup()
    root = build("stage1", data, 0)
    return data, {
        stage.name: [build(stage.name, data, seed) for seed in range(ENSEMBLES.get(stage.name, 1))]
        for stage in root.taxonomy.stages
    }


def val(data: BlockDataModule) -> tuple[torch.Tensor, torch.Tensor]:
    reader = data.reader("val")
    batch = reader[np.arange(len(reader))]
    return batch["block"], batch["qindex"]


def pipeline(
    data: BlockDataModule, members: Members, choices: Choices | None, rule: Ensemble
) -> CascadeResult:
    """What `pipeline` makes of val, with choices fitted there if none are given."""
    nodes, _ = evaluate_members(members, data, "val")
    return analyse(
        nodes,
        train_counts=np.arange(10) + 1,
        split="test",
        protocol="-",
        ensemble=rule,
        choices=fit_choices(nodes, ensemble=rule) if choices is None else choices,
        bootstrap=Bootstrap(resamples=2),
    )


@pytest.mark.parametrize(("several", "rule"), [(False, "mean"), (True, "mean"), (True, "vote")])
def test_predictions_and_distributions_are_those_of_the_pipeline(
    cascade: Cascade, several: bool, rule: Ensemble
) -> None:
    data, ensembles = cascade
    members = {name: stage if several else stage[:1] for name, stage in ensembles.items()}
    result = pipeline(data, members, None, rule)
    predictor = CascadePredictor(
        members, result.choices, ensemble=rule, batch_size=data.eval_batch_size
    )
    distribution = predictor.distribution(*val(data))
    np.testing.assert_array_equal(distribution, result.probabilities)
    assert distribution.sum(1) == pytest.approx(np.ones(len(distribution)))
    assert len(set(result.prediction.tolist())) >= 4
    for batch_size in (7, 2048):
        predictor = CascadePredictor(members, result.choices, ensemble=rule, batch_size=batch_size)
        same = predictor.predict(*val(data)) == result.prediction
        assert same.mean() > 0.99, "but for ties in the last bit"
    neutral = CascadePredictor(members, ensemble=rule)
    assert np.abs(neutral.distribution(*val(data)) - distribution).max() > 0.05, "calibrated"
    assert (neutral.predict(*val(data)) != result.prediction).any()


def test_a_stage_is_computed_only_for_the_blocks_that_reach_it(
    cascade: Cascade, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, members = cascade
    blocks, qindex = val(data)
    computed: dict[int, int] = {}
    logits = SharedBlocks.logits

    def counted(self: SharedBlocks, member: int) -> torch.Tensor:
        computed[member] = computed.get(member, 0) + len(self.qindex)
        return logits(self, member)

    monkeypatch.setattr(SharedBlocks, "logits", counted)
    ones = Choices.neutral(members).temperatures
    for threshold in (PASS_ALL, 0.5, 1.0):
        choices = Choices(threshold, ones)
        nodes, _ = evaluate_members(members, data, "val")
        scores = {
            name: np.exp(stage - np.logaddexp.reduce(stage, -1, keepdims=True)).mean(0)
            for name, stage in nodes.logits.items()
        }
        decisions = route(nodes.taxonomy, scores, threshold).decisions
        computed.clear()
        CascadePredictor(members, choices).predict(blocks, qindex)
        member = 0
        for name, stage in members.items():
            reached = int((decisions[name] != IGNORED).sum())
            for _ in stage:
                assert computed.get(member, 0) == pytest.approx(reached, abs=2), name
                member += 1
        assert (len(computed) == len(members["stage1"])) == (threshold == 1.0)


def test_no_blocks_have_no_predictions(cascade: Cascade) -> None:
    data, members = cascade
    blocks, qindex = val(data)
    predictor = CascadePredictor(members)
    assert predictor.predict(blocks[:0], qindex[:0]).shape == (0,)
    types = len(predictor.taxonomy.partitions)
    assert predictor.distribution(blocks[:0], qindex[:0]).shape == (0, types)


def test_half_precision_mostly_agrees(cascade: Cascade) -> None:
    data, members = cascade
    whole, half = (
        CascadePredictor(members, precision=precision).predict(*val(data))
        for precision in ("32-true", "bf16-mixed")
    )
    assert 0.9 < (whole == half).mean() <= 1
