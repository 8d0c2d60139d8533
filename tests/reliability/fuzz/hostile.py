"""Changes that make hostile files of good ones: of bytes, of JSON, and values nobody expects."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

from ...unit.data.legacy.test_fuzz import mutations
from .case import MARK

Change = Callable[[bytes], bytes]

DEEP = 100_000
"""Levels of nesting that no recursive parser gets through."""

NUMBERS = (
    *("0", "-1", "1", "3", "255", "256", "1023", "16385", "65535", "2147483647", "4294967296"),
    *("1000000000", "9223372036854775808", "1" + "0" * 30, "9" * 5000, "1e9", "1e999", "NaN"),
    *("-0", "0x10", "1:0", "0:0", "\u0663", "1_0", " ", "-9223372036854775809"),
)
"""What a header may claim."""

TEXTS = (
    *("", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "a\0b", "x" * 5000, "\ud800", "a\nb"),
    *("\x1b[2J", "\u202e", "caf\u00e9", "\u2028", "a b", "~", "$HOME", "${oc.env:HOME}", "*"),
    *("_target_", "os.system", "-rf", "%d", "file:///etc/passwd"),
)
"""What a name may be."""

VALUES = (
    *(None, True, False, 0, -1, 1, 8, 255, 256, 2**31, 2**32, 2**63, 2**64, 10**9, 10**400),
    *(1e9, 1e308, -0.5, math.nan, math.inf, -math.inf, [], {}, [[]], {"": None}, [10**9]),
    *([[10**9]], {"_target_": "os.system", "command": f"touch {MARK}"}, [None] * 50),
)
"""What a value may be."""


def values() -> st.SearchStrategy[Any]:
    """Return a strategy of plain values, hostile ones above all."""
    leaves = st.one_of(
        st.sampled_from(VALUES), st.sampled_from(TEXTS), st.integers(), st.floats(), st.text()
    )
    return st.one_of(
        leaves,
        st.lists(leaves, max_size=4),
        st.dictionaries(st.sampled_from(TEXTS), leaves, max_size=3),
    )


@st.composite
def overwrites(draw: st.DrawFn) -> Change:
    """Put a number of 1 to 8 bytes over what is there: lengths, offsets and counts in a header."""
    share = draw(st.floats(0, 1))
    width = draw(st.sampled_from([1, 2, 4, 8]))
    number = draw(st.sampled_from([0, 1, -1, 2**31 - 1, 2**31, 10**9, 2**63 - 1, 255, 65535]))
    new = (number % (1 << 8 * width)).to_bytes(width, draw(st.sampled_from(["little", "big"])))
    head = draw(st.booleans())  # where headers are

    def change(data: bytes) -> bytes:
        at = int(share * max(min(len(data), 256 if head else len(data)) - 1, 0))
        return data[:at] + new + data[at + width :]

    return change


@st.composite
def renumbers(draw: st.DrawFn) -> Change:
    """Put another number in the place of one in decimal digits."""
    share, number = draw(st.floats(0, 1)), draw(st.sampled_from(NUMBERS)).encode()

    def change(data: bytes) -> bytes:
        places = list(re.finditer(rb"\d+", data[:100_000]))
        if not places:
            return data
        place = places[int(share * (len(places) - 1))]
        return data[: place.start()] + number + data[place.end() :]

    return change


@st.composite
def inserts(draw: st.DrawFn) -> Change:
    """Repeat a piece of the file, or put in text, very deep nesting, or another file's start."""
    share, length = draw(st.floats(0, 1)), draw(st.integers(1, 4000))
    starts = [b"PK\x03\x04", b"\x80\x02", b"\x93NUMPY", b"PAR1", b"YUV4MPEG2", b"#EXTM3U\n/etc/x\n"]
    puts = [b"[" * DEEP, b'{"a":' * DEEP, b"\0" * 4000, b"\n" * 4000, b"\x80" * 40, *starts]
    new = draw(st.one_of(st.none(), st.sampled_from(puts), st.sampled_from(TEXTS)))

    def change(data: bytes) -> bytes:
        at = int(share * len(data))
        put = data[at : at + length] if new is None else new
        put = put.encode("utf-8", "surrogatepass") if isinstance(put, str) else put
        return data[:at] + put + data[at:]

    return change


def changes() -> st.SearchStrategy[Change]:
    """Return a strategy of one to three changes of a file's bytes."""
    one = st.one_of(mutations(), overwrites(), renumbers(), inserts())

    def chained(steps: list[Change]) -> Change:
        def change(data: bytes) -> bytes:
            for step in steps:
                data = step(data)
            return data

        return change

    return st.lists(one, min_size=1, max_size=3).map(chained)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container in a value with each of its keys or indexes."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(pairs):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from _places(inner)


@st.composite
def tree_changes(draw: st.DrawFn) -> Callable[[Any], Any]:
    """Replace, remove, add or rename a few entries of a value of dicts and lists."""
    step = st.tuples(
        st.floats(0, 1),
        st.sampled_from(["replace", "replace", "replace", "remove", "add", "rename", "nest"]),
        values(),
        st.sampled_from(TEXTS),
    )
    steps = draw(st.lists(step, min_size=1, max_size=3))

    def change(value: Any) -> Any:
        value = _copied(value)
        for share, kind, new, name in steps:
            places = list(_places(value))
            if not places:
                continue
            inside, key = places[int(share * (len(places) - 1))]
            if kind == "remove":
                del inside[key]
            elif kind == "nest":
                inside[key] = [inside[key]]
            elif kind == "rename" and isinstance(inside, dict):
                inside[name] = inside.pop(key)
            elif kind == "add" and isinstance(inside, dict):
                inside[name] = _copied(new)
            else:
                inside[key] = _copied(new)  # all of it: the next step may change what is inside
        return value

    return change


def _copied(value: Any) -> Any:
    """Copy containers alone: a tensor among the leaves stays the one it is."""
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value
