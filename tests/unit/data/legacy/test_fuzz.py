"""Any bytes at all: a store that equals an independent reading, or one clear error and no trace.

`FUZZ_EXAMPLES=5000 python -m pytest tests/unit/data/legacy/test_fuzz.py` looks harder.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from av1part.data.legacy.contents import LEFT_OUT
from av1part.data.legacy.importer import import_dataset
from av1part.data.legacy.numbers import parse_numbers
from av1part.data.store.store import Store
from av1part.partition import legal_partitions
from av1part.system.errors import Av1partError, SourceError

from .writers import (
    BLOCK_SIZE,
    STAGE_KEYS,
    V6_LABELS,
    in_tree,
    v6_tensors,
    write_raw_blocks,
    write_yuv,
)

fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def imported(layout: str, folder: Path) -> Store | None:
    """Return the store, or None if the folder was refused properly: one line, and no trace."""
    out = folder.parent / "out"
    try:
        store = import_dataset(layout, folder, out)
    except Av1partError as error:
        said = str(error)
    else:
        event("stored")
        assert store.manifest["left_out"].keys() <= LEFT_OUT.keys()
        return Store.open(store.path, verify="full")
    event("refused")
    assert said.strip(), "an error says something"
    assert "\n" not in said, "on one line"
    assert [p.name for p in folder.parent.iterdir()] == [folder.name], "nothing is left"
    return None


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A few changes of a file: bytes cut, flipped, put in, or all of it replaced."""
    if draw(st.booleans()):
        return bytes
    kinds = st.sampled_from(["cut", "flip", "put", "drop", "replace"])
    # Where a change falls is a share of the length, which the file is to decide.
    steps = draw(
        st.lists(st.tuples(kinds, st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=2)
    )

    def change(data: bytes) -> bytes:
        for kind, share, new in steps:
            at = int(share * max(len(data) - 1, 0))
            if kind == "cut":
                data = data[:at]
            elif kind == "flip" and data:
                data = data[:at] + bytes([data[at] ^ (new[0] or 1)]) + data[at + 1 :]
            elif kind == "put":
                data = data[:at] + new + data[at:]
            elif kind == "drop":
                data = data[:at] + data[at + len(new) :]
            elif kind == "replace":
                data = new
        return data

    return change


def words(data: bytes) -> list[int] | None:
    """Read whole numbers one word at a time."""
    found = data.split()
    good = all(0 < len(w) <= 9 and set(w) <= set(b"0123456789") for w in found)
    return [int(w) for w in found] if good else None


NUMBERS = st.lists(st.sampled_from([b"0", b"3", b"80", b"255", b"256", b"10", b"7"])).map(b" ".join)


@fuzz
@given(st.one_of(st.binary(max_size=40), NUMBERS, st.text("0123456789 \n-.x", max_size=30)))
def test_numbers(text: bytes | str) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    try:
        got = parse_numbers(data, Path("x")).tolist()
    except SourceError:
        got = None
    assert got == words(data)


@fuzz
@given(
    st.integers(1, 4),
    st.sampled_from(["intra_raw_blocks", "labels", "qps"]),
    mutations(),
    st.lists(st.sampled_from([0, 1, 2, 3, 3, 3, 3, 4]), min_size=4, max_size=4),
    st.lists(st.sampled_from([0, 80, 80, 80, 255, 255, 256]), min_size=4, max_size=4),
    st.sampled_from([8, 16]),
)
def test_raw_blocks(
    count: int,
    victim: str,
    change: Callable[[bytes], bytes],
    types: list[int],
    qindexes: list[int],
    size: int,
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "raw"
        blocks = np.random.default_rng(count).integers(0, 1024, (count, size, size))
        write_raw_blocks(folder, "a", blocks, types[:count], qindexes[:count])
        names = {p.parent.name: p for p in folder.rglob("*.txt")}
        names[victim].write_bytes(change(names[victim].read_bytes()))
        data = {side: path.read_bytes() for side, path in names.items()}
        store = imported("raw-blocks", folder)
        labels, qps = words(data["labels"]), words(data["qps"])
        raw, side = data["intra_raw_blocks"], size * size * 2
        good = (
            labels is not None
            and qps is not None
            and len(raw) == len(labels) * side == len(qps) * side > 0
            and set(labels) <= set(legal_partitions(size))
            and max(qps) <= 255
            and max(raw[1::2]) < 4
        )
        assert (store is not None) == good
        if store is not None:
            assert np.array_equal(store.plane(f"a_sample_{size}").tobytes(), raw)
            assert store.nodes["partition"].to_list() == labels
            assert store.nodes["qindex"].to_list() == qps


@cache
def pt_bytes(zipped: bool) -> bytes:
    """A whole file of v6-pt with every type."""
    blocks = np.random.default_rng(0).integers(0, 1024, (9, 16, 16))
    made = v6_tensors(blocks, [*range(8), 0], range(80, 89))
    file = io.BytesIO()
    torch.save(made, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def same_as_read_by_torch(store: Store, file: Path) -> None:
    """Check a stored sequence against torch's own reading of the file."""
    content = torch.load(file, weights_only=True)
    nodes = store.nodes.filter(sequence=file.stem)
    whole = (content["samples"].double() * 1023).round()[:, 0].numpy()
    assert np.array_equal(store.plane(file.stem), whole)
    assert np.array_equal(
        content["samples"][:, 0].numpy(),
        store.plane(file.stem).astype(np.float32) / np.float32(1023),
    )
    types = content["labels_stage0"].tolist()
    assert nodes["partition"].to_list() == types
    assert nodes["qindex"].to_list() == content["qps"].tolist()
    for at, key in enumerate(STAGE_KEYS):
        assert content[key].tolist() == [V6_LABELS[p][at] for p in types]


@fuzz
@given(mutations(), st.booleans(), st.sampled_from(["train", "val"]))
def test_v6_pt_bytes(change: Callable[[bytes], bytes], zipped: bool, split: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "pt"
        folder.mkdir()
        for name in ("train", "val"):
            (folder / f"{name}.pt").write_bytes(pt_bytes(zipped))
        file = folder / f"{split}.pt"
        file.write_bytes(change(file.read_bytes()))
        store = imported("v6-pt", folder)
        if file.read_bytes() == pt_bytes(zipped):
            assert store is not None
        if store is not None:
            same_as_read_by_torch(store, file)


SAMPLES = st.one_of(
    st.integers(0, 1023).map(lambda k: float(np.float32(k) / np.float32(1023))),
    st.floats(width=32),
    st.integers(-2, 1025).map(lambda k: float(np.float32(k / 1023))),
)


@fuzz
@given(
    SAMPLES,
    st.sampled_from(["labels_stage0", *STAGE_KEYS, "qps"]),
    st.integers(-2, 300),
    st.sampled_from([torch.int64, torch.int32, torch.int16]),
    st.integers(0, 8),
)
def test_v6_pt_values(sample: float, key: str, value: int, dtype: torch.dtype, at: int) -> None:
    content = torch.load(io.BytesIO(pt_bytes(True)), weights_only=True)
    content[key] = content[key].to(dtype)
    if value < 256:
        content[key][at] = value
    content["samples"][at, 0, at, 1] = sample
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "pt"
        folder.mkdir()
        (folder / "val.pt").write_bytes(pt_bytes(True))
        torch.save(content, folder / "train.pt")
        store = imported("v6-pt", folder)
        types = content["labels_stage0"].tolist()
        good = (
            set(types) <= set(range(8))
            and all(
                content[k].tolist() == [V6_LABELS[p][i] for p in types]
                for i, k in enumerate(STAGE_KEYS)
            )
            and all(0 <= q <= 255 for q in content["qps"].tolist())
            and sample in {float(np.float32(k) / np.float32(1023)) for k in range(1024)}
        )
        assert (store is not None) == good
        if store is not None:
            same_as_read_by_torch(store, folder / "train.pt")


HEIGHT, WIDTH = 72, 104
SIZES = {code: size for size, code in BLOCK_SIZE.items()}


@st.composite
def node_lines(draw: st.DrawFn) -> list[tuple[int, ...]]:
    """Lines that are mostly right, so that a tree comes about; now and then something is not."""
    lines = []
    for size, code in BLOCK_SIZE.items():
        places = [(r, c) for r in range(0, HEIGHT, size) for c in range(0, WIDTH, size)]
        chosen = draw(st.lists(st.sampled_from(places), max_size=8, unique=True))
        for row, col in chosen:
            type_ = draw(st.sampled_from([3, 3, *legal_partitions(size)]))
            lines.append((0, 0, code, row // 4, col // 4, int(type_), 80))
    if lines and draw(st.integers(0, 9)) == 9:
        lines.append(draw(st.sampled_from(lines)))
    if draw(st.integers(0, 4)) == 4:
        fields = [0, draw(st.integers(0, 4)), draw(st.sampled_from([3, 6, 9, 12, 12, 13]))]
        fields += [draw(st.integers(0, 40)), draw(st.integers(0, 40))]
        fields += [draw(st.integers(0, 10)), draw(st.sampled_from([80, 90, 256]))]
        lines.append(tuple(fields))
    return draw(st.permutations(lines))


def frame_nodes(data: bytes) -> list[dict[str, int]] | None:
    """Read the nodes of a text file one line at a time; None if anything cannot be."""
    nodes: dict[tuple[int, ...], dict[str, int]] = {}
    hints = set()
    lines = data.rstrip().split(b"\n") if data.strip() else []
    for line in lines:
        fields = words(line)
        if fields is None or len(fields) != 7:
            return None
        if set(line) & set(b"\x0b\x0c") or b"\r" in line.rstrip():
            return None
        hint, kind, code, row, col, partition, qindex = fields
        size = SIZES.get(code, 0)
        if not size or kind > 3 or qindex > 255 or row * 4 % size or col * 4 % size:
            return None
        if partition not in legal_partitions(size):
            return None
        if kind == 0:
            key = (qindex, size, row, col)
            if key in nodes:
                return None
            hints.add(hint)
            names = ("qindex", "size", "row", "col", "partition")
            nodes[key] = dict(zip(names, (qindex, size, row * 4, col * 4, partition), strict=True))
    return list(nodes.values()) if len(hints) < 2 else None


@fuzz
@given(node_lines(), mutations())
def test_partition_frames(lines: list[tuple[int, ...]], change: Callable[[bytes], bytes]) -> None:
    text = "".join(" ".join(map(str, line)) + "\n" for line in lines)
    data = change(text.encode())
    luma = np.arange(2 * HEIGHT * WIDTH).reshape(2, HEIGHT, WIDTH) % 1024
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "clip"
        folder.mkdir()
        write_yuv(folder / f"c_{WIDTH}x{HEIGHT}.yuv", luma)
        (folder / "partition_frame_1.txt").write_bytes(data)
        store = imported("partition-frames", folder)
        nodes = frame_nodes(data)
        wanted = in_tree(nodes, HEIGHT, WIDTH) if nodes else set()
        assert (store is not None) == bool(wanted)
        if store is not None:
            columns = ("qindex", "size", "row", "col", "partition")
            assert store.nodes.height == len(wanted)
            assert set(store.nodes.select(columns).iter_rows()) == wanted
            assert np.array_equal(store.plane(f"c_{WIDTH}x{HEIGHT}"), luma[1:])
            left_out = store.manifest["left_out"]
            of_intra = sum(count for why, count in left_out.items() if why != "not_intra")
            assert len(nodes or ()) == len(wanted) + of_intra


@fuzz
@given(mutations())
def test_clips_of_partition_frames(change: Callable[[bytes], bytes]) -> None:
    luma = np.arange(2 * 16 * 24).reshape(2, 16, 24)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "clip"
        folder.mkdir()
        clip = folder / "c_24x16.yuv"
        write_yuv(clip, luma)
        clip.write_bytes(change(clip.read_bytes()))
        (folder / "partition_frame_1.txt").write_text("0 0 6 0 0 5 200\n")
        data = clip.read_bytes()
        store = imported("partition-frames", folder)
        frame = 16 * 24 * 3 // 2 * 2
        whole = len(data) % frame == 0 and len(data) >= 2 * frame
        good = whole and max(data[1 : 2 * frame : 2]) < 4
        assert (store is not None) == good
        if store is not None:
            assert store.plane("c_24x16").tobytes() == data[frame : frame + 16 * 24 * 2]
