"""Attaching data to a checkpoint: what it was trained on or another dataset, in the same units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from av1part import embedded
from av1part.data.serve.datamodule import BlockDataModule
from av1part.data.serve.episodes import EpisodeDataModule
from av1part.data.serve.superblocks import SuperblockDataModule
from av1part.data.store.store import Store
from av1part.partition import SUPERBLOCK_STAGE
from av1part.stages.base import StageModule
from av1part.stages.blocks import BlockStage
from av1part.system.errors import ConfigError, StoreError
from av1part.system.files import expanded, sha256_file

_SCALE_TOLERANCE = 3.0
"""Factor by which mean and deviation may both differ in the same direction.

Scaling twice, or by a wrong bit depth, multiplies both by the same factor (4 at least); a darker
or a flatter video changes one of them, or both by less.
"""


SHARED_FACTS = ("size", "context", "bit_depth", "taxonomy", "manifest_sha256", "split_sha256")
"""Facts of the data that must be the same for all stages of a cascade."""


@dataclass(frozen=True)
class DataSource:
    """The dataset to evaluate on; None stands for what the checkpoint recorded.

    Attributes:
        path: Dataset folder; the recorded one must not have changed.
        protocol: A split protocol, a key of `PROTOCOLS`.
        split_list: CSV `sequence,split`.
    """

    path: str | None = None
    protocol: str | None = None
    split_list: str | None = None


RECORDED = DataSource()
"""The data that a checkpoint was trained on."""


@dataclass(frozen=True)
class Compute:
    """Where and how precisely to compute.

    Attributes:
        device: Torch's name of a device, such as `cuda:0`.
        precision: A key of `AUTOCASTS`.
    """

    device: str = "cpu"
    precision: str = "32-true"


CPU = Compute()
"""The CPU, in float32."""


def attach_data(
    module: StageModule, source: DataSource = RECORDED, *, stage: str | None = None
) -> BlockDataModule:
    """Open the data a checkpoint was trained on, or another dataset, and check that it fits.

    Args:
        module: The stage, as loaded.
        source: The dataset.
        stage: Whose nodes to serve; None is the module's own stage, which of `method=meta` gets
            its tasks.

    Returns:
        The data, set up.

    Raises:
        StoreError: if the dataset or its split list is missing, or has changed.
    """
    facts = module.hparams["data"]
    protocol = facts["split"] if source.protocol is None else source.protocol
    data: BlockDataModule
    path = _dataset_path(facts) if source.path is None else source.path
    shared = {
        "taxonomy": module.taxonomy.name,
        "protocol": protocol,
        "split_seed": facts["split_seed"],
        "split_list": _split_list(facts, source, protocol),
        "seed": module.hparams["seed"],
    }
    if module.stage_name == SUPERBLOCK_STAGE:
        data = SuperblockDataModule(path, crop=facts["crop"], **shared)
    else:
        shared |= {key: facts[key] for key in ("size", "context", "eval_batch_size")}
        own = module.stage_name if stage is None else stage
        meta = module.meta if isinstance(module, BlockStage) and stage is None else None
        data = (
            BlockDataModule(path, stage=own, **shared)
            if meta is None
            else EpisodeDataModule(path, stage=own, episodes=meta.episodes, **shared)
        )
    data.setup()
    if isinstance(data, EpisodeDataModule):
        data.log_tasks()
    if source.path is None and data.store.manifest_sha256 != facts["manifest_sha256"]:
        raise StoreError(
            f"{data.path} has changed since this checkpoint was trained (its manifest has another "
            "SHA-256): give data.path=DIR to evaluate on other data"
        )
    same = data.store.manifest_sha256 == facts["manifest_sha256"]
    if same and data.split_sha256 != facts["split_sha256"]:
        raise StoreError(
            f"the split of {data.path} is not the one this checkpoint was trained with "
            f"({facts['split']}, {facts['split_list']}): its training nodes would be evaluated on"
        )
    return data


def check_pixels(module: StageModule, data: BlockDataModule, split: str) -> None:
    """Check that a split's pixels are on the scale the module was trained on.

    Args:
        module: The stage, as loaded.
        data: The dataset, set up.
        split: The split whose pixels are checked.

    Raises:
        StoreError: if bit depth or scale differ.
    """
    facts = module.hparams["data"]
    depth = data.store.bit_depth()
    if depth != facts["bit_depth"]:
        raise StoreError(
            f"{data.path} has {depth}-bit samples, the checkpoint was trained on "
            f"{facts['bit_depth']}-bit ones: use a checkpoint of that bit depth"
        )
    theirs, ours = facts["input_statistics"], data.input_statistics(split)
    if not ours["mean"] or not ours["std"] or not theirs["mean"] or not theirs["std"]:
        return
    ratios = [ours[k] / theirs[k] for k in ("mean", "std")]
    if min(ratios) > _SCALE_TOLERANCE or max(ratios) < 1 / _SCALE_TOLERANCE:
        raise StoreError(
            f"{data.path} has pixels of mean {ours['mean']:.1f} and deviation {ours['std']:.1f}, "
            f"the checkpoint was trained on {theirs['mean']:.1f} and {theirs['std']:.1f}: they "
            "look scaled; a store holds the source's own integers"
        )


def device_of(name: str) -> torch.device:
    """Return a device after allocating a tensor on it.

    Args:
        name: Torch's name of it, such as `cuda:0`.

    Returns:
        The device.

    Raises:
        ConfigError: if there is no such device here.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={name}: {str(error).splitlines()[0]}") from None
    return device


def _dataset_path(facts: Mapping[str, Any]) -> Path:
    """Return the folder of the recorded dataset; the embedded one moves with the installation.

    Raises:
        StoreError: if it is not there.
    """
    path = Path(facts["path"])
    if path.is_dir():
        return path
    if Store.open(embedded.STORE).manifest_sha256 == facts["manifest_sha256"]:
        return embedded.STORE
    raise StoreError(f"the dataset of this checkpoint, {path}, is not there: give data.path=DIR")


def _split_list(facts: Mapping[str, Any], source: DataSource, protocol: str) -> str | Path | None:
    if source.split_list is not None:
        return source.split_list
    recorded: str | None = facts["split_list"]
    if recorded is None or {facts["split"], protocol} != {"by_sequence"}:
        return None
    if source.path is not None:
        manifest = expanded(source.path) / "manifest.json"
        if not manifest.is_file() or sha256_file(manifest) != facts["manifest_sha256"]:
            return None
    if Path(recorded).is_file():
        return recorded
    own = 3  # av1part/embedded/split.csv, of another installation
    if Path(recorded).parts[-own:] == embedded.SPLIT_LIST.parts[-own:]:
        return embedded.SPLIT_LIST
    raise StoreError(
        f"the split list of this checkpoint, {recorded}, is not there: restore it, or give "
        "data.split_list=FILE"
    )
