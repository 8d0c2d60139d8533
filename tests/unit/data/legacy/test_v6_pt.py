"""v6-pt: integers come back exactly, and whatever is not what the layout says has its own line."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from av1part.data.legacy.importer import import_dataset
from av1part.data.serve.datamodule import BlockDataModule
from av1part.data.store.store import Store
from av1part.partition import taxonomy
from av1part.system.errors import SourceError, StoreError

from .writers import STAGE_KEYS, V6_LABELS, cut, v6_tensors

Tensors = dict[str, Any]


def write(folder: Path, train: Any, val: Any) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(train, folder / "train.pt")
    torch.save(val, folder / "val.pt")
    return folder


def test_a_store_comes_back_equal(ten_bit_store: Store, tmp_path: Path) -> None:
    nodes = ten_bit_store.nodes.filter(size=16)
    parts = {"train": nodes[: nodes.height * 4 // 5], "val": nodes[nodes.height * 4 // 5 :]}
    blocks = {split: cut(ten_bit_store, part) for split, part in parts.items()}
    made = [v6_tensors(blocks[s], p["partition"], p["qindex"]) for s, p in parts.items()]
    store = import_dataset("v6-pt", write(tmp_path / "block_16", *made), tmp_path / "out")
    for split, part in parts.items():
        got = store.nodes.filter(sequence=split)
        assert np.array_equal(store.plane(split), blocks[split])
        assert got["frame"].to_list() == list(range(part.height))
        for column in ("partition", "qindex"):
            assert got[column].to_list() == part[column].to_list()
    assert store.manifest["given_split"] == {"train": "train", "val": "val"}
    assert store.manifest["left_out"] == {}
    assert set(store.groups.values()) == {"block_16"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_sample_value_is_recovered(dtype: torch.dtype, tmp_path: Path) -> None:
    """Whether the study divided in single or in double precision."""
    every = torch.arange(1024, dtype=dtype).reshape(4, 1, 16, 16) / 1023.0
    made = v6_tensors(np.zeros((4, 16, 16)), [0] * 4, [80] * 4) | {"samples": every.float()}
    store = import_dataset("v6-pt", write(tmp_path / "pt", made, made), tmp_path / "out")
    assert store.plane("train").ravel().tolist() == list(range(1024))


def test_many_blocks_are_converted_in_pieces(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("av1part.data.legacy.v6_pt._CHUNK", 3)
    blocks = np.random.default_rng(0).integers(0, 1024, (8, 16, 16))
    made = v6_tensors(blocks, [0] * 8, [80] * 8)
    store = import_dataset("v6-pt", write(tmp_path / "pt", made, made), tmp_path / "out")
    assert np.array_equal(store.plane("train"), blocks)
    made["samples"][7, 0, 15, 15] = 2
    write(tmp_path / "pt", made, made)
    with pytest.raises(SourceError, match=r"block 8 hold 2\.0"):
        import_dataset("v6-pt", tmp_path / "pt", tmp_path / "again")


def test_labels_of_the_stages_are_the_taxonomy_s() -> None:
    """The table of the test's writer, typed out, against the taxonomy."""
    for row, stage in enumerate(("stage1", "stage2", "stage3_rect", "stage3_ab")):
        typed = [V6_LABELS[p][row] for p in range(8)]
        assert taxonomy("v6").stage(stage).labels[:8].tolist() == typed


def test_only_protocols_without_sequences_apply(tensors: Tensors, tmp_path: Path) -> None:
    store = import_dataset("v6-pt", write(tmp_path / "pt", tensors, tensors), tmp_path / "out")

    def sizes(split: str) -> list[int]:
        data = BlockDataModule(store.path, protocol=split)
        data.setup()
        return [len(data.readers[name]) for name in ("train", "val", "test")]

    count = len(tensors["qps"])
    assert sizes("given") == [count, count, 0]
    assert sizes("random_blocks") == [round(1.6 * count), 2 * count - round(1.6 * count), 0]
    for split in ("by_sequence", "by_segment"):
        with pytest.raises(
            StoreError, match=f"data.protocol={split} does not apply: add data.protocol="
        ):
            sizes(split)


class Code:
    """What a hostile file would run."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("code-was-run",)


def with_sample(value: float) -> Callable[[Tensors], Tensors]:
    def change(tensors: Tensors) -> Tensors:
        samples = tensors["samples"].clone()
        samples[2, 0, 3, 4] = value
        return tensors | {"samples": samples}

    return change


def with_entry(key: str, value: int, at: int = 4) -> Callable[[Tensors], Tensors]:
    def change(tensors: Tensors) -> Tensors:
        values = tensors[key].clone()
        values[at] = value
        return tensors | {key: values}

    return change


def without(key: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {k: v for k, v in tensors.items() if k != key}


def mapped(key: str, change: Callable[[Any], Any]) -> Callable[[Tensors], Any]:
    return lambda tensors: tensors | {key: change(tensors[key])}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t | {"more": Code()}, ("holds code or objects", "nothing of it was run")),
        (mapped("samples", lambda s: s.numpy()), ("holds code or objects",)),
        (with_sample(0.5), ("samples of block 3 hold 0.5", "not k/1023", "once")),
        (with_sample(float("nan")), ("block 3 hold nan",)),
        (with_sample(float("inf")), ("block 3 hold inf",)),
        (with_sample(-1 / 1023), ("block 3 hold -0.0009",)),
        (with_sample(1024 / 1023), ("block 3 hold 1.0009",)),
        (with_sample(float(np.nextafter(np.float32(7 / 1023), np.float32(1)))), ("block 3 hold",)),
        (mapped("samples", lambda s: s / 1023), ("samples of block 1 hold", "once")),
        (mapped("samples", lambda s: (s * 1023).round()), ("samples of block 1 hold", "once")),
        (mapped("samples", lambda s: s.double()), ("samples is float64", "not float32")),
        (mapped("samples", lambda s: s.half()), ("samples is float16",)),
        (mapped("samples", lambda s: s.bfloat16()), ("samples is not a plain tensor",)),
        (mapped("samples", lambda s: s[:, 0]), ("[40, 16, 16], not float32 [n, 1, 16, 16]",)),
        (mapped("samples", lambda s: s[:0]), ("[0, 1, 16, 16]",)),
        (mapped("samples", lambda s: s[:, :, :8, :8].contiguous()), ("[40, 1, 8, 8]",)),
        (mapped("samples", lambda s: s[:1].expand(40, 1, 16, 16)), ("not a plain tensor",)),
        (mapped("samples", lambda s: s.to_sparse()), ("samples is not a plain tensor",)),
        (mapped("samples", lambda s: s.to("meta")), ("samples is not a plain tensor",)),
        (mapped("samples", lambda s: s.tolist()), ("samples is not a plain tensor",)),
        (mapped("samples", lambda s: s[:39]), ("labels_stage0 is int64 [40]", "integers [39]")),
        (mapped("qps", lambda q: q.float()), ("qps is float32 [40], not integers",)),
        (mapped("qps", lambda q: q[:, None]), ("qps is int64 [40, 1]",)),
        (mapped("labels_stage2", lambda v: v[:-1]), ("labels_stage2 is int64 [39]",)),
        (with_entry("qps", 256), ("qps: entry 5 is 256", "0 to 255")),
        (with_entry("qps", -1), ("qps: entry 5 is -1",)),
        (with_entry("labels_stage0", 10), ("labels_stage0: entry 5 is 10", "0 to 9")),
        (with_entry("labels_stage0", -1), ("labels_stage0: entry 5 is -1",)),
        (with_entry("labels_stage0", 9), ("1 VERT_4", "no labels for")),
        (without("samples"), ("lacks samples",)),
        (without("labels_stage3_AB"), ("lacks labels_stage3_AB",)),
        (lambda t: [t], ("holds a list",)),
        (lambda t: t["samples"], ("holds a Tensor",)),
        *(
            (with_entry(key, 7), (f"{key} contradicts labels_stage0 in 1 blocks: entry 5 is 7",))
            for key in STAGE_KEYS
        ),
    ],
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_what_is_not_the_layout_is_refused(
    tensors: Tensors,
    tmp_path: Path,
    split: str,
    change: Callable[[Tensors], Any],
    said: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"train": tensors, "val": tensors} | {split: change(dict(tensors))}
    folder = write(tmp_path / "pt", files["train"], files["val"])
    with pytest.raises(SourceError) as caught:
        import_dataset("v6-pt", folder, tmp_path / "out")
    for word in (f"{split}.pt", *said):
        assert word in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["pt"]


@pytest.mark.parametrize("key", STAGE_KEYS)
def test_a_contradiction_says_what_the_id_makes_of_it(
    tensors: Tensors, tmp_path: Path, key: str
) -> None:
    """Entry 1 is of type 0 here: NONE, which reaches no stage but the first."""
    assert int(tensors["labels_stage0"][0]) == 0
    folder = write(tmp_path / "pt", tensors, with_entry(key, 1, at=0)(tensors))
    makes = 0 if key == "labels_stage1" else -1
    with pytest.raises(SourceError, match=f"entry 1 is 1, but NONE makes it {makes}"):
        import_dataset("v6-pt", folder, tmp_path / "out")


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_old_and_new_torch_whole_and_cut(
    tensors: Tensors, tmp_path: Path, zipped: bool
) -> None:
    folder = write(tmp_path / "pt", tensors, tensors)
    file = folder / "train.pt"
    torch.save(tensors, file, _use_new_zipfile_serialization=zipped)
    store = import_dataset("v6-pt", folder, tmp_path / "out")
    assert store.nodes.height == 2 * len(tensors["qps"])
    whole = file.read_bytes()
    for kept in (0, 10, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:kept])
        with pytest.raises(SourceError, match="is truncated or no file"):
            import_dataset("v6-pt", folder, tmp_path / "again")


def test_a_flipped_byte_is_found_by_the_archive_s_checksum(
    tensors: Tensors, tmp_path: Path
) -> None:
    folder = write(tmp_path / "pt", tensors, tensors)
    file = folder / "val.pt"
    with zipfile.ZipFile(file) as archive:
        stored = max(archive.infolist(), key=lambda info: info.file_size)
    data = bytearray(file.read_bytes())
    data[stored.header_offset + 5000] ^= 1
    file.write_bytes(data)
    with pytest.raises(SourceError, match=r"val\.pt is refused: it is damaged in .*/data/"):
        import_dataset("v6-pt", folder, tmp_path / "out")


def test_missing_files_and_other_sizes(tensors: Tensors, tmp_path: Path) -> None:
    folder = write(tmp_path / "pt", tensors | {"extra": torch.zeros(1)}, tensors)
    with pytest.raises(SourceError, match=r"holds 16x16 blocks, none of sizes=\[8, 32\]"):
        import_dataset("v6-pt", folder, tmp_path / "out", sizes=[8, 32])
    assert import_dataset("v6-pt", folder, tmp_path / "o").manifest["left_out"] == {"other_keys": 1}
    (folder / "val.pt").unlink()
    with pytest.raises(SourceError, match=r"val\.pt is missing"):
        import_dataset("v6-pt", folder, tmp_path / "out")
