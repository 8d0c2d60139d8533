"""Hint files are written, read back and refused as the patched encoder does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from av1part.encoder.hints import KEEP, HintsWriter, grid_shape, open_hints
from av1part.partition import SIZES
from av1part.system.errors import HintsError

Words = NDArray[np.uint16]


def write(
    path: Path, width: int, height: int, sizes: tuple[int, ...], frames: int
) -> list[dict[int, Words]]:
    rng = np.random.default_rng(width * height)

    def masks(size: int) -> Words:
        shape = grid_shape(width, height, size)
        types = rng.integers(0, 1024, shape, dtype=np.uint16)
        return types | (KEEP * rng.integers(0, 2, shape)).astype(np.uint16)

    written = [{size: masks(size) for size in sizes} for _ in range(frames)]
    with HintsWriter(path, width, height, sizes) as hints:
        for frame in written:
            hints.add(frame)
    return written


@given(
    width=st.integers(8, 200),
    height=st.integers(8, 200),
    sizes=st.sets(st.sampled_from(SIZES), min_size=1),
    frames=st.integers(1, 3),
)
def test_masks_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    width: int,
    height: int,
    sizes: set[int],
    frames: int,
) -> None:
    path = tmp_path_factory.mktemp("hints") / "a.hints"
    written = write(path, width, height, tuple(sizes), frames)
    hints = open_hints(path)
    assert (hints.width, hints.height, hints.frames) == (width, height, frames)
    assert hints.sizes == tuple(sorted(sizes))
    for masks, again in zip(written, hints, strict=True):
        assert masks.keys() == again.keys()
        assert all((masks[size] == again[size]).all() for size in masks)


def test_the_header_is_that_of_the_contract(tmp_path: Path) -> None:
    write(tmp_path / "a.hints", 96, 40, (16, 64), 2)
    words = np.fromfile(tmp_path / "a.hints", "<u2")
    assert list(words[:7]) == [0x3141, 0x4850, 1, 96, 40, 0b1010, 2]
    assert len(words) == 7 + 2 * (3 * 6 + 1 * 2)


def put(at: int, value: int) -> Callable[[Words], Words]:
    return lambda words: np.where(np.arange(len(words)) == at, value, words)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda words: words[:-1], "its header says"),
        (lambda words: np.append(words, 0), "its header says"),
        (lambda words: words[:5], "is not a hint file"),
        (put(0, 7), "is not a hint file"),
        (put(2, 2), "of version 2, not 1"),
        (put(3, 0), "header that is not valid"),
        (put(5, 16), "header that is not valid"),
        (put(9, 1 << 12), "bits 10 to 14 in frame 0"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(
    tmp_path: Path, change: Callable[[Words], Any], reason: str
) -> None:
    path = tmp_path / "a.hints"
    write(path, 64, 64, (16,), 2)
    change(np.fromfile(path, "<u2")).astype("<u2").tofile(path)
    with pytest.raises(HintsError, match=reason) as caught:
        open_hints(path)
    assert "a.hints" in str(caught.value)


@pytest.mark.parametrize("length", [0, 1, 4, 13])
def test_less_than_a_header_is_no_hint_file(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.hints"
    write(path, 64, 64, (16,), 1)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(HintsError, match=r"a\.hints is not a hint file"):
        open_hints(path)


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.hints"

    def interrupted() -> None:
        with HintsWriter(path, 64, 64, (64,)) as hints:
            hints.add({64: np.zeros((1, 1), np.uint16)})
            assert not path.exists()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.hints"

    def full() -> None:
        with Path("/dev/full").open("wb") as file, HintsWriter(path, 64, 64, (64,)) as hints:
            hints._file.close()
            hints._file = file  # type: ignore[assignment]
            hints.add({64: np.zeros((1, 1), np.uint16)})

    with pytest.raises(OSError, match="No space left"):
        full()
    assert list(tmp_path.iterdir()) == []
