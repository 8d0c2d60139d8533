"""The contents of a checkpoint, read without building or running anything from it.

Every value comes from a file that may be foreign, so each is reduced to plain JSON values first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from av1part.checkpoints.calibration import read_calibration
from av1part.checkpoints.load import read_checkpoint
from av1part.runs.schema import calibration_path, sidecar_path
from av1part.system.errors import CheckpointError
from av1part.system.files import expanded, read_json, sha256_file

NOT_STORED = "not said"
"""Stands for a value that a checkpoint, perhaps of an older release, does not hold."""

CUT = "..."
"""Stands for values that are left out because there are too many, or too long."""

_MOST_ENTRIES = 200
_MOST_CHARACTERS = 1000
_MOST_DEPTH = 8
_MOST_VALUES = 10_000

_DATA = (
    *("path", "manifest_sha256", "split", "split_seed", "split_sha256", "split_list"),
    "costs_sha256",
    *("class_counts", "type_counts"),
)
_INPUT = ("size", "context", "bit_depth", "input_statistics", "qindex")


def contents(path: str | Path) -> dict[str, dict[str, Any]]:
    """Read what a checkpoint holds, as plain values by section.

    No module is built, so that checkpoints of architectures unknown to this release can be read
    too.

    Args:
        path: The file.

    Returns:
        `checkpoint`, `model`, `input`, `data`, `start`, `configuration`, `verification` and
        `calibration`; a value that is not in the file is `NOT_STORED`, empty sections are left out.

    Raises:
        CheckpointError: as `load.read_checkpoint`.
    """
    path = expanded(path)
    checkpoint = read_checkpoint(path)
    entry, parameters = checkpoint["av1part"], checkpoint["hyper_parameters"]
    facts, start = parameters["data"], parameters.get("start") or NOT_STORED
    elsewhere = ("data", "start", "method", "taxonomy")
    sections: dict[str, Any] = {
        "checkpoint": {
            "file": str(path.resolve()),
            "bytes": path.stat().st_size,
            "file_sha256": sha256_file(path),
            "state_sha256": entry["state_sha256"],
            "format": entry["format"],
            **({"DEFECTIVE ON PURPOSE": entry["defects"]} if entry.get("defects") else {}),
            **_pick(checkpoint, ("epoch", "global_step")),
            "lightning": checkpoint.get("pytorch-lightning_version", NOT_STORED),
        },
        "model": {
            **_pick(entry, ("stage", "taxonomy", "classes")),
            **_pick(parameters, ("method",)),
            **_parameters(path, entry.get("parameters"), checkpoint["state_dict"]),
            **_pick(entry, ("backbone_sha256",)),
        },
        "input": _pick(facts, _INPUT),
        "data": _pick(facts, _DATA),
        "start": start if isinstance(start, Mapping) else {"backbone": start},
        "configuration": {key: v for key, v in parameters.items() if key not in elsewhere},
        "verification": _record(sidecar_path(path)),
        "calibration": _calibration(path),
    }
    return {name: plain_values(section) for name, section in sections.items() if section}


def _pick(values: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: values.get(key, NOT_STORED) for key in keys}


def _parameters(path: Path, named: Any, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Count the parameters that the checkpoint names, and its tensors.

    Raises:
        CheckpointError: if a named parameter is not in the state, or is named twice.
    """
    values = sum(tensor.numel() for tensor in state.values())
    counts = {"tensors": len(state), "values_with_buffers": values}
    if not isinstance(named, Mapping):
        keys = ("total_parameters", "trainable_parameters", "frozen")
        return {**dict.fromkeys(keys, NOT_STORED), **counts}
    trainable, frozen = (_names(path, named.get(key), state) for key in ("trainable", "frozen"))
    if len({*trainable, *frozen}) < len(trainable) + len(frozen):
        raise CheckpointError(f"checkpoint {path} names a parameter twice: train again")
    trained = sum(state[name].numel() for name in trainable)
    return {
        "total_parameters": trained + sum(state[name].numel() for name in frozen),
        "trainable_parameters": trained,
        "frozen": frozen_parts(trainable, frozen),
        **counts,
    }


def _names(path: Path, value: Any, state: Mapping[str, Tensor]) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(n, str) and n in state for n in value):
        raise CheckpointError(
            f"checkpoint {path} names parameters that it does not hold: restore it or train again"
        )
    return value


def frozen_parts(trainable: Sequence[str], frozen: Sequence[str]) -> list[str]:
    """Summarise which parameters are frozen.

    Args:
        trainable: Names of parameters, parts joined by dots.
        frozen: Likewise.

    Returns:
        The outermost modules whose parameters are all frozen; elsewhere single parameters.

    >>> frozen_parts(["head.weight", "body.2.bias"], ["body.1.bias", "body.2.weight", "stem.w"])
    ['body.1', 'body.2.weight', 'stem']
    """
    trained = {tuple(name.split(".")) for name in trainable}
    open_ = {name[:i] for name in trained for i in range(len(name) + 1)}
    parts = []
    for name in (tuple(text.split(".")) for text in frozen):
        outermost = next((name[:i] for i in range(1, len(name) + 1) if name[:i] not in open_), name)
        parts.append(".".join(outermost))
    return list(dict.fromkeys(parts))


def _record(path: Path) -> Any:
    if not path.is_file():
        return {"record": "none: nothing says that this file was read back"}
    return read_json(path)  # `read_checkpoint` has compared it with the file


def _calibration(path: Path) -> Any:
    stored = calibration_path(path)
    try:
        calibration = read_calibration(path)
    except CheckpointError as error:
        return {"refused": str(error)}
    if calibration is None:
        return {"record": "none stored: av1part calibrate makes one"}
    return read_json(stored)


def plain_values(value: Any, depth: int = 0, budget: Iterator[int] | None = None) -> Any:
    """Reduce a value to plain JSON of limited size; other objects become their type's name.

    Args:
        value: Any value read from a file, also one that contains itself.
        depth: How deeply it is nested.
        budget: An iterator with one item for each further value that may be kept.

    Returns:
        None, a bool, int, finite float or str, or a list or dict of these.
    """
    budget = iter(range(_MOST_VALUES)) if budget is None else budget
    inner = depth + 1, budget
    if next(budget, None) is None or depth > _MOST_DEPTH:
        return CUT
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if value.bit_length() < 64 else f"<int of {value.bit_length()} bits>"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        # A lone surrogate may be in a pickle, but cannot be written as UTF-8.
        text = value[:_MOST_CHARACTERS].encode("utf-8", "backslashreplace").decode()
        return text if len(value) <= _MOST_CHARACTERS else f"{text}{CUT}"
    if isinstance(value, Mapping):
        first = list(value.items())[:_MOST_ENTRIES]
        return {str(plain_values(k, *inner)): plain_values(v, *inner) for k, v in first}
    if isinstance(value, (list, tuple)):
        kept = [plain_values(item, *inner) for item in value[:_MOST_ENTRIES]]
        return [*kept, CUT] if len(value) > len(kept) else kept
    return f"<{type(value).__name__}>"
