"""A comparison of ways to encode: points x clips x quantisers, a row an encode, resumable.

    clip ── y4m ──┬── for each quantiser, `jobs` at a time, for each repeat, for each point:
                  └── hint file ── aomenc-av1part ── stream ── bytes, seconds, work, quality ── row

So the points of a clip and quantiser are encoded one after the other: what slows the machine down
for a while slows all of them down.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from av1part.data.build.jobs import encoder_pool, wait_for_any
from av1part.data.build.libaom import Children, Tool, find_inspect, inspect_stream
from av1part.data.build.progress import JobProgress
from av1part.data.build.sources import Source
from av1part.data.build.yuv import write_y4m
from av1part.encoder.comparison import (
    Comparison,
    begin_folder,
    check_clips,
    check_folder,
    check_sizes,
    plan_facts,
)
from av1part.encoder.hinting import ClipHints, HintFile, needs_stream
from av1part.encoder.patched import Encode, find_patched, run_encode
from av1part.encoder.points import PlannedPoint
from av1part.encoder.quality import measure
from av1part.runs.encodes import KEY, ROWS_FILE, read_rows
from av1part.system.errors import EncoderError
from av1part.system.files import atomic_path
from av1part.system.locks import folder_lock

WORK = "work"
"""Folder of what is removed at the end, in that of the comparison."""

_IVF_HEADER, _IVF_FRAME_HEADER = 32, 12


def compare(
    sources: Sequence[Source],
    comparison: Comparison,
    out: Path,
    *,
    jobs: int = 1,
    progress: bool = True,
) -> None:
    """Encode all points, or those that are missing in a folder that was begun.

    Args:
        sources: The clips.
        comparison: What to do with them.
        out: Folder for plan.json and encodes.jsonl.
        jobs: Encodes that run at a time; seconds count at one alone.
        progress: Show progress on stderr.

    Raises:
        SourceError: if a clip is refused.
        ConfigError: if the folder holds something else, or another process works in it.
        EncoderError: if a program is missing or fails; finished encodes are kept.
        ReportError: if the folder's rows are damaged.
    """
    check_clips(sources)
    check_sizes(comparison)
    encoder, inspect = find_patched(), find_inspect()
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    with folder_lock(out, "choose another out="):
        begin_folder(out, plan_facts(sources, comparison, encoder))
        with _work_folder(out) as work:
            run = _Run(sources, comparison, out / ROWS_FILE, work, encoder, inspect, jobs)
            run.all(show=progress)


@contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """Make the folder for temporary files anew; remove it at the end."""
    work = out / WORK
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


class _Rows:
    """encodes.jsonl, to which encodes are appended as they end; thread-safe."""

    def __init__(self, file: Path) -> None:
        """Read what is there, and cut off a line that a kill left unfinished."""
        rows, end = read_rows(file)
        self.done = {tuple(row[name] for name in KEY): row for row in rows}
        self._file, self._lock = file, threading.Lock()
        if file.exists() and file.stat().st_size > end:
            os.truncate(file, end)

    def add(self, row: dict[str, Any]) -> None:
        """Append a row, whole on disk when this returns.

        Args:
            row: All columns of `ROWS`.

        Raises:
            OSError: if it cannot be written; nothing of it is left.
        """
        line = json.dumps(row, allow_nan=False).encode() + b"\n"
        with self._lock, self._file.open("ab") as file:
            start = file.tell()
            try:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self._file, start)
                raise
            self.done[tuple(row[name] for name in KEY)] = row


class _Run:
    """The encodes of a comparison that are still missing."""

    def __init__(
        self,
        sources: Sequence[Source],
        comparison: Comparison,
        rows: Path,
        work: Path,
        encoder: Tool,
        inspect: Tool,
        jobs: int,
    ) -> None:
        self.sources, self.comparison = sources, comparison
        self.rows, self.work, self.jobs = _Rows(rows), work, jobs
        self.encoder, self.inspect = encoder, inspect
        self.predicting = threading.Lock()

    def all(self, *, show: bool) -> None:
        """Encode everything that is missing, `jobs` quantisers of clips at a time."""
        total = len(self.sources) * len(self.comparison.cq_levels)
        total *= sum(point.repeats for point in self.comparison.points.values())
        progress = JobProgress(total, len(self.rows.done), show=show)
        with progress as bar, encoder_pool(self.jobs) as (pool, children):
            running: dict[Future[None], Source] = {}
            for source in self.sources:
                levels = [q for q in self.comparison.cq_levels if self.missing(source, q)]
                if levels:
                    self._write_y4m(source)
                for cq_level in levels:
                    unit = _Unit(self, source, cq_level, children, bar)
                    running[pool.submit(unit.all)] = source
                while len(running) >= self.jobs:
                    self._collect(running)
            while running:
                self._collect(running)

    def missing(self, source: Source, cq_level: int) -> list[tuple[int, str]]:
        """Return repeat and point of the encodes to make, in their order."""
        points = self.comparison.points
        return [
            (repeat, name)
            for repeat in range(max(point.repeats for point in points.values()))
            for name, point in points.items()
            if repeat < point.repeats
            and (source.sequence, cq_level, name, repeat) not in self.rows.done
        ]

    def _collect(self, running: dict[Future[None], Source]) -> None:
        for job in wait_for_any(running):
            source = running.pop(job)
            job.result()
            if source not in running.values():
                self.y4m(source).unlink(missing_ok=True)

    def y4m(self, source: Source) -> Path:
        """Return the file of a clip's frames."""
        return self.work / f"{source.sequence}.y4m"

    def _write_y4m(self, source: Source) -> None:
        with atomic_path(self.y4m(source)) as part:
            write_y4m(part, source.frames(self.comparison.frames), source.reader.bit_depth)


class _Unit:
    """The encodes of one clip at one quantiser, one after the other."""

    def __init__(
        self, run: _Run, source: Source, cq_level: int, children: Children, bar: JobProgress
    ) -> None:
        self.run, self.source, self.cq_level = run, source, cq_level
        self.children, self.bar = children, bar
        self.comparison = run.comparison
        self.qindex = run.comparison.qindex(cq_level, source.reader.bit_depth)
        self.checked: set[tuple[str, ...]] = set()
        self.streams: dict[str, Path] = {}

    def all(self) -> None:
        """Make the encodes that are missing."""
        missing = self.run.missing(self.source, self.cq_level)
        with tempfile.TemporaryDirectory(dir=self.run.work) as name:
            self.folder = Path(name)
            for repeat in dict.fromkeys(repeat for repeat, _ in missing):
                names = [name for number, name in missing if number == repeat]
                hints = self._hints(names)
                for name in names:
                    point = self.comparison.points[name]
                    file = self._hint_file(hints, name) if point.has_hints else None
                    self._encode(name, point, repeat, file)

    def _hints(self, names: Sequence[str]) -> ClipHints:
        return ClipHints(
            source=self.source,
            frames=self.comparison.frames,
            qindex=self.qindex,
            points=self.comparison.points,
            wanted=[name for name in names if self.comparison.points[name].has_hints],
            predictors=self.comparison.predictors,
            stock_stream=self._stock_stream,
            inspect=self.run.inspect.path,
            children=self.children,
            folder=self.folder,
        )

    def _hint_file(self, hints: ClipHints, name: str) -> HintFile:
        # One at a time, so that what they take can be told apart.
        with self.run.predicting:
            return hints.of(name)

    def _arguments(self, point: PlannedPoint) -> list[str]:
        depth = self.source.reader.bit_depth
        return point.encoder_arguments(self.cq_level, depth, ctc=self.comparison.ctc)

    def _run(self, point: PlannedPoint, hints: Path | None = None) -> Encode:
        y4m = self.run.y4m(self.source)
        arguments = self._arguments(point)
        return run_encode(self.run.encoder.path, y4m, arguments, self.children, hints=hints)

    def _stock_stream(self, point: PlannedPoint) -> Path:
        """Return the stream of a point without hints, encoded if it has not been yet."""
        key = point.line()
        if key not in self.streams:
            self._keep(key, self._run(point))
        return self.streams[key]

    def _keep(self, key: str, done: Encode) -> None:
        path = self.folder / f"stock{len(self.streams)}.ivf"
        path.write_bytes(done.stream)
        self.streams[key] = path

    def _encode(self, name: str, point: PlannedPoint, repeat: int, hints: HintFile | None) -> None:
        """Make one encode, and append its row.

        Raises:
            EncoderError: if it differs from its first repeat.
        """
        done = self._run(point, hints.path if hints else None)
        if not point.has_hints and needs_stream(self.comparison.points):
            self._keep(point.stock.line(), done)
        stream = self.folder / f"{self.source.sequence}.ivf"
        stream.write_bytes(done.stream)
        # Hints and speed leave the quantiser alone, arguments may change it.
        if tuple(point.arguments) not in self.checked:
            self._check_qindex(name, stream)
            self.checked.add(tuple(point.arguments))
        quality = measure(self.run.y4m(self.source), stream, vmaf=self.comparison.vmaf)
        frames = int.from_bytes(done.stream[24:28], "little")
        row = {
            "clip": self.source.sequence,
            "cq_level": self.cq_level,
            "point": name,
            "repeat": repeat,
            "qindex": self.qindex,
            "bytes": len(done.stream) - _IVF_HEADER - frames * _IVF_FRAME_HEADER,
            "work": done.counts.work,
            "seconds": round(done.seconds, 4),
            "inference_seconds": round(hints.seconds, 4) if hints else 0.0,
            **asdict(quality),
            "jobs": self.run.jobs,
        }
        first = self.run.rows.done.get((self.source.sequence, self.cq_level, name, 0), row)
        if any(first[key] != row[key] for key in ("bytes", "work", "psnr_y")):
            raise EncoderError(
                f"{name} on {self.source.sequence} at cq {self.cq_level} gave another stream when "
                "it was repeated: the encoder or a source has changed, choose another out="
            )
        self.run.rows.add(row)
        self.bar.advance(f"{self.source.sequence} cq {self.cq_level} {name}")

    def _check_qindex(self, name: str, stream: Path) -> None:
        """Check that frames are coded at the quantiser that predictors are told.

        Raises:
            EncoderError: if they are not.
        """
        for frame in inspect_stream(self.run.inspect.path, stream, self.children):
            if frame.qindex != self.qindex:
                raise EncoderError(
                    f"{name} on {self.source.sequence} at cq {self.cq_level} is coded at "
                    f"base_q_idx {frame.qindex}, not {self.qindex}: leave out arguments that "
                    "change it"
                )
