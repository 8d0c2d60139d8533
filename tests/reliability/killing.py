"""`av1part WORDS...` in processes that can be killed, or kill themselves inside a write.

They are forked from one that has imported everything already, so that a moment of their lives is
one of a training, a build or a sweep rather than of the imports, which take longer than these do.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import cache
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

from av1part.cli.main import VERBS, main

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Killer:
    """Counts writes, and kills at one of them."""

    def __init__(self, event: str, at: int) -> None:
        self.event, self.at = event, at
        self.counts: Counter[str] = Counter()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename") or not str(arguments[0]).endswith(".part"):
            return
        if event == "open" and not arguments[2] & _WRITES:
            return
        self.counts[event] += 1
        if event == self.event and self.counts[event] == self.at:
            kill(later=event == "open")


def kill(*, later: bool) -> None:
    """End this process now, or once it has begun to write."""
    process = os.getpid()
    if later:
        if os.fork():
            return
        time.sleep(random.uniform(0, 0.002))
    os.kill(process, signal.SIGKILL)
    os._exit(0)


def run(words: Sequence[str], folder: Path, event: str, at: int) -> None:
    """Run the command line, in a process of its own.

    Args:
        words: What follows `av1part`.
        folder: Where it runs. What it says is appended to `out.txt`; a process that ends by itself
            leaves in `count` how many openings and renames of files being written there were.
        event: At which of them SIGKILL comes: "open" (a moment later, when something may have been
            written) or "os.rename" (before it is done); anything else is never.
        at: At which one of these, from 1.
    """
    out = os.open(folder / "out.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.chdir(folder)
    killer = Killer(event, at)
    sys.addaudithook(killer)
    sys.argv = ["av1part", *words]
    code = main(sys.argv[1:])
    (folder / "count").write_text(json.dumps(killer.counts))
    sys.exit(code)


@cache
def processes() -> ForkServerContext:
    """Return what forks them, once it has imported what they need."""
    context = multiprocessing.get_context("forkserver")
    commands = [f"av1part.cli.commands.{verb.command}" for verb in VERBS.values()]
    context.set_forkserver_preload(
        [__name__, "av1part.training.run", "av1part.sweeps.slurm", *commands]
    )
    first = context.Process()  # ends when all is imported, so that no run is timed with that
    with mock.patch.dict(os.environ, OMP_NUM_THREADS="1"):  # a fork has no threads but its own
        first.start()
    first.join()
    return context


def start(words: Sequence[str], folder: Path, event: str = "none", at: int = 0) -> BaseProcess:
    """Start `av1part WORDS...` in a folder."""
    process = processes().Process(target=run, args=(tuple(words), folder, event, at))
    process.start()
    return process
