"""Where a file ends: whether it is whole, by what its container says about its own length.

FFmpeg reads a file that was cut off without an error, and what it counts is no measure: edit lists,
dropped and invisible frames make whole files look short. So the container's own structure is
followed to its end. A file is cut off if that structure reaches beyond the last byte; bytes after
its end belong to something else and are ignored.

| container | its structure |
| --- | --- |
| MP4, MOV, 3GP, AVIF, HEIC | top-level boxes (ISO 14496-12, section 4.2) |
| Matroska, WebM | the segment's size (RFC 8794, section 6), unless it was written as unknown |
| AVI, WebP | top-level RIFF chunks |
| ASF, WMV | the file's size in its header, unless it was broadcast |
| MPEG-TS | packets of 188, 192 or 204 bytes; nothing says how many |
| GIF | blocks up to the trailer (GIF89a, section 27) |
| PNG | chunks up to IEND (ISO 15948, section 5.6) |
| JPEG, JPEG-LS | segments up to EOI (ITU-T T.81, annex B) |
| QOI | the end marker |
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Literal

from av1part.system.errors import SourceError

End = Literal["declared", "frame", "unknown"]
"""How well the end of a file is known.

`declared`: the file says where it ends, and reaches there. `frame`: it ends after a whole frame and
says no number of frames. `unknown`: it could have been cut off without a trace.
"""

_ISO_BOXES = frozenset(
    b"ftyp styp moov moof mdat mfra free skip wide meta uuid udta pdin sidx ssix emsg prft".split()
)
_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_TS_SYNC = 0x47
_TS_PACKET = 188
_TS_STRIDES = (_TS_PACKET, 192, 204)
"""Bytes from one sync byte to the next: plain, with a time stamp, with parity."""

_JPEG_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
"""All but those of restarts, which stand within a scan, as do FF01 to FF7F in JPEG-LS."""
_QOI_END = bytes(7) + b"\1"


class _CutOffError(Exception):
    """The structure of a file reaches beyond its last byte."""


def check_end(path: Path) -> End | None:
    """Follow a file's structure to its end.

    Args:
        path: A file of any kind.

    Returns:
        How well its end is known; None for a container that is not in the table above.

    Raises:
        SourceError: if the file is cut off.
    """
    with path.open("rb") as file:
        start = file.read(1024)
        follow = _walker_of(start)
        if follow is None:
            return None
        file.seek(0)
        try:
            return follow(file, os.fstat(file.fileno()).st_size)
        except (_CutOffError, struct.error, IndexError):
            raise SourceError(
                f"{path} is truncated: it ends before its {_CONTAINERS[follow]} does; copy it again"
            ) from None


def tiff_pages(path: Path) -> int:
    """Count the pages of a TIFF file, at most 1,000; of another file 1."""
    with path.open("rb") as file:
        start = file.read(8)
        order = {b"II*\0": "<", b"MM\0*": ">"}.get(start[:4])
        if order is None:
            return 1
        (offset,), pages = struct.unpack(f"{order}I", start[4:]), 0
        try:
            while offset and pages < 1000:
                file.seek(offset)
                (entries,) = struct.unpack(f"{order}H", file.read(2))
                file.seek(12 * entries, os.SEEK_CUR)
                (offset,) = struct.unpack(f"{order}I", file.read(4))
                pages += 1
        except struct.error:
            pass  # a damaged directory, which the decoder reports
        return max(pages, 1)


def _walker_of(start: bytes) -> Callable[[BinaryIO, int], End] | None:
    """Return the function that follows a file with these first bytes."""
    if start[:6] in (b"GIF87a", b"GIF89a"):
        return _gif
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png
    if start.startswith(b"\xff\xd8\xff"):
        return _jpeg
    if start.startswith(b"qoif"):
        return _qoi
    if start[4:8] in _ISO_BOXES:
        return _iso
    if start[:4] == _EBML.to_bytes(4):
        return _matroska
    if start[:4] == b"RIFF":
        return _riff
    if start.startswith(_ASF_HEADER):
        return _asf
    return None if _ts_packets(start) is None else _transport


def _iso(file: BinaryIO, size: int) -> End:
    position, kinds = 0, set()
    while position < size:
        file.seek(position)
        header = file.read(16)
        kind = header[4:8]
        if kind not in _ISO_BOXES:
            break  # bytes of something else
        kinds.add(kind)
        (length,) = struct.unpack(">I", header[:4])
        if length == 1:
            (length,) = struct.unpack(">Q", header[8:16])
        if length == 0:  # up to the end of the file, wherever that is
            return "unknown"
        position += max(length, 8)
    if position > size:
        raise _CutOffError
    # Any number of fragments may follow, unless their index does.
    return "frame" if b"moof" in kinds and b"mfra" not in kinds else "declared"


def _matroska(file: BinaryIO, size: int) -> End:
    header, _ = _ebml_element(file)
    if header is None:
        return "unknown"
    file.seek(header, os.SEEK_CUR)
    length, kind = _ebml_element(file)
    if length is None or kind != _SEGMENT:
        return "unknown"
    if file.tell() + length > size:
        raise _CutOffError
    return "declared"


def _ebml_element(file: BinaryIO) -> tuple[int | None, int]:
    """Read an element's header: its size, None if unknown or not valid, and its id."""
    kind = file.read(4)  # both ids that are looked for have four bytes
    first = file.read(1)[0]
    extra = 8 - first.bit_length()
    if extra > 7:
        return None, 0
    value = int.from_bytes(bytes([first & (0x7F >> extra)]) + file.read(extra))
    unknown = (1 << (7 * (extra + 1))) - 1
    return None if value == unknown else value, int.from_bytes(kind)


def _riff(file: BinaryIO, size: int) -> End:
    position = 0
    while position + 8 <= size:
        file.seek(position)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind != b"RIFF":
            break  # bytes of something else
        if length in (0, 0xFFFFFFFF):  # never written: a recording that was interrupted
            return "unknown"
        if position + 8 + length > size:
            raise _CutOffError
        position += 8 + length + length % 2
    return "declared"


def _asf(file: BinaryIO, size: int) -> End:
    start = file.read(1 << 16)
    facts = start.find(_ASF_FILE)  # id, size, file id, file size, ..., flags
    if facts < 0:
        return "unknown"
    (declared,) = struct.unpack_from("<Q", start, facts + 40)
    (flags,) = struct.unpack_from("<I", start, facts + 88)
    if flags & 1 or not declared:  # a broadcast does not know its size
        return "unknown"
    if declared > size:
        raise _CutOffError
    return "declared"


def _ts_packets(start: bytes) -> tuple[int, int] | None:
    """Return packet size and position of the first sync byte of a transport stream, else None."""
    for stride in _TS_STRIDES:
        for first in range(stride):
            syncs = start[first::stride]
            if len(syncs) > 3 and set(syncs) == {_TS_SYNC}:
                return stride, first
    return None


def _transport(file: BinaryIO, size: int) -> End:
    packets = _ts_packets(file.read(1024))
    assert packets is not None
    stride, first = packets
    rest = (size - first) % stride
    if 0 < rest < _TS_PACKET:  # of a stride of 192, four bytes stand before the packet
        file.seek(size - rest)
        if file.read(1)[0] == _TS_SYNC:
            raise _CutOffError
    return "unknown"


def _gif(file: BinaryIO, size: int) -> End:
    flags = file.read(13)[10]
    file.seek(_colour_table(flags), os.SEEK_CUR)
    while (kind := file.read(1)[0]) != 0x3B:
        if kind == 0x21:  # extension
            file.read(1)
        elif kind == 0x2C:  # image
            flags = file.read(9)[8]
            file.seek(_colour_table(flags) + 1, os.SEEK_CUR)
        elif kind != 0:  # some writers leave an empty sub-block too many
            raise _CutOffError
        while kind and (length := file.read(1)[0]):
            file.seek(length, os.SEEK_CUR)
    if file.tell() > size:
        raise _CutOffError
    return "declared"


def _colour_table(flags: int) -> int:
    """Return the bytes of a GIF's colour table."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _png(file: BinaryIO, size: int) -> End:
    position, kind = 8, b""
    while kind != b"IEND":
        file.seek(position)
        length, kind = struct.unpack(">I4s", file.read(8))
        position += 12 + length
    if position > size:
        raise _CutOffError
    return "declared"


def _jpeg(file: BinaryIO, size: int) -> End:
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    position = 2
    while marker := _JPEG_MARKER.search(data, position):  # coded samples contain none
        position = marker.end()
        kind = data[position - 1]
        if kind == 0xD9:  # end of image
            return "declared"
        if kind != 0xD8:  # all others begin a segment with its length
            position += struct.unpack(">H", data[position : position + 2])[0]
    raise _CutOffError


def _qoi(file: BinaryIO, size: int) -> End:
    if mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ).rfind(_QOI_END) < 0:
        raise _CutOffError
    return "declared"


_CONTAINERS: dict[Callable[[BinaryIO, int], End], str] = {
    _iso: "last MP4 box",
    _matroska: "Matroska segment",
    _riff: "RIFF chunk",
    _asf: "ASF file",
    _transport: "last transport packet",
    _gif: "GIF trailer",
    _png: "PNG's IEND chunk",
    _jpeg: "JPEG's end marker",
    _qoi: "QOI end marker",
}
