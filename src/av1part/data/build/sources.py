"""Finding, checking and reading sources: videos and pictures in, frames in YUV 4:2:0 out.

SOURCE arguments -> files -> `Source` (facts, checked against the file's size) -> frames
"""

from __future__ import annotations

import glob
import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from av1part.data.build.coding import INTERLACED, Coding
from av1part.data.build.container import why_not_media
from av1part.data.build.layouts import RAW_SUFFIXES, RawFormat
from av1part.data.build.media import MediaReader
from av1part.data.build.raw import RawReader
from av1part.data.build.y4m import Y4mReader
from av1part.data.build.yuv import YuvFrame, check_format
from av1part.data.store.schema import sequence_name
from av1part.system.errors import ConfigError, SourceError
from av1part.system.files import expanded, sha256_file
from av1part.system.terminal import printable

log = logging.getLogger(__name__)

_VIDEO = (
    ".y4m .mp4 .m4v .mov .mkv .webm .avi .ivf .obu .264 .265 .266 .h264 .h265 .hevc .vvc .m1v .m2v "
    ".mjpg .mjpeg .ts .mxf"
)
_PICTURE = ".png .jpg .jpeg .bmp .tif .tiff .webp .ppm .pgm .gif .avif .heic .heif"
SUFFIXES = frozenset(f"{_VIDEO} {_PICTURE}".split(" ")) | RAW_SUFFIXES
"""Suffixes of files that a folder surely means; others in it are opened to see what they are."""

_MOST_LISTED = 20


class Reader(Protocol):
    """An opened file: its format, known without decoding all of it, and its frames in order."""

    width: int
    height: int
    bit_depth: int
    frames: int
    conversion: str
    coding: Coding

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

    A folder stands for its own videos and pictures, whatever their names end in, without those of
    subfolders and without hidden files; a warning lists what else is in it.

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
            files = _in_folder(path)
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


def _in_folder(folder: Path) -> list[Path]:
    """Return a folder's videos and pictures, and log what is left out."""
    files, left_out = [], []
    # Of hidden files, macOS leaves one beside each file (`._clip.mp4`).
    for path in sorted(p for p in folder.iterdir() if not p.name.startswith(".")):
        if path.is_dir():
            left_out.append(f"{path.name}/ (a folder: name it too)")
        elif path.is_file():
            reason = None if path.suffix.lower() in SUFFIXES else why_not_media(path)
            if reason is None:
                files.append(path)
            else:
                left_out.append(f"{path.name} ({reason})")
    if left_out and files:
        shown = ", ".join(left_out[:_MOST_LISTED])
        more = f", and {len(left_out) - _MOST_LISTED} more" if len(left_out) > _MOST_LISTED else ""
        log.warning("%s: left out %s%s", folder, printable(shown), more)
    return files


def open_sources(
    paths: Sequence[Path], raw: RawFormat | None = None, *, interlaced: str = "refuse"
) -> list[Source]:
    """Open and check sources; warn of those that may have been cut off.

    Args:
        paths: Files, at least one.
        raw: The user's options on raw files.
        interlaced: One of `INTERLACED`.

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
    if raw != RawFormat() and not any(p.suffix.lower() in RAW_SUFFIXES for p in paths):
        raise ConfigError(
            "width, height, bit_depth and layout describe raw .yuv files; there is none"
        )
    sources = [open_source(path, raw, interlaced=interlaced) for path in paths]
    doubtful = [s.path.name for s in sources if s.reader.coding.end == "unknown"]
    if doubtful:
        log.warning(
            "%s: nothing in such a file says where it ends; if it was cut off, frames are missing",
            printable(", ".join(doubtful[:_MOST_LISTED])),
        )
    for source in sources:
        _log_left_out(source)
    return sources


def _log_left_out(source: Source) -> None:
    """Warn of what a source holds beside its frames."""
    coding = source.reader.coding
    if coding.skipped_packets:
        log.warning(
            "%s: %d coded frames before the first that can be shown are left out",
            source.path,
            coding.skipped_packets,
        )
    if coding.other_streams:
        log.warning(
            "%s: of %d videos in it, only the main one is read",
            source.path,
            coding.other_streams + 1,
        )


def open_source(path: Path, raw: RawFormat | None = None, *, interlaced: str = "refuse") -> Source:
    """Open and check one source.

    Args:
        path: The file.
        raw: The user's options, if the file is raw.
        interlaced: One of `INTERLACED`.

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
        if path.suffix.lower() in RAW_SUFFIXES:
            reader: Reader = RawReader(path, raw or RawFormat())
        elif _starts_with(path, Y4mReader.MAGIC):
            reader = Y4mReader(path)
        else:
            reader = MediaReader(path)
        check_format(path, reader.width, reader.height, reader.bit_depth)
        if reader.coding.scan == "interlaced" and interlaced == INTERLACED[0]:
            raise SourceError(
                f"{path} is interlaced: deinterlace it first (ffmpeg's bwdif filter, for example); "
                "if its frames are whole pictures all the same, give interlaced=weave"
            )
        return Source(path, sequence_name(path.stem), sha256_file(path), reader)
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror})") from None


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic
