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

JOB_FILE = "job.json"
"""In a job's folder: what its result depends on, and the error that it ended with, if any."""
SWEEP_FILE = "sweep.json"
"""In a sweep's folder: which run is which variant, fold and seed."""
SWEEP_FORMAT = 1
TEST_FILE = "test.json"
"""In a sweep's folder: scores of `av1part validate SWEEP split=test`, and when it was run."""
TEST_FORMAT = 2
"""Version of test.json: 2 nests the scores of a run as metrics.json does."""
_REMEDY = "restore it, or remove it and start the sweep again"

START = "stage1"
"""Folder of the runs that the others start from; no variant may be called so."""


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the contents of job.json; None if it is missing or damaged."""
    return read_json(folder / JOB_FILE)


def read_sweep(folder: Path) -> dict[str, Any]:
    """Read sweep.json.

    Args:
        folder: The sweep's.

    Returns:
        What it holds.

    Raises:
        ConfigError: if it is damaged or of another format, see `sweep_problem`.
    """
    file = folder / SWEEP_FILE
    record = read_json(file)
    if record is None:
        raise ConfigError(f"{file} cannot be read: {_REMEDY}")
    if problem := sweep_problem(file, record):
        raise ConfigError(problem)
    return record


def sweep_problem(file: Path, record: Mapping[str, Any]) -> str | None:
    """Return why this release cannot read a sweep.json.

    Args:
        file: The file.
        record: Its contents.

    Returns:
        One line with the remedy: the file has another format, or a job lacks a variant, a member
        or a folder inside the sweep's. None if it can be read.
    """
    version, jobs = record.get("format"), record.get("jobs")
    if version != SWEEP_FORMAT:
        versions = record.get("versions")
        wrote = versions.get("av1part") if isinstance(versions, dict) else None
        return refusal(str(file), version, SWEEP_FORMAT, wrote, _REMEDY)
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
    """Hash what a run was made from: its relevant settings, and the hashes of its inputs.

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
