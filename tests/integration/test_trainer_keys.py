"""Keys of Lightning's Trainer: each has its effect in a run that ends verified, or is one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import pytorch_lightning
import torch

from av1part import embedded
from av1part.checkpoints.load import read_checkpoint
from av1part.data.store.store import Store
from av1part.data.store.writer import StoreWriter
from av1part.runs.tables import read_history
from av1part.stages.base import StageModule

from .conftest import Command
from .test_cli import refused

RUN = Path("runs/run")
BATCHES = 3
"""Training batches of an epoch on the small dataset."""


@pytest.fixture
def train(av1part: Command, on_small: tuple[str, ...]) -> Callable[..., Any]:
    """Train a Stage 1 of three epochs, which must end well; return its last checkpoint."""

    def run(*words: str) -> dict[str, Any]:
        given = {word.partition("=")[0] for word in words}
        base = [word for word in on_small if word.partition("=")[0] not in given]
        if "trainer.max_epochs" not in given:
            base = [*base, "trainer.max_epochs=3"]
        ran = av1part("train", "stage=stage1", "name=run", *base, *words)
        assert ran.code == 0, ran.err
        assert (RUN / "metrics.json").is_file()
        for kind in ("best", "last"):
            assert record(kind)["level"] == "full"
            assert record(kind)["delta_pp"] == 0
        return dict(read_checkpoint(RUN / "checkpoints" / "last.ckpt"))

    return run


def record(kind: str) -> dict[str, Any]:
    return dict(json.loads((RUN / "checkpoints" / f"{kind}.verified.json").read_text()))


def epochs() -> list[float]:
    return read_history(RUN / "history.csv")["epoch"].to_list()


@pytest.mark.parametrize(
    ("words", "steps", "validated"),
    [
        ("trainer.max_steps=2", 2, [0]),
        ("trainer.max_steps=7", 7, [0, 1, 2]),
        ("trainer.max_steps=4 trainer.check_val_every_n_epoch=5 trainer.min_epochs=3", 4, [1]),
        ("trainer.check_val_every_n_epoch=2 callbacks.save_every=epoch", 9, [1, 2]),
        ("trainer.check_val_every_n_epoch=9 callbacks.verify_every=epoch", 9, [2]),
        ("trainer.val_check_interval=0.5 trainer.max_epochs=1", 3, [0, 0, 0]),
        ("trainer.val_check_interval=2 trainer.max_epochs=2", 6, [0, 1, 1]),
        ("trainer.limit_train_batches=2", 6, [0, 1, 2]),
        ("trainer.limit_train_batches=0.4", 3, [0, 1, 2]),
        ("trainer.accumulate_grad_batches=2", 6, [0, 1, 2]),
        # A rate this small changes no score, so that patience ends at the first epoch it may.
        ("callbacks.patience=1 optimizer.lr={backbone:1e-30,head:1e-30}", 6, [0, 1]),
        (
            "callbacks.patience=1 optimizer.lr={backbone:1e-30,head:1e-30} trainer.min_epochs=3 "
            "trainer.max_epochs=9 trainer.check_val_every_n_epoch=2",
            *(12, [1, 3]),
        ),
        (
            "callbacks.patience=1 optimizer.lr={backbone:1e-30,head:1e-30} trainer.min_steps=8",
            *(8, [0, 1, 2]),
        ),
    ],
)
def test_how_long_and_how_often(
    train: Callable[..., Any], words: str, steps: int, validated: list[int]
) -> None:
    last = train(*words.split())
    assert last["global_step"] == steps
    assert epochs() == validated
    assert record("last")["epoch"] == validated[-1]


def test_time_ends_a_run_in_an_epoch_without_validation(train: Callable[..., Any]) -> None:
    train(
        *("trainer.max_time=00:00:00:01", "trainer.max_epochs=100000", "callbacks.patience=null"),
        "trainer.check_val_every_n_epoch=100000",
    )
    assert len(epochs()) == 1
    assert 0 < epochs()[0] < 100000


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("scheduler=onecycle trainer.max_steps=5", "total_steps", 5),
        ("scheduler=onecycle trainer.limit_train_batches=2", "total_steps", 6),
        ("scheduler=onecycle trainer.accumulate_grad_batches=2", "total_steps", 6),
        ("scheduler=cosine trainer.max_steps=4", "T_max", 2),
    ],
)
def test_a_schedule_has_the_length_of_the_run(
    train: Callable[..., Any], words: str, name: str, value: int
) -> None:
    last = train(*words.split())
    assert last["lr_schedulers"][0][name] == value


@pytest.mark.parametrize("limit", ["1", "0.3"])
def test_a_validation_of_fewer_batches_is_no_corruption(
    train: Callable[..., Any], av1part: Command, on_small: tuple[str, ...], limit: str
) -> None:
    words = (f"trainer.limit_val_batches={limit}", "data.eval_batch_size=8")
    train(*words)
    best = record("best")
    assert "macro_f1_full" not in best
    assert best["nodes_limited"] == 8 * best["batches"]
    metrics = json.loads((RUN / "metrics.json").read_text())
    assert sum(map(sum, metrics["confusion_matrix"])) > best["nodes_limited"]
    # It is compared with what was recorded all the same, on the same nodes.
    (RUN / "metrics.json").unlink()
    best["macro_f1_limited"] += 0.5
    (RUN / "checkpoints" / "best.verified.json").write_text(json.dumps(best))
    again = ("train", "stage=stage1", "name=run", *on_small, "trainer.max_epochs=3", *words)
    ran = av1part(*again, "resume=true")
    assert ran.code == 2
    assert f"on the first {best['nodes_limited']} nodes of val" in ran.error_lines[0]


class Probe(pytorch_lightning.Callback):
    """What holds while a run trains."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def on_before_zero_grad(self, trainer: Any, module: Any, optimizer: Any) -> None:
        self.trainer = trainer

    def on_after_backward(self, trainer: Any, module: Any) -> None:
        self.anomaly = torch.is_anomaly_enabled()
        self.benchmark = torch.backends.cudnn.benchmark


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Probe:
    found, step = Probe(), StageModule.training_step

    def training_step(module: StageModule, batch: Any, batch_idx: int) -> Any:
        found.seeds.append(torch.initial_seed())
        return step(module, batch, batch_idx)

    monkeypatch.setattr(StageModule, "training_step", training_step)
    monkeypatch.setattr(StageModule, "configure_callbacks", lambda module: [found])
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    return found


def test_keys_that_lightning_alone_acts_on(train: Callable[..., Any], probe: Probe) -> None:
    train(
        *("trainer.detect_anomaly=true", "trainer.benchmark=true", "trainer.deterministic=warn"),
        *("trainer.num_nodes=1", "trainer.strategy=auto", "trainer.log_every_n_steps=0"),
        *("trainer.gradient_clip_val=0.5", "trainer.gradient_clip_algorithm=value"),
        *("trainer.accumulate_grad_batches=3", "trainer.max_epochs=1"),
    )
    assert probe.anomaly
    assert probe.benchmark
    trainer = probe.trainer
    assert trainer.gradient_clip_val == 0.5
    assert trainer.gradient_clip_algorithm == "value"
    assert (trainer.num_nodes, trainer.log_every_n_steps) == (1, 0)
    # Batches of one step draw dropout of their own.
    assert len(set(probe.seeds)) == BATCHES
    assert not torch.is_anomaly_enabled()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("trainer.fast_dev_run=true", "trainer.fast_dev_run: writes no checkpoint: use trainer.m"),
        ("+trainer.fast_dev_run=true", "trainer.fast_dev_run: writes no checkpoint"),
        ("+trainer.logger=true", "trainer.logger: use logger=csv"),
        ("trainer.callbacks=[]", "trainer.callbacks: the run has its own: use callbacks.patience"),
        ("trainer.max_epoch=3", "did you mean trainer.max_epochs?"),
        ("+trainer.max_epoch=3", "did you mean trainer.max_epochs?"),
        ("+trainer.xyz=3", "there is no trainer.xyz: trainer has accelerator, devices"),
        ("trainer.max_epochs=-1", "trainer.max_epochs must be a number of at least 1, got -1"),
        ("trainer.limit_val_batches=0", "trainer.limit_val_batches must be a number of batches"),
        ("trainer.limit_val_batches=0.01", "leaves none of 1 batches"),
        ("trainer.val_check_interval=99", "more than the 3 batches of an epoch"),
        ("trainer.max_time={minutes: 1}", "trainer.max_time must be days:hours:minutes:seconds"),
        ("trainer.gradient_clip_val=-1", "trainer.gradient_clip_val must be a number of at least"),
        ("trainer.accelerator=tpu", "trainer.accelerator must be one of cpu, gpu, cuda, mps, auto"),
        ("trainer.strategy=fsdp", "trainer.strategy must be one of auto, ddp"),
        ("trainer.deterministic=maybe", "trainer.deterministic must be one of True, False, warn"),
        ("trainer.precision=64", "trainer.precision must be one of 32-true"),
        ("trainer.devices=0", "trainer: `Trainer(devices=0)`"),
        ("trainer.devices=-1", "trainer: `devices` selected"),
        ("trainer.devices=x", "trainer: `devices` selected"),
        ("trainer.devices=[]", "trainer: `Trainer(devices=[])`"),
        ("trainer.num_nodes=2", "trainer.num_nodes=2 needs what starts the processes of the other"),
        ("trainer.num_nodes=0", "trainer.num_nodes must be a number of at least 1, got 0"),
        ("data.batch_size=1", "data.batch_size must be a number of at least 2, got 1"),
    ],
)
def test_keys_and_values_that_are_refused(
    av1part: Command, on_small: tuple[str, ...], word: str, message: str
) -> None:
    refused(av1part("train", "stage=stage1", *on_small, word), message)
    assert not list(Path.cwd().iterdir())


def part_of(store: Path, out: Path, nodes: pl.DataFrame) -> Path:
    """Write a dataset of some of the nodes of another one."""
    whole, writer = Store.open(store), StoreWriter(out, {"made": "by the tests"})
    for sequence in whole.sequences:
        writer.add_plane(sequence, whole.plane(sequence)[:], 8)
    return writer.finish(nodes, {s: {"bit_depth": 8} for s in whole.sequences}, {}).path


@pytest.fixture
def nodes(small_store: Path) -> dict[str, pl.DataFrame]:
    """The nodes of each split of the small dataset."""
    every, listed = Store.open(small_store).nodes, pl.read_csv(embedded.SPLIT_LIST)
    return {
        split: every.filter(
            pl.col("sequence").is_in(listed.filter(pl.col("split") == split)["sequence"].to_list())
        )
        for split in ("train", "val")
    }


@pytest.mark.parametrize("blocks", [99, 2])
def test_batches_of_two_train_batch_norm(
    train: Callable[..., Any],
    nodes: dict[str, pl.DataFrame],
    small_store: Path,
    tmp_path: Path,
    blocks: int,
) -> None:
    few = pl.concat([nodes["train"].head(blocks), nodes["val"]])
    path = part_of(small_store, tmp_path / "few", few)
    last = train(f"data.path={path}", "data.batch_size=2", "trainer.max_epochs=1")
    assert last["global_step"] == blocks // 2


def test_one_block_is_too_few_for_batch_norm(
    av1part: Command,
    on_small: tuple[str, ...],
    nodes: dict[str, pl.DataFrame],
    small_store: Path,
    tmp_path: Path,
) -> None:
    one = part_of(small_store, tmp_path / "one", pl.concat([nodes["train"].head(1), nodes["val"]]))
    ran = av1part("train", "stage=stage1", *on_small, f"data.path={one}")
    refused(ran, "stage1 has 1 training block for 1 process: method=scratch trains BatchNorm")
    assert not Path("runs").exists()


def test_a_class_without_training_nodes_is_warned_of_before_training(
    train: Callable[..., Any],
    nodes: dict[str, pl.DataFrame],
    small_store: Path,
    tmp_path: Path,
) -> None:
    none = nodes["train"].filter(pl.col("partition") == 0)
    path = part_of(small_store, tmp_path / "none", pl.concat([none, nodes["val"]]))
    train(f"data.path={path}", "trainer.max_epochs=1")
    lines = (RUN / "train.log").read_text().splitlines()
    warned = next(k for k, line in enumerate(lines) if "no node in the train split is PART" in line)
    assert f"(NONE {none.height}, PARTITION 0): it cannot be learnt" in lines[warned]
    assert warned < next(k for k, line in enumerate(lines) if "epoch 0" in line)


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_empty_split_is_refused_before_training(
    av1part: Command,
    on_small: tuple[str, ...],
    nodes: dict[str, pl.DataFrame],
    small_store: Path,
    tmp_path: Path,
    split: str,
) -> None:
    other = next(nodes[name] for name in nodes if name != split)
    path = part_of(small_store, tmp_path / "half", other)
    ran = av1part("train", "stage=stage1", *on_small, f"data.path={path}")
    refused(ran, f"no 16x16 node of stage1 in the {split} split", "add sources or")
    assert not Path("runs").exists()


def test_the_demo_needs_nodes_of_every_stage_before_it_trains(
    av1part: Command,
    on_small: tuple[str, ...],
    nodes: dict[str, pl.DataFrame],
    small_store: Path,
    tmp_path: Path,
) -> None:
    no_ab = pl.concat(nodes.values()).filter(~pl.col("partition").is_in([4, 5, 6, 7]))
    path = part_of(small_store, tmp_path / "no_ab", no_ab)
    words = [word for word in on_small if word.startswith("data.split_list")]
    refused(av1part("demo", *words, f"data.path={path}"), "no 16x16 node of stage3_ab in the train")
    assert not Path("runs").exists()


def test_batches_of_a_share_differ_between_epochs(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limited epoch is a part of that epoch's order, not of one order for all."""
    seen: list[int] = []
    step = StageModule.training_step

    def training_step(module: StageModule, batch: Any, batch_idx: int) -> Any:
        seen.append(int(batch["node"].sum()))
        return step(module, batch, batch_idx)

    monkeypatch.setattr(StageModule, "training_step", training_step)
    train("trainer.limit_train_batches=1")
    assert len(seen) == 3
    assert all(first != second for first, second in pairwise(seen))
