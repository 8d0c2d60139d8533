"""Finished runs of the sweeps beside this one, taken over where they are just what a job wants.

Experiments share much: the same Stage 1 a seed, the same baselines. What a run depends on is
written in its job.json, so that one made from the same settings, inputs and code is the same run.
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

from av1part.runs.sweeps import RECORD, read_record
from av1part.sweeps.state import State, state_of

_DONE = State("done")


class Neighbours:
    """The runs in other sweeps of the same folder, `runs/*/<variant>/<member>`."""

    def __init__(self, sweep: Path) -> None:
        self.sweep = sweep

    def copy(self, wanted: Mapping[str, Any], to: Path) -> Path | None:
        """Copy the run that is what is wanted, if there is one.

        Args:
            wanted: What it must have been made from, as `state.depends_on` has it.
            to: Its new place, which must not exist.

        Returns:
            Where it was copied from.

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
                    raise OSError(_one_of(error)) from None
            finally:
                shutil.rmtree(part, ignore_errors=True)
        return None

    @cached_property
    def _by_key(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for folder in self._folders():
            record = read_record(folder)
            if record is not None and (folder / "metrics.json").is_file():
                found.setdefault(_key(record), []).append(folder)
        return found

    def _folders(self) -> Iterator[Path]:
        own = self.sweep.resolve()
        for record in sorted(own.parent.glob(f"*/*/*/{RECORD}")):
            hidden = any(part.startswith(".") for part in record.relative_to(own.parent).parts)
            if not hidden and not record.is_relative_to(own):
                yield record.parent


def _copy_or_link(file: str, to: str) -> None:
    """Copy a file; of a checkpoint, which is replaced and never written to, make one more name."""
    if file.endswith(".ckpt"):
        with suppress(OSError):  # another file system, or one without links
            os.link(file, to)
            return
    shutil.copy2(file, to)


def _one_of(error: OSError) -> str:
    """Return one failure of those that shutil lists, each (from, to, why)."""
    if isinstance(error, shutil.Error):
        (_, to, why), *_others = error.args[0]
        return f"{to} could not be written ({why})"
    return str(error)


def _key(record: Mapping[str, Any]) -> str:
    parts = {key: record.get(key) for key in ("settings", "inputs", "code")}
    return json.dumps(parts, sort_keys=True)
