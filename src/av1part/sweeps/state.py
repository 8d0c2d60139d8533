"""The state of a job's folder: done, missing, unfinished, failed or out of date.

Before a job starts, `job.json` records what it depends on: settings, code, and the hashes of
dataset, split list, costs and start. A folder is done if it has a result and none of these has
changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from av1part import embedded
from av1part.runs.schema import METRICS_FILE, sidecar_path
from av1part.runs.settings import relevant_settings
from av1part.runs.sweeps import JOB_FILE, read_record
from av1part.system.errors import CheckpointError, ConfigError
from av1part.system.files import expanded, read_json, sha256_file, write_json
from av1part.system.locks import HOLDER, LOCK

_ROOMS = (
    "defects.py",
    "partition.py",
    "quantiser.py",
    "metrics",
    "models",
    "data",
    "stages",
    "trees",
    "evaluation",
    "training",
)
"""The code that computes a result; other packages read, show and schedule it."""

Kind = Literal["done", "missing", "unfinished", "failed", "outdated"]


@dataclass(frozen=True)
class State:
    """The state of a job.

    Attributes:
        kind: `done`; `missing`, nothing is there; `unfinished`, it was interrupted; `failed`;
            or `outdated`, it was made from something else.
        why: Of `failed` its error, of `outdated` what has changed.
    """

    kind: Kind
    why: str = ""


@cache
def code_sha256() -> str:
    """Hash the package's sources that a training runs: the version of the code behind a result."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        name = file.relative_to(package)
        if name.parts[0] in _ROOMS:
            digest.update(name.as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def depends_on(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a job's result depends on.

    Args:
        settings: Its composed configuration, plain values.

    Returns:
        JSON values: `settings`, those that matter to a result; `inputs`, hashes by key; `code`.

    Raises:
        ConfigError: if a file that it names does not exist: that must not count as a change.
    """
    data = settings["data"]["path"]
    manifest = (embedded.STORE if data is None else expanded(data)) / "manifest.json"
    if not manifest.is_file():
        raise ConfigError(f"{manifest} does not exist: data.path must be a dataset folder")
    inputs = {"data": sha256_file(manifest)}
    for key, value in (
        ("data.split_list", settings["data"]["split_list"]),
        ("data.costs", settings["data"].get("costs")),
        ("stage1", settings["stage1"]),
        ("backbone.weights", settings["backbone"].get("weights")),
        ("injection.stage2", settings["injection"].get("stage2")),
    ):
        if value is None:
            continue
        if value in ("none", "imagenet"):  # of the weights, which are then no file
            inputs[key] = value
            continue
        file = expanded(value)
        if not file.is_file():
            raise ConfigError(f"{key}={value} does not exist: give the path of a file")
        inputs[key] = _sha256(file)
    # As YAML would give it back, so that lists and tuples compare equal.
    plain = yaml.safe_load(yaml.safe_dump(relevant_settings(settings)))
    return {"settings": plain, "inputs": inputs, "code": code_sha256()}


def _sha256(file: Path) -> str:
    """Hash a file; of a verified checkpoint its tensors, which training again makes the same."""
    record = sidecar_path(file)
    sha256 = (read_json(record) or {}).get("sha256") if file.suffix == ".ckpt" else None
    return sha256 if isinstance(sha256, str) else sha256_file(file)


def state_of(folder: Path, wanted: Mapping[str, Any]) -> State:
    """Return the state of a job's folder.

    Args:
        folder: The folder.
        wanted: What the job depends on now, as `depends_on` returns it.

    Returns:
        Its state.
    """
    record = read_record(folder)
    before = {JOB_FILE, LOCK, HOLDER}  # written before the run starts
    begun = folder.is_dir() and any(file.name not in before for file in folder.iterdir())
    if not begun and not (record or {}).get("error"):
        return State("missing")
    if record is None:
        return State("outdated", "it does not say what it was made from")
    changed = _changes(record, wanted)
    if changed:
        return State("outdated", f"other {', '.join(changed)}")
    if (folder / METRICS_FILE).is_file():
        return State("done")
    if record.get("error"):
        return State("failed", str(record["error"]))
    return State("unfinished")


def begin(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Write job.json, before the job starts."""
    write_json(folder / JOB_FILE, {**wanted, "error": None})


def record_failure(folder: Path, error: BaseException) -> None:
    """Write the error into job.json; a run without one, which is no job, is left alone."""
    record = read_record(folder)
    if record is not None:
        message = " ".join(str(error).split()) or type(error).__name__
        # What is wrong with a checkpoint would be wrong with it again.
        anew = isinstance(error, CheckpointError)
        write_json(folder / JOB_FILE, {**record, "error": message, "anew": anew})


def _changes(record: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    changed = []
    for group in ("settings", "inputs"):
        then, now = record.get(group), wanted[group]
        if not isinstance(then, Mapping):
            return [group]
        changed += sorted(key for key in then.keys() | now.keys() if then.get(key) != now.get(key))
    return changed + (["code"] if record.get("code") != wanted["code"] else [])
