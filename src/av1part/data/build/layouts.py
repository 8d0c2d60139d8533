"""Layouts of raw YUV, and what a file's name says of its format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from av1part.system.errors import SourceError

_T = TypeVar("_T")

RAW_SUFFIXES = frozenset([".yuv", ".i420", ".yv12", ".nv12", ".nv21", ".p010"])
"""Endings of raw files; all but `.yuv` name the layout."""


@dataclass(frozen=True)
class Layout:
    """The order of samples in a raw frame, after whose luma plane the chroma follows.

    Attributes:
        rows: Luma rows a chroma row; 0 where there is no chroma.
        cols: Luma columns a chroma column.
        interleaved: U and V alternate in one plane.
        v_first: V comes before U.
        shift: Unused low bits of a 16-bit word.
    """

    rows: int
    cols: int
    interleaved: bool = False
    v_first: bool = False
    shift: int = 0


LAYOUTS: Mapping[str, Layout] = {
    "420": Layout(2, 2),
    "422": Layout(1, 2),
    "444": Layout(1, 1),
    "440": Layout(2, 1),
    "gray": Layout(0, 0),
    "yv12": Layout(2, 2, v_first=True),
    "nv12": Layout(2, 2, interleaved=True),
    "nv21": Layout(2, 2, interleaved=True, v_first=True),
    "nv16": Layout(1, 2, interleaved=True),
    "p010": Layout(2, 2, interleaved=True, shift=6),
    "p210": Layout(1, 2, interleaved=True, shift=6),
}
"""Name of a layout, as in `layout=`, to its order of samples."""

_DEPTH_OF = {"p010": 10, "p210": 10, "i010": 10, "i210": 10}

_SUBSAMPLED = re.compile(r"(yuvj?|ycbcr|i|y)?(4[0-4][0-4])(?:p(8|9|10|12|14|16)?)?(?:le|be)?")
_GREY = re.compile(r"(gr[ae]y(?:scale)?|mono(?:chrome)?|luma|yonly|y800|y8)(8|10|12|16)?(?:le|be)?")
_NAMED = re.compile(
    r"(i420|iyuv|yu12|yv12|nv12|nv21|nv16|y42b|yu16|yu24|i010|i210|p010|p210)(?:le)?"
)
_ALIAS = {"i420": "420", "iyuv": "420", "yu12": "420", "y42b": "422", "yu16": "422", "yu24": "444"}
_ALIAS |= {"i010": "420", "i210": "422"}
_OTHER = re.compile(
    r"(?:(?:rgb|bgr|gbr)[ax]?(?:p|24|30|32|36|48|64|444|555|565)?|argb|abgr|yuyv(?:422)?|yuy2|"
    r"yvyu(?:422)?|uyvy(?:422)?|v?ayuv(?:64)?|vyuy|v210|v216|v308|v408|v410|y210|y212|y410|y412|"
    r"y41b|p012|p016|p212|p216|p410|nv15|nv20|nv24|nv42|nv61|yv16|yv24|(?:yuvj?)?41[01]p?|"
    r"yuv9|yvu9|yuva4[0-4][0-4]p?|yuv4[0-4][0-4](?:sp|i)|4[0-4][0-4](?:sp|spl|i|packed)|"
    r"packed4[0-4][0-4]|10le(?:32|40)|xyz12|bayer)(?:p?(?:10|12|16))?(?:le|be)?"
)
"""Layouts that are known and not read: packed, RGB, more than 10 bits."""

_PLANAR = {"400": "gray", "420": "420", "422": "422", "440": "440", "444": "444"}
_SIZE = re.compile(r"(?<!\d)(\d{1,5})x(\d{1,5})(?!\d)")
_DEPTH = re.compile(
    r"(?<!\d)(?:(\d{1,2})(?:[-_ ]?bits?(?:le)?|[-_ ]?bp[cp]|le)|(8|10|12|16)b)(?![a-z0-9])"
)
_BIG_ENDIAN = re.compile(r"(?:\d|gray|grey|bits?[-_ ]?)be(?![a-z0-9])|big[-_ ]?endian")
_RATIO = re.compile(r"(?<!\d)(4)[-_.:]([0-4])[-_.:]([0-4])(?!\d)")
"""4:2:0 as file systems allow it."""


@dataclass(frozen=True)
class RawFormat:
    """Format of raw files; None where the file's name gives a value.

    Attributes:
        width: Luma samples.
        height: Luma samples.
        bit_depth: 8, or 10 in little-endian 16-bit words.
        layout: A key of `LAYOUTS`.
    """

    width: int | None = None
    height: int | None = None
    bit_depth: int | None = None
    layout: str | None = None


def raw_format_of(path: Path, given: RawFormat | None = None) -> RawFormat:
    """Return the format of a raw file: what is given, else what its name says, else None.

    >>> raw_format_of(Path("Beauty_3840x2160_120fps_420_10bit_YUV.yuv"))
    RawFormat(width=3840, height=2160, bit_depth=10, layout='420')
    >>> raw_format_of(Path("src01_hrc00_576x324_10le.yuv"))
    RawFormat(width=576, height=324, bit_depth=10, layout=None)
    >>> raw_format_of(Path("foreman_352x288.nv12"))
    RawFormat(width=352, height=288, bit_depth=None, layout='nv12')

    Args:
        path: The file; only its name is read.
        given: The user's options.

    Returns:
        The format.

    Raises:
        SourceError: if the name says big endian, a layout that is not read, or two different
            values.
    """
    given = given or RawFormat()
    stem = path.stem.lower()
    width, height = given.width, given.height
    if width is None or height is None:
        sizes: set[str | None] = {f"{int(w)}x{int(h)}" for w, h in _SIZE.findall(stem)}
        if size := _only(path, "size", sizes, "width= and height="):
            w, h = (int(side) for side in size.split("x"))
            width, height = width or w, height or h
    if _BIG_ENDIAN.search(stem):
        raise SourceError(f"{path} is big endian by its name: little endian is taken; convert it")
    words = words_of(path) if given.layout is None else []
    for word in words:
        if _OTHER.fullmatch(word):
            raise SourceError(
                f"{path} is {word} by its name; layouts are {', '.join(LAYOUTS)}: convert it, or "
                "give layout= if the name means something else"
            )
    formats = [layout_of(word) for word in words]
    layout = _only(path, "layout", {layout for layout, _ in formats})
    depths: set[int | None] = {int(a or b) for a, b in _DEPTH.findall(stem)}
    depths |= {_DEPTH_OF.get(given.layout or "")} | {bits for _, bits in formats}
    bit_depth = given.bit_depth or _only(path, "bit_depth", depths)
    return RawFormat(width, height, bit_depth, given.layout or layout)


def _only(path: Path, key: str, values: set[_T | None], options: str = "") -> _T | None:
    """Return the one value beside None, or None.

    Raises:
        SourceError: if there are several.
    """
    several = sorted(str(value) for value in values if value is not None)
    if len(several) > 1:
        raise SourceError(
            f"{path} has {key} {' and '.join(several)} by its name: give {options or f'{key}='}"
        )
    return next((value for value in values if value is not None), None)


def words_of(path: Path) -> list[str]:
    """Return the words of a raw file's name without its size, and the ending that is one."""
    stem = _RATIO.sub(r"\1\2\3", _SIZE.sub(" ", path.stem.lower()))
    words = re.findall(r"[a-z0-9]+", stem)
    suffix = path.suffix.lower()
    return words if suffix == ".yuv" else [*words, suffix[1:]]


def layout_of(word: str) -> tuple[str | None, int | None]:
    """Return the layout and bit depth that a word of a name gives."""
    if named := _NAMED.fullmatch(word):
        return _ALIAS.get(named[1], named[1]), _DEPTH_OF.get(named[1])
    if grey := _GREY.fullmatch(word):
        return "gray", int(grey[2]) if grey[2] else None
    planar = _SUBSAMPLED.fullmatch(word)
    if planar and planar[2] in _PLANAR:
        return _PLANAR[planar[2]], int(planar[3]) if planar[3] else None
    return None, None
