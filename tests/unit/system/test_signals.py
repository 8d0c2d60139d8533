"""Workers stay while their parent saves the run, and end when it ends them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from av1part.system.signals import SIGNALS, ignore_signals_except_parents


def _work(ready: object) -> None:
    ignore_signals_except_parents()
    ready.set()  # type: ignore[attr-defined]
    time.sleep(600)


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="needs sigwaitinfo")
def test_a_worker_obeys_its_parent_alone() -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    worker = context.Process(target=_work, args=(ready,), daemon=True)
    worker.start()
    assert ready.wait(60)
    for number in SIGNALS:  # from a process that is not its parent, as SLURM's are
        code = f"import os; os.kill({worker.pid}, {number:d})"
        subprocess.run([sys.executable, "-S", "-c", code], check=True)
    worker.join(timeout=0.5)
    assert worker.is_alive()
    worker.terminate()
    worker.join(timeout=60)
    assert worker.exitcode == 0
    assert os.getpid() != worker.pid
