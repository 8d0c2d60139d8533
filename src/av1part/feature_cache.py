"""Features of the frozen trunk, computed once and kept on disk for every epoch and every run.

    store + frozen trunk -> <folder>/<key>.npy, float32 [blocks, ...], memory-mapped

What lies below the first trained part of a stage computes the same in every epoch of every run
that starts from the same backbone. The key is a hash of all it depends on: the trunk's tensors and
shape, the dataset's manifest, the nodes, the cut. Nothing has to be invalidated by hand; the
oldest files go when the folder outgrows its limit.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import nn

from av1part.data.blocks import BlockReader
from av1part.data.store import Store
from av1part.files import atomic_path, cache_folder
from av1part.models.backbone import LEVELS, layer_of
from av1part.models.classifier import Classifier
from av1part.models.freeze import state_sha256

log = logging.getLogger(__name__)

FORMAT = 1
"""Version of the key and of the files."""

_BATCH = 1024
_HEADER = 128
"""Bytes before the data of a .npy file of few dimensions."""
_CHECKED = 64
"""Blocks whose features are computed anew when a file is used again."""
_TOLERANCE = 1e-3
"""Largest difference of those, by the size of the features: other machines round otherwise."""


def default_folder() -> Path:
    """Return where features are kept unless told otherwise."""
    return cache_folder() / "features"


class FeatureCache:
    """A folder of features, shared by the runs of one machine."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        """Use a folder; it is made with its first file.

        Args:
            folder: Where the files are.
            limit_bytes: Of all files together; those not used for longest are removed.
        """
        self.folder = folder
        self.limit_bytes = limit_bytes

    def features(
        self, classifier: Classifier, reader: BlockReader, store: Store
    ) -> NDArray[np.float32] | None:
        """Return the features of a reader's blocks, computing them if no run has before.

        Args:
            classifier: Whose trunk, up to its `cut`.
            reader: The blocks.
            store: What they are of.

        Returns:
            float32 `[blocks, ...]`, mapped read-only; None if they would not fit the limit.

        Raises:
            OSError: if the folder cannot be written, or the disk is full.
        """
        shape = (len(reader), *_shape(classifier, reader))
        size = _HEADER + int(np.prod(shape, dtype=np.int64)) * np.dtype(np.float32).itemsize
        if size > self.limit_bytes:
            log.warning(
                "features of %s blocks take %.1f GiB, more than cache.limit_gb: not cached",
                f"{len(reader):,}",
                size / 2**30,
            )
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{_key(classifier, reader, store)}.npy"
        # A second run that wants the same waits here, and finds it made.
        with FileLock(f"{file}.lock"):
            found = _open(file, shape)
            if found is None or not _agrees(classifier, reader, found):
                self._make_room(size)
                _compute(classifier, reader, file, shape)
                found = _open(file, shape)
            file.touch()
        assert found is not None
        return found

    def _make_room(self, size: int) -> None:
        files = sorted(self.folder.glob("*.npy"), key=lambda file: file.stat().st_mtime)
        held = sum(file.stat().st_size for file in files)
        for file in files:
            if held + size <= self.limit_bytes:
                return
            held -= file.stat().st_size
            file.unlink()  # a run that has it mapped keeps it until it ends


def _key(classifier: Classifier, reader: BlockReader, store: Store) -> str:
    """Hash everything that the features depend on."""
    cut = classifier.cut
    assert cut is not None
    kept = {"stem", *(f"layer{level}" for level in LEVELS if level <= cut)}
    state = classifier.backbone.state_dict()
    facts = {
        "format": FORMAT,
        "trunk": state_sha256({n: t for n, t in state.items() if layer_of(n) in kept}),
        "bit_depth_peak": float(classifier.normalise.peak),
        "pooled_stem": not isinstance(classifier.backbone.maxpool, nn.Identity),
        "cut": cut,
        "manifest": store.manifest_sha256,
        "nodes": hashlib.sha256(reader.nodes.tobytes()).hexdigest(),
        "size": reader.size,
        "context": reader.context,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _shape(classifier: Classifier, reader: BlockReader) -> tuple[int, ...]:
    """Return the shape of one block's features."""
    return tuple(_trunk(classifier, reader, np.arange(1)).shape[1:])


def _trunk(classifier: Classifier, reader: BlockReader, index: NDArray[Any]) -> torch.Tensor:
    assert classifier.cut is not None
    device = next(classifier.parameters()).device
    with torch.inference_mode():
        features: torch.Tensor = classifier.trunk(reader[index]["block"].to(device), classifier.cut)
    return features.float().cpu()


def _open(file: Path, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """Map a file of features; None if it is not there, or not one of these."""
    try:
        found = np.lib.format.open_memmap(file, mode="r")
    except (OSError, ValueError):
        return None
    good = found.dtype == np.float32 and found.shape == shape
    return found if good else None


def _agrees(classifier: Classifier, reader: BlockReader, found: NDArray[np.float32]) -> bool:
    """Compute some features anew: a damaged file must not be trained on."""
    index = np.unique(np.linspace(0, len(reader) - 1, _CHECKED).astype(np.int64))
    fresh = _trunk(classifier, reader, index).numpy()
    limit = _TOLERANCE * max(1e-6, float(np.abs(fresh).max()))
    return bool(np.abs(fresh - found[index]).max() <= limit)


def _compute(
    classifier: Classifier, reader: BlockReader, file: Path, shape: tuple[int, ...]
) -> None:
    with atomic_path(file) as part:
        out = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=shape)
        for start in range(0, len(reader), _BATCH):
            index = np.arange(start, min(start + _BATCH, len(reader)))
            out[index] = _trunk(classifier, reader, index).numpy()
        out.flush()
