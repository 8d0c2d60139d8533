"""Checkpoints that count as saved only after they were read back and compared.

    write <name>.ckpt.part -> load into a fresh module -> tensors bit for bit -> same batches,
    same macro-F1 as the live model had -> rename to <name>.ckpt, record <name>.verified.json

The record is written before both are renamed, so that it exists if the process is killed between.

The live figures come from the training loop's own validation, the reloaded ones from
`evaluation.evaluate`, the code path of `av1part validate`: so scaling that happens outside the
module, a forgotten buffer or a forward that is not deterministic shows as a difference. With
`verify=process` a new Python process loads and evaluates (`readback`), so that not even an
imported module of the training run takes part.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.seed import isolate_rng

from av1part.checkpoints.load import load_stage
from av1part.defects import NOT_STRICT, RELOADED, listed
from av1part.metrics.scores import Scores
from av1part.models.freeze import differing, state_sha256, tensor_hashes
from av1part.options import Verification
from av1part.runs.schema import calibration_path, sidecar_path
from av1part.stages.base import StageModule
from av1part.system.environment import versions
from av1part.system.errors import CheckpointError, CheckpointMismatchError
from av1part.system.files import PART_SUFFIX, flush, naming, read_json, sha256_file, write_json
from av1part.training.callbacks.live import LivePredictions
from av1part.training.callbacks.readback import ReadBack, read_back_in_new_process

log = logging.getLogger(__name__)

CheckLevel = Literal["full", "tensors"]

_HEAD = "classifier.head."
"""Begins the names of the tensors that the defect `not_strict` does not load."""


class VerifiedCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint that reads its files back before they get their final name.

    Two are used together: `best` follows the stage's `monitor`, `last` is saved after every epoch,
    to resume from. Both write on rank 0 while the other ranks wait. `seconds` is the time that
    reading back has taken.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        live: LivePredictions,
        *,
        monitor: str | None = None,
        mode: str = "max",
        level: CheckLevel = "full",
        verify: Verification = "module",
        tolerance_pp: float = 1.0,
        keep_all: bool = False,
        at_validation: bool = False,
    ) -> None:
        """Set up one kind of checkpoint.

        Args:
            folder: Folder of the checkpoints.
            name: File stem, `best` or `last`.
            live: The live model's predictions.
            monitor: Metric to choose by; None saves every epoch.
            mode: `max` or `min`, what the metric is to be.
            level: `full` reloads and validates each file whose weights the live model was
                validated with; `tensors` compares tensors only, and validates the file that is
                there when training ends.
            verify: Where a file is reloaded and validated: in a fresh `module` of this process,
                or in a new `process`. Tensors alone are always compared in this one.
            tolerance_pp: Largest difference of macro-F1 between live and reloaded model, in
                percentage points, and of their log loss, in hundredths of a nat.
            keep_all: Keep a file of every epoch, `<name>-<epoch>`.
            at_validation: Save after each validation instead of after each epoch.
        """
        super().__init__(
            dirpath=folder,
            filename=f"{name}-{{epoch:04d}}" if keep_all else name,
            monitor=monitor,
            mode=mode,
            save_top_k=-1 if keep_all else 1,
            every_n_epochs=1,
            auto_insert_metric_name=False,
            enable_version_counter=False,
            save_on_train_epoch_end=not at_validation,
        )
        self.name = name
        self.live = live
        self.level: CheckLevel = level
        self.verify: Verification = verify
        self.tolerance_pp = tolerance_pp
        self.seconds = 0.0
        self._saved_epoch = -1

    @property
    def state_key(self) -> str:
        """Key of this callback's state in a checkpoint; `best` and `last` must not share it."""
        return f"{type(self).__name__}[{self.name}]"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best checkpoint so far, also if the run folder has been moved since."""
        folder = str(self.dirpath)

        def moved(path: str) -> str:
            return str(Path(folder) / Path(path).name) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        super().load_state_dict(
            {
                **state_dict,
                "dirpath": self.dirpath,
                "best_k_models": {moved(k): v for k, v in state_dict["best_k_models"].items()},
                **{key: moved(state_dict[key]) for key in paths},
            }
        )

    def save_now(self, trainer: pl.Trainer) -> None:
        """Save from inside an epoch; only the tensors are compared.

        The live model's predictions are of an earlier validation, so scores cannot be.
        """
        self._save(trainer, self._own_file, "tensors")

    @property
    def _own_file(self) -> Path:
        return Path(str(self.dirpath)) / f"{self.name}{self.FILE_EXTENSION}"

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        self._save(trainer, Path(filepath), self.level)
        self._last_global_step_saved = trainer.global_step
        self._last_checkpoint_saved = filepath

    def _save(self, trainer: pl.Trainer, final: Path, level: CheckLevel) -> None:
        part = final.with_name(f"{final.name}{PART_SUFFIX}")
        try:
            with naming(final):  # written elsewhere, then moved here
                trainer.save_checkpoint(part, self.save_weights_only)
            if trainer.is_global_zero:
                self._verify_and_name(trainer, part, final, level)
        finally:
            if trainer.is_global_zero:
                part.unlink(missing_ok=True)
        trainer.strategy.barrier()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save at the end of an epoch; by a metric, only if the epoch has a validation."""
        if self.monitor is None or self.live.current:
            super().on_train_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate the file that was only read back while training went on."""
        pending = self.level == "tensors" and self._saved_epoch >= 0 and self.live.current
        if pending and trainer.is_global_zero and self._own_file.is_file():
            self._verify_and_name(trainer, self._own_file, self._own_file, "full")
        trainer.strategy.barrier()

    def _verify_and_name(
        self, trainer: pl.Trainer, part: Path, final: Path, level: CheckLevel
    ) -> None:
        module = trainer.lightning_module
        assert isinstance(module, StageModule)
        if not self.live.current:  # an epoch without validation
            level = "tensors"
        started = time.perf_counter()
        try:
            record = self._verify(trainer, module, part, final, level)
            self.seconds += time.perf_counter() - started
        except CheckpointError:
            part.replace(final.with_name(f"{final.stem}.corrupt"))
            if part == final:
                sidecar_path(final).unlink(missing_ok=True)
            raise
        pending = _pending_record(final)
        with naming(sidecar_path(final)):
            write_json(pending, record)
        # Without a record a checkpoint is only unverified; a stale one would refuse it, as would a
        # stale calibration.
        sidecar_path(final).unlink(missing_ok=True)
        if part != final:
            calibration_path(final).unlink(missing_ok=True)
            flush(part)
        part.replace(final)
        pending.replace(sidecar_path(final))

    def _verify(
        self, trainer: pl.Trainer, module: StageModule, part: Path, final: Path, level: CheckLevel
    ) -> dict[str, Any]:
        """Read a file back and compare it with the live model.

        Raises:
            CheckpointMismatchError: naming what differs.
        """
        try:
            back = self._read_back(trainer, module, part, level)
        except CheckpointError as error:
            where = " in a new process" if self._in_new_process(level) else ""
            raise CheckpointMismatchError(
                f"{final} does not read back{where} ({error}); the file is kept as "
                f"{final.stem}.corrupt: check disk and memory"
            ) from error
        # When training has ended, Lightning's counter is past the epoch that was saved.
        epoch = self._saved_epoch if part == final else trainer.current_epoch
        self._saved_epoch = epoch
        live_state = {k: v.detach().cpu() for k, v in module.state_dict().items()}
        file_sha256 = sha256_file(part)
        moved = differing(tensor_hashes(live_state), back.tensors)
        if NOT_STRICT in module.defects:
            moved = [name for name in moved if not name.startswith(_HEAD)]
        if moved:
            raise CheckpointMismatchError(
                f"{final} reads back with other tensors than the live model's: "
                f"{', '.join(moved[:4])} ({len(moved)} in all); the file is kept as "
                f"{final.stem}.corrupt"
            )
        if back.file_sha256 != file_sha256:
            raise CheckpointMismatchError(
                f"{final} changed while it was read back; the file is kept as {final.stem}.corrupt"
            )
        record = {
            "file": final.name,
            "sha256": state_sha256(live_state),
            "file_sha256": file_sha256,
            "epoch": epoch,
            "level": level,
            "process": "new" if back.pid != os.getpid() else "same",
            "python": back.python,
        }
        if back.macro_f1 is not None:
            record |= self._compare_scores(trainer, module, back.macro_f1, final)
            record |= self._compare_log_loss(module, back.log_loss, final)
        if module.defects:
            record["defects"] = list(module.defects)
        return {**record, "versions": versions()}

    def _in_new_process(self, level: CheckLevel) -> bool:
        return self.verify == "process" and level == "full"

    def _read_back(
        self, trainer: pl.Trainer, live: StageModule, part: Path, level: CheckLevel
    ) -> ReadBack:
        if self._in_new_process(level):
            back = read_back_in_new_process(
                part,
                batches=self.live.seen,
                ranks=trainer.world_size,
                device=str(live.device),
                precision=str(trainer.precision),
            )
            log.info("%s read back by process %d", part.name, back.pid)
            return back
        file_sha256 = sha256_file(part)
        # Building a module draws initial weights, which must not disturb the training.
        with isolate_rng():
            fresh = load_stage(part, cls=type(live), defects=live.defects)
        batches = None
        if level == "full":
            # Blocks, where training may have used features: a stale cache would show here.
            data = trainer.datamodule  # type: ignore[attr-defined]
            batches = data.batches("val", ranks=trainer.world_size)
        return ReadBack.of(
            fresh.to(live.device),
            file_sha256,
            batches,
            limit=self.live.seen,
            precision=str(trainer.precision),  # that of the live model's score
        )

    def _compare_scores(
        self, trainer: pl.Trainer, live: StageModule, reloaded: float, final: Path
    ) -> dict[str, Any]:
        live_f1 = self.live.macro_f1(live)
        delta = 100 * (reloaded - live_f1)
        # `not <=` also refuses a difference that is not a number.
        if not abs(delta) <= self.tolerance_pp:
            _mismatch(
                live,
                final,
                f"{final} scores macro-F1 {100 * reloaded:.2f} % when reloaded, the live model "
                f"{100 * live_f1:.2f} % on the same batches: {delta:+.2f} pp, tolerance "
                f"{self.tolerance_pp} pp",
            )
        return {
            "macro_f1_live": live_f1,
            "macro_f1_reloaded": reloaded,
            "delta_pp": delta,
            "tolerance_pp": self.tolerance_pp,
            **self._validated(trainer, live.val_result),
        }

    def _compare_log_loss(
        self, module: StageModule, reloaded: float | None, final: Path
    ) -> dict[str, Any]:
        """Compare the log loss, which moves where probabilities do and the best class does not."""
        live = self.live.log_loss()
        if reloaded is None or not 100 * abs(reloaded - live) <= self.tolerance_pp:
            _mismatch(
                module,
                final,
                f"{final} has log loss {reloaded} when reloaded, the live model {live} on the same "
                f"batches, tolerance {self.tolerance_pp / 100:g}",
            )
        return {"log_loss_live": live, "log_loss_reloaded": reloaded}

    def _validated(self, trainer: pl.Trainer, result: Scores) -> dict[str, Any]:
        """Return the live model's macro-F1 on all that was validated, and on how much of val.

        A limited validation is of the first nodes: each process takes its first batches.
        """
        macro_f1, nodes = float(result["macro_f1"]), int(np.sum(result["confusion_matrix"]))
        data = trainer.datamodule  # type: ignore[attr-defined]
        if nodes == len(data.scored_reader("val")):
            asked = self.live.batches
            return {"macro_f1_full": macro_f1, "batches": "all" if asked is None else asked}
        return {
            "macro_f1_limited": macro_f1,
            "nodes_limited": nodes,
            "batches": self.live.seen,
        }


def _mismatch(module: StageModule, final: Path, message: str) -> None:
    """Refuse a checkpoint that scores otherwise than the live model.

    One that has a defect of reloading on purpose is kept: the difference is what it is for.

    Raises:
        CheckpointMismatchError: with the message, and where the file is.
    """
    if not set(module.defects) & set(RELOADED):
        raise CheckpointMismatchError(f"{message}; the file is kept as {final.stem}.corrupt")
    log.warning("DEFECTIVE ON PURPOSE, %s: %s; recorded", listed(module.defects), message)


def _pending_record(checkpoint: Path) -> Path:
    record = sidecar_path(checkpoint)
    return record.with_name(f"{record.name}{PART_SUFFIX}")


def adopt_records(folder: Path) -> None:
    """Rename the records of checkpoints whose process was killed before it could.

    Args:
        folder: The checkpoints' folder.
    """
    for checkpoint in folder.glob("*.ckpt"):
        pending, final = _pending_record(checkpoint), sidecar_path(checkpoint)
        record = read_json(pending)
        if record is None or final.exists():
            continue
        if record.get("file_sha256") == sha256_file(checkpoint):
            pending.replace(final)
