"""Checkpoints and files of weights: small real ones, their bytes, zip, pickle or values changed."""

from __future__ import annotations

import io
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

from av1part import embedded
from av1part.checkpoints.contents import contents
from av1part.checkpoints.load import load_backbone, load_stage
from av1part.data.serve.datamodule import BlockDataModule
from av1part.models.backbone import ResNet18
from av1part.models.freeze import state_sha256
from av1part.models.weights import load_pretrained
from av1part.stages.blocks import Stage1

from ...conftest import corners
from .case import MARK, Case, Draw
from .hostile import TEXTS, changes, tree_changes, values
from .pickles import pickles, touching, zipped


def small_checkpoint(store: Path) -> dict[str, Any]:
    """Return a checkpoint of Stage 1 at width 8, as training writes it."""
    data = BlockDataModule(store, split_list=embedded.SPLIT_LIST)
    module = Stage1(
        taxonomy="v6",
        method="scratch",
        backbone={"width": 8},
        head={"kind": "linear"},
        loss={"kind": "cross_entropy"},
        optimizer={"kind": "adamw", "lr": {"backbone": 1e-3, "head": 1e-3}},
        scheduler={"kind": "constant"},
        data=data.facts(),
    )
    checkpoint = {
        "epoch": 0,
        "global_step": 1,
        "pytorch-lightning_version": "2.6.4",
        "state_dict": module.state_dict(),
        "hyper_parameters": dict(module.hparams),
    }
    module.on_save_checkpoint(checkpoint)
    return checkpoint


def saved(value: Any, *, zip_: bool = True) -> bytes:
    """Return what torch.save writes of a value."""
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=zip_)
    return file.getvalue()


class Checkpoints:
    """Everything that reads a checkpoint, and `backbone.weights`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._store = corners(folder / "store", 64, [16])
        self._good = small_checkpoint(self._store)
        self._bytes = saved(self._good)
        self._weights = saved(ResNet18(width=8, se=False, attention=False).state_dict())
        self._module = load_stage(self._file(self._bytes))

    def _file(self, data: bytes) -> Path:
        file = self.folder / "mine.ckpt"
        file.write_bytes(data)
        return file

    def case(self, draw: Draw) -> Case:
        if draw(st.integers(0, 4)) == 0:
            file = self._file(self._broken(draw, self._weights))
            return Case(lambda: load_pretrained(ResNet18(width=8), file), str(file))
        kind = draw(st.sampled_from(["file", "values", "values", "state", "code"]))
        if kind == "file":
            data = self._broken(draw, self._bytes)
        elif kind == "code":
            bad = draw(tree_changes())({**self._good, "state_dict": {}})
            data = saved({**self._good, **bad, "more": touching(MARK)})
        else:
            data = saved(self._changed(draw, kind))
        file = self._file(data)
        read = draw(st.sampled_from([load_stage, contents, self._backbone]))
        return Case(lambda: read(file), str(file))

    def _backbone(self, file: Path) -> object:
        return load_backbone(self._module, file)

    def _changed(self, draw: Draw, kind: str) -> dict[str, Any]:
        """Return the checkpoint with other values, its hash made to fit again."""
        tensors = self._good["state_dict"]
        bad = dict(self._good)
        if kind == "values":
            rest = {key: value for key, value in bad.items() if key != "state_dict"}
            bad = {"state_dict": tensors, **draw(tree_changes())(rest)}
        else:
            name = draw(st.sampled_from([*tensors, *TEXTS]))
            new = draw(st.one_of(values(), st.sampled_from(_TENSORS).map(lambda make: make())))
            bad["state_dict"] = {**tensors, name: new}
        with suppress(Exception):  # no longer a state, or nothing to write its hash into
            bad["av1part"]["state_sha256"] = state_sha256(bad["state_dict"])
        return bad

    def _broken(self, draw: Draw, whole: bytes) -> bytes:
        kind = draw(st.sampled_from(["bytes", "member", "pickle", "bare", "packed", "more"]))
        if kind == "bytes":
            return bytes(draw(changes())(whole))
        if kind in ("pickle", "bare"):
            return bytes((zipped if kind == "pickle" else bytes)(draw(pickles())))
        change, name = draw(changes()), draw(st.sampled_from(TEXTS))
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(out, "w") as new:
            members = old.namelist()
            victim = draw(st.sampled_from([members[0], draw(st.sampled_from(members))]))
            for member in members:
                data = old.read(member)
                if member == victim and kind == "member":
                    data = change(data)
                packing = zipfile.ZIP_DEFLATED if kind == "packed" else zipfile.ZIP_STORED
                new.writestr(member, data, packing)
            if kind == "more":
                new.writestr("a" + name.encode("utf-8", "replace").decode(), change(b"more"))
        return out.getvalue()


_TENSORS = (
    lambda: torch.zeros(1).expand(10**12),
    lambda: torch.zeros(3).to_sparse(),
    lambda: torch.zeros(3, device="meta"),
    lambda: torch.zeros(2, dtype=torch.cfloat).conj(),
    lambda: torch.full((8, 1, 7, 7), float("nan")),
    lambda: torch.zeros(0, 10**9),
    lambda: torch.zeros(3, dtype=torch.bool),
    lambda: torch.nn.Parameter(torch.zeros(2)),
    lambda: torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
)
"""Tensors that a state cannot have."""
