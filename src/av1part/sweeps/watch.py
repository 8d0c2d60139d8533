"""How far the jobs of a sweep are, told while they run, from their folders alone."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from av1part.sweeps.state import read_record

log = logging.getLogger(__name__)

_EVERY = 1.0
"""Seconds between two looks."""


class Watch:
    """Logs a line whenever a job has begun or ended, for as long as the context lasts.

    It looks at the folders, so that it is the same whatever runs the jobs, and wherever.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        """Watch these folders of jobs that are to be run."""
        self._folders = folders
        self._before = {folder: _touched(folder) for folder in folders}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._started = time.monotonic()
        self._said = ""

    def __enter__(self) -> Watch:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look once more, and end."""
        self._stop.set()
        self._thread.join()
        self._tell()

    def _look(self) -> None:
        while not self._stop.wait(_EVERY):
            self._tell()

    def _tell(self) -> None:
        counts = self.counts()
        line = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        if line != self._said:
            self._said = line
            log.info("sweep: %s%s", line, self._rest(counts))

    def counts(self) -> dict[str, int]:
        """Count the jobs that are done, failed, running and left."""
        counts = dict.fromkeys(("done", "running", "failed", "left"), 0)
        for folder in self._folders:
            if (folder / "metrics.json").is_file():
                counts["done"] += 1
            elif (read_record(folder) or {}).get("error"):
                counts["failed"] += 1
            elif _touched(folder) != self._before[folder]:  # not merely left by an earlier start
                counts["running"] += 1
            else:
                counts["left"] += 1
        return counts

    def _rest(self, counts: Mapping[str, int]) -> str:
        """Estimate the time to the end from what has ended so far."""
        ended = counts["done"] + counts["failed"]
        open_ = counts["running"] + counts["left"]
        if not ended or not open_:
            return ""
        minutes = (time.monotonic() - self._started) / ended * open_ / 60
        return f", about {minutes:.0f} min to the end" if minutes >= 1 else ", less than a minute"


def _touched(folder: Path) -> int:
    """Return when a job last wrote into its folder, in nanoseconds; 0 if it never did."""
    try:
        return max((file.stat().st_mtime_ns for file in folder.iterdir()), default=0)
    except OSError:  # none yet, or a file was renamed meanwhile
        return 0
