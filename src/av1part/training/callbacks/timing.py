"""Times and peak memory of a training run, summed over its starts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from av1part.system.files import read_json, write_json
from av1part.training.callbacks.verified import VerifiedCheckpoint

_SUMS = ("seconds", "features_seconds", "validation_seconds", "verification_seconds")
_PEAKS = ("fit_peak_memory_bytes", "fit_peak_gpu_memory_bytes")
_BEGUN = "epoch_begun"
"""Key of timing.json during a run: seconds and blocks of the epoch that has not ended."""


class Timing(Callback):
    """Measures seconds, training blocks a second, and peak memory.

    timing.json is written with every checkpoint, from which a resumed run continues; it is not part
    of the checkpoint, since equal runs have equal checkpoints. The time of a killed run after its
    last checkpoint is not counted.

    `features_seconds` must be set to the seconds that caching features took before the fit.
    """

    def __init__(self, path: Path) -> None:
        """Write to `path`."""
        self.path = path
        self.features_seconds = 0.0
        self._before: dict[str, Any] = {}
        self._verified: list[VerifiedCheckpoint] = []
        self._validation_seconds = 0.0
        self._validation_start = 0.0
        self._start = 0.0
        self._epoch_start = 0.0
        self._epoch_seconds: list[float] = []
        self._blocks = 0
        self._epoch_blocks: list[int] = []
        self._peaks_known = False
        self._gpu: torch.device | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; read what a resumed run has measured before."""
        self._start = self._epoch_start = time.perf_counter()
        self._peaks_known = _forget_peak()
        device = trainer.strategy.root_device
        if device.type == "cuda":  # on another device CUDA must not be initialised
            self._gpu = device
            torch.cuda.reset_peak_memory_stats(device)
        kinds = (c for c in trainer.callbacks if isinstance(c, VerifiedCheckpoint))  # type: ignore[attr-defined]
        self._verified = list(kinds)
        if trainer.ckpt_path is not None:
            before = read_json(self.path) or {}
            blocks, seconds = before.get("epoch_blocks"), before.get("epoch_seconds")
            if isinstance(blocks, list) and isinstance(seconds, list):
                self._epoch_blocks, self._epoch_seconds, self._before = blocks, seconds, before

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Continue the epoch in which the run was stopped."""
        begun = self._before.get(_BEGUN)
        if begun is not None and len(self._epoch_seconds) == trainer.current_epoch:
            self._epoch_start = time.perf_counter() - begun["seconds"]
            self._blocks = begun["blocks"]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start an epoch's clock; not called for a run that is resumed inside the epoch."""
        # Epochs that a resumed run repeats are not counted twice.
        del (
            self._epoch_seconds[trainer.current_epoch :],
            self._epoch_blocks[trainer.current_epoch :],
        )
        self._epoch_start, self._blocks = time.perf_counter(), 0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count blocks."""
        self._blocks += len(batch["qindex"])

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of a validation."""
        self._validation_start = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add up the validation of the live model, which is no part of the epoch's time."""
        taken = time.perf_counter() - self._validation_start
        self._validation_seconds += taken
        self._epoch_start += taken

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop an epoch's clock."""
        if self._blocks:
            self._epoch_seconds.append(time.perf_counter() - self._epoch_start)
            self._epoch_blocks.append(self._blocks)
            self._blocks = 0

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write timing.json, for a run that is resumed from this checkpoint."""
        if trainer.is_global_zero:
            seconds = time.perf_counter() - self._epoch_start if self._blocks else 0.0
            begun = {"seconds": seconds, "blocks": self._blocks}
            write_json(self.path, {**self.summary(), _BEGUN: begun})

    def summary(self) -> dict[str, Any]:
        """Return the contents of timing.json for a finished run."""
        rates = [b / s for b, s in zip(self._epoch_blocks, self._epoch_seconds, strict=True)]
        sums = {
            "seconds": time.perf_counter() - self._start,
            "features_seconds": self.features_seconds,
            "validation_seconds": self._validation_seconds,
            "verification_seconds": sum(checkpoint.seconds for checkpoint in self._verified),
        }
        return {
            **{key: sums[key] + self._before.get(key, 0.0) for key in _SUMS},
            "epoch_seconds": self._epoch_seconds,
            "epoch_blocks": self._epoch_blocks,
            "blocks_per_second": sorted(rates)[len(rates) // 2] if rates else None,
            **self._peaks(),
        }

    def _peaks(self) -> dict[str, int | None]:
        peaks: dict[str, int | None] = {_PEAKS[0]: _peak() if self._peaks_known else None}
        if self._gpu is not None:
            peaks[_PEAKS[1]] = torch.cuda.max_memory_allocated(self._gpu)
        for key, value in peaks.items():
            earlier: int | None = self._before.get(key) if self._before else 0
            peaks[key] = None if value is None or earlier is None else max(value, earlier)
        return peaks


def _forget_peak() -> bool:
    """Reset the process's peak memory; return whether the system can.

    A process may train many runs, and its peak is that of the largest so far.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
    except OSError:
        return False
    return True


def _peak() -> int | None:
    """Return the peak resident memory of the process, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    except (OSError, ValueError):
        return None
    return 1024 * int(peak)
