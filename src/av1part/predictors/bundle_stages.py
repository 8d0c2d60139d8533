"""A trained stage as plain values and arrays, and back: what bundles of networks share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from av1part.checkpoints.load import build_stage, check_facts
from av1part.partition import Stage
from av1part.predictors.bundle_file import Arrays, Content
from av1part.stages.base import StageModule


def classes_of(stage: Stage) -> dict[str, list[str]]:
    """Return class to names of its types."""
    return {name: [type_.name for type_ in types] for name, types in stage.classes.items()}


def source_of(module: StageModule) -> dict[str, Any]:
    """Return what a bundle says of the dataset that a stage was trained on."""
    data = module.hparams["data"]
    return {
        "dataset": Path(data["path"]).name,
        **{key: data[key] for key in ("manifest_sha256", "split_sha256")},
        "protocol": data["split"],
        "size": data["size"],
    }


def without_folders(value: Any) -> Any:
    """Keep of every path its last part: a file that is mailed names no folders of its author."""
    if isinstance(value, Mapping):
        return {key: without_folders(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_folders(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and "/" in value else value


def build_member(
    what: str, stage: str, hyper_parameters: Content, classes: Content, arrays: Arrays
) -> StageModule:
    """Build a stage from what a file claims that it is.

    Args:
        what: What it is, as an error names it.
        stage: Name of the stage.
        hyper_parameters: Of its module.
        classes: Class to names of its types.
        arrays: Its tensors by name.

    Returns:
        The stage in eval mode on the CPU.

    Raises:
        CheckpointError: if it is not what its hyper-parameters describe.
        ValueError: if a tensor has another dtype.
    """
    check_facts(what, hyper_parameters["data"])
    state = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    module = build_stage(what, stage, hyper_parameters, classes, state)
    for name, own in module.state_dict().items():
        if own.dtype != state[name].dtype:
            raise ValueError(f"{name} of {what} is of {state[name].dtype}")
    return module


def checked_number(value: Any, low: float, high: float) -> float:
    """Return a number of a file.

    Args:
        value: What the file has.
        low: Its least value.
        high: Its greatest value.

    Returns:
        The number.

    Raises:
        ValueError: if it is none, or out of range.
    """
    if type(value) is not float or not low <= value <= high:
        raise ValueError(f"{value!r} is not in {low} to {high}")
    return value
