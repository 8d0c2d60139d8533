"""Strict reading of text files of whole decimal numbers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from av1part.system.errors import SourceError

_NO_NUMBER = re.compile(rb"(?<!\S)(?!\d{1,9}(?!\S))\S+")
"""A word that is not one to nine ASCII digits; no layout holds larger numbers."""
_MOST_SHOWN = 20


def read_numbers(path: Path) -> NDArray[np.int64]:
    """Read whole numbers separated by white space; see `parse_numbers`."""
    return parse_numbers(path.read_bytes(), path)


def read_rows(path: Path, columns: int) -> NDArray[np.int64]:
    """Read a table of whole numbers; blank lines may only end the file.

    Args:
        path: The file.
        columns: Numbers per line.

    Returns:
        int64 `[lines, columns]`.

    Raises:
        SourceError: naming the first other line, counted from 1.
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
        data: Whole numbers separated by white space.
        path: The file, for an error.

    Returns:
        int64 `[n]`, 0 to 999,999,999.

    Raises:
        SourceError: naming the first other word, counted from 1.
    """
    if bad := _NO_NUMBER.search(data):
        entry = len(data[: bad.start()].split()) + 1
        raise SourceError(f"{path}: entry {entry} is {_shown(bad[0])}, not a whole number")
    # Stripped, since numpy reads nothing but white space as one 0.
    numbers: NDArray[np.int64] = np.fromstring(data.strip(), dtype=np.int64, sep=" ")
    return numbers


def _shown(word: bytes) -> str:
    """Return the start of a word or line, printable."""
    return repr(word[:_MOST_SHOWN])[1:] + (" and so on" if len(word) > _MOST_SHOWN else "")
