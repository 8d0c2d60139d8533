"""The records of a sweep: sweep.json, the job.json of each job, and test.json."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from av1part.runs.fields import Fields
from av1part.runs.schema import nested
from av1part.runs.settings import relevant_settings
from av1part.system.errors import ConfigError
from av1part.system.files import read_json
from av1part.system.formats import refusal

RECORD = "job.json"
SWEEP = "sweep.json"
"""Of a sweep's folder: which run is which variant, fold and seed."""
SWEEP_FORMAT = 1
_REMEDY = "restore it, or remove it and start the sweep again"
TEST_FORMAT = 2
"""Of test.json: 2 nests the scores of a run as metrics.json does."""
TEST = "test.json"
"""Of a sweep's folder: what `av1part validate SWEEP split=test` found, and when."""

START = "stage1"
"""Folder of the runs that the others start from; no variant may be called so."""


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return job.json; None if there is none that can be read."""
    return read_json(folder / RECORD)


def read_sweep(folder: Path) -> dict[str, Any]:
    """Read sweep.json.

    Args:
        folder: The sweep's.

    Returns:
        What it holds.

    Raises:
        ConfigError: if it is damaged or of another format, see `wrong_with`.
    """
    file = folder / SWEEP
    record = read_json(file)
    if record is None:
        raise ConfigError(f"{file} cannot be read: {_REMEDY}")
    if wrong := wrong_with(file, record):
        raise ConfigError(wrong)
    return record


def wrong_with(file: Path, record: Mapping[str, Any]) -> str | None:
    """Say in one line why a sweep.json is none that this release reads.

    Args:
        file: The file.
        record: What it holds.

    Returns:
        What is wrong, and the remedy: another format, a job without a folder inside of the sweep,
        a variant or a member. None if nothing is.
    """
    found, jobs = record.get("format"), record.get("jobs")
    if found != SWEEP_FORMAT:
        made_with = record.get("versions")
        wrote = made_with.get("av1part") if isinstance(made_with, dict) else None
        return refusal(str(file), found, SWEEP_FORMAT, wrote, _REMEDY)
    if not isinstance(jobs, list):
        return f"{file} lacks `jobs` (a list): {_REMEDY}"
    for number, job in enumerate(jobs):
        for key in ("folder", "variant", "member"):
            if not isinstance(job, Mapping) or not isinstance(job.get(key), str):
                return f"{file} lacks `jobs.{number}.{key}` (a string): {_REMEDY}"
        if not (file.parent / job["folder"]).resolve().is_relative_to(file.parent.resolve()):
            return f"{file}: {job['folder']} lies outside of the sweep: {_REMEDY}"
    return None


def read_test(file: Path) -> Fields:
    """Read test.json; the scores of each run are nested as in metrics.json.

    Args:
        file: The file.

    Returns:
        Its contents.

    Raises:
        ReportError: if it is missing or damaged.
    """
    fields = Fields.read(file)
    runs = fields.get("runs")
    if not isinstance(runs, Mapping):
        return fields
    scores = {
        place: nested(record) if isinstance(record, Mapping) else record
        for place, record in runs.items()
    }
    return Fields({**fields.data, "runs": scores}, file)


def config_sha256(folder: Path, config: Mapping[str, Any]) -> str:
    """Hash what a run was made from: settings that matter, and the hashes of its inputs.

    Args:
        folder: The run's; its job.json names the inputs, if it is a job of a sweep.
        config: Its composed configuration.

    Returns:
        SHA-256 as hexadecimal digits; names and places of files are left out.
    """
    record = read_record(folder) or {"settings": relevant_settings(config), "inputs": {}}
    parts = {key: record.get(key) for key in ("settings", "inputs")}
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
