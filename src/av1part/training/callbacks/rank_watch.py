"""Ending a run of several processes when one of them dies, which the others would wait for.

Lightning watches its processes too, but kills the first one without a message, and kills none when
the first one dies. SLURM watches those that it has started (`srun --kill-on-bad-exit=1`).
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
"""Seconds between two checks of the other processes; Lightning checks every five."""


def _is_watched(launcher: object) -> bool:
    """Return whether Lightning has started several processes."""
    return (
        isinstance(launcher, _SubprocessScriptLauncher)
        and launcher.num_processes > 1
        and isinstance(launcher.cluster_environment, LightningEnvironment)
    )


class RankWatch(Callback):
    """Checks the other processes of a run in a thread, which runs on while the main one waits."""

    def __init__(self, folder: Path) -> None:
        """Watch a run whose processes have their logs in `folder`."""
        self.folder = folder
        self._over = threading.Event()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the thread, if Lightning has started the processes."""
        launcher = trainer.strategy.launcher
        if _is_watched(launcher):
            assert isinstance(launcher, _SubprocessScriptLauncher)
            for thread in threading.enumerate():
                if isinstance(thread, _ChildProcessObserver):
                    thread._child_processes = []  # it ends when the list is empty
            arguments = (launcher.procs, os.getppid())
            threading.Thread(target=self._watch, args=arguments, daemon=True).start()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop watching: the other processes end now."""
        self._over.set()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Give the thread time to log the cause, in case another process has died."""
        if isinstance(exception, RuntimeError):
            self._over.wait(2 * SECONDS)
        self._over.set()

    def _watch(self, children: Sequence[subprocess.Popen[bytes]], parent: int) -> None:
        is_child = not children
        while not self._over.wait(SECONDS):
            if is_child and os.getppid() != parent:
                os._exit(1)  # the first process has died; its own parent reports that
            for rank, child in enumerate(children, 1):
                if child.poll() not in (None, 0, EXIT_CODE):  # a signal stops all processes
                    self._end(rank, child, children)

    def _end(
        self,
        rank: int,
        dead: subprocess.Popen[bytes],
        children: Sequence[subprocess.Popen[bytes]],
    ) -> None:
        """Log which process died, and end all: one that waits for it cannot raise an error."""
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
        for child in children:
            child.kill()
        os._exit(1)
