"""Frames of any video or picture that FFmpeg decodes, through PyAV, as YUV 4:2:0."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from av1part.data.build.yuv import (
    CHROMA_BOX,
    GREY,
    NO_CONVERSION,
    RGB,
    YuvFrame,
    check_format,
    grey_to_420,
    mean_chroma,
    rgb_to_420,
)
from av1part.system.errors import SourceError, first_line

# Some releases of PyAV also print FFmpeg's messages, which are in the error they raise as well.
logging.getLogger("libav").setLevel(logging.CRITICAL)

_PLANAR = re.compile(r"yuv[aj]?(420|422|444|440)p(?:\d+le)?")
_REPACKED = {
    "nv12": "yuv420p",
    "nv21": "yuv420p",
    "yuyv422": "yuv422p",
    "uyvy422": "yuv422p",
    "p010le": "yuv420p10le",
}
"""Formats that FFmpeg only rearranges into a planar one, without changing samples."""

_BOXES = {"422": (2, 1), "444": (2, 2), "440": (1, 2)}
"""Rows and columns of chroma samples averaged into one 4:2:0 sample."""

_LIMITED_RANGE = 1

_OPTIONS = {"protocol_whitelist": "file", "pattern_type": "none"}
_PLAYLISTS = {"concat", "dash", "hls", "imf"}
"""Formats of FFmpeg whose files name other files, which FFmpeg would read."""


class MediaReader:
    """The first video stream of a file.

    PyAV reads a truncated file without an error, so packets are counted when the file is opened,
    and compared with the frames when it is read.
    """

    def __init__(self, path: Path) -> None:
        """Count the packets and decode the first frame.

        Args:
            path: A video or picture in any format FFmpeg reads.

        Raises:
            SourceError: if there is no video, no frame, an unsupported pixel format, or fewer
                packets than the container declares.
        """
        self.path = path
        check_end(path)
        self.frames = self._count_packets()
        first = next(self._decode(), None)
        if first is None:
            raise SourceError(f"{path} has no frame that can be decoded: it is not a video")
        self.width, self.height = first.width, first.height
        self.bit_depth = max(c.bits for c in first.format.components)
        self._format = first.format.name
        self.conversion = conversion_of(first, path)

    def _open(self) -> tuple[Any, VideoStream]:
        try:
            # Always as a file, whatever its name looks like, never over the network.
            container = av.open(f"file:{self.path}", container_options=_OPTIONS)
        except (av.FFmpegError, ValueError) as error:
            raise SourceError(f"{self.path} is not a video or picture ({_reason(error)})") from None
        if container.format.name in _PLAYLISTS:
            container.close()
            raise SourceError(f"{self.path} is a list of other files: name those themselves")
        if not container.streams.video:
            container.close()
            raise SourceError(f"{self.path} has no video stream")
        stream = container.streams.video[0]
        if getattr(stream, "codec_context", None) is None:
            container.close()
            raise SourceError(f"{self.path} has a video codec that FFmpeg does not know")
        if stream.codec_context.name != "tiff":  # which then rejects what FFmpeg itself wrote
            stream.codec_context.options = {"err_detect": "explode"}
        return container, stream

    def _count_packets(self) -> int:
        container, stream = self._open()
        with container:
            if stream.codec_context.width:  # else known from the first frame on
                check_format(self.path, stream.codec_context.width, stream.codec_context.height, 8)
            self.rate = Fraction(stream.average_rate or 30)
            count = displayed = 0
            end = Fraction(0)
            try:
                for packet in container.demux(stream):
                    if packet.size:
                        if packet.is_corrupt:
                            raise SourceError(f"{self.path} is truncated or damaged: copy it again")
                        count += 1
                        displayed += not packet.is_discard
                        end = max(end, _end(packet, self.rate))
            except av.FFmpegError as error:
                raise SourceError(f"{self.path} is damaged ({_reason(error)})") from None
            self._check_declared(stream, count, end)
        return displayed

    def _check_declared(self, stream: VideoStream, count: int, end: Fraction) -> None:
        """Compare packets and end time with the frame count or duration that the file declares.

        Raises:
            SourceError: if packets are missing.
        """
        if count < stream.frames:
            raise SourceError(
                f"{self.path} is truncated: {count} of {stream.frames} frames are there"
            )
        declared = _declared_seconds(stream)
        if (
            not stream.frames
            and declared is not None
            and end
            and end + 1 / (2 * self.rate) < declared
        ):
            raise SourceError(
                f"{self.path} is truncated: it ends at {float(end):.2f} s of {float(declared):.2f}"
            )

    def _decode(self) -> Iterator[VideoFrame]:
        container, stream = self._open()
        with container:
            try:
                yield from container.decode(stream)
            except (av.FFmpegError, ValueError) as error:
                raise SourceError(f"{self.path} cannot be decoded ({_reason(error)})") from None

    def __iter__(self) -> Iterator[YuvFrame]:
        count = 0
        for frame in self._decode():
            if frame.is_corrupt:
                raise SourceError(f"{self.path} is damaged in frame {count + 1}")
            if (frame.width, frame.height, frame.format.name) != (
                self.width,
                self.height,
                self._format,
            ):
                raise SourceError(f"{self.path} changes size or format at frame {count + 1}")
            yield _planes(frame, self.bit_depth)
            count += 1
        if count < self.frames:
            raise SourceError(f"{self.path} is damaged: {count} of {self.frames} frames decode")


def check_end(path: Path) -> None:
    """Refuse a JPEG or GIF without its end marker: FFmpeg fills in the missing part.

    Args:
        path: A file of any kind; other formats are not checked.

    Raises:
        SourceError: if the file is cut off.
    """
    with path.open("rb") as file:
        kind = file.read(3)
        if kind == b"GIF":
            whole = file.seek(-1, os.SEEK_END) > 0 and file.read() == b";"
        elif kind == b"\xff\xd8\xff":
            # An end-of-image marker must follow the last scan; coded samples contain neither.
            data = file.read()
            whole = data.rfind(b"\xff\xda") < data.rfind(b"\xff\xd9")
        else:
            return
    if not whole:
        raise SourceError(f"{path} is truncated: its end marker is missing")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or first_line(error)


def _end(packet: Any, rate: Fraction) -> Fraction:
    """Return the end time of a packet's frame in seconds, 0 if the packet has no time."""
    if packet.pts is None or not packet.time_base:
        return Fraction(0)
    duration = packet.duration * packet.time_base if packet.duration else 1 / rate
    return Fraction(packet.pts * packet.time_base + duration)


def _declared_seconds(stream: VideoStream) -> Fraction | None:
    if stream.duration and stream.time_base:
        return Fraction(stream.duration * stream.time_base)
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if match:
        return (int(match[1]) * 60 + int(match[2])) * 60 + Fraction(match[3])
    return None


def conversion_of(frame: VideoFrame, path: Path) -> str:
    """Return the conversion that a frame's pixel format needs.

    Args:
        frame: The first frame.
        path: Its file, for the error.

    Returns:
        A key of `CONVERSIONS`.

    Raises:
        SourceError: if the format is not supported.
    """
    format_ = frame.format
    name = _REPACKED.get(format_.name, format_.name)
    planar = _PLANAR.fullmatch(name)
    if planar:
        return NO_CONVERSION if planar[1] == "420" else CHROMA_BOX
    if name in ("gray", "gray10le"):
        return GREY if frame.color_range == _LIMITED_RANGE else RGB
    bits = {c.bits for c in format_.components}
    if (format_.is_rgb or format_.has_palette) and (bits == {8} or name == "gbrp10le"):
        return RGB
    if max(bits) not in (8, 10):
        raise SourceError(f"{path} has {max(bits)} bits a sample; 8 and 10 are taken: convert it")
    raise SourceError(f"{path} has pixel format {name}: convert it to yuv420p or rgb24")


def _planes(frame: VideoFrame, bit_depth: int) -> YuvFrame:
    """Convert a frame whose format `conversion_of` accepts."""
    format_ = frame.format
    if format_.name in _REPACKED:
        frame = frame.reformat(format=_REPACKED[format_.name])
        format_ = frame.format
    planar = _PLANAR.fullmatch(format_.name)
    if planar:
        y, u, v = (_plane(frame, i, bit_depth) for i in range(3))
        if planar[1] == "420":
            return y, u, v
        box = _BOXES[planar[1]]
        return y, mean_chroma(u, *box), mean_chroma(v, *box)
    if format_.name.startswith("gray"):
        grey = _plane(frame, 0, bit_depth)
        if frame.color_range == _LIMITED_RANGE:
            return grey_to_420(grey, bit_depth)
        return rgb_to_420(np.repeat(grey[..., None], 3, axis=2), bit_depth)
    if format_.name == "gbrp10le":
        green, blue, red = (_plane(frame, i, bit_depth) for i in range(3))
        return rgb_to_420(np.stack([red, green, blue], axis=-1), bit_depth)
    return rgb_to_420(frame.to_ndarray(format="rgb24"), bit_depth)


def _plane(frame: VideoFrame, index: int, bit_depth: int) -> NDArray[Any]:
    """Copy one plane out of a decoded frame, whose rows are padded."""
    plane = frame.planes[index]
    dtype = np.dtype("u1" if bit_depth == 8 else "<u2")
    rows: NDArray[Any] = np.frombuffer(memoryview(plane), dtype)
    rows = rows.reshape(-1, plane.line_size // dtype.itemsize)
    return rows[: plane.height, : plane.width].copy()
