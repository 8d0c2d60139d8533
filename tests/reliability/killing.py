"""`av1part WORDS...` in a process that kills itself inside a write.

    python killing.py COUNT AT DELAY train stage=stage1 ...

The AT-th time that a file is opened for writing or renamed, below the current folder, SIGKILL comes
DELAY seconds later; 0 is never. A process that ends by itself leaves in the file COUNT how many
such moments there were.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Killer:
    """Counts writes, and kills at one of them."""

    def __init__(self, at: int, delay: float) -> None:
        self.at, self.delay = at, delay
        self.count = 0
        self.here = f"{Path.cwd().resolve()}{os.sep}"

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            writes = bool(flags & _WRITES)
        elif event == "os.rename":
            path, writes = arguments[0], True
        else:
            return
        if writes and not isinstance(path, int) and os.path.abspath(path).startswith(self.here):  # noqa: PTH100
            self.count += 1
            if self.count == self.at:
                self._kill()

    def _kill(self) -> None:
        process = os.getpid()
        if os.fork():
            return
        time.sleep(self.delay)
        os.kill(process, signal.SIGKILL)
        os._exit(0)


def run() -> int:
    """Run the command line."""
    count, at, delay = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    from av1part.cli import main

    killer = Killer(at, delay)
    sys.addaudithook(killer)
    words = sys.argv[4:]
    sys.argv = ["av1part", *words]
    code = main(words)
    written = killer.count
    count.write_text(str(written))
    return code


if __name__ == "__main__":
    sys.exit(run())
