"""One predictor of every kind that a bundle can hold, small."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from av1part.cascade.choices import Choices
from av1part.cascade.predictor import CascadePredictor
from av1part.config.schema import Trees
from av1part.data.serve.datamodule import BlockDataModule
from av1part.data.serve.superblocks import SuperblockDataModule
from av1part.data.store.store import Store
from av1part.partition import taxonomy
from av1part.predictors.adapted import AdaptedSuperblock, NodeHead, adapted_domain
from av1part.predictors.cascade import Cascades
from av1part.predictors.fitted import ByQindex, ClassPrior, RandomSets, VarianceRule
from av1part.predictors.interface import Predictor
from av1part.predictors.superblock import SuperblockPredictor
from av1part.predictors.trees import BoostedTrees
from av1part.stages.base import StageModule
from av1part.stages.choice import CASCADE as STAGES
from av1part.stages.superblock import SuperblockStage
from av1part.trees.boosting import Boosting


def small_stage(name: str, store: Path, size: int, seed: int) -> StageModule:
    """A stage of width 4 that answers differently for each block and qindex."""
    torch.manual_seed(size)  # of one size, all have the same backbone
    module = STAGES[name](
        taxonomy="v6",
        method="scratch",
        backbone={"width": 4},
        head={"kind": "linear"},
        conditioning="qindex",
        loss={"kind": "cross_entropy"},
        optimizer={"lr": {"backbone": 1e-3, "head": 1e-4}},
        scheduler={"kind": "constant"},
        data=BlockDataModule(store, stage=name, size=size).facts(),
        start={"stage1": "/home/somebody/runs/s1.ckpt", "sha256": "0" * 64},
    ).eval()
    torch.manual_seed(seed)
    for weights in (
        *module.classifier.conditioning.parameters(),
        module.classifier.head[-1].weight,
    ):
        torch.nn.init.normal_(weights)
    return module


def small_superblock(store: Path | None = None) -> SuperblockPredictor:
    """A network of width 2 that answers differently for each place and qindex, as of a dataset."""
    torch.manual_seed(5)
    module = SuperblockStage(
        taxonomy="v6",
        backbone={"width": 2},
        loss={"kind": "cross_entropy"},
        optimizer={"lr": {"backbone": 1e-3, "conditioning": 1e-3, "head": 1e-4}},
        scheduler={"kind": "constant"},
        data=SuperblockDataModule(store).facts(),
    ).eval()
    for name, weights in module.classifier.named_parameters():
        if "film" in name or "bn2" in name:
            torch.nn.init.normal_(weights, std=0.3)
    return SuperblockPredictor(module, {16: 1.5, 64: 0.8})


def small_adapted() -> AdaptedSuperblock:
    """That network with another head at 16x16, which depends on the qindex by itself."""
    network, rng = small_superblock(), np.random.default_rng(4)
    before = NodeHead.of(network.module.classifier.head["16"])
    head = NodeHead(
        before.weight + rng.normal(size=before.weight.shape).astype(np.float32),
        before.bias + rng.normal(size=before.bias.shape).astype(np.float32),
    )
    fit = {"nodes": 5, "before": 1.5, "after": 1.25, "kept": True}
    return AdaptedSuperblock(
        network.module,
        {16: 1.25, 64: 0.75},
        heads={16: head},
        limits=adapted_domain(network.domain, [80, 200], 8),
        record={
            "base": {"file": "base.av1part", "sha256": "0" * 64, "licence": "CC0-1.0"},
            "clip": {
                **{"file": "clip.mkv", "sha256": "1" * 64, "frames": 10},
                **{"width": 90, "height": 70, "bit_depth": 8},
            },
            "labels": {
                **{"dataset": "labelled", "manifest_sha256": "2" * 64, "frames": [1, 3]},
                **{"qindexes": [80, 200], "nodes": 12, "made_by": None, "arguments": None},
            },
            "steps": {"steps": 10, "rate": 1.0, "prior": 1000.0},
            "sizes": {"16": fit, "8": {**fit, "kept": False}},
        },
    )


def small_cascade(store: Path, size: int) -> CascadePredictor:
    names = [stage.name for stage in taxonomy("v6").at(size).stages]
    members = {
        name: [small_stage(name, store, size, seed) for seed in range(1 + (name == "stage3_ab"))]
        for name in names
    }
    temperatures = {name: (1.25, 0.7)[: len(own)] for name, own in members.items()}
    return CascadePredictor(members, Choices(0.4, temperatures), ensemble="vote")


def save_stage(module: StageModule, path: Path) -> Path:
    """Write a checkpoint as training writes it."""
    checkpoint = {
        "epoch": 0,
        "global_step": 1,
        "pytorch-lightning_version": "2.6.4",
        "state_dict": module.state_dict(),
        "hyper_parameters": dict(module.hparams),
    }
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return path


def small_boosting(**other: Any) -> Boosting:
    """A few small trees, in a moment."""
    few = Trees(iterations=6, leaves=6, leaf_nodes=2, features=1.0, learning_rate=0.3)
    return Boosting(**{**asdict(few), "threads": 1, **other})


def small_predictors(store_16: Path, store_8: Path) -> dict[str, Predictor]:
    """Return kind to a predictor of it."""
    store = Store.open(store_16)
    nodes = np.arange(store.nodes.height)
    prior = ClassPrior.fit(store, store.nodes)
    sizes = {(16, 80): np.array([0.5, 0.3, 0.2]), (16, 200): np.array([0.25] * 4)}
    return {
        "superblock": small_superblock(),
        "adapted": small_adapted(),
        "cascade": Cascades.of([small_cascade(store_16, 16), small_cascade(store_8, 8)]),
        "prior": prior,
        "variance": VarianceRule.fit(store, store.nodes),
        "trees": BoostedTrees.fit(store, {16: nodes}, {16: nodes}, small_boosting()),
        "random": RandomSets(prior.domain, ByQindex(sizes), seed=3),
    }
