"""Where the seconds of a training run go, and the memory it takes, over all of its starts."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from av1part.system.files import write_json
from av1part.training.callbacks.verified import VerifiedCheckpoint

_SUMS = ("seconds", "features_seconds", "validation_seconds", "verification_seconds")
_PEAKS = ("fit_peak_memory_bytes", "fit_peak_gpu_memory_bytes")
_BEGUN = "epoch_begun"
"""Of timing.json while the run goes on: what there is of an epoch that is not at its end."""


class Timing(Callback):
    """Measures where the seconds go, training blocks a second, and peak memory.

    With every checkpoint timing.json is written, beside it and not within, since equal runs have
    equal checkpoints; a resumed run goes on from there. What a killed run did after its last
    checkpoint is not counted.

    `features_seconds` is to be set to what the features of a frozen trunk took before the fit.
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
        """Start the clock; take over what a resumed run has measured before."""
        self._start = self._epoch_start = time.perf_counter()
        self._peaks_known = _forget_peak()
        device = trainer.strategy.root_device
        if device.type == "cuda":  # on any other, CUDA may not have been begun, and is not to be
            self._gpu = device
            torch.cuda.reset_peak_memory_stats(device)
        kinds = (c for c in trainer.callbacks if isinstance(c, VerifiedCheckpoint))  # type: ignore[attr-defined]
        self._verified = list(kinds)
        if trainer.ckpt_path is not None:
            with suppress(OSError, ValueError, TypeError, KeyError):  # lost, or damaged
                before = json.loads(self.path.read_text(encoding="utf-8"))
                self._epoch_blocks = list(before["epoch_blocks"])
                self._epoch_seconds = list(before["epoch_seconds"])
                self._before = before

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on in the epoch that the run was stopped in."""
        begun = self._before.get(_BEGUN)
        if begun is not None and len(self._epoch_seconds) == trainer.current_epoch:
            self._epoch_start = time.perf_counter() - begun["seconds"]
            self._blocks = begun["blocks"]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start an epoch's clock; a run that is resumed inside an epoch does not come here."""
        # What a resumed run repeats is not counted twice.
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
        self._blocks += len(batch["node"])

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop an epoch's clock before validation."""
        if self._blocks:
            self._epoch_seconds.append(time.perf_counter() - self._epoch_start)
            self._epoch_blocks.append(self._blocks)
            self._blocks = 0
        self._validation_start = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add up the validation of the live model."""
        self._validation_seconds += time.perf_counter() - self._validation_start

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write what a run that is resumed from this checkpoint has to know."""
        if trainer.is_global_zero:
            seconds = time.perf_counter() - self._epoch_start if self._blocks else 0.0
            begun = {"seconds": seconds, "blocks": self._blocks}
            write_json(self.path, {**self.summary(), _BEGUN: begun})

    def summary(self) -> dict[str, Any]:
        """Return what timing.json holds of a finished run."""
        rates = [b / s for b, s in zip(self._epoch_blocks, self._epoch_seconds, strict=True)]
        sums = {
            "seconds": time.perf_counter() - self._start,
            "features_seconds": self.features_seconds,
            "validation_seconds": self._validation_seconds,
            "verification_seconds": sum(each.seconds for each in self._verified),
        }
        return {
            **{key: sums[key] + self._before.get(key, 0.0) for key in _SUMS},
            "epoch_seconds": self._epoch_seconds,
            "epoch_blocks": self._epoch_blocks,
            "blocks_per_second": sorted(rates)[len(rates) // 2] if rates else None,
            **self._peaks(),
        }

    def _peaks(self) -> dict[str, int | None]:
        found: dict[str, int | None] = {_PEAKS[0]: _peak() if self._peaks_known else None}
        if self._gpu is not None:
            found[_PEAKS[1]] = torch.cuda.max_memory_allocated(self._gpu)
        for key, value in found.items():
            earlier: int | None = self._before.get(key) if self._before else 0
            found[key] = None if value is None or earlier is None else max(value, earlier)
        return found


def _forget_peak() -> bool:
    """Have the peak of memory be that from now on; return whether the system can do that.

    A process may train many runs, and its own peak is that of the largest so far.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
    except OSError:
        return False
    return True


def _peak() -> int | None:
    """Return the most memory that the process had resident, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    except (OSError, ValueError):
        return None
    return 1024 * int(peak)
