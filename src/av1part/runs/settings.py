"""config.yaml of a run folder: written, read back and compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from av1part.options import INPUT_KEYS, RENAMED_KEYS
from av1part.runs.fields import REMEDY
from av1part.runs.schema import CONFIG_FILE
from av1part.system.errors import ConfigError, ReportError
from av1part.system.files import write_text


def write_config(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write config.yaml, the composed configuration; a run writes it before anything else.

    Keys of `_UNSAID` are left out at their default, as they are in runs from before there were any.
    """
    said = {key: value for key, value in settings.items() if not _is_unsaid(key, value)}
    write_text(folder / CONFIG_FILE, yaml.safe_dump(said, sort_keys=False))


def changed_settings(folder: Path, settings: Mapping[str, Any]) -> list[str]:
    """List the keys that differ from a folder's config.yaml.

    Left out is what does not change a result: names, places of files (their hashes are compared),
    where checkpoints are read back, progress and loggers.

    Args:
        folder: The run folder.
        settings: The present configuration, plain values.

    Returns:
        Dotted keys, sorted.

    Raises:
        ConfigError: if the file is missing or damaged.
    """
    try:
        then = yaml.safe_load((folder / CONFIG_FILE).read_text(encoding="utf-8-sig"))
        before, now = _ADDED | dict(_flat_settings(then)), dict(_flat_settings(dict(settings)))
    except (OSError, yaml.YAMLError, AttributeError) as error:
        raise ConfigError(f"{folder / 'config.yaml'} cannot be read ({error})") from None
    return sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))


_IRRELEVANT = (
    *("name", "resume", *INPUT_KEYS, "data.num_workers", "data.planes"),
    *("backbone.weights", "injection.stage2", "callbacks.verify", "callbacks.progress_bar"),
    *("callbacks.plots", "logger.names", "cache.mode", "cache.folder", "cache.limit_gb"),
)


_ADDED = {"data.levels": False}
"""Keys that runs of av1part 0.1 may lack, and what they did without."""

_UNSAID: Mapping[str, Any] = {"defects": []}
"""Keys that a normal run does not write, and the default by which it is one."""

_GONE = ("stage.lr_backbone",)
"""Keys of av1part 0.1 that only gave another key its default."""


def _is_unsaid(key: str, value: Any) -> bool:
    return key in _UNSAID and value == _UNSAID[key]


def relevant_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that may change a result, as dotted keys to values."""
    return dict(_flat_settings(settings))


def _flat_settings(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat_settings(value, f"{name}.")
        elif name not in (*_IRRELEVANT, *_GONE) and not _is_unsaid(name, value):
            yield RENAMED_KEYS.get(name, name), value


def flat_settings(text: str, file: Path) -> dict[str, Any]:
    """Flatten a YAML configuration, references left unresolved.

    Args:
        text: The YAML.
        file: What to call it in an error.

    Returns:
        Dotted keys to values.

    Raises:
        ReportError: if it is not a YAML mapping.
    """
    try:
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise ReportError(f"{file} is not readable YAML ({reason}): {REMEDY}") from None
    if not isinstance(tree, dict):
        raise ReportError(f"{file} does not hold a mapping: {REMEDY}")
    flat: dict[str, Any] = {}
    _flatten(tree, "", flat)
    return flat


def _flatten(tree: dict[Any, Any], prefix: str, into: dict[str, Any]) -> None:
    for key, value in tree.items():
        if isinstance(value, dict):
            _flatten(value, f"{prefix}{key}.", into)
        elif f"{prefix}{key}" not in _GONE:
            into[RENAMED_KEYS.get(f"{prefix}{key}", f"{prefix}{key}")] = value


def read_text(file: Path) -> str:
    """Read a file of text.

    Args:
        file: The file.

    Returns:
        The text.

    Raises:
        ReportError: if it is missing or is no UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ReportError(f"{file} is missing: {REMEDY}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{file} is not readable text ({error}): {REMEDY}") from None
