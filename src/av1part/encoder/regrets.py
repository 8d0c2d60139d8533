"""Regrets: what the encoder loses if it may not choose the type that it chose, node by node.

    dataset + its sources -> aomenc-av1part, as the dataset was made -> costs -> regret of each node

The regret of a node is what the second-best type that was tried costs more than the chosen one, as
a share of what the whole frame cost, so that frames of any quantiser count alike.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from av1part.data.build.jobs import encoder_pool, wait_for_any
from av1part.data.build.libaom import Children, encoder_arguments
from av1part.data.build.progress import JobProgress
from av1part.data.build.settings import BuildSettings, check_count, raw_format
from av1part.data.build.sources import Source, find_sources, open_sources
from av1part.data.build.yuv import write_y4m
from av1part.data.store.costs import write_costs
from av1part.data.store.schema import NODE_KEY
from av1part.data.store.store import Store
from av1part.encoder.counts import COSTS_DTYPE, MI
from av1part.encoder.patched import PATCH, Patched, find_patched, run_encode
from av1part.encoder.ties import best_two, stream_nodes
from av1part.predictors.run import qindex_of
from av1part.system.errors import (
    ConfigError,
    EncoderError,
    SourceError,
    StoreError,
    first_line,
)
from av1part.system.files import PART_SUFFIX, atomic_path, expanded, read_json, write_json
from av1part.system.locks import HOLDER, LOCK, folder_lock

_RECIPE = "recipe.json"


def frame_regrets(records: NDArray[np.void]) -> pl.DataFrame:
    """Compute the regret of each node that the stream of one frame has.

    Args:
        records: Of `read_costs`, of one frame.

    Returns:
        Columns row, col, size (luma samples), chosen (the type), and regret, float32: null where
        no other type was searched to its end. A cost below the chosen one's, which a search that
        was cut short may leave, is no regret: 0.

    Raises:
        ValueError: if the records are not of one frame.
        EncoderError: if the frame has no cost.
    """
    if records.dtype != COSTS_DTYPE or len(np.unique(records["frame"])) != 1:
        raise ValueError("give the records of one frame")
    nodes = stream_nodes(records)
    best, second = best_two(nodes)
    total = best[nodes["depth"] == 0].sum()
    if not (np.isfinite(total) and total > 0):
        raise EncoderError("a frame has a superblock without a cost: run `make libaom`")
    # Of a node whose own cost is missing nothing is known either.
    regret = np.where(np.isfinite(best), np.maximum(second - best, 0) / total, np.nan)
    columns = {
        "row": nodes["mi_row"].astype(np.int32) * MI,
        "col": nodes["mi_col"].astype(np.int32) * MI,
        "size": (1 << nodes["size_log2"].astype(np.int64)).astype(np.int16),
        "chosen": nodes["chosen"].astype(np.int8),
        "regret": regret.astype(np.float32),
    }
    known = pl.when(pl.col("regret").is_finite()).then(pl.col("regret"))
    return pl.DataFrame(columns).with_columns(regret=known)


def write_dataset_costs(
    dataset: str | Path,
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    jobs: int = 2,
    width: int | None = None,
    height: int | None = None,
    bit_depth: int | None = None,
    layout: str | None = None,
    progress: bool = True,
) -> pl.DataFrame:
    """Encode sources of a dataset again, and write what each node's type is worth.

    A call that is stopped after its first encode leaves `<out>.partial`; the same call goes on
    from there.

    Args:
        dataset: A folder that `build_dataset` made.
        sources: Of these sequences alone; see `find_sources`.
        out: The file to write.
        jobs: Encoders that run at a time; does not change the file.
        width: Of raw files whose names do not give it; see `RawFormat`.
        height: See `RawFormat`.
        bit_depth: See `RawFormat`.
        layout: See `RawFormat`.
        progress: Show progress on stderr.

    Returns:
        The columns of `NODE_KEY`, and `regret`, a row a node of these sequences.

    Raises:
        ConfigError: if `out` exists, an option is not valid, or another process writes there.
        StoreError: if the dataset cannot be opened, or was not made by `build_dataset`; or
            `<out>.partial` belongs to another call.
        SourceError: if a source is refused, or is not one that the dataset was made from.
        EncoderError: if there is no patched encoder, it fails, or it chooses other types than the
            dataset has.
    """
    target = expanded(out)
    check_count("jobs", jobs)
    if target.exists():
        raise ConfigError(f"{target} exists: choose another out=FILE or remove it")
    program = find_patched()
    store = Store.open(dataset)
    settings = _settings(store)
    opened = open_sources(
        find_sources(sources),
        raw_format(width, height, bit_depth, layout),
        interlaced=settings.interlaced,
    )
    _check_sources(store, opened)
    work = target.with_name(f"{target.name}.partial")
    made = [folder for folder in (work, *work.parents) if not folder.exists()]
    work.mkdir(parents=True, exist_ok=True)
    with folder_lock(work, "choose another out=FILE"):
        _check_recipe(work, store, program)
        try:
            regrets = _Run(store, settings, program, work).run(opened, jobs, show=progress)
            write_costs(target, regrets, store.manifest_sha256)
        except BaseException:
            if not any(work.glob("*.parquet")):  # nothing to go on from
                shutil.rmtree(work)
                for folder in made[1:]:
                    with suppress(OSError):  # another process has put something into it
                        folder.rmdir()
            raise
        shutil.rmtree(work)
    return regrets


def _settings(store: Store) -> BuildSettings:
    """Return the settings that the dataset was built by.

    Raises:
        StoreError: if it does not say.
    """
    manifest, error = store.manifest, ""
    try:
        # An import has settings too, but no encoder.
        if "encoder_arguments" in manifest:
            return BuildSettings(**manifest["settings"])
    except (KeyError, TypeError, ConfigError) as caught:
        error = f" ({first_line(caught)})"
    raise StoreError(
        f"{store.path} does not say how it was encoded{error}: build a dataset with "
        "`av1part data build`"
    )


def _check_sources(store: Store, sources: Sequence[Source]) -> None:
    """Check that the dataset was made from these very files.

    Raises:
        SourceError: naming the first that it was not made from.
    """
    facts = store.manifest["sequences"]
    for source in sources:
        if facts.get(source.sequence, {}).get("source_sha256") != source.sha256:
            raise SourceError(
                f"{source.path} is not a file that {store.path} was made from: give its own sources"
            )
        reader, own = source.reader, facts[source.sequence]
        read = {"width": reader.width, "height": reader.height, "bit_depth": reader.bit_depth}
        for key, value in read.items():
            if own.get(key) != value:
                raise SourceError(
                    f"{source.path} is read with {key}={value}, and {store.path} was made with "
                    f"{key}={own.get(key)}: give the words that it was made with"
                )


def _check_recipe(work: Path, store: Store, program: Patched) -> None:
    """Check that a work folder is new, or left from a stopped call with the same recipe.

    Raises:
        StoreError: if it is neither.
    """
    recipe = {"dataset": store.manifest_sha256, "aomenc": program.version, "patch": PATCH}
    own = {LOCK, HOLDER}
    others = (f for f in work.iterdir() if f.name not in own and f.suffix != PART_SUFFIX)
    if any(others) and read_json(work / _RECIPE) != recipe:
        raise StoreError(
            f"{work} is not left from a call with this dataset and encoder: remove the folder, or "
            "choose another out=FILE"
        )
    write_json(work / _RECIPE, recipe)


@dataclass(frozen=True)
class _Run:
    """The encodes of one call, and its work folder."""

    store: Store
    settings: BuildSettings
    program: Patched
    work: Path

    def run(self, sources: Sequence[Source], jobs: int, *, show: bool) -> pl.DataFrame:
        """Encode everything that is missing, `jobs` encoders at a time; return all regrets."""
        encodes = [(source, level) for source in sources for level in self.settings.cq_levels]
        missing = [own for own in encodes if not self._table(*own).is_file()]
        done = len(encodes) - len(missing)
        with (
            JobProgress(len(encodes), done, show=show) as bar,
            encoder_pool(jobs) as (pool, children),
        ):
            running: dict[Future[None], tuple[Source, int]] = {
                pool.submit(self._encode, *own, children): own for own in missing
            }
            while running:
                for job in wait_for_any(running):
                    source, cq_level = running.pop(job)
                    job.result()
                    bar.advance(f"{source.sequence} cq {cq_level}")
        tables = [pl.read_parquet(self._table(*own), glob=False) for own in encodes]
        return pl.concat(tables).sort(NODE_KEY)

    def _table(self, source: Source, cq_level: int) -> Path:
        return self.work / f"{source.sequence}.{cq_level}.parquet"

    def _encode(self, source: Source, cq_level: int, children: Children) -> None:
        """Encode one source at one level, and write the regrets of its nodes."""
        reader = source.reader
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            y4m = Path(folder) / f"{source.sequence}.y4m"
            frames = source.frames(self.settings.frames, self.settings.every)
            write_y4m(y4m, frames, reader.bit_depth)
            arguments = encoder_arguments(
                cq_level,
                bit_depth=reader.bit_depth,
                cpu_used=self.settings.cpu_used,
                one_to_four=self.settings.one_to_four,
            )
            costs = run_encode(self.program.path, y4m, arguments, children, costs=True).costs
        assert costs is not None
        regrets = self._matched(costs, source.sequence, cq_level)
        with atomic_path(self._table(source, cq_level)) as part:
            regrets.write_parquet(part)

    def _matched(self, costs: NDArray[np.void], sequence: str, cq_level: int) -> pl.DataFrame:
        """Return the regrets of the dataset's nodes of one encode.

        Raises:
            EncoderError: if the encoder chose other types than the dataset has.
        """
        qindex, shape = qindex_of(cq_level), self.store.plane(sequence).shape
        own = self.store.nodes.filter(sequence=sequence, qindex=qindex)
        frames = [
            frame_regrets(costs[costs["frame"] == number]).with_columns(
                frame=pl.lit(int(number), pl.Int32)
            )
            for number in np.unique(costs["frame"])
        ]
        found = pl.concat(frames).filter(
            pl.col("size").is_in(list(self.settings.sizes)),
            pl.col("row") + pl.col("size") <= shape[1],
            pl.col("col") + pl.col("size") <= shape[2],
        )
        key = ["frame", "size", "row", "col"]
        matched = own.join(found, on=key, how="left", maintain_order="left")
        same = int(matched["partition"].eq_missing(matched["chosen"]).sum())
        if same != own.height or found.height != own.height:
            made_by: Any = self.store.manifest.get("made_by") or {}
            raise EncoderError(
                f"{self.program.path.name} {self.program.version} chose other types for {sequence} "
                f"at cq level {cq_level} than {self.store.path} has ({found.height:,} nodes, of "
                f"whose {own.height:,} it has {same:,}): that was made by aomenc "
                f"{made_by.get('aomenc')}; build it again with this libaom"
            )
        return matched.select(*NODE_KEY, "regret")
