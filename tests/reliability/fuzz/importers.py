"""Folders of the study's three layouts: the unit tests' own fuzzing, and more hostile files."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from av1part.data.legacy.importer import LAYOUTS, import_dataset
from av1part.data.store.store import Store

from ...unit.data.legacy.test_fuzz import pt_bytes
from ...unit.data.legacy.writers import write_raw_blocks, write_yuv
from .case import Case, Draw
from .hostile import TEXTS, changes
from .pickles import pickles, zipped


class Importers:
    """A good folder of each layout with one file changed, renamed, linked or put in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._good = folder / "good"
        self._number = itertools.count()
        rng = np.random.default_rng(0)
        for seq, size in (("a", 16), ("b", 8)):
            blocks = rng.integers(0, 1024, (4, size, size))
            write_raw_blocks(self._good / "raw-blocks", seq, blocks, [0, 1, 2, 3], [80] * 4)
        pt, frames = self._good / "v6-pt", self._good / "partition-frames"
        pt.mkdir()
        (pt / "train.pt").write_bytes(pt_bytes(True))
        (pt / "val.pt").write_bytes(pt_bytes(False))
        frames.mkdir()
        write_yuv(frames / "c_24x16.yuv", np.arange(2 * 16 * 24).reshape(2, 16, 24))
        (frames / "partition_frame_1.txt").write_text("0 0 6 0 0 3 200\n0 0 3 0 0 1 200\n")

    def case(self, draw: Draw) -> Case:
        for old in self.folder.iterdir():
            if old != self._good:
                shutil.rmtree(old)
        layout = draw(st.sampled_from(sorted(LAYOUTS)))
        # A new place each time, so that nothing is left from the one before.
        place = self.folder / str(next(self._number))
        folder = place / "in"
        shutil.copytree(self._good / layout, folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        self._change(draw, draw(st.sampled_from(files)))

        def run() -> None:
            store = import_dataset(layout, folder, place / "out")
            assert Store.open(store.path, verify="full").nodes.height

        return Case(run, str(place))

    def _change(self, draw: Draw, file: Path) -> None:
        kinds = ["bytes", "bytes", "pickle", "rename", "link", "folder", "beside"]
        kind = draw(st.sampled_from(kinds))
        if kind == "pickle" and file.suffix == ".pt":
            file.write_bytes(draw(st.sampled_from([zipped, bytes]))(draw(pickles())))
        elif kind in ("rename", "beside"):
            names = (t for t in TEXTS if t not in ("", ".", "..") and not set(t) & set("/\0"))
            name = draw(st.sampled_from([n for n in names if len(n) < 200 and n != "\ud800"]))
            other = file.with_name(f"{name}{file.name}")
            shutil.copy(file, other)
            if kind == "rename":
                file.unlink()
        elif kind == "link":
            file.unlink()
            outside = self.folder / "good" / "raw-blocks"
            ends = ["/etc/passwd", "/dev/zero", file, "nowhere", str(outside)]
            file.symlink_to(draw(st.sampled_from(ends)))
        elif kind == "folder":
            file.unlink()
            file.mkdir()
        else:
            file.write_bytes(draw(changes())(file.read_bytes()))
