"""A run of several processes ends when one of them dies, instead of waiting for it for ever.

Lightning watches its processes too, but kills the first one without a word, and the others not at
all when it is the first that died. Processes that SLURM has started it watches itself (`srun
--kill-on-bad-exit=1`).
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from av1part.system.signals import EXIT_CODE

log = logging.getLogger(__name__)

SECONDS = 1.0
"""Between two looks at the other processes; Lightning looks every five."""


def _is_watched(launcher: object) -> bool:
    """Return whether Lightning has started the processes, and there are several."""
    return (
        isinstance(launcher, _SubprocessScriptLauncher)
        and launcher.num_processes > 1
        and isinstance(launcher.cluster_environment, LightningEnvironment)
    )


class RankWatch(Callback):
    """Looks after the other processes of a run from a thread, which a hanging one cannot stop."""

    def __init__(self, folder: Path) -> None:
        """Watch a run in `folder`, where each process has its log."""
        self.folder = folder
        self._over = threading.Event()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to look, if Lightning has started these processes."""
        launcher = trainer.strategy.launcher
        if _is_watched(launcher):
            assert isinstance(launcher, _SubprocessScriptLauncher)
            for thread in threading.enumerate():
                if isinstance(thread, _ChildProcessObserver):
                    thread._child_processes = []  # it ends when it has nothing to look at
            words = (launcher.procs, os.getppid())
            threading.Thread(target=self._look, args=words, daemon=True).start()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look no more: the further processes end now."""
        self._over.set()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leave the thread the time to say why, if the error is that another process died."""
        if isinstance(exception, RuntimeError):
            self._over.wait(2 * SECONDS)
        self._over.set()

    def _look(self, others: Sequence[subprocess.Popen[bytes]], parent: int) -> None:
        is_child = not others
        while not self._over.wait(SECONDS):
            if is_child and os.getppid() != parent:
                os._exit(1)  # the first process has died, and whoever started it knows
            for rank, other in enumerate(others, 1):
                if other.poll() not in (None, 0, EXIT_CODE):  # or told to stop, as all are then
                    self._end(rank, other, others)

    def _end(
        self,
        rank: int,
        dead: subprocess.Popen[bytes],
        others: Sequence[subprocess.Popen[bytes]],
    ) -> None:
        """Say which process died, and end all; those that wait for it would not hear an error."""
        code = dead.returncode
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        log.error(
            "process %d of the run (pid %d) ended %s: see %s and the system's log; resume=true "
            "goes on from the last checkpoint",
            rank,
            dead.pid,
            how,
            self.folder / f"train-rank{rank}.log",
        )
        for each in others:
            each.kill()
        os._exit(1)
