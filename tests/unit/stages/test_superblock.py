"""The superblock stage: its loss by hand, which nodes it answers, and a file's hyper-parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from av1part.checkpoints.load import build_stage
from av1part.data.serve.crops import node_key, partition_key, weight_key
from av1part.data.serve.superblocks import SuperblockDataModule
from av1part.partition import SIZES, Partition
from av1part.stages.superblock import SuperblockStage, mean_log_loss, size_scores
from av1part.system.errors import CheckpointError

Data = SuperblockDataModule


@pytest.fixture(scope="module")
def data(one_to_four_store: Path) -> Data:
    found = Data(one_to_four_store, taxonomy="v6_1to4", crop=128, batch_size=4)
    found.setup()
    return found


def stage(served: Data, **changed: Any) -> SuperblockStage:
    torch.manual_seed(1)
    options: dict[str, Any] = {
        "taxonomy": "v6_1to4",
        "backbone": {"width": 2},
        "loss": {"kind": "cross_entropy"},
        "optimizer": {"lr": {"backbone": 1e-3, "conditioning": 1e-3, "head": 1e-3}},
        "scheduler": {"kind": "constant"},
        "data": served.facts(),
    }
    return SuperblockStage(**(options | changed)).eval()


@pytest.mark.parametrize("kind", ["cross_entropy", "balanced"])
def test_the_loss_is_the_mean_over_nodes_then_sizes(data: Data, kind: str) -> None:
    built, batch = stage(data, loss={"kind": kind}), next(iter(data.train_dataloader()))
    logits = built(batch["block"], batch["qindex"])
    expected = []
    for size in SIZES:
        weights = torch.ones(10)
        types = built.classifier.types[size]
        if kind == "balanced":
            counts = np.array(data.counts_by_size()[str(size)])[types]
            inverse = np.where(counts > 0, 1 / np.maximum(counts, 1), np.nan)
            inverse = np.where(np.isnan(inverse), np.nanmean(inverse), inverse)
            weights[types] = torch.tensor(inverse / inverse.mean(), dtype=torch.float32)
        each = []
        for crop, row, col in torch.nonzero(batch[partition_key(size)] >= 0).tolist():
            type_ = int(batch[partition_key(size)][crop, row, col])
            log_p = logits[size][crop, :, row, col].log_softmax(0)[type_]
            each.append(-log_p * weights[type_])
        if each:
            expected.append(torch.stack(each).mean())
    loss = built._step(batch, "train")["loss"]
    torch.testing.assert_close(loss, torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)


def test_costs_weigh_the_nodes_of_training_alone(
    one_to_four_store: Path, some_costs: Callable[[Path], Path]
) -> None:
    costs = some_costs(one_to_four_store)
    served = Data(one_to_four_store, taxonomy="v6_1to4", crop=128, batch_size=4, costs=costs)
    built, plain = (
        stage(served, loss={"kind": kind}) for kind in ("cost_sensitive", "cross_entropy")
    )
    batch = next(iter(served.train_dataloader()))
    logits, expected = built(batch["block"], batch["qindex"]), []
    for size in SIZES:
        weighed = []
        for crop, row, col in torch.nonzero(batch[partition_key(size)] >= 0).tolist():
            type_ = int(batch[partition_key(size)][crop, row, col])
            legal = logits[size][crop, built.classifier.types[size], row, col]
            nll = -legal.log_softmax(0)[built.classifier.types[size].index(type_)]
            weighed.append(batch[weight_key(size)][crop, row, col] * nll)
        if weighed:
            expected.append(torch.stack(weighed).mean())
    loss = built._step(batch, "train")["loss"]
    torch.testing.assert_close(loss, torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)
    assert not torch.isclose(loss, plain._step(batch, "train")["loss"], rtol=1e-2)
    assert torch.equal(built._step(batch, "val")["loss"], plain._step(batch, "val")["loss"])
    for whole in served.batches("train"):  # evaluation is unweighed, too
        assert not any(key.startswith("weight") for key in whole)
    # Every size keeps its share of the loss.
    for weights in served.views("train").weights.values():
        assert weights[weights >= 0].mean() == pytest.approx(1, rel=1e-4)


def test_nodes_that_do_not_exist_have_no_gradient(data: Data) -> None:
    built, batch = stage(data), next(iter(data.train_dataloader()))
    empty = {**batch}
    for size in SIZES:
        empty[partition_key(size)] = torch.full_like(batch[partition_key(size)], -1)
    loss = built._step(empty, "train")["loss"]
    torch.autograd.backward(loss)
    assert float(loss.detach()) == 0
    # Zero, and not nothing: several processes wait for every parameter's gradient.
    assert all(p.grad is not None and not p.grad.any() for p in built.parameters())


def test_a_type_that_the_taxonomy_has_not_is_refused(data: Data) -> None:
    counts = {size: [*own[:8], 0, 0] for size, own in data.counts_by_size().items()}
    facts = {**data.facts(), "counts_by_size": counts}
    built = stage(data, taxonomy="v6", data=facts)
    batch = next(iter(data.train_dataloader()))
    batch[partition_key(32)][0, 0, 0] = Partition.HORZ_4
    with pytest.raises(ValueError, match=r"\dx\d+ node is of a type that v6 has not"):
        built._step(batch, "train")


def test_answers_are_of_the_nodes_of_the_table(data: Data) -> None:
    built, batch = stage(data), next(iter(data.batches("val")))
    answers = built.answers(batch)
    logits = built(batch["block"], batch["qindex"])
    for size, (values, columns) in answers.items():
        table = data.store.nodes[columns["node"].numpy()]
        np.testing.assert_array_equal(table["partition"], columns["partition"])
        np.testing.assert_array_equal(table["qindex"], columns["qindex"])
        row, col = (torch.from_numpy(table[c].to_numpy() // size).long() for c in ("row", "col"))
        own = logits[size][0][built.classifier.types[size]][:, row, col].T
        assert torch.equal(values, own)
        assert len(columns["node"]) == int((batch[node_key(size)] >= 0).sum())


def test_scores_of_a_size_are_those_of_the_definitions() -> None:
    types = [0, 1, 2, 3]
    logits = np.log(np.array([[0.7, 0.1, 0.1, 0.1], [0.2, 0.5, 0.2, 0.1], [0.6, 0.2, 0.1, 0.1]]))
    scores = size_scores(logits, np.array([0, 1, 3]), types)
    assert scores["log_loss"] == pytest.approx(-np.log([0.7, 0.5, 0.1]).mean(), abs=1e-6)
    assert scores["accuracy"] == pytest.approx(2 / 3, abs=1e-6)
    assert scores["nodes"] == 3
    both = mean_log_loss(
        {"8": {"log_loss": 1.0, "nodes": 900}, "64": {"log_loss": 3.0, "nodes": 1}}
    )
    assert both == 2.0


DAMAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "huge": lambda h: h["backbone"].update(width=10**9),
    "deep": lambda h: h["backbone"].update(depth=10**9),
    "no planes": lambda h: h["backbone"].update(planes=[]),
    "no crop": lambda h: h["data"].pop("crop"),
    "odd crop": lambda h: h["data"].update(crop=100),
    "another size": lambda h: h["data"].update(size=32),
    "no qindex": lambda h: h["data"].update(qindex=[]),
    "counts": lambda h: h["data"].update(counts_by_size={"16": [1] * 10}),
    "short counts": lambda h: h["data"]["counts_by_size"].update({"8": [1]}),
    "method": lambda h: h.update(method="frozen"),
    "conditioning": lambda h: h.update(conditioning="wind"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_hyper_parameters_that_cannot_be_are_refused(data: Data, damage: str) -> None:
    built = stage(data)
    hyper_parameters = {
        key: dict(value) if isinstance(value, dict) else value
        for key, value in built.hparams.items()
    }
    hyper_parameters["data"]["counts_by_size"] = dict(built.hparams["data"]["counts_by_size"])
    classes = {name: [p.name for p in types] for name, types in built.stage.classes.items()}
    arguments = ("file", "superblock", hyper_parameters, classes, built.state_dict())
    assert build_stage(*arguments).stage_name == "superblock"
    DAMAGES[damage](hyper_parameters)
    with pytest.raises(CheckpointError, match="file does not describe a stage"):
        build_stage(*arguments)
