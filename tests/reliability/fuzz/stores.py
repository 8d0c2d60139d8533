"""Dataset folders: a small real one with its manifest, table or planes made hostile."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from hypothesis import strategies as st

from av1part.data.store.schema import NODE_SCHEMA
from av1part.data.store.store import Store
from av1part.system.files import sha256_file

from ...conftest import corners
from .case import Case, Draw
from .hostile import TEXTS, changes, tree_changes

_INTEGERS = (-(2**63), -(2**31), -1, 0, 8, 16, 64, 100, 255, 256, 2**31 - 1, 2**31, 2**63 - 1)
_DTYPES = ("|u1", "<u2", ">u2", "<f4", "|O", "<U9", "|S3", "<M8[ns]", "[('a','<u2')]", "()")


class Stores:
    """A dataset whose files, names and claims are changed; its hashes fit again or do not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._good = corners(folder / "good", 32, [16])
        self._manifest = json.loads((self._good / "manifest.json").read_text())
        self._nodes = pl.read_parquet((self._good / "nodes.parquet").read_bytes())

    def case(self, draw: Draw) -> Case:
        bad = self.folder / "bad"
        shutil.rmtree(bad, ignore_errors=True)
        shutil.copytree(self._good, bad)
        sequence = draw(st.sampled_from(sorted(self._manifest["sequences"])))
        names = ["manifest.json", "nodes.parquet", f"planes/{sequence}.npy"]
        kind = draw(st.sampled_from(["bytes", "manifest", "nodes", "header", "link"]))
        if kind == "bytes":
            file = bad / draw(st.sampled_from(names))
            file.write_bytes(draw(changes())(file.read_bytes()))
        elif kind == "manifest":
            changed = draw(tree_changes())(self._manifest)
            (bad / "manifest.json").write_text(json.dumps(changed))
        elif kind == "nodes":
            self._write_nodes(draw, bad / "nodes.parquet")
        elif kind == "header":
            self._write_header(draw, bad / names[2])
        else:
            file = bad / draw(st.sampled_from(names))
            file.unlink()
            ends = [self._good / names[2], "/etc/passwd", "/dev/zero", file, "..", "nowhere"]
            file.symlink_to(draw(st.sampled_from(ends)))
        if draw(st.integers(0, 3)) and kind != "manifest":
            _rehash(bad, names)
        verify = draw(st.sampled_from(["quick", "full"]))
        return Case(lambda: _use(Store.open(bad, verify)), str(bad))

    def _write_nodes(self, draw: Draw, file: Path) -> None:
        table = self._nodes
        column = draw(st.sampled_from(list(NODE_SCHEMA)))
        texts = [t for t in TEXTS if t != "\ud800"]
        values: Any = texts if column == "sequence" else _INTEGERS
        new = pl.Series(column, [draw(st.sampled_from(values))], strict=False)
        kind = draw(st.sampled_from(["value", "value", "type", "drop", "nest", "twice", "none"]))
        if kind == "value" and column == "sequence":
            table = table.with_columns(pl.lit(new[0]).alias(column))
        elif kind == "value":
            table = table.with_columns(new.cast(NODE_SCHEMA[column], strict=False).first())
        elif kind == "type":
            types = [pl.Int64, pl.Float32, pl.String, pl.UInt8]
            table = table.with_columns(
                pl.col(column).cast(draw(st.sampled_from(types)), strict=False)
            )
        elif kind == "drop":
            table = table.drop(column)
        elif kind == "nest":
            table = table.with_columns(pl.struct(pl.all()).alias(column))
        else:
            table = pl.concat([table] * (2 if kind == "twice" else 0) or [table.clear()])
        table.write_parquet(file, compression=draw(st.sampled_from(["zstd", "uncompressed"])))

    def _write_header(self, draw: Draw, file: Path) -> None:
        """Write a plane whose header claims anything."""
        side = st.sampled_from([1, 8, 32, 0, -1, 10**9, 2**31, 2**63, 10**30])
        shape = tuple(draw(st.lists(side, max_size=4)))
        text = f"{{'descr': '{draw(st.sampled_from(_DTYPES))}', 'fortran_order': False, "
        text += f"'shape': {shape}, }}"
        text = draw(st.sampled_from([text, text, "(" * 5000, "__import__('os')", "1" * 9000]))
        head = text.encode() + b" " * (-(len(text) + 11) % 64) + b"\n"
        body = np.zeros(draw(st.sampled_from([0, 1024, 5000])), np.uint8).tobytes()
        file.write_bytes(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + body)


def _rehash(folder: Path, names: list[str]) -> None:
    """Have the manifest vouch for what is there, as whoever made it would."""
    file = folder / "manifest.json"
    if file.is_symlink():
        return
    try:
        manifest = json.loads(file.read_text())
        for name in names[1:]:
            if (folder / name).is_file():
                manifest["files"][name] = sha256_file(folder / name)
        file.write_text(json.dumps(manifest))
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
        pass  # the manifest itself was changed


def _use(store: Store) -> None:
    """Look at all that an opened dataset says, as `data info` and training do."""
    assert store.groups.keys() == set(store.sequences)
    assert len(store.sequence_codes) == store.nodes.height
    assert len(store.manifest_sha256) == 64
    for sequence in store.sequences:
        assert int(store.plane(sequence).max(initial=0)) < 1 << 16
