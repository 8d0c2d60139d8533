"""Opening files with FFmpeg through PyAV, and choosing the video in them."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition
from av.video.stream import VideoStream

from av1part.system.errors import SourceError, first_line

# Some releases of PyAV also print FFmpeg's messages, which are in the error they raise as well.
logging.getLogger("libav").setLevel(logging.CRITICAL)

_OPTIONS = {"protocol_whitelist": "file", "pattern_type": "none"}
_PLAYLISTS = {"concat", "dash", "hls", "imf"}
"""Formats of FFmpeg whose files name other files, which FFmpeg would read."""
_TEXT = {"tty", "bin", "xbin", "adf", "idf"}
"""Formats of FFmpeg that draw text as a video."""
_BARE = {"mjpeg", "mpjpeg", "h264", "hevc", "vvc", "evc", "mpegvideo", "m4v", "vc1", "obu", "av1"}
_BARE |= {"h263", "h261", "dirac", "cavsvideo", "avs2", "avs3", "rawvideo", "loas"}
"""Formats of FFmpeg that are a codec's stream without a container."""


def open_container(path: Path) -> Any:
    """Open a file with FFmpeg.

    Args:
        path: A file of any kind.

    Returns:
        The container, to be closed.

    Raises:
        SourceError: if FFmpeg does not know it, or it is a list of other files or a text.
    """
    try:
        # Always as a file, whatever its name looks like, never over the network.
        # Titles and comments are in whatever encoding the writer used.
        container = av.open(
            f"file:{path}", container_options=_OPTIONS, metadata_errors="backslashreplace"
        )
    except (av.FFmpegError, ValueError) as error:
        raise SourceError(f"{path} is not a video or picture ({reason_of(error)})") from None
    format_ = container.format.name
    if format_ in _PLAYLISTS | _TEXT:
        container.close()
        if format_ in _TEXT:
            raise SourceError(f"{path} is not a video or picture (it is a text)")
        raise SourceError(f"{path} is a list of other files: name those themselves")
    return container


def why_not_media(path: Path) -> str | None:
    """Return why a file is no video or picture, None if it is one; it is not read further.

    FFmpeg finds the codes of a bare stream in files of any kind, such as a photograph in a PDF, so
    that a bare stream counts only under its own name.
    """
    try:
        with open_container(path) as container:
            choose_stream(container, path)
            bare = container.format.name in _BARE
    except SourceError as error:
        return re.sub(r" \(.*\)$", "", str(error).removeprefix(f"{path} "))
    return "may be a bare video stream: name it itself" if bare else None


def choose_stream(container: Any, path: Path) -> tuple[VideoStream, int]:
    """Choose the video that a player shows.

    Args:
        container: An open container.
        path: Its file, for the error.

    Returns:
        The stream, and the number of other videos in the container.

    Raises:
        SourceError: if there is none, its codec is unknown, or it is a tile of a picture.
    """
    aside = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [s for s in container.streams.video if not s.disposition & aside]
    if not streams:
        cover = " but a cover picture" if container.streams.video else ""
        raise SourceError(f"{path} has no video stream{cover}")
    if any(s.disposition & Disposition.dependent for s in streams):
        raise SourceError(
            f"{path} is a picture in {len(streams)} tiles, which are not put together here: "
            "convert it to PNG"
        )
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if getattr(stream, "codec_context", None) is None:
        raise SourceError(f"{path} has a video codec that FFmpeg does not know")
    return stream, len(streams) - 1


def reason_of(error: Exception) -> str:
    """Return FFmpeg's words for an error."""
    return getattr(error, "strerror", None) or first_line(error)
