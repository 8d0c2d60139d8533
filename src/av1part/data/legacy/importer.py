"""Importing a dataset: a folder in one of the study's layouts -> checked contents -> store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from av1part import __version__
from av1part.data.build.layouts import RawFormat
from av1part.data.build.settings import raw_format
from av1part.data.legacy import partition_frames, raw_blocks, v6_pt
from av1part.data.legacy.contents import Contents
from av1part.data.legacy.settings import ImportSettings
from av1part.data.store.store import Store
from av1part.data.store.writer import StoreWriter
from av1part.system.errors import Av1partError, ConfigError, SourceError
from av1part.system.files import expanded

_FRAMES = "partition-frames"

LAYOUTS: Mapping[str, Callable[[Path, ImportSettings], Contents]] = {
    "raw-blocks": raw_blocks.read,
    "v6-pt": v6_pt.read,
    _FRAMES: partition_frames.read,
}
"""Name of a layout to its reader."""


def import_dataset(
    layout: str,
    path: str | Path,
    out: str | Path,
    *,
    sizes: Sequence[int] = (64, 32, 16, 8),
    yuv: str | Path | None = None,
    width: int | None = None,
    height: int | None = None,
    bit_depth: int | None = None,
) -> Store:
    """Import a folder in one of the study's layouts.

    Args:
        layout: A key of `LAYOUTS`.
        path: The folder.
        out: Dataset folder to create; must not exist.
        sizes: Node sizes to keep, of 64, 32, 16 and 8.
        yuv: The clip of `partition-frames`, if it is not beside the text files.
        width: Width of that clip in luma samples, if its name does not give it.
        height: Likewise.
        bit_depth: Bits per sample of that clip; if None, from its name, else 10.

    Returns:
        The verified dataset. Its manifest counts what was left out.

    Raises:
        ConfigError: if an option is not valid, or does not apply.
        SourceError: naming the file that is missing, damaged or contradicts another.
        StoreError: if `out` exists, or `<out>.partial` belongs to another import.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"no layout {layout!r}: LAYOUT is one of {', '.join(LAYOUTS)}")
    settings = ImportSettings(sizes, yuv, raw_format(width, height, bit_depth))
    if layout != _FRAMES and (settings.yuv is not None or settings.raw != RawFormat()):
        raise ConfigError(f"yuv, width, height and bit_depth describe the clip of {_FRAMES}")
    folder = expanded(path)
    try:
        contents = LAYOUTS[layout](folder, settings)
    except OSError as error:
        raise SourceError(f"{error.filename or folder} cannot be read ({error.strerror})") from None
    _check_names(contents)
    provenance = {
        "made_by": {"av1part": __version__},
        "layout": layout,
        "settings": {"sizes": list(settings.sizes), **asdict(settings.raw)},
    }
    return _write(contents, out, provenance)


def _write(contents: Contents, out: str | Path, provenance: Mapping[str, Any]) -> Store:
    """Write the contents of a folder into a store.

    Raises:
        Av1partError: if samples are not valid or cannot be written; then nothing is left.
    """
    facts = {clip.sequence: clip.facts for clip in contents.clips}
    writer = StoreWriter(out, {**provenance, "sequences": facts})
    with writer.alone():
        try:
            for clip in contents.clips:
                if not writer.has_plane(clip.sequence):
                    writer.add_plane(clip.sequence, clip.luma(writer.work), clip.bit_depth)
            left_out = {reason: count for reason, count in contents.left_out.items() if count}
            return writer.finish(
                pl.concat([clip.nodes for clip in contents.clips]),
                facts,
                {**provenance, "left_out": left_out, **contents.manifest},
            )
        except Av1partError:
            writer.discard()
            raise


def _check_names(contents: Contents) -> None:
    sources: dict[str, Any] = {}
    for clip in contents.clips:
        source = clip.facts["source"]
        if clip.sequence in sources:
            raise SourceError(
                f"{source} and {sources[clip.sequence]} would both be sequence {clip.sequence}: "
                "rename one"
            )
        sources[clip.sequence] = source
