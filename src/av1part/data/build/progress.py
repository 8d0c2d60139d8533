"""Progress of jobs on stderr: a bar on a terminal, occasional lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 20.0


class JobProgress:
    """Counts finished jobs; use as a context."""

    def __init__(
        self,
        total: int,
        done: int,
        *,
        show: bool,
        words: tuple[str, str] = ("encoding", "encoded"),
    ) -> None:
        """Start at `done` jobs, finished by an earlier run, of `total`.

        Args:
            total: Number of jobs.
            done: Jobs that are finished.
            show: Whether anything is shown.
            words: What a job does, and has done.
        """
        self._past = words[1]
        self._total, self._done, self._show = total, done, show
        self._bar: Progress | None = None
        self._start = self._last_line = time.monotonic()
        self._first = done
        if show and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn(words[0]),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task("", total=total, completed=done)
        elif show and done:
            self._line(f"resumed with {done} of {total} encodes done")

    def __enter__(self) -> JobProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, job: str) -> None:
        """Count one more finished job and show its name."""
        self._done += 1
        if self._bar is not None:
            self._bar.update(self._task, advance=1, description=job)
        elif self._show:
            elapsed = time.monotonic() - self._last_line
            if elapsed >= _SECONDS_BETWEEN_LINES or self._done == self._total:
                self._line(f"{self._past} {self._done} of {self._total}, last {job}{self._rest()}")

    def _rest(self) -> str:
        """Return how long the rest takes at the speed so far."""
        if self._done == self._total:
            return ""
        each = (time.monotonic() - self._start) / (self._done - self._first)
        minutes = each * (self._total - self._done) / 60
        return f", about {minutes:.0f} min left" if minutes >= 1 else ", under 1 min left"

    def _line(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
        self._last_line = time.monotonic()
