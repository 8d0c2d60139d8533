"""Frames of any video or picture that FFmpeg decodes, through PyAV, as YUV 4:2:0."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from av1part.data.build.coding import Coding, Range, Scan
from av1part.data.build.container import choose_stream, open_container, reason_of
from av1part.data.build.ends import End, check_end, tiff_pages
from av1part.data.build.pixels import RANGES, RGB_CODECS, conversion_of, planes_of
from av1part.data.build.yuv import (
    RGB,
    YuvFrame,
    check_format,
)
from av1part.system.errors import SourceError

_MAY_HIDE = frozenset({"vp8", "vp9", "mpeg4", "theora"})
"""Codecs whose streams may hold coded frames that are never shown, in packets of their own."""

_MATRICES = {0: "rgb", 1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 8: "ycgco"}
_MATRICES |= {9: "bt2020", 10: "bt2020-constant", 14: "ictcp"}
"""matrix_coefficients of ITU-T H.273 to a name."""

_PROGRESSIVE = (0, 1)
"""AVFieldOrder: unknown and progressive; all others are interlaced."""

_EXIF_ORIENTATION = 0x0112
_LENIENT = {"pcx"}
"""Codecs of pictures that FFmpeg decodes from a part of the file without an error."""
_STILLS = re.compile(r"image2|\w+_pipe")
_OF_ALL_STREAMS = {"flv"}
_DECLARING = {"ivf", "mxf", "mxf_opatom", *_OF_ALL_STREAMS}
"""Formats whose header declares a number of frames or a duration, some of the longest stream."""


@dataclass(frozen=True)
class _Packets:
    """What the packets of a stream say, before any is decoded.

    Attributes:
        shown: Presentation times of those that are to be shown; None where it has none.
        count: Number of all of them; what comes behind them in the file is something else.
        leading: Number of those before the first key frame, which cannot be decoded.
        end: How well it is known that they are all there.
    """

    shown: list[int | None]
    count: int
    leading: int
    end: End


class MediaReader:
    """The first video stream of a file.

    PyAV reads a truncated file without an error, so the file's structure is followed to its end
    and its packets are counted when it is opened, and frames compared with them when it is read.
    """

    def __init__(self, path: Path) -> None:
        """Follow the file to its end, count the packets and decode the first frame.

        Args:
            path: A video or picture in any format FFmpeg reads.

        Raises:
            SourceError: if there is no video, no frame, an unsupported pixel format, a picture in
                tiles or pages, or the file is cut off.
        """
        self.path = path
        end = check_end(path)
        pages = tiff_pages(path)
        if pages > 1:
            raise SourceError(f"{path} holds {pages} pictures: save each as a file of its own")
        self._packets = self._read_packets(end)
        first = next(self._decode(), None)
        if first is None:
            raise SourceError(f"{path} has no frame that can be decoded: it is not a video")
        self.width, self.height = first.width, first.height
        self.bit_depth = max(c.bits for c in first.format.components)
        self._format = first.format.name
        self.conversion = conversion_of(first, self._codec, path)
        self.frames, self._timed = _count_shown(self._packets.shown, first.pts)
        skipped = len(self._packets.shown) - self.frames if self._codec not in _MAY_HIDE else 0
        self.coding = self._coding(first, skipped + self._packets.leading)

    def _coding(self, first: VideoFrame, skipped: int) -> Coding:
        interlaced = self._field_order not in _PROGRESSIVE or self._is_interlaced(first)
        scan: Scan = "unstated" if self._field_order == 0 else "progressive"
        # JPEG files (JFIF) have no other range, and FFmpeg's yuvj formats say it by their name.
        full = self._codec == "mjpeg" or self._format.startswith("yuvj")
        range_: Range = RANGES.get(int(first.color_range), "full" if full else "unstated")
        from_rgb = self.conversion == RGB
        return Coding(
            pixel_format=self._format,
            range="full" if from_rgb else range_,
            matrix="rgb" if from_rgb else _MATRICES.get(int(first.colorspace), "unstated"),
            scan="interlaced" if interlaced else scan,
            orientation=_orientation(first, self.path if self._still else None),
            alpha=any(c.is_alpha for c in first.format.components),
            end=self._packets.end,
            skipped_packets=skipped,
            other_streams=self._others,
        )

    def _is_interlaced(self, frame: VideoFrame) -> bool:
        # Pictures that build up in passes carry the same mark.
        return frame.interlaced_frame and self._codec not in RGB_CODECS

    def _open(self) -> tuple[Any, VideoStream]:
        container = open_container(self.path)
        try:
            stream, self._others = choose_stream(container, self.path)
        except SourceError:
            container.close()
            raise
        if stream.codec_context.name != "tiff":  # which then rejects what FFmpeg itself wrote
            stream.codec_context.options = {"err_detect": "explode"}
        return container, stream

    def _read_packets(self, end: End | None) -> _Packets:
        """Read all packets.

        Raises:
            SourceError: if one is damaged, or some are missing.
        """
        container, stream = self._open()
        with container:
            context = stream.codec_context
            self._codec = context.name
            self._still = _STILLS.fullmatch(container.format.name) is not None
            if context.width:  # else known from the first frame on
                check_format(self.path, context.width, context.height, 8)
            rate = Fraction(stream.average_rate or 30)
            shown: list[int | None] = []
            keys: list[int] = []
            count = 0
            last = Fraction(0)
            try:
                everything = container.format.name in _OF_ALL_STREAMS
                for packet in container.demux(*(() if everything else (stream,))):
                    if not packet.size:
                        continue
                    last = max(last, _end(packet, rate))
                    if packet.stream.index != stream.index:
                        continue
                    if count and self._still:
                        break  # another picture behind this one
                    if packet.is_corrupt:
                        if stream.frames and count >= stream.frames:
                            break  # bytes behind the last frame
                        raise SourceError(f"{self.path} is truncated or damaged: copy it again")
                    if packet.is_keyframe:
                        keys.append(len(shown))
                    count += 1
                    if not packet.is_discard:
                        shown.append(packet.pts)
            except av.FFmpegError as error:
                raise SourceError(f"{self.path} is damaged ({reason_of(error)})") from None
            self._field_order = int(context.field_order)
            # A bare stream of JPEGs has an end after each.
            if end is None or (container.format.name == "mjpeg" and count > 1):
                end = self._declared_end(container, stream, count, last, rate)
        leading = keys[0] if keys else 0
        return _Packets(shown[leading:], count, leading, end)

    def _declared_end(
        self, container: Any, stream: VideoStream, count: int, last: Fraction, rate: Fraction
    ) -> End:
        """Compare packets and end time with the frame count or duration that the file declares.

        Raises:
            SourceError: if packets are missing.
        """
        format_ = container.format.name
        if self._still:  # most decoders need all of it
            return "unknown" if self._codec in _LENIENT else "declared"
        if format_ not in _DECLARING or not last:
            return "unknown"
        if format_ == "ivf" and not stream.frames:
            return "frame"
        seconds = Fraction(container.duration or 0, 1_000_000)
        if stream.duration and stream.time_base:
            seconds = Fraction(stream.duration * stream.time_base)
        missing = last + 1 / (2 * rate) < seconds
        if stream.frames:
            # An IVF header has the number of frames, or the duration: either must be reached.
            missing = count < stream.frames and abs(last - seconds) > 1 / (2 * rate)
        if missing:
            raise SourceError(
                f"{self.path} is truncated: it ends at {float(last):.2f} s of {float(seconds):.2f}"
                f", after {count} frames; copy it again"
            )
        return "declared"

    def _decode(self) -> Iterator[VideoFrame]:
        container, stream = self._open()
        with container:
            waits = self._packets.leading > 0
            try:
                packets = (packet for packet in container.demux(stream) if packet.size)
                for packet in itertools.islice(packets, self._packets.count):
                    waits = waits and not packet.is_keyframe
                    if not waits:
                        yield from packet.decode()
                yield from stream.codec_context.decode(None)
            except (av.FFmpegError, ValueError) as error:
                raise SourceError(f"{self.path} cannot be decoded ({reason_of(error)})") from None

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
            if self._is_interlaced(frame) and self.coding.scan != "interlaced":
                raise SourceError(f"{self.path} becomes interlaced at frame {count + 1}: cut it")
            yield planes_of(frame, self.bit_depth, self.conversion)
            count += 1
        must_show = self._timed and self._codec not in _MAY_HIDE
        if must_show and count < self.frames:
            raise SourceError(f"{self.path} is damaged: {count} of {self.frames} frames decode")


def _count_shown(packets: Sequence[int | None], first: int | None) -> tuple[int, bool]:
    """Count the frames that packets show, as far as their times tell.

    Args:
        packets: Presentation times from a key frame on; None where a packet has none.
        first: The time of the first frame that was decoded.

    Returns:
        Their number, and whether each frame has a time of its own.
    """
    if first is None or all(time is None for time in packets):
        return len(packets), False
    late = next((i for i, t in enumerate(packets) if t is not None and t > first), len(packets))
    # MPEG-PS gives some packets a time; elsewhere, one without cannot be shown.
    sparse = None in packets[late:]
    # A hidden frame has the time of the one beside it.
    times = [time for time, _ in itertools.groupby(packets) if time is not None]
    if not sparse and len(set(times)) == len(times):
        return sum(time >= first for time in times), True
    # Files put together repeat their times: only frames at the start can be too early.
    early = sum(not sparse if time is None else time < first for time in packets[:late])
    return len(packets) - early, False


def _orientation(frame: VideoFrame, picture: Path | None) -> int:
    """Return how a frame is to be turned, as in EXIF, which a picture has itself.

    FFmpeg gives the angle alone, also where EXIF mirrors.
    """
    turned = {0: 1, 90: 6, 180: 3, 270: 8}.get(-int(frame.rotation) % 360, 1)
    if picture is None:
        return turned
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(picture) as opened:
                stated = opened.getexif().get(_EXIF_ORIENTATION, 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return turned  # not a picture that Pillow knows
    return stated if stated in range(1, 9) else turned


def _end(packet: Any, rate: Fraction) -> Fraction:
    """Return the end time of a packet's frame in seconds, 0 if the packet has no time."""
    if packet.pts is None or not packet.time_base:
        return Fraction(0)
    duration = packet.duration * packet.time_base if packet.duration else 1 / rate
    return Fraction(packet.pts * packet.time_base + duration)
