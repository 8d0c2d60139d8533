"""Reading and writing files: a final name never holds half a file."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from av1part.system.errors import ConfigError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk or quota."""

PART_SUFFIX = ".part"
"""Ending of a file, or `.partial` of a folder, that is still being written."""


def expanded(path: str | Path) -> Path:
    """Write out a leading `~` or `~user`.

    Args:
        path: As it was given.

    Returns:
        The path.

    Raises:
        ConfigError: if the system has no such home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(
            f"{path}: the system does not know that home folder: write the path out"
        ) from None


def check_below_folders(path: Path) -> None:
    """Refuse a path to write that lies below a file, before the work for it begins.

    Args:
        path: File or folder that is to be made.

    Raises:
        ConfigError: naming the file.
    """
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise ConfigError(f"{path} cannot be made, since {above} is a file: choose another out=")


def cache_folder() -> Path:
    """Return the user's folder for files that can be made again.

    Returns:
        AV1PART_CACHE, or `av1part` in the XDG cache folder.

    Raises:
        ConfigError: if it would be in a home folder that the system does not have.
    """
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return expanded(os.environ.get("AV1PART_CACHE") or Path(base) / "av1part")


def slug(text: str) -> str:
    """Return text as a run name; `sweep` if it is empty or `None`.

    >>> slug("adapter.layers-[3,4]_seed-1")
    'adapter.layers-3-4_seed-1'
    """
    name = re.sub(r"[^A-Za-z0-9_.]+", "-", str(text)).replace("-_", "_").strip("-")
    return "sweep" if name in ("", "None") else name


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` if the block succeeds.

    The file is flushed to disk before the rename, and removed if the block raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}{PART_SUFFIX}")
    try:
        with naming(path):
            yield part
            flush(part)
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; rename it to `folder` if the block succeeds.

    Args:
        folder: The final name, of an empty folder or of none.

    Yields:
        The temporary folder, which is removed if the block raises.
    """
    part = folder.with_name(f"{folder.name}.{os.getpid()}{PART_SUFFIX}ial")
    made = [parent for parent in part.parents if not parent.exists()]
    part.mkdir(parents=True)
    try:
        yield part
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        for parent in made:
            with suppress(OSError):
                parent.rmdir()
        raise


def flush(path: Path) -> None:
    """Flush a file to disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def remove_parts(folder: Path, *, below: bool) -> None:
    """Remove the unfinished files that a killed process left in a folder.

    Args:
        folder: A folder that no other process writes to.
        below: Also in the folders below it.
    """
    for part in folder.glob(f"{'**/' if below else ''}*{PART_SUFFIX}"):
        part.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the name of the file to an error of a full disk, which has none.

    Args:
        path: The final name.

    Yields:
        Nothing.

    Raises:
        OSError: with `path` as its file.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in FULL or any(os.strerror(code) in str(error) for code in FULL)
        if not full:
            raise
        code = error.errno or errno.ENOSPC  # polars gives the words alone
        raise OSError(code, os.strerror(code), str(path)) from error


def reserve(path: Path) -> None:
    """Allocate the disk space of a file that is written through a memory map.

    Writing to such a map when the disk is full ends the process.

    Args:
        path: The file, of its final length.

    Raises:
        OSError: if there is no room.
    """
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


@contextmanager
def no_empty_folder(folder: Path) -> Iterator[None]:
    """Remove a run folder that is still empty when an error ends the block.

    Parent folders that are then empty are removed too, up to the current one.
    """
    try:
        yield
    except BaseException:
        here = Path.cwd()
        for path in (folder, *folder.parents):
            inside = path.resolve().is_relative_to(here) and path.resolve() != here
            if not inside or not path.is_dir() or any(path.iterdir()):
                break
            path.rmdir()
        raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, with the keys in the order given; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def parse_json(text: str | bytes) -> Any:
    """Parse JSON, however hostile.

    Args:
        text: From a file or another program.

    Returns:
        The value.

    Raises:
        ValueError: if the text is not JSON, or is nested too deeply for Python.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(str(error)) from None


def load_json(file: Path) -> Any:
    """Read a JSON file of UTF-8, where the caller reports why it cannot be read; see `read_json`.

    Args:
        file: The file, with or without a byte order mark.

    Returns:
        The value.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not UTF-8 or not JSON.
    """
    return parse_json(file.read_text(encoding="utf-8-sig"))


def read_json(file: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file; None if the file is missing, damaged or holds no object."""
    try:
        record = load_json(file)
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows atomically as CSV; the first row's keys are the header."""
    with atomic_path(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def leads_out(path: Path, folder: Path) -> bool:
    """Return whether a path, its links followed, is not inside a folder, its own links followed."""
    try:
        return not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a loop of links
        return True
