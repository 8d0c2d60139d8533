"""Build a dataset: sources -> aomenc -> inspect -> partition trees -> store.

    each source    read once -> luma plane in the store, y4m in the work folder
    each (sequence, cq level), `jobs` at a time    y4m -> stream -> node table in the work folder
    all tables     -> nodes.parquet and manifest.json, verified, then the folder gets its name

A build that is started again keeps every complete file of the work folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from av1part import __version__
from av1part.data.build.jobs import encoder_pool, wait_for_any
from av1part.data.build.labels import stream_nodes
from av1part.data.build.libaom import (
    Children,
    Tool,
    encode,
    encoder_arguments,
    find_aomenc,
    find_inspect,
    inspect_stream,
)
from av1part.data.build.progress import JobProgress
from av1part.data.build.settings import BuildSettings, check_count, raw_format
from av1part.data.build.sources import Source, find_sources, open_sources
from av1part.data.build.yuv import CONVERSIONS, write_y4m_frame, y4m_header
from av1part.data.store.schema import plane_dtype
from av1part.data.store.store import Store
from av1part.data.store.writer import StoreWriter
from av1part.system.errors import Av1partError, EncoderError, SourceError
from av1part.system.files import atomic_path, load_json, write_json


def build_dataset(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    cq_levels: Sequence[int] = (20, 32, 43, 55),
    sizes: Sequence[int] = (64, 32, 16, 8),
    cpu_used: int = 0,
    one_to_four: bool = False,
    frames: int | None = None,
    every: int = 1,
    jobs: int = 2,
    width: int | None = None,
    height: int | None = None,
    bit_depth: int | None = None,
    layout: str | None = None,
    interlaced: str = "refuse",
    progress: bool = True,
) -> Store:
    """Encode sources and store their luma and the nodes of their partition trees.

    Args:
        sources: Files, folders or globs; see `find_sources`.
        out: The dataset folder to create.
        cq_levels: See `BuildSettings`.
        sizes: See `BuildSettings`.
        cpu_used: See `BuildSettings`.
        one_to_four: See `BuildSettings`.
        frames: See `BuildSettings`.
        every: See `BuildSettings`.
        jobs: Encoders that run at a time; does not change the dataset.
        width: Of raw files whose names do not give it; see `RawFormat`.
        height: See `RawFormat`.
        bit_depth: See `RawFormat`.
        layout: See `RawFormat`.
        interlaced: See `BuildSettings`.
        progress: Show progress on stderr.

    Returns:
        The finished dataset, opened.

    Raises:
        ConfigError: if a setting is not valid, or another process builds there.
        SourceError: if a source is refused; neither `out` nor `<out>.partial` is left.
        EncoderError: if aomenc or inspect is missing or fails; finished encodes are kept, and the
            same call resumes.
        StoreError: if `out` exists, or `<out>.partial` belongs to another build.
        Av1partError: no other than these.
    """
    settings = BuildSettings(cq_levels, sizes, cpu_used, one_to_four, frames, every, interlaced)
    check_count("jobs", jobs)
    raw = raw_format(width, height, bit_depth, layout)
    aomenc, inspect = find_aomenc(), find_inspect()
    opened = open_sources(find_sources(sources), raw, interlaced=interlaced)
    recipe = {
        "made_by": {"av1part": __version__, "aomenc": aomenc.version},
        "sources": {s.sequence: s.sha256 for s in opened},
        "settings": asdict(settings),
        "raw": asdict(raw),
    }
    writer = StoreWriter(out, recipe)
    build = _Build(opened, settings, writer, aomenc, inspect)
    with writer.alone():
        try:
            build.run(jobs, show=progress)
            return writer.finish(build.nodes(), build.sequence_facts(), build.provenance())
        except Av1partError as error:
            # An encoder may succeed on the next try: keep the finished encodes.
            if not (isinstance(error, EncoderError) and build.any_encoded()):
                writer.discard()
            raise


class _Build:
    """One build: its inputs and its work folder."""

    def __init__(
        self,
        sources: Sequence[Source],
        settings: BuildSettings,
        writer: StoreWriter,
        aomenc: Tool,
        inspect: Tool,
    ) -> None:
        self.sources = sources
        self.settings = settings
        self.writer = writer
        self.aomenc = aomenc
        self.inspect = inspect

    def run(self, jobs: int, *, show: bool) -> None:
        """Read and encode everything that is missing, `jobs` encoders at a time."""
        total = len(self.sources) * len(self.settings.cq_levels)
        done = total - sum(len(self._missing_levels(s)) for s in self.sources)
        with JobProgress(total, done, show=show) as bar, encoder_pool(jobs) as (pool, children):
            running: dict[Future[None], tuple[Source, int]] = {}
            for source in self.sources:
                missing = self._missing_levels(source)
                self._read(source, with_y4m=bool(missing))
                for cq_level in missing:
                    job = pool.submit(self._encode, source, cq_level, children)
                    running[job] = source, cq_level
                # Read one source ahead at most: the y4m of a long 4K clip is large.
                while len(running) > jobs:
                    self._collect(running, bar)
            while running:
                self._collect(running, bar)

    def _missing_levels(self, source: Source) -> list[int]:
        return [q for q in self.settings.cq_levels if not self._table(source, q).is_file()]

    def _collect(self, running: dict[Future[None], tuple[Source, int]], bar: JobProgress) -> None:
        """Wait for a job, and remove its source's y4m after the last one."""
        for job in wait_for_any(running):
            source, cq_level = running.pop(job)
            job.result()
            bar.advance(f"{source.sequence} cq {cq_level}")
            if not self._missing_levels(source):
                self._y4m(source).unlink(missing_ok=True)

    def _read(self, source: Source, *, with_y4m: bool) -> None:
        """Write a source's luma into the store and its frames into the work folder."""
        ready = self._facts_file(source).is_file() and self.writer.has_plane(source.sequence)
        if ready and (self._y4m(source).is_file() or not with_y4m):
            return
        reader = source.reader
        header = y4m_header(reader.width, reader.height, reader.bit_depth)
        kept = 0
        with (
            tempfile.TemporaryFile(dir=self.writer.work) as luma,
            atomic_path(self._y4m(source)) as part,
        ):
            with part.open("wb") as y4m:
                y4m.write(header)
                for planes in source.frames(self.settings.frames, self.settings.every):
                    write_y4m_frame(y4m, planes)
                    luma.write(planes[0].astype(plane_dtype(reader.bit_depth)).tobytes())
                    kept += 1
            luma.flush()
            shape = kept, reader.height, reader.width
            mapped = np.memmap(luma, plane_dtype(reader.bit_depth), "r", shape=shape)
            self.writer.add_plane(source.sequence, mapped, reader.bit_depth)
        facts = {
            "bit_depth": reader.bit_depth,
            "frames": kept,
            "height": reader.height,
            "width": reader.width,
            "source": source.path.name,
            "source_sha256": source.sha256,
            "source_frames": reader.frames,
            "conversion": reader.conversion,
            "coding": reader.coding.as_json(),
        }
        write_json(self._facts_file(source), facts)

    def _encode(self, source: Source, cq_level: int, children: Children) -> None:
        """Encode one source at one level and store its nodes in the work folder."""
        facts = self._facts(source)
        with tempfile.TemporaryDirectory(dir=self.writer.work) as folder:
            ivf = Path(folder) / f"{source.sequence}.{cq_level}.ivf"
            arguments = self._arguments(cq_level, facts["bit_depth"])
            encode(self.aomenc.path, self._y4m(source), ivf, arguments, children)
            nodes = stream_nodes(
                inspect_stream(self.inspect.path, ivf, children),
                sequence=source.sequence,
                shape=(facts["frames"], facts["height"], facts["width"]),
                sizes=self.settings.sizes,
                one_to_four=self.settings.one_to_four,
            )
        with atomic_path(self._table(source, cq_level)) as part:
            nodes.write_parquet(part)

    def any_encoded(self) -> bool:
        """Return whether at least one (sequence, cq level) is complete."""
        return any(self.writer.work.glob("*.parquet"))

    def nodes(self) -> pl.DataFrame:
        """Concatenate the node tables.

        Returns:
            The nodes of all sources and cq levels.

        Raises:
            SourceError: if there is no node.
        """
        tables = [
            pl.read_parquet(self._table(s, q), glob=False)
            for s in self.sources
            for q in self.settings.cq_levels
        ]
        nodes = pl.concat(tables)
        if nodes.is_empty():
            sizes = list(self.settings.sizes)
            if any(min(s.reader.width, s.reader.height) >= min(sizes) for s in self.sources):
                reason = "the encoder cut no block that small: ask for larger ones too"
            else:
                reason = "ask for smaller ones or give larger frames"
            raise SourceError(f"no source has a whole node of sizes={sizes}: {reason}")
        return nodes

    def sequence_facts(self) -> dict[str, dict[str, Any]]:
        """Return the manifest's entry of each sequence."""
        return {s.sequence: self._facts(s) for s in self.sources}

    def provenance(self) -> dict[str, Any]:
        """Return the manifest's entries on how the dataset was made."""
        depths = sorted({s.reader.bit_depth for s in self.sources})
        used = {s.reader.conversion for s in self.sources}
        return {
            "made_by": {
                "av1part": __version__,
                "aomenc": self.aomenc.version,
                "inspect": self.inspect.version,
            },
            "settings": asdict(self.settings),
            "encoder_arguments": {
                f"{depth} bit, cq {cq_level}": self._arguments(cq_level, depth)
                for depth in depths
                for cq_level in self.settings.cq_levels
            },
            "conversions": {name: CONVERSIONS[name] for name in sorted(used)},
        }

    def _arguments(self, cq_level: int, bit_depth: int) -> list[str]:
        return encoder_arguments(
            cq_level,
            bit_depth=bit_depth,
            cpu_used=self.settings.cpu_used,
            one_to_four=self.settings.one_to_four,
        )

    def _facts_file(self, source: Source) -> Path:
        return self.writer.work / f"{source.sequence}.json"

    def _y4m(self, source: Source) -> Path:
        return self.writer.work / f"{source.sequence}.y4m"

    def _table(self, source: Source, cq_level: int) -> Path:
        return self.writer.work / f"{source.sequence}.{cq_level}.parquet"

    def _facts(self, source: Source) -> dict[str, Any]:
        facts: dict[str, Any] = load_json(self._facts_file(source))
        return facts
