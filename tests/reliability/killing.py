"""`av1part WORDS...` in a process that kills itself inside a write.

    python killing.py COUNT EVENT AT train stage=stage1 ...

SIGKILL comes at the AT-th `open` of a file that is being written, a moment later, or at the AT-th
`os.rename` to its final name, before that is done; 0 is never. A process that ends by itself leaves
in the file COUNT how many there were of each.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

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


def run() -> int:
    """Run the command line."""
    count, event, at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    from av1part.cli import main

    killer = Killer(event, at)
    sys.addaudithook(killer)
    words = sys.argv[4:]
    sys.argv = ["av1part", *words]
    code = main(words)
    count.write_text(json.dumps(killer.counts))
    return code


if __name__ == "__main__":
    sys.exit(run())
