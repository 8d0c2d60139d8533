"""The Trainer of a run: callbacks, verified checkpoints, loggers, and warnings to leave out."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback, RichProgressBar, Timer
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler
from rich.console import Console

from av1part.config.limits import max_steps, max_time
from av1part.data.serve.datamodule import BlockDataModule
from av1part.defects import LATE_THAW
from av1part.runs.schema import CHECKPOINTS, HISTORY_FILE
from av1part.stages.base import StageModule
from av1part.stages.choice import stage_class
from av1part.system.errors import ConfigError
from av1part.training.callbacks.data_guard import DataGuard
from av1part.training.callbacks.freeze_guard import FreezeGuard
from av1part.training.callbacks.history import BestEpochWarning, History
from av1part.training.callbacks.late_thaw import LateThaw
from av1part.training.callbacks.live import LivePredictions
from av1part.training.callbacks.preemption import Preemption
from av1part.training.callbacks.rank_watch import RankWatch
from av1part.training.callbacks.stopping import FinalValidation, ResumableEarlyStopping
from av1part.training.callbacks.timing import Timing
from av1part.training.callbacks.verified import VerifiedCheckpoint

# Lightning lists devices and advertises; the run logs what matters itself.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)

_EXPECTED_WARNINGS = (
    r"Found \d+ module\(s\) in eval mode",  # the frozen part, on purpose
    r"Checkpoint directory .* exists and is not empty",  # a resumed run
    r"The 'train_dataloader' does not have many workers",  # batches are gathered in bulk
    r"The 'val_dataloader' does not have many workers",
    r"It is recommended to use `self.log\('(train|val)/(log_)?loss",  # it is reduced already
    r"Grad strides do not match bucket view strides",  # of DDP and 1x1 convolutions
    r"The number of training batches \(\d+\) is smaller than the logging interval",
    r"The `srun` command is available on your system but is not used",  # a sweep's job, or a shell
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own
)

_MAY_END_UNVALIDATED = ("max_steps", "max_time", "check_val_every_n_epoch", "val_check_interval")
"""Arguments under which Lightning may end a run without a validation of its last weights."""

_PROFILERS = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}

Settings = Mapping[str, Any]
"""A composed train configuration as plain values; conf/train.yaml names its keys."""


def build_trainer(settings: Settings, folder: Path, timing: Timing) -> pl.Trainer:
    """Build the Trainer of a run folder, with the callbacks that check the run.

    Args:
        settings: The configuration of the run.
        folder: The run folder.
        timing: The callback that times the run.

    Returns:
        The Trainer.

    Raises:
        ConfigError: if Lightning refuses an argument, or a logger is unknown.
    """
    live = LivePredictions(settings["callbacks"]["verify_batches"])
    history = History(folder / HISTORY_FILE)
    callbacks: list[Callback] = [LateThaw()] if LATE_THAW in settings["defects"] else []
    callbacks += [live, history, timing, BestEpochWarning(history), FreezeGuard()]
    callbacks += [DataGuard(), RankWatch(folder)]
    callbacks += _stopping_and_progress(settings)
    checkpoints = _checkpoints(settings, folder / CHECKPOINTS, live)
    callbacks += [*checkpoints, Preemption(checkpoints[-1])]
    with _without_expected_warnings():
        return _trainer(settings, folder, callbacks)


def fit(trainer: pl.Trainer, module: StageModule, data: BlockDataModule, last: Path | None) -> None:
    """Train without the expected warnings.

    Args:
        trainer: The Trainer.
        module: The stage.
        data: Its data.
        last: The checkpoint to resume from, if there is one.

    Raises:
        ConfigError: if Lightning refuses the combination of settings.
    """
    try:
        with _without_expected_warnings():
            # In its own context: an interrupted validation must leave no convolution folded.
            copy_context().run(
                trainer.fit,
                module,
                datamodule=data,
                ckpt_path=None if last is None else str(last),
                weights_only=True,
            )
    except MisconfigurationException as error:
        raise ConfigError(f"trainer: {error}") from error


@contextmanager
def _without_expected_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        for expected in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", expected)
        yield


def _stopping_and_progress(settings: Settings) -> list[Callback]:
    options = settings["callbacks"]
    callbacks: list[Callback] = []
    if options["patience"] is not None:
        patience = options["patience"]
        stage = stage_class(settings["stage"]["name"])
        callbacks.append(
            ResumableEarlyStopping(monitor=stage.monitor, mode=stage.mode, patience=patience)
        )
    # In a log file the bar would be thousands of lines; History logs a line an epoch there.
    if options["progress_bar"] and Console().is_terminal:
        callbacks.append(RichProgressBar())
    duration = max_time(settings["trainer"])
    if duration is not None:
        callbacks.append(Timer(duration))
    if any(settings["trainer"][key] is not None for key in _MAY_END_UNVALIDATED):
        callbacks.append(FinalValidation(max_steps(settings["trainer"])))
    return callbacks


def _checkpoints(
    settings: Settings, folder: Path, live: LivePredictions
) -> list[VerifiedCheckpoint]:
    """Return the checkpoint callbacks; the last one writes `last.ckpt`."""
    options = settings["callbacks"]
    every_epoch = options["verify_every"] == "epoch"
    how = {"tolerance_pp": options["tolerance_pp"], "verify": options["verify"]}
    stage = stage_class(settings["stage"]["name"])
    kinds = [
        VerifiedCheckpoint(
            folder,
            "best",
            live,
            monitor=stage.monitor,
            mode=stage.mode,
            at_validation=settings["trainer"]["val_check_interval"] is not None,
            **how,
        ),
        VerifiedCheckpoint(
            folder,
            "last",
            live,
            level="full" if every_epoch else "tensors",
            **how,
        ),
    ]
    if options["save_every"] == "epoch":
        kinds.insert(0, VerifiedCheckpoint(folder, "epoch", live, keep_all=True, **how))
    return kinds


def _trainer(settings: Settings, folder: Path, callbacks: list[Callback]) -> pl.Trainer:
    """Build the Trainer.

    Raises:
        ConfigError: if Lightning refuses an argument.
    """
    arguments = {key: value for key, value in settings["trainer"].items() if value is not None}
    del arguments["compile"]  # of the module
    for name in ("max_steps", "max_time"):  # of `FinalValidation`, and of a Timer before it
        arguments.pop(name, None)
    torch.set_float32_matmul_precision(arguments.pop("matmul_precision"))
    kind = arguments.pop("profiler", None)
    try:
        trainer = pl.Trainer(
            **arguments,
            profiler=None if kind is None else _PROFILERS[kind](folder, "profile"),
            callbacks=callbacks,
            logger=_loggers(settings, folder),
            default_root_dir=folder,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=any(isinstance(c, RichProgressBar) for c in callbacks),
            use_distributed_sampler=False,
            # SLURM gives the ranks; `Preemption` handles its signals.
            plugins=[SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else None,
        )
    except (TypeError, ValueError, RuntimeError, MisconfigurationException) as error:
        raise ConfigError(f"trainer: {error}") from None
    _check_nodes(trainer)
    return trainer


def _check_nodes(trainer: pl.Trainer) -> None:
    """Refuse several machines of which nothing starts the others: they would be waited for.

    Raises:
        ConfigError: naming the remedy.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    alone = isinstance(environment, LightningEnvironment) and "MASTER_ADDR" not in os.environ
    if trainer.num_nodes > 1 and alone:
        raise ConfigError(
            f"trainer.num_nodes={trainer.num_nodes} needs what starts the processes of the other "
            "machines: use srun in a SLURM job, or torchrun"
        )


def _loggers(settings: Settings, folder: Path) -> list[Logger]:
    kinds = {"csv": CSVLogger, "tensorboard": TensorBoardLogger}
    names = settings["logger"]["names"]
    unknown = sorted(set(names) - kinds.keys())
    if unknown:
        raise ConfigError(f"logger.names: {unknown} unknown, there are {sorted(kinds)}")
    logs = folder / "logs"
    versions = {"csv": _next_leg(logs / "csv"), "tensorboard": ""}
    return [kinds[name](save_dir=str(logs), name=name, version=versions[name]) for name in names]


def _next_leg(folder: Path) -> str:
    """Return a new folder for the CSV log of a resumed run; Lightning would remove the last one."""
    legs = ("", *(f"resumed_{number}" for number in range(1, 10_000)))
    return next(leg for leg in legs if not (folder / leg / "metrics.csv").exists())
