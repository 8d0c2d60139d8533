"""Splits of a dataset's nodes into train, val and test: four protocols, for all stages alike.

A node's split depends only on its place in the source, never on its type, its qindex (except under
`random_blocks`) or the training seed.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from av1part.options import PROTOCOLS
from av1part.system.errors import StoreError, first_line
from av1part.system.files import expanded
from av1part.system.terminal import printable

SPLITS = ("train", "val", "test")
"""Names of the splits; a node's split is the index, or `OUTSIDE`."""
OUTSIDE = -1
"""Split index of nodes in a gap between segments."""

_MOST_SHOWN = 80
"""Characters of a wrong line that an error shows."""

_MOST_NAMED = 5
"""Sequences that an error names."""

SHARES = (0.70, 0.15, 0.15)

FEWEST_FRAMES = 5
"""Frames from which on a sequence is cut along time: three ranges and two gaps need five."""


@dataclass(frozen=True)
class Division:
    """The division of a dataset's sources into train, val and test.

    Attributes:
        shapes: `(frames, height, width)` of each sequence.
        protocol: A key of `PROTOCOLS`.
        seed: Seed of the choice of sequences, or of blocks.
        listed: Sequence to split name; required by `given`, optional for `by_sequence`.
        groups: Sequence to the name of its group, such as its clip; `by_sequence` keeps groups
            whole. None makes each sequence a group.
    """

    shapes: Mapping[str, tuple[int, ...]]
    protocol: str
    seed: int = 42
    listed: Mapping[str, str] | None = None
    groups: Mapping[str, str] | None = None

    def assign(self, nodes: pl.DataFrame) -> NDArray[np.int8]:
        """Assign every node to a split.

        Args:
            nodes: Table with `sequence`, `frame`, `row`, `size`.

        Returns:
            int8 of shape (nodes,): index into `SPLITS`, or `OUTSIDE`.

        Raises:
            StoreError: if the protocol does not suit the dataset.
        """
        if self.protocol == "random_blocks":
            order = np.random.default_rng(self.seed).permutation(nodes.height)
            split = np.zeros(nodes.height, dtype=np.int8)
            split[order[round(0.8 * nodes.height) :]] = SPLITS.index("val")
            return split
        if self.protocol == "by_segment":
            return _by_segment(nodes, self.shapes)
        table = self._sequences()
        splits = np.array([SPLITS.index(table[name]) for name in self.shapes], dtype=np.int8)
        assigned: NDArray[np.int8] = splits[sequence_codes(nodes, self.shapes)]
        return assigned

    def sha256(self, size: int) -> str:
        """Hash the division, in hexadecimal; only under `random_blocks` it depends on node size.

        A `StoreError` says that the protocol does not suit the dataset.
        """
        places: Any
        if self.protocol == "random_blocks":
            places = {"size": size, "seed": self.seed}
        elif self.protocol == "by_segment":
            places = {name: _bounds(*shape) for name, shape in self.shapes.items()}
        else:
            places = self._sequences()
        return hashlib.sha256(json.dumps(places, sort_keys=True).encode()).hexdigest()

    def _sequences(self) -> Mapping[str, str]:
        """Return the split of each sequence.

        Raises:
            StoreError: if the protocol does not suit the dataset.
        """
        if self.protocol == "given" and self.listed is None:
            raise StoreError("data.protocol=given: this dataset brings no split; use by_sequence")
        if self.protocol not in PROTOCOLS:
            known = ", ".join(PROTOCOLS)
            raise StoreError(f"data.protocol must be one of {known}, got {self.protocol!r}")
        groups = self.groups
        if groups is None:
            groups = {name: name for name in self.shapes}
        table = _draw_sequences(groups, self.seed) if self.listed is None else self.listed
        _check_list(table, self.shapes)
        if self.protocol == "by_sequence":
            _check_groups(table, groups)
        return table


def sequence_codes(nodes: pl.DataFrame, names: Iterable[str]) -> NDArray[Any]:
    """Return the index in `names` of each node's sequence, unsigned integers, (nodes,)."""
    return nodes["sequence"].cast(pl.Enum(list(names))).to_physical().to_numpy()


def read_split_list(path: str | Path) -> dict[str, str]:
    """Read a split list: CSV with the header `sequence,split` and values train, val or test.

    As spreadsheets write it too: with a byte order mark, with semicolons or tabs, with spaces
    around cells, with empty lines.

    Args:
        path: The file; `~` is expanded.

    Returns:
        Sequence to `train`, `val` or `test`.

    Raises:
        StoreError: if the file is missing or not of this form.
    """
    path = expanded(path)
    form = f"split list {path}: needs `sequence,split` with train|val|test"
    table: dict[str, str] = {}
    rows = _rows(path)
    if not rows or rows[0] != ["sequence", "split"]:
        raise StoreError(form)
    for row in rows[1:]:
        if len(row) != 2 or row[1] not in SPLITS:
            raise StoreError(f"{form}, got {printable(','.join(row), _MOST_SHOWN)}")
        if row[0] in table:
            raise StoreError(f"split list {path} names {row[0]} twice")
        table[row[0]] = row[1]
    return table


def _rows(path: Path) -> list[list[str]]:
    """Return the cells of a CSV file, without empty lines and the empty cells that end a line.

    Raises:
        StoreError: if it cannot be read.
    """
    try:
        # A checkpoint may name the list, too; a device or pipe would be read without end.
        if path.exists() and not path.is_file():
            raise StoreError(f"split list {path} is not a file: name a CSV with sequence,split")
        content = path.read_bytes()
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise StoreError(f"split list {path} is UTF-16: save it as CSV in UTF-8")
        text = content.decode("utf-8-sig")
        head = text.lstrip().partition("\n")[0]
        delimiter = next((d for d in ",;\t" if d in head), ",")
        lines = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter)
        rows = [[cell.strip() for cell in line] for line in lines]
    except UnicodeDecodeError as error:
        raise StoreError(
            f"split list {path} cannot be read ({first_line(error)}): save it as CSV in UTF-8"
        ) from None
    except (OSError, ValueError, csv.Error) as error:  # ValueError: NUL in the name
        raise StoreError(f"split list {path} cannot be read ({first_line(error)})") from None
    for row in rows:
        while row and not row[-1]:
            row.pop()
    return [row for row in rows if row]


def check_protocol(protocol: str, offered: Sequence[str] | None, name: str) -> None:
    """Check that a protocol applies to a dataset.

    Args:
        protocol: A key of `PROTOCOLS`.
        offered: Protocols that its manifest lists; None if all apply.
        name: Name of the dataset in an error.

    Raises:
        StoreError: naming the protocols that apply.
    """
    if offered is not None and protocol not in offered:
        ways = " or ".join(f"data.protocol={option} ({PROTOCOLS[option]})" for option in offered)
        raise StoreError(
            f"{name} does not know its sequences, so data.protocol={protocol} does not apply: "
            f"add {ways}"
        )


def _draw_sequences(groups: Mapping[str, str], seed: int) -> dict[str, str]:
    names = sorted(set(groups.values()))
    if len(names) < 3:
        raise StoreError(
            f"data.protocol=by_sequence needs at least 3 sequences, this dataset has {len(names)}: "
            "add sources, or use data.protocol=by_segment"
        )
    counts = [max(1, round(share * len(names))) for share in SHARES[1:]]
    order = np.random.default_rng(seed).permutation(len(names))
    splits = ["val"] * counts[0] + ["test"] * counts[1]
    splits += ["train"] * (len(names) - len(splits))
    drawn = {names[i]: split for i, split in zip(order, splits, strict=True)}
    return {sequence: drawn[group] for sequence, group in groups.items()}


def _check_list(listed: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> None:
    missing, extra = sorted(shapes.keys() - listed.keys()), sorted(listed.keys() - shapes.keys())
    if missing or extra:
        wrong = [f"it lacks {_some(missing)} of the dataset"] if missing else []
        wrong += [f"it names {_some(extra)}, which the dataset has not"] if extra else []
        raise StoreError(f"the split list does not fit the dataset: {'; '.join(wrong)}")


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_MOST_NAMED])
    more = len(names) - _MOST_NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def _check_groups(listed: Mapping[str, str], groups: Mapping[str, str]) -> None:
    first: dict[str, str] = {}
    for sequence, group in groups.items():
        other = first.setdefault(group, sequence)
        if listed[sequence] != listed[other]:
            raise StoreError(
                f"the split list puts {other} into {listed[other]} and {sequence} into "
                f"{listed[sequence]}, which show the same {group}: put both into one"
            )


def _by_segment(nodes: pl.DataFrame, shapes: Mapping[str, tuple[int, ...]]) -> NDArray[np.int8]:
    """Cut each sequence along time or, with few frames, into horizontal bands."""
    code = sequence_codes(nodes, shapes)
    along_time = np.array([frames >= FEWEST_FRAMES for frames, *_ in shapes.values()])
    bounds = np.array([_bounds(*shape) for shape in shapes.values()], dtype=np.int32)
    frame, row, size = (nodes[c].to_numpy() for c in ("frame", "row", "size"))
    timed = along_time[code]
    first = np.where(timed, frame, row)
    last = first + np.where(timed, 1, size)
    split = np.full(nodes.height, OUTSIDE, dtype=np.int8)
    for index in range(len(SPLITS)):
        start, stop = bounds[:, index, 0][code], bounds[:, index, 1][code]
        split[(first >= start) & (last <= stop)] = index
    return split


def _bounds(frames: int, height: int, width: int) -> list[tuple[int, int]]:
    """Return (start, stop) of each split in a sequence, in frames, or in rows if there are few."""
    if frames >= FEWEST_FRAMES:
        return segments(frames, frame_gap(frames))
    return segments(height, min(64, max(16, height // 16)))


def frame_gap(frames: int) -> int:
    """Return the frames that are left out between two ranges of a clip."""
    return max(1, round(frames / 50))


def segments(length: int, gap: int) -> list[tuple[int, int]]:
    """Cut 0..length into a train, a val and a test range with gaps between them.

    Args:
        length: Frames, or luma rows.
        gap: Frames or rows left out between two ranges.

    Returns:
        (start, stop) of each of `SPLITS`.

    >>> segments(100, 2)
    [(0, 68), (70, 84), (86, 100)]
    """
    usable = length - 2 * gap
    val, test = (max(1, round(share * usable)) for share in SHARES[1:])
    train = usable - val - test
    return [(0, train), (train + gap, train + gap + val), (train + 2 * gap + val, length)]
