"""Outer steps of Reptile and first-order MAML: against hand-computed ones, and against torch's."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from av1part import embedded
from av1part.data.serve.blocks import Batch
from av1part.data.serve.episodes import EpisodeDataModule, Episodes
from av1part.evaluation.evaluate import evaluate
from av1part.models.freeze import moved_tensors
from av1part.models.losses import FocalLoss
from av1part.stages.blocks import BlockStage, Stage2
from av1part.stages.inner import Loss, Values
from av1part.stages.meta import MetaOptions, fomaml, outer_gradient, reptile
from av1part.system.errors import ConfigError

OPTIONS = {"gap": 16, "least": 4, "tasks": 2, "inner_steps": 3, "inner_lr": 0.2}


def quadratic(a: float, c: float) -> Loss:
    """Return a (w - c)^2 / 2, whose gradient is a (w - c)."""

    def loss(values: Values, step: int) -> Tensor:
        return a * (values["w"] - c).square() / 2

    return loss


def test_fomaml_on_a_quadratic_is_the_hand_computed_gradient() -> None:
    """Two steps of rate 0.1 on 2 (w - 1)^2 / 2 from 3: 2.6, 2.28; of 5 (w + 1)^2 / 2 that is 16.4.

    The whole gradient, which first-order MAML leaves out, would be 0.8^2 times it.
    """
    theta = {"w": torch.tensor(3.0)}
    gradient, loss = fomaml(theta, quadratic(2, 1), quadratic(5, -1), steps=2, lr=0.1)
    torch.testing.assert_close(gradient, {"w": torch.tensor(5 * (2.28 + 1))})
    torch.testing.assert_close(loss, torch.tensor(5 * 3.28**2 / 2))
    assert theta["w"] == 3


def test_reptile_on_a_quadratic_is_the_hand_computed_gradient() -> None:
    """The way from 3 to 2.28, by the rate of 0.1: the sum of the gradients at 3 and 2.6."""
    theta = {"w": torch.tensor(3.0)}
    gradient, loss = reptile(theta, quadratic(2, 1), quadratic(5, -1), steps=2, lr=0.1)
    torch.testing.assert_close(gradient, {"w": torch.tensor(2 * 2.0 + 2 * 1.6)})
    torch.testing.assert_close(loss, torch.tensor(5 * 3.28**2 / 2))
    assert theta["w"] == 3


def test_outer_steps_on_quadratics_lead_to_the_start_that_both_tasks_are_near() -> None:
    """Tasks at -1 and 5: the start of least loss after a step is 2; plain outer steps find it."""
    for algorithm in (fomaml, reptile):
        theta = {"w": torch.tensor(9.0)}
        for _ in range(60):
            tasks = [
                algorithm(theta, quadratic(1, c), quadratic(1, c), steps=1, lr=0.5)[0]["w"]
                for c in (-1, 5)
            ]
            theta["w"] = theta["w"] - 0.2 * torch.stack(tasks).mean()
        torch.testing.assert_close(theta["w"], torch.tensor(2.0), rtol=0, atol=2e-2)


def data_of(store: Path, **options: Any) -> EpisodeDataModule:
    own = MetaOptions.of(OPTIONS | options)
    data = EpisodeDataModule(
        store,
        stage="stage2",
        split_list=embedded.SPLIT_LIST,
        episodes=own.episodes,
        tasks=own.tasks,
    )
    data.setup()
    return data


def stage(data: EpisodeDataModule | None, **options: Any) -> BlockStage:
    torch.manual_seed(3)
    made_up = {"size": 16, "context": 0, "bit_depth": 8, "class_counts": [5, 20, 9]}
    module = Stage2(
        taxonomy="v6",
        method="meta",
        method_options=OPTIONS | options,
        backbone={"width": 8},
        head={"kind": "mlp", "hidden": [8]},
        loss={"kind": "cross_entropy"},
        optimizer={"lr": {"adapters": 1e-3, "head": 1e-2}, "weight_decay": 0.0},
        scheduler={"kind": "constant"},
        data=made_up if data is None else data.facts(),
        adapter={"kind": "bottleneck", "layers": [2, 4], "bottleneck": 8, "init_std": 0.3},
    )
    for parameter in module.classifier.adapters.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module


def reference(module: BlockStage, batch: Batch, algorithm: str, epoch: int = 0) -> Values:
    """Compute the outer gradient with copies of the module, torch's SGD and whole passes."""
    theta = {n: p.detach() for n, p in module.named_parameters() if "backbone" not in n}
    total = {name: torch.zeros_like(value) for name, value in theta.items()}
    tasks = int(batch["task"].max()) + 1
    for number in range(tasks):
        own = {key: tensor[batch["task"] == number] for key, tensor in batch.items()}
        phi = copy.deepcopy(module).eval()
        trained = {n: p for n, p in phi.named_parameters() if n in theta}
        optimizer = torch.optim.SGD(trained.values(), lr=0.2)
        rng = np.random.default_rng((module.hparams["seed"], epoch, int(own["node"][0]), 9))
        support = own["support"].nonzero()[:, 0].numpy()
        for _ in range(3):
            drawn = np.sort(rng.choice(len(own["node"]), len(support), replace=False))
            pick = support if algorithm == "fomaml" else drawn
            optimizer.zero_grad()
            loss_of(phi, {key: tensor[pick] for key, tensor in own.items()}).backward()
            optimizer.step()
        if algorithm == "fomaml":
            phi.zero_grad()
            loss_of(phi, {k: tensor[~own["support"]] for k, tensor in own.items()}).backward()
        for name, parameter in trained.items():
            assert parameter.grad is not None
            way = (theta[name] - parameter.detach()) / 0.2
            total[name] += (parameter.grad if algorithm == "fomaml" else way) / tasks
    return total


def loss_of(module: BlockStage, batch: Batch) -> Tensor:
    loss: Tensor = module.loss(module(batch["block"], batch["qindex"]), module.labels(batch))
    return loss


@pytest.mark.parametrize("algorithm", ["fomaml", "reptile"])
def test_the_gradient_of_a_stage_is_that_of_whole_passes(small_store: Path, algorithm: str) -> None:
    data = data_of(small_store)
    module = stage(data, algorithm=algorithm)
    batch = next(iter(data.train_dataloader()))
    assert int(batch["task"].max()) == 1
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert module.meta is not None
    gradient, loss = outer_gradient(module, batch, module.meta, epoch=0)
    assert moved_tensors(before, module.state_dict()) == []
    assert torch.isfinite(loss)
    expected = reference(module, batch, algorithm)
    assert gradient.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(gradient[name], value, rtol=1e-3, atol=1e-5)
    others = reference(module, batch, "reptile" if algorithm == "fomaml" else "fomaml")
    assert not all(torch.allclose(others[n], v, rtol=1e-2) for n, v in expected.items())
    later = outer_gradient(module, batch, module.meta, epoch=1)[0]
    same = all(torch.equal(later[name], value) for name, value in gradient.items())
    assert same == (algorithm == "fomaml")  # whose steps draw nothing


@pytest.mark.parametrize("algorithm", ["fomaml", "reptile"])
def test_lightning_takes_the_outer_step_of_the_optimizer(small_store: Path, algorithm: str) -> None:
    """AdamW's first step is the rate times g / (|g| + eps)."""
    data = data_of(small_store)
    module = stage(data, algorithm=algorithm)
    module.hparams["start"] = None
    batch = next(iter(data.train_dataloader()))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    expected = reference(module, batch, algorithm)
    trainer = pl.Trainer(
        max_steps=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == 1
    after = module.state_dict()
    assert sorted(moved_tensors(before, after)) == sorted(expected)
    for name, gradient in expected.items():
        rate = 1e-2 if "head" in name else 1e-3
        step = before[name] - rate * gradient / (gradient.abs() + 1e-8)
        clear = gradient.abs() > 1e-4  # of others rounding decides the sign
        torch.testing.assert_close(after[name][clear], step[clear], rtol=1e-4, atol=1e-6)


def test_a_task_is_answered_by_a_stage_that_has_adapted_to_it(small_store: Path) -> None:
    """Against copies that torch's SGD adapts; and blocks that are no task by the stage as it is."""
    data = data_of(small_store)
    module = stage(data).eval()
    found, expected = evaluate(module, data.batches("val")), []
    for batch in data.batches("val"):
        phi = copy.deepcopy(module).eval()
        trained = [p for n, p in phi.named_parameters() if "backbone" not in n]
        optimizer = torch.optim.SGD(trained, lr=0.2)
        parts = [
            {key: tensor[own] for key, tensor in batch.items()}
            for own in (batch["support"], ~batch["support"])
        ]
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(phi, parts[0]).backward()
            optimizer.step()
        with torch.no_grad():
            expected.append(phi(parts[1]["block"], parts[1]["qindex"]))
    torch.testing.assert_close(
        torch.from_numpy(found.logits), torch.cat(expected), rtol=1e-3, atol=1e-4
    )
    assert sorted(found.node.tolist()) == data.scored("val")[16].tolist()
    plain = data.reader("val")[np.arange(20)]
    with torch.inference_mode():
        logits, columns = module.answers(plain)[16]
        assert torch.equal(logits, module(plain["block"], plain["qindex"]))
    assert columns["node"].tolist() == plain["node"].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "maml"}, "method.algorithm"),
        ({"inner_steps": 0}, "method.inner_steps"),
        ({"inner_steps": 10**9}, "method.inner_steps"),
        ({"inner_lr": float("nan")}, "method.inner_lr"),
        ({"tasks": 0}, "method.tasks"),
        ({"gap": -1}, "method.gap"),
        ({"no_such": 1}, "no_such"),
    ],
)
def test_options_of_a_file_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stage(None, **options)


def test_the_loss_of_the_steps_is_the_stage_s_own(small_store: Path) -> None:
    """Another loss, other steps: the configured one is not replaced by cross-entropy."""
    data = data_of(small_store)
    module = stage(data, algorithm="fomaml")
    batch = next(iter(data.train_dataloader()))
    assert module.meta is not None
    one = outer_gradient(module, batch, module.meta, epoch=0)[0]
    module.loss = FocalLoss(gamma=2.0)
    other = outer_gradient(module, batch, module.meta, epoch=0)[0]
    assert not any(torch.equal(one[name], other[name]) for name in one)
    assert MetaOptions().episodes == Episodes()
