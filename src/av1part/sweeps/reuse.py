"""Finished runs that a job need not repeat: of other sweeps, and put aside in this one.

Experiments share much: the same Stage 1 a seed, the same baselines. What a run depends on is
written in its job.json: one made from the same settings, inputs and code is the same run.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from av1part.runs.schema import METRICS_FILE
from av1part.runs.sweeps import JOB_FILE, read_record
from av1part.sweeps.state import State, state_of

OUTDATED = ".outdated"
"""Folder in a sweep's, hidden from reports, of results that are out of date, numbered."""

_DONE = State("done")


class FinishedRuns:
    """The runs of other sweeps, `runs/*/<variant>/<member>`, and those put aside in this one."""

    def __init__(self, sweep: Path) -> None:
        self.sweep = sweep

    def copy(self, wanted: Mapping[str, Any], to: Path) -> Path | None:
        """Copy a run that depends on the same.

        Args:
            wanted: What it must have been made from, as `state.depends_on` returns it.
            to: The new folder, which must not exist.

        Returns:
            The folder it was copied from; None if there is no such run.

        Raises:
            OSError: if it cannot be copied; `to` does not exist then.
        """
        for folder in self._by_key.get(_key(wanted), ()):
            part = to.with_name(f".{to.name}.partial")
            shutil.rmtree(part, ignore_errors=True)
            try:
                shutil.copytree(folder, part, copy_function=_copy_or_link)
                if state_of(part, wanted) == state_of(folder, wanted) == _DONE:
                    part.rename(to)
                    return folder
            except OSError as error:
                if state_of(folder, wanted) == _DONE:  # it is all there: something else is wrong
                    raise OSError(_first_failure(error)) from None
            finally:
                shutil.rmtree(part, ignore_errors=True)
        return None

    @cached_property
    def _by_key(self) -> dict[str, list[Path]]:
        runs: dict[str, list[Path]] = {}
        for folder in self._folders():
            record = read_record(folder)
            if record is not None and (folder / METRICS_FILE).is_file():
                runs.setdefault(_key(record), []).append(folder)
        return runs

    def _folders(self) -> Iterator[Path]:
        own = self.sweep.resolve()
        for record in sorted(own.glob(f"{OUTDATED}/*/*/*/{JOB_FILE}")):
            yield record.parent
        for record in sorted(own.parent.glob(f"*/*/*/{JOB_FILE}")):
            hidden = any(part.startswith(".") for part in record.relative_to(own.parent).parts)
            if not hidden and not record.is_relative_to(own):
                yield record.parent


def _copy_or_link(file: str, to: str) -> None:
    """Copy a file; link a checkpoint, which is replaced and never written to."""
    if file.endswith(".ckpt"):
        with suppress(OSError):  # another file system, or one without links
            os.link(file, to)
            return
    shutil.copy2(file, to)


def _first_failure(error: OSError) -> str:
    """Return one failure of those that shutil lists, each (from, to, why)."""
    if isinstance(error, shutil.Error):
        (_, to, why), *_ = error.args[0]
        return f"{to} could not be written ({why})"
    return str(error)


def _key(record: Mapping[str, Any]) -> str:
    parts = {key: record.get(key) for key in ("settings", "inputs", "code")}
    return json.dumps(parts, sort_keys=True)
