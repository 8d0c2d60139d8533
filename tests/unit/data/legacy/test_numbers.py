"""Text files of numbers: what int() makes of every word, or the place of the first bad one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from av1part.data.legacy.numbers import read_numbers, read_rows
from av1part.system.errors import SourceError


def test_white_space_of_any_kind_parts_numbers(tmp_path: Path) -> None:
    file = tmp_path / "n.txt"
    file.write_bytes(b" 0 1\t22\r\n333\x0b4\x0c007\n\n999999999")
    assert read_numbers(file).tolist() == [0, 1, 22, 333, 4, 7, 999_999_999]
    for nothing in (b"", b" ", b"\n\t\r\n"):
        file.write_bytes(nothing)
        assert read_numbers(file).shape == (0,)
        assert read_numbers(file).dtype == np.int64


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"1 2 x 3", "entry 3 is 'x'"),
        (b"1 -2", "entry 2 is '-2'"),
        (b"+1", "entry 1 is '+1'"),
        (b"2.0 1", "entry 1 is '2.0'"),
        (b"1 1e0", "entry 2 is '1e0'"),
        (b"1_0", "entry 1 is '1_0'"),
        (b"1,2", "entry 1 is '1,2'"),
        (b"1 nan", "entry 2 is 'nan'"),
        (b"1 2\x00", r"entry 2 is '2\x00'"),
        (b"\xef\xbb\xbf1 2", "entry 1 is"),
        ("1 ٣".encode(), "entry 2 is"),
        (b"5 " + b"9" * 10, "entry 2 is '9999999999'"),
        (b"9" * 5000, f"entry 1 is '{'9' * 20}' and so on"),
    ],
)
def test_anything_else_is_named(tmp_path: Path, data: bytes, said: str) -> None:
    file = tmp_path / "n.txt"
    file.write_bytes(data)
    with pytest.raises(SourceError, match="not a whole number") as caught:
        read_numbers(file)
    assert str(caught.value).startswith(f"{file}: {said}")


def test_rows_are_lines(tmp_path: Path) -> None:
    file = tmp_path / "r.txt"
    file.write_bytes(b"1 2 3\r\n 4\t5  6 \n\n\n")
    assert read_rows(file, 3).tolist() == [[1, 2, 3], [4, 5, 6]]
    file.write_bytes(b"\n")
    assert read_rows(file, 3).shape == (0, 3)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"1 2 3\n4 5\n6 7 8 9", "line 2 is '4 5', not 3 whole numbers"),
        (b"1 2 3 4 5 6", "line 1"),
        (b"1 2 3\n\n4 5 6", "line 2 is ''"),
        (b"order row col\n1 2 3", "line 1 is 'order row col'"),
        (b"1 2 3\r4 5 6", "line 1"),
        (b"1 2 -3", "line 1"),
        (b"1 2 3\n4 5 6\x00", "line 2"),
    ],
)
def test_lines_of_other_lengths_are_named(tmp_path: Path, data: bytes, said: str) -> None:
    file = tmp_path / "r.txt"
    file.write_bytes(data)
    with pytest.raises(SourceError, match=said):
        read_rows(file, 3)


def test_a_long_bad_file_is_refused_in_a_moment(tmp_path: Path) -> None:
    """No pattern backtracks: this would take forever if one did."""
    file = tmp_path / "r.txt"
    file.write_bytes(b"1 2 3\n" * 200_000 + b"1 2" + b" " * 200_000 + b"x")
    with pytest.raises(SourceError, match="line 200001"):
        read_rows(file, 3)
    with pytest.raises(SourceError, match="entry 600003"):
        read_numbers(file)
