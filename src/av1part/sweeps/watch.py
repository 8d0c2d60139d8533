"""Progress of a sweep's jobs while they run, read from their folders."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from av1part.runs.schema import METRICS_FILE
from av1part.runs.sweeps import read_record

log = logging.getLogger(__name__)

_EVERY = 1.0
"""Seconds between two looks at the folders."""

JobProgress = Literal["done", "running", "failed", "left"]


class Watch:
    """Logs a line whenever a job has begun or ended, for as long as the context lasts.

    It reads the folders, so that it works with every launcher. The remaining time is logged once a
    job of this launch has finished.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        *,
        waiting: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch jobs that are about to run.

        Args:
            folders: Folders of the jobs.
            waiting: Number of further jobs, which are launched when these have ended.
            clock: Returns the time in seconds.
        """
        self._folders = folders
        self._waiting = waiting
        self._clock = clock
        self._before = {folder: _touched(folder) for folder in folders}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._looked = clock()
        self._begun: dict[Path, float] = {}
        self._took: dict[Path, float] = {}
        self._at_once = 1
        self._logged = ""

    def __enter__(self) -> Watch:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread, and log the last state."""
        self._stop.set()
        self._thread.join()
        self._log()

    def _run(self) -> None:
        while not self._stop.wait(_EVERY):
            self._log()

    def _log(self) -> None:
        counts, rest = self.look()
        line = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        if self._waiting:
            line += f", {self._waiting} wait for these"
        if line != self._logged:
            self._logged = line
            end = "until these end" if self._waiting else "left"
            log.info("sweep: %s%s", line, "" if rest is None else f", {duration(rest)} {end}")

    def look(self) -> tuple[dict[JobProgress, int], float | None]:
        """Read the folders once.

        Returns:
            The numbers of jobs that are done, running, failed and left; and the seconds until the
            last one ends, None if none is left or none has finished yet.
        """
        now, running = self._clock(), []
        counts: dict[JobProgress, int] = {"done": 0, "running": 0, "failed": 0, "left": 0}
        for folder in self._folders:
            kind = self._progress(folder)
            counts[kind] += 1
            if kind == "running":
                running.append(now - self._begun.setdefault(folder, now))
            elif kind == "done" and folder not in self._took:
                # A job shorter than the interval began after the last look.
                self._took[folder] = now - self._begun.get(folder, self._looked)
        self._looked = now
        self._at_once = max(self._at_once, len(running))
        took = list(self._took.values())
        return counts, time_left(took, running, counts["left"], self._at_once)

    def _progress(self, folder: Path) -> JobProgress:
        if (folder / METRICS_FILE).is_file():
            return "done"
        if (read_record(folder) or {}).get("error"):
            return "failed"
        begun = _touched(folder) != self._before[folder]  # not merely left by an earlier start
        return "running" if begun else "left"


def time_left(
    took: Sequence[float], running: Sequence[float], left: int, at_once: int
) -> float | None:
    """Estimate when the last job ends, if jobs take as long as the finished ones on average.

    Args:
        took: Seconds of each finished job.
        running: Seconds of each running job so far.
        left: Number of jobs that have not begun.
        at_once: Number of jobs that run at once, 1 or more.

    Returns:
        Seconds from now; None if no job has finished, or all have.
    """
    if not took or not (running or left):
        return None
    mean = sum(took) / len(took)
    ends = [max(mean - so_far, 0.0) for so_far in running]
    ends += [0.0] * (at_once - len(ends))
    heapq.heapify(ends)
    for _ in range(left):  # the next job begins where the first one ends
        heapq.heapreplace(ends, ends[0] + mean)
    return max(ends)


def duration(seconds: float) -> str:
    """Return a duration as text.

    >>> [duration(s) for s in (20, 700, 12_000)]
    ['less than a minute', 'about 12 min', 'about 3 h 20 min']
    """
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    if minutes < 100:
        return f"about {minutes} min"
    return f"about {minutes // 60} h {minutes % 60} min"


def _touched(folder: Path) -> int:
    """Return when a job last wrote into its folder, in nanoseconds; 0 if it never has."""
    try:
        return max((file.stat().st_mtime_ns for file in folder.iterdir()), default=0)
    except OSError:  # none yet, or a file was renamed meanwhile
        return 0
