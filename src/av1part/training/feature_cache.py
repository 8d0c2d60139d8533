"""Features of the frozen trunk, computed once and kept on disk for every epoch and every run.

    store + frozen trunk -> <folder>/<key>.npy, [turns, blocks, h, w, c], memory-mapped

The frozen layers below the first trained part of a stage compute the same features in every epoch
of every run that starts from the same backbone. Where training turns blocks by the eight symmetries
there are eight of each. The key is a hash of everything they depend on: the trunk's tensors and
shape, the input planes, the dataset's manifest, the nodes, the cut, the precision. No file is ever
out of date; the least recently used ones are removed when the folder exceeds its limit.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import math
import os
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from av1part.data.serve.augment import apply_symmetries
from av1part.data.serve.blocks import BlockReader
from av1part.data.serve.datamodule import BlockDataModule
from av1part.data.store.store import Store
from av1part.models.classifier import Classifier
from av1part.models.freeze import state_sha256
from av1part.models.layers import LEVELS
from av1part.models.precision import computing_in
from av1part.partition import SYMMETRIES
from av1part.stages.base import StageModule
from av1part.system.files import PART_SUFFIX, atomic_path, cache_folder, expanded, reserve
from av1part.system.locks import NO_LOCKS, file_lock

log = logging.getLogger(__name__)

FEATURES_FORMAT = 2
"""Version of the key and of the files."""

_BATCH = 1024
_HEADER = 128
"""Bytes before the data of a .npy file of few dimensions."""
_BITS = {torch.bfloat16: torch.int16}
_CHECKED = 64
"""Blocks whose features are computed again to check a file."""
_TOLERANCE = 1e-3
"""Largest relative difference of those: rounding differs between machines."""


def default_folder() -> Path:
    """Return the default folder of the cache."""
    return cache_folder() / "features"


class FeatureCache:
    """A folder of features, shared by the runs of one machine."""

    def __init__(self, folder: Path, limit_bytes: float) -> None:
        """Use a folder, which is created with its first file.

        Args:
            folder: Folder of the files.
            limit_bytes: Of all files together, or inf; the least recently used are removed.
        """
        self.folder = folder
        self.limit_bytes = limit_bytes

    def features(
        self,
        classifier: Classifier,
        reader: BlockReader,
        store: Store,
        *,
        turned: bool = False,
        precision: str = "32-true",
    ) -> Tensor | None:
        """Return the features of a reader's blocks, computing them if no run has before.

        Args:
            classifier: With the trunk, up to its `cut`, on the device that computes it.
            reader: The blocks.
            store: Their dataset.
            turned: Whether to return each block under all of `SYMMETRIES`, or only as it is.
            precision: Precision of the training, a key of `AUTOCASTS`.

        Returns:
            The features in the trunk's output dtype, shape (t, n, c) or (t, n, h, w, c), with t = 8
            if turned, else 1; backed by the file, not to be written to. None if they would exceed
            the limit, together with the files that other runs use.

        Raises:
            OSError: if the folder cannot be written, or the disk is full.
        """
        job = _Job(classifier, reader, len(SYMMETRIES) if turned else 1, precision)
        if job.file_bytes > self.limit_bytes:
            log.warning(
                "features of %s blocks take %.1f GiB, more than cache.limit_gb: not cached",
                f"{job.turns * len(reader):,}",
                job.file_bytes / 2**30,
            )
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{job.key(store)}.npy"
        # A second run that needs the same file waits here for the first one to write it.
        with file_lock(self.folder / f"{file.name}.lock"):
            features = job.open(file)
            if features is None or not job.agrees(features):
                for part in self.folder.glob(f"{file.name}.*{PART_SUFFIX}"):
                    part.unlink()  # of a run that was killed
                if not self._make_room(job.file_bytes):
                    log.warning("%s is full of features that runs use: not cached", self.folder)
                    return None
                job.compute(file)
                features = job.open(file)
            if features is not None:
                file.touch()
        return features

    def _make_room(self, size: int) -> bool:
        """Remove the least recently used files; return whether there is enough room."""
        files = sorted(self.folder.glob("*.npy"), key=lambda file: file.stat().st_mtime)
        held = sum(file.stat().st_size for file in files)
        for file in files:
            if held + size <= self.limit_bytes:
                break
            bytes_ = file.stat().st_size
            if _remove_unused(file):
                held -= bytes_
        return held + size <= self.limit_bytes


class _Job:
    """The features of one file: their blocks, trunk, number of symmetries and precision."""

    def __init__(
        self,
        classifier: Classifier,
        reader: BlockReader,
        turns: int,
        precision: str,
    ) -> None:
        assert classifier.cut is not None
        self.classifier, self.cut = classifier, classifier.cut
        self.reader, self.turns, self.precision = reader, turns, precision
        one = self._trunk(np.arange(1), 0)
        self.dtype = one.dtype
        self.shape = (turns, len(reader), *one.shape[1:])
        self.file_bytes = _HEADER + math.prod(self.shape) * one.element_size()

    def key(self, store: Store) -> str:
        """Hash everything that the features depend on; the manifest has each node's qindex."""
        kept = {"stem", *(f"layer{level}" for level in LEVELS if level <= self.cut)}
        backbone = self.classifier.backbone
        state = {n: t for n, t in backbone.state_dict().items() if backbone.layer_of(n) in kept}
        facts = {
            "format": FEATURES_FORMAT,
            "trunk": state_sha256(state),
            **self.classifier.input_facts,
            "cut": self.cut,
            "precision": self.precision,
            "turns": self.turns,
            "manifest": store.manifest_sha256,
            "nodes": hashlib.sha256(self.reader.nodes.astype(np.int64).tobytes()).hexdigest(),
            "size": self.reader.size,
            "context": self.reader.context,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    def open(self, file: Path) -> Tensor | None:
        """Map a file of features; None if it is missing or holds others."""
        try:
            # Copy on write: a tensor cannot be read-only, and the file must not change.
            stored = np.lib.format.open_memmap(file, mode="c")
            if stored.dtype != self._stored_dtype or stored.shape != self.shape:
                return None
            _hold(file, stored)
        except (OSError, ValueError):
            return None
        return torch.from_numpy(stored).view(self.dtype)

    def agrees(self, features: Tensor) -> bool:
        """Compare some features with new ones: a damaged file must not be trained on."""
        index = np.unique(np.linspace(0, len(self.reader) - 1, _CHECKED).astype(np.int64))
        turn = len(self.reader) % self.turns
        fresh, kept = self._trunk(index, turn).float(), features[turn, index].float()
        limit = _TOLERANCE * max(1e-6, float(fresh.abs().max()))
        return bool((fresh - kept).abs().max() <= limit)

    def compute(self, file: Path) -> None:
        """Write the file."""
        with atomic_path(file) as part:
            out = np.lib.format.open_memmap(
                part, mode="w+", dtype=self._stored_dtype, shape=self.shape
            )
            reserve(part)
            for start in range(0, len(self.reader), _BATCH):
                index = np.arange(start, min(start + _BATCH, len(self.reader)))
                for turn in range(self.turns):
                    features = self._trunk(index, turn)
                    out[turn, index] = features.view(_BITS.get(self.dtype, self.dtype)).numpy()
            out.flush()

    @property
    def _stored_dtype(self) -> np.dtype[Any]:
        """The dtype of the file: numpy has no bfloat16, whose bits are stored instead."""
        kept: np.dtype[Any] = torch.empty(0, dtype=_BITS.get(self.dtype, self.dtype)).numpy().dtype
        return kept

    def _trunk(self, index: NDArray[np.int64], turn: int) -> Tensor:
        """Compute features, (b, c) or (b, h, w, c), on the CPU."""
        batch = self.reader[index]
        if turn:
            batch = apply_symmetries(batch, torch.full((len(index),), turn))
        device = next(self.classifier.parameters()).device
        with torch.inference_mode(), computing_in(self.precision, device):
            block, qindex = (batch[key].to(device) for key in ("block", "qindex"))
            features = self.classifier.trunk(block, qindex, self.cut).cpu()
        return (features.permute(0, 2, 3, 1) if features.dim() == 4 else features).contiguous()


def serve_features(
    options: Mapping[str, Any], module: StageModule, data: BlockDataModule, trainer: pl.Trainer
) -> None:
    """Give the data module the features of the frozen trunk, if they can be cached.

    Args:
        options: `mode`, `folder` and `limit_gb`, the config group `cache`.
        module: The stage, which is moved to the Trainer's device.
        data: Gets the features of train and val; none if they cannot be stored, which is logged.
        trainer: The Trainer of the run.
    """
    if options["mode"] == "off" or module.classifier.cut is None or data.changes_pixels:
        return
    folder = expanded(options["folder"] or default_folder())
    cache = FeatureCache(folder, options["limit_gb"] * 2**30)
    classifier = module.to(trainer.strategy.root_device).classifier.eval()
    assert isinstance(classifier, Classifier)  # no other network has a cut
    wanted = {
        "train": (data.training_reader(), data.augment == "symmetries"),
        "val": (data.reader("val"), False),
    }
    try:
        for split, (reader, turned) in wanted.items():
            features = cache.features(
                classifier, reader, data.store, turned=turned, precision=str(trainer.precision)
            )
            if features is None:
                data.features.clear()
                return
            data.features[split] = features
    except OSError as error:
        log.warning("features are not cached: %s (%s)", folder, error.strerror or error)
        data.features.clear()
        return
    finally:
        module.train()
    log.info("features of the frozen trunk: cached in %s", folder)


def _hold(file: Path, features: NDArray[Any]) -> None:
    """Lock a file while its features are in memory, so that no run removes it.

    If another machine removes a mapped file through NFS, its pages are lost and the run ends by
    SIGBUS; on one machine the map stays valid.

    Raises:
        FileNotFoundError: if the file has just been removed.
    """
    descriptor = os.open(file, os.O_RDONLY)
    weakref.finalize(features, os.close, descriptor)
    with suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    if not os.fstat(descriptor).st_nlink:
        raise FileNotFoundError(file)


def _remove_unused(file: Path) -> bool:
    """Remove a file that no run has in use; return whether it is gone."""
    try:
        with file.open("r+b") as opened:  # NFS needs a file open for writing for an exclusive lock
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    return False
            file.unlink()
    except FileNotFoundError:
        pass
    except PermissionError:  # another user's
        return False
    return True
