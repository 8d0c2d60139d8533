"""What inspect prints, read without libaom; the encoder's arguments; finding the programs."""

from __future__ import annotations

import json
import re
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest

from av1part.data.build.labels import stream_nodes
from av1part.data.build.libaom import (
    Children,
    encode,
    encoder_arguments,
    find_aomenc,
    find_inspect,
    parse_inspect,
    programs_folder,
)
from av1part.partition import RECTANGLES, Partition
from av1part.system.errors import EncoderError

DATA = Path(__file__).parents[3] / "data"
STREAMS = {"crops_72x56": (2, 56, 72), "crop_67x51_10le": (1, 51, 67)}


def lines_of(stem: str) -> list[bytes]:
    return (DATA / f"{stem}.json").read_bytes().splitlines(keepends=True)


def plain_grids(stem: str) -> list[list[list[str]]]:
    """Names of block sizes per cell, by the standard parser and a loop of its own."""
    frames = []
    for frame in json.loads((DATA / f"{stem}.json").read_text())[:-1]:
        names = {code: name for name, code in frame["blockSizeMap"].items()}
        rows = []
        for row in frame["blockSize"]:
            cells: list[str] = []
            for value in row:
                cells += [cells[-1]] * value[0] if isinstance(value, list) else [names[value]]
            rows.append(cells)
        frames.append(rows)
    return frames


@pytest.mark.parametrize("stem", STREAMS)
def test_grids_are_what_inspect_printed(stem: str) -> None:
    frames = list(parse_inspect(lines_of(stem), stem))
    for frame, rows in zip(frames, plain_grids(stem), strict=True):
        ours = [[f"BLOCK_{w}X{h}" for h, w in row] for row in frame.blocks.tolist()]
        assert ours == rows
        assert frame.qindex == 80


def slow_nodes(rows: list[list[str]], height: int, width: int) -> set[tuple[int, ...]]:
    """Walk the tree one node at a time, trying every type on every cell it would cover."""
    sizes = [[tuple(map(int, re.findall(r"\d+", name)))[::-1] for name in row] for row in rows]
    found = set()

    def fits(row: int, col: int, size: int, partition: Partition) -> bool:
        for r, c, h, w in RECTANGLES[partition]:
            top, left = row + size * r // 4, col + size * c // 4
            high, wide = size * h // 4, size * w // 4
            for y in range(top // 4, (top + high) // 4):
                for x in range(left // 4, (left + wide) // 4):
                    if y < len(sizes) and x < len(sizes[0]) and sizes[y][x] != (high, wide):
                        return False
        return True

    def visit(row: int, col: int, size: int) -> None:
        if row // 4 >= len(sizes) or col // 4 >= len(sizes[0]):
            return
        whole = row + size <= height and col + size <= width
        types = [p for p in Partition if p != Partition.SPLIT and (size > 8 or p < 4)]
        # What hangs over the edge by half or more is cut by force (spec, 5.11.4).
        if (row + size // 2) // 4 >= len(sizes) or (col + size // 2) // 4 >= len(sizes[0]):
            types = [Partition.HORZ, Partition.VERT]
        fitting = [p for p in types if fits(row, col, size, p)]
        if whole:
            assert len(fitting) <= 1
            found.add((size, row, col, int(fitting[0]) if fitting else 3))
        if not fitting and size > 8:
            half = size // 2
            for r, c in ((0, 0), (0, half), (half, 0), (half, half)):
                visit(row + r, col + c, half)

    for row in range(0, height, 64):
        for col in range(0, width, 64):
            visit(row, col, 64)
    return found


@pytest.mark.parametrize(("stem", "shape"), STREAMS.items())
def test_nodes_are_those_of_a_slow_walk(stem: str, shape: tuple[int, int, int]) -> None:
    nodes = stream_nodes(
        parse_inspect(lines_of(stem), stem),
        sequence="s",
        shape=shape,
        sizes=(64, 32, 16, 8),
        one_to_four=False,
    )
    for index, rows in enumerate(plain_grids(stem)):
        frame = nodes.filter(frame=index).select("size", "row", "col", "partition")
        assert set(frame.rows()) == slow_nodes(rows, *shape[1:])
        assert frame.height > 10
    assert (nodes["qindex"] == 80).all()


def test_output_without_run_lengths_is_read_the_same() -> None:
    [expected] = parse_inspect(lines_of("crop_67x51_10le"), "a")
    frame = json.loads((DATA / "crop_67x51_10le.json").read_text())[0]
    by_size = {
        tuple(map(int, re.findall(r"\d+", name)))[::-1]: code
        for name, code in frame["blockSizeMap"].items()
    }
    plain = [[by_size[h, w] for h, w in row] for row in expected.blocks.tolist()]
    text = [
        b"[\n{\n",
        f'  "blockSizeMap": {json.dumps(frame["blockSizeMap"])},\n'.encode(),
        f'  "blockSize": {json.dumps(plain)},\n'.encode(),
        b'  "frameType": 0,\n  "baseQIndex": 80,\n',
        b'  "config": {"MI_SIZE":4}\n},\nnull\n]',
    ]
    [read] = parse_inspect(b"".join(text).splitlines(keepends=True), "b")
    assert (read.blocks == expected.blocks).all()


def without(pattern: bytes) -> list[bytes]:
    return [line for line in lines_of("crops_72x56") if pattern not in line]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (without(b"null"), "stopped before the end"),
        (lines_of("crops_72x56")[:-4], "stopped before the end"),
        ([], "stopped before the end"),
        (without(b'"blockSize":'), "without 'blockSize'"),
        (without(b"baseQIndex"), "without 'baseQIndex'"),
        (
            [x.replace(b'"frameType": 0', b'"frameType": 1') for x in lines_of("crops_72x56")],
            "not a key frame",
        ),
        (
            [x.replace(b'"blockSize": [[', b'"blockSize": [[[3],') for x in without(b"absent")],
            "broken frame",
        ),
        ([b'  "blockSize": [[1,\n'], "broken blockSize"),
        (
            [x.replace(b'"blockSize": [[', b'"blockSize": [[300,') for x in without(b"absent")],
            "broken frame",
        ),
        (
            [x.replace(b'"blockSize": [[', b'"blockSize": [[9,') for x in without(b"absent")],
            "broken frame",
        ),
    ],
)
def test_output_that_is_not_whole_is_refused(lines: list[bytes], said: str) -> None:
    with pytest.raises(EncoderError, match=said):
        list(parse_inspect(lines, "stream"))


def with_member(name: str, value: str) -> list[bytes]:
    """A stream whose frames say something else of themselves."""
    pattern = re.compile(rf'"{name}": .*?(,?)\n$'.encode())
    return [pattern.sub(f'"{name}": {value},\n'.encode(), line) for line in lines_of("crops_72x56")]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("blockSize", "[[3, [1000000000]]]"),
        ("blockSize", "[" + ", ".join(["[3, [4000]]"] * 5000) + "]"),
        ("blockSize", "[" * 100_000),
        ("blockSize", "[[3, [4000], [4000]]]"),
        ("blockSize", "5"),
        ("blockSizeMap", "[1]"),
        ("blockSizeMap", "null"),
        ("blockSizeMap", '{"BLOCK_512X512": 3}'),
        ("baseQIndex", "256"),
        ("baseQIndex", "-1"),
        ("baseQIndex", "1e300"),
        ("baseQIndex", "NaN"),
        ("baseQIndex", "[]"),
    ],
)
def test_output_that_claims_anything_is_one_line_and_little_memory(name: str, value: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(EncoderError, match="stream: inspect printed a broken") as caught:
            list(parse_inspect(with_member(name, value), "stream"))
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
    assert len(str(caught.value).splitlines()) == 1


def test_frames_are_parsed_one_at_a_time() -> None:
    taken = []

    def feed() -> object:
        for line in lines_of("crops_72x56"):
            taken.append(line)
            yield line

    frames = parse_inspect(feed(), "s")
    next(frames)
    assert len(taken) < len(lines_of("crops_72x56")) // 2 + 2


def test_arguments_are_the_contract() -> None:
    eight = "--ivf --passes=1 --end-usage=q --cq-level=32 --kf-max-dist=0 --cpu-used=0 --threads=1"
    assert encoder_arguments(32, bit_depth=8) == [*eight.split(), "--enable-1to4-partitions=0"]
    assert encoder_arguments(32, bit_depth=8, one_to_four=True) == eight.split()
    ten = encoder_arguments(32, bit_depth=10, cpu_used=6)
    assert ten[-2:] == ["--bit-depth=10", "--input-bit-depth=10"]
    assert "--cpu-used=6" in ten


# --- the programs


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No libaom anywhere."""
    for name in ("AV1PART_AOMENC", "AV1PART_INSPECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AV1PART_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    return tmp_path


def test_missing_programs_name_the_remedy(bare: Path) -> None:
    for find in (find_aomenc, find_inspect):
        with pytest.raises(EncoderError, match="make libaom"):
            find()


def test_the_cache_follows_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AV1PART_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert programs_folder() == Path("/x/av1part/libaom/bin")
    monkeypatch.setenv("AV1PART_CACHE", "/y")
    assert programs_folder() == Path("/y/libaom/bin")


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_a_named_program_comes_before_the_cache_and_the_path(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say = "echo AOMedia Project AV1 Encoder v"
    on_path = script(bare / "nothing" / "aomenc", f"{say}1")
    assert find_aomenc().path == on_path
    script(bare / "cache/libaom/bin/aomenc", f"{say}2")
    assert find_aomenc().version == "v2"
    mine = script(bare / "my own aomenc", f"{say}3")
    monkeypatch.setenv("AV1PART_AOMENC", str(mine))
    assert find_aomenc().version == "v3"
    monkeypatch.setenv("AV1PART_AOMENC", str(bare / "gone"))
    with pytest.raises(EncoderError, match=r"AV1PART_AOMENC=.*gone is not a program"):
        find_aomenc()


def test_another_program_of_the_name_is_refused(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AV1PART_INSPECT", str(script(bare / "inspect", "echo hello")))
    with pytest.raises(EncoderError, match="not a program of libaom"):
        find_inspect()


def test_an_encoder_that_fails_is_quoted(bare: Path) -> None:
    y4m = bare / "clip.y4m"
    y4m.write_bytes(bytes(1 << 20))
    bad = script(bare / "aomenc", "printf 'frame 1\\rno memory left\\n' >&2; exit 3")
    # It reads nothing of a megabyte on its pipe: that must not raise either.
    with pytest.raises(EncoderError, match=r"clip \(exit status 3: no memory left\)"):
        encode(bad, y4m, bare / "out.ivf", [], Children())


def alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_children_die_with_an_error_and_on_close() -> None:
    children = Children()
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(ZeroDivisionError), children.run(sleep) as process:  # noqa: PT012
        pid = process.pid
        assert alive(pid)
        raise ZeroDivisionError
    assert not alive(pid)

    started = threading.Event()
    pids = []

    def wait_for_one() -> None:
        with children.run(sleep) as process:
            pids.append(process.pid)
            started.set()
            process.wait()

    thread = threading.Thread(target=wait_for_one)
    thread.start()
    assert started.wait(10)
    children.close()
    thread.join(10)
    assert not thread.is_alive()
    assert not alive(pids[0])
    with pytest.raises(EncoderError, match="the build stopped"), children.run(sleep):
        pass
