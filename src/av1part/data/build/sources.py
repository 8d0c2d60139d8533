"""Finding, checking and reading sources: videos and pictures in, frames in YUV 4:2:0 out.

SOURCE arguments -> files -> `Source` (facts, checked against the file's size) -> frames
"""

from __future__ import annotations

import glob
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from av1part.data.build.media import MediaReader
from av1part.data.build.planar import RawFormat, RawReader, Y4mReader
from av1part.data.build.yuv import YuvFrame, check_format
from av1part.data.store.schema import sequence_name
from av1part.system.errors import ConfigError, SourceError
from av1part.system.files import expanded, sha256_file

RAW_SUFFIX = ".yuv"
_VIDEO = ".yuv .y4m .mp4 .m4v .mov .mkv .webm .avi .ivf .obu .264 .265 .h264 .h265 .hevc .ts .mxf"
_PICTURE = ".png .jpg .jpeg .bmp .tif .tiff .webp .ppm .pgm .gif"
SUFFIXES = frozenset(f"{_VIDEO} {_PICTURE}".split(" "))
"""Suffixes of the files taken from a folder; a file named by the user may have any suffix."""


class Reader(Protocol):
    """An opened file: its format, known without decoding all of it, and its frames in order."""

    width: int
    height: int
    bit_depth: int
    frames: int
    rate: Fraction
    conversion: str

    def __iter__(self) -> Iterator[YuvFrame]: ...


@dataclass(frozen=True)
class Source:
    """A video or picture that is readable and complete.

    Attributes:
        path: The file.
        sequence: Name of its sequence in a store.
        sha256: SHA-256 of the file.
        reader: Its format and frames.
    """

    path: Path
    sequence: str
    sha256: str
    reader: Reader

    def frames(self, count: int | None = None, every: int = 1) -> Iterator[YuvFrame]:
        """Read each `every`-th frame lazily, at most `count`; all if None.

        The iterator raises a `SourceError` for a frame that cannot be read or is missing.
        """
        stop = None if count is None else (count - 1) * every + 1
        return itertools.islice(iter(self.reader), 0, stop, every)


def find_sources(arguments: Sequence[str | Path]) -> list[Path]:
    """Expand files, folders and globs to a sorted list of files, each once.

    A folder stands for its own files with one of `SUFFIXES`, without those of subfolders.

    Args:
        arguments: Sources as the user typed them; `~` and `**` are expanded.

    Returns:
        Existing files, sorted by name.

    Raises:
        SourceError: if an argument matches no file.
    """
    sources: dict[Path, Path] = {}
    for argument in arguments:
        path = expanded(argument)
        if path.is_dir():
            files = [p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file()]
            reason = "holds no video or picture: name the files themselves"
        elif path.exists():
            files, reason = [path], ""
        else:
            matches = glob.glob(str(path), recursive=True)  # noqa: PTH207  (takes absolute ones)
            files = [Path(match) for match in matches if Path(match).is_file()]
            reason = "does not exist: check the path"
        if not files:
            raise SourceError(f"{argument} {reason}")
        sources |= {file.resolve(): file for file in files}
    if not sources:
        raise SourceError("no source given: name a video, a picture, a folder or a glob")
    return sorted(sources.values(), key=lambda p: (p.name, str(p)))


def open_sources(paths: Sequence[Path], raw: RawFormat | None = None) -> list[Source]:
    """Open and check sources.

    Args:
        paths: Files, at least one.
        raw: The user's options on raw files.

    Returns:
        The sources, in the order of `paths`.

    Raises:
        SourceError: naming the first file that is damaged, incomplete, of an unsupported format or
            size, or named like another.
        ConfigError: if a raw format is given without a raw file.
    """
    by_name: dict[str, Path] = {}
    for path in paths:
        other = by_name.setdefault(sequence_name(path.stem), path)
        if other is not path:
            raise SourceError(
                f"{path} and {other} would both be sequence {sequence_name(path.stem)}: rename one"
            )
    raw = raw or RawFormat()
    if raw != RawFormat() and not any(p.suffix.lower() == RAW_SUFFIX for p in paths):
        raise ConfigError("width, height and bit_depth describe raw .yuv files; there is none")
    return [open_source(path, raw) for path in paths]


def open_source(path: Path, raw: RawFormat | None = None) -> Source:
    """Open and check one source.

    Args:
        path: The file.
        raw: The user's options, if the file is raw.

    Returns:
        The source.

    Raises:
        SourceError: as `open_sources`.
    """
    try:
        if not path.is_file():
            reason = "is not a file" if path.exists() else "does not exist: check the path"
            raise SourceError(f"{path} {reason}")
        if path.stat().st_size == 0:
            raise SourceError(f"{path} is empty")
        if path.suffix.lower() == RAW_SUFFIX:
            reader: Reader = RawReader(path, raw or RawFormat())
        elif _starts_with(path, Y4mReader.MAGIC):
            reader = Y4mReader(path)
        else:
            reader = MediaReader(path)
        check_format(path, reader.width, reader.height, reader.bit_depth)
        return Source(path, sequence_name(path.stem), sha256_file(path), reader)
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror})") from None


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic
