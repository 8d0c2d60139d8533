"""Text files of whole decimal numbers, read strictly."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from av1part.system.errors import SourceError

_NO_NUMBER = re.compile(rb"(?<!\S)(?!\d{1,9}(?!\S))\S+")
"""A word that is not one to nine ASCII digits; more would not fit what any layout holds."""
_MOST_SHOWN = 20


def read_numbers(path: Path) -> NDArray[np.int64]:
    """Read whole numbers parted by white space.

    Args:
        path: The file.

    Returns:
        int64 `[n]`, each from 0 to 999,999,999.

    Raises:
        SourceError: naming the first word that is no such number, counted from 1.
    """
    return parse_numbers(path.read_bytes(), path)


def read_rows(path: Path, columns: int) -> NDArray[np.int64]:
    """Read lines of equally many whole numbers; blank lines may only end the file.

    Args:
        path: The file.
        columns: Numbers a line.

    Returns:
        int64 `[lines, columns]`.

    Raises:
        SourceError: naming the first line, counted from 1, that is something else.
    """
    data = path.read_bytes().rstrip()
    row = rb"[ \t]*+\d{1,9}(?:[ \t]++\d{1,9}){%d}[ \t\r]*+" % (columns - 1)
    if data and not re.fullmatch(rb"(?:%b\n)*+%b" % (row, row), data):
        for number, line in enumerate(data.split(b"\n"), start=1):
            if not re.fullmatch(row, line):
                raise SourceError(
                    f"{path}: line {number} is {_shown(line)}, not {columns} whole numbers"
                )
    return parse_numbers(data, path).reshape(-1, columns)


def parse_numbers(data: bytes, path: Path) -> NDArray[np.int64]:
    """Parse the bytes of a file.

    Args:
        data: The bytes.
        path: What to call them in an error.

    Returns:
        As `read_numbers`.

    Raises:
        SourceError: as `read_numbers`.
    """
    if bad := _NO_NUMBER.search(data):
        entry = len(data[: bad.start()].split()) + 1
        raise SourceError(f"{path}: entry {entry} is {_shown(bad[0])}, not a whole number")
    # Stripped, since numpy reads nothing but white space as one 0.
    numbers: NDArray[np.int64] = np.fromstring(data.strip(), dtype=np.int64, sep=" ")
    return numbers


def _shown(word: bytes) -> str:
    """Return what a file says, short and printable."""
    return repr(word[:_MOST_SHOWN])[1:] + (" and so on" if len(word) > _MOST_SHOWN else "")
