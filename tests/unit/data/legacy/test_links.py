"""Files that are only linked into a folder to import: nothing outside of it is taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from av1part.data.legacy.importer import import_dataset
from av1part.system.errors import SourceError

from .writers import v6_tensors, write_raw_blocks, write_yuv


def make(layout: str, folder: Path) -> list[Path]:
    """Write a good folder of a layout; return what may be a link in it."""
    if layout == "raw-blocks":
        write_raw_blocks(folder, "a", np.zeros((1, 16, 16), np.uint16), [0], [80])
        return [*sorted(folder.rglob("*.txt")), folder / "qps"]
    folder.mkdir()
    if layout == "v6-pt":
        for name in ("train", "val"):
            torch.save(v6_tensors(np.zeros((1, 16, 16)), [0], [80]), folder / f"{name}.pt")
        return sorted(folder.iterdir())
    clip = folder / "clip"
    clip.mkdir()
    write_yuv(clip / "c_24x16.yuv", np.zeros((1, 16, 24), np.uint16))
    (clip / "partition_frame_0.txt").write_text("0 0 6 0 0 0 200\n")
    return [clip, *sorted(clip.iterdir())]


@pytest.mark.parametrize("layout", ["raw-blocks", "v6-pt", "partition-frames"])
def test_what_is_linked_in_from_elsewhere_is_refused(layout: str, tmp_path: Path) -> None:
    folder, away = tmp_path / "in", tmp_path / "away"
    for place in make(layout, folder):
        place.rename(away)
        place.symlink_to(away)
        with pytest.raises(SourceError, match="is a link that leads out of its folder") as caught:
            import_dataset(layout, folder, tmp_path / "out")
        assert str(place) in str(caught.value)
        assert not list(tmp_path.glob("out*"))
        place.unlink()
        away.rename(place)
    (tmp_path / "link").symlink_to(folder)
    assert import_dataset(layout, tmp_path / "link", tmp_path / "out").nodes.height


def test_a_clip_elsewhere_can_be_named(tmp_path: Path) -> None:
    make("partition-frames", tmp_path / "in")
    clip = (tmp_path / "in" / "clip" / "c_24x16.yuv").rename(tmp_path / "c_24x16.yuv")
    (tmp_path / "link_24x16.yuv").symlink_to(clip)
    import_dataset(
        "partition-frames", tmp_path / "in", tmp_path / "out", yuv=tmp_path / "link_24x16.yuv"
    )
