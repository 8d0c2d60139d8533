"""The signals that stop a run, and which process handles them."""

from __future__ import annotations

import os
import signal
import threading

EXIT_CODE = 75
"""Exit code of a process that a signal stopped and that can be started again (EX_TEMPFAIL)."""

WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
"""Sent before the time limit: the job is to be put back into the queue."""

SIGNALS = (signal.SIGTERM, *WARNINGS)


def ignore_signals_except_parents(worker: int = 0) -> None:
    """Ignore `SIGNALS` in this process, unless its parent sends one.

    SLURM signals every process of a job. A DataLoader's worker that ended then would fail the
    batch during which its parent saves the run.

    Args:
        worker: The worker's number, which a DataLoader passes; not used.
    """
    if not hasattr(signal, "sigwaitinfo"):  # macOS, which has no SLURM either
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=_wait_for, args=(os.getppid(),), daemon=True).start()


def _wait_for(parent: int) -> None:
    while signal.sigwaitinfo(SIGNALS).si_pid != parent:
        pass
    os._exit(0)
