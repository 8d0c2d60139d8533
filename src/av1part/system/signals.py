"""The signals by which a run is told to stop, and who obeys them."""

from __future__ import annotations

import os
import signal
import threading

EXIT_CODE = 75
"""Of a process that was told to stop and can be started again: EX_TEMPFAIL of sysexits.h."""

WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
"""Sent before the time is over: the job is to be put back into the queue."""

SIGNALS = (signal.SIGTERM, *WARNINGS)


def obey_parent_alone(worker: int = 0) -> None:
    """Have this process end by `SIGNALS` only if its parent sends one.

    SLURM signals every process of a job; a worker that ended by that would fail the batch at which
    its parent saves the run.

    Args:
        worker: Its number, which a DataLoader gives; not used.
    """
    if not hasattr(signal, "sigwaitinfo"):  # macOS, which has no SLURM either
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=_wait_for, args=(os.getppid(),), daemon=True).start()


def _wait_for(parent: int) -> None:
    while signal.sigwaitinfo(SIGNALS).si_pid != parent:
        pass
    os._exit(0)
