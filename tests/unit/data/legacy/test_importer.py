"""What all imports share: options that apply, resuming, and leaving nothing after a refusal."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from av1part.data.legacy.importer import LAYOUTS, import_dataset
from av1part.data.serve.datamodule import BlockDataModule
from av1part.data.store.writer import StoreWriter
from av1part.system.errors import ConfigError, SourceError, StoreError
from av1part.system.files import sha256_file

from .writers import write_raw_blocks


def test_unknown_layouts_and_options_that_do_not_apply(raw_folder: Path, tmp_path: Path) -> None:
    assert list(LAYOUTS) == ["raw-blocks", "v6-pt", "partition-frames"]
    with pytest.raises(ConfigError, match="no layout 'raw_blocks': LAYOUT is one of raw-blocks, "):
        import_dataset("raw_blocks", raw_folder, tmp_path / "out")
    for layout in ("raw-blocks", "v6-pt"):
        for option in ({"yuv": "x.yuv"}, {"width": 64}, {"height": 64}, {"bit_depth": 10}):
            with pytest.raises(ConfigError, match="describe the clip of partition-frames"):
                import_dataset(layout, raw_folder, tmp_path / "out", **option)
    for sizes in ([], [16, 16], [12], 16, [True]):
        with pytest.raises(ConfigError, match="give a list of 8, 16, 32 and 64"):
            import_dataset("raw-blocks", raw_folder, tmp_path / "out", sizes=sizes)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="width=0: give a whole number"):
        import_dataset("partition-frames", raw_folder, tmp_path / "out", width=0)


def test_a_refusal_takes_the_folders_with_it_that_it_made(tmp_path: Path) -> None:
    """Refused late, by the samples, when `<out>.partial` is there."""
    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / "clip_8x8.yuv").write_bytes(b"\xff" * 192)
    (folder / "partition_frame_0.txt").write_text("0 0 3 0 0 0 80")
    (tmp_path / "a").mkdir()
    with pytest.raises(SourceError, match="more than 10 bits"):
        import_dataset("partition-frames", folder, tmp_path / "a" / "b" / "c" / "out")
    assert (tmp_path / "a").is_dir()
    assert not list((tmp_path / "a").iterdir())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folders_that_are_none(layout: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    for name in ("none", "file", "empty"):
        with pytest.raises(SourceError, match=name):
            import_dataset(layout, tmp_path / name, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "file"]


def test_the_same_folder_gives_the_same_bits_anywhere(raw_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(raw_folder, tmp_path / "copy")
    one = import_dataset("raw-blocks", raw_folder, tmp_path / "one")
    two = import_dataset("raw-blocks", tmp_path / "copy", tmp_path / "two")
    for name in ("manifest.json", "nodes.parquet"):
        assert sha256_file(one.path / name) == sha256_file(two.path / name)
    assert str(tmp_path) not in (one.path / "manifest.json").read_text()


def test_a_killed_import_resumes_and_another_is_refused(
    raw_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_raw_blocks(raw_folder, "b", np.full((2, 8, 8), 7), [0, 3], [7, 255])
    add = StoreWriter.add_plane

    def killed_at_the_second(self: StoreWriter, sequence: str, *rest: Any) -> None:
        if sequence.startswith("b"):
            raise KeyboardInterrupt
        add(self, sequence, *rest)

    monkeypatch.setattr(StoreWriter, "add_plane", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        import_dataset("raw-blocks", raw_folder, tmp_path / "out")
    monkeypatch.setattr(StoreWriter, "add_plane", add)
    assert (tmp_path / "out.partial" / "planes" / "a_clip_2x_sample_16.npy").is_file()
    with pytest.raises(StoreError, match="left from another build"):
        import_dataset("raw-blocks", raw_folder, tmp_path / "out", sizes=[16, 8])
    resumed = import_dataset("raw-blocks", raw_folder, tmp_path / "out")
    whole = import_dataset("raw-blocks", raw_folder, tmp_path / "whole")
    assert resumed.manifest_sha256 == whole.manifest_sha256
    with pytest.raises(StoreError, match="exists: choose another out=DIR"):
        import_dataset("raw-blocks", raw_folder, tmp_path / "out")


def test_a_clip_is_in_one_split_at_every_block_size(tmp_path: Path) -> None:
    for clip in range(6):
        for size in (8, 16):
            write_raw_blocks(
                tmp_path / "raw", f"clip{clip}", np.zeros((2, size, size)), [0, 3], [80] * 2
            )
    store = import_dataset("raw-blocks", tmp_path / "raw", tmp_path / "out")
    where: dict[str, set[str]] = {}
    for size in (8, 16):
        data = BlockDataModule(store.path, size=size)
        data.setup()
        for split, reader in data.readers.items():
            for sequence in store.nodes[reader.nodes]["sequence"].unique():
                where.setdefault(store.groups[sequence], set()).add(split)
    assert len(where) == 6
    assert all(len(splits) == 1 for splits in where.values())
    assert set.union(*where.values()) == {"train", "val", "test"}
