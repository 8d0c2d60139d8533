"""Trees kept on disk: the jobs of a sweep and later validations train them once.

    <cache>/trees/<key>.npz    arrays of the forest, and `facts`, JSON

The key is a hash of everything that the trees depend on, so that no file is ever out of date.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from av1part import quantiser, trees
from av1part.system.files import atomic_path, cache_folder
from av1part.system.locks import file_lock
from av1part.trees.boosting import Boosted, Boosting, check_library
from av1part.trees.forest import Forest

log = logging.getLogger(__name__)

MOST_BYTES = 1 << 30
"""Of all files together; the least recently used are removed."""

_ARRAYS = tuple(entry.name for entry in fields(Forest))


def default_folder() -> Path:
    """Return the folder of the cache."""
    return cache_folder() / "trees"


def trained_once(facts: Mapping[str, Any], features: int, train: Callable[[], Boosted]) -> Boosted:
    """Return trees from the cache, or train them and keep them there.

    Another process that needs the same trees waits until they are trained. Without a folder that
    can be written to, they are trained and not kept, with a warning.

    Args:
        facts: What the trees depend on beside code and libraries, JSON values.
        features: Number of features of a node.
        train: Trains them.

    Returns:
        The trees.
    """
    folder = default_folder()
    file = folder / f"{_key(facts)}.npz"
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(file_lock(file.with_suffix(".lock")))
            kept = _read(file, features)
        except OSError as error:
            log.warning("trees are not cached: %s (%s)", folder, error.strerror or error)
            return train()
        if kept is not None:
            log.info("boosted trees: from %s", file)
            return kept
        boosted = train()
        try:
            _write(file, boosted)
            _make_room(folder, file)
        except OSError as error:
            log.warning("trees are not cached: %s (%s)", folder, error.strerror or error)
        return boosted


def _key(facts: Mapping[str, Any]) -> str:
    everything = {**facts, "code": _code_sha256(), "lightgbm": check_library().__version__}
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:32]


@cache
def _code_sha256() -> str:
    """Hash the sources of features, with the quantiser's steps, training and forest."""
    digest = hashlib.sha256()
    own = sorted(Path(trees.__path__[0]).glob("*.py"))
    for file in (*own, Path(quantiser.__file__)):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _read(file: Path, features: int) -> Boosted | None:
    """Read a file; None if it is missing or damaged."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            facts = json.loads(str(stored["facts"]))
            forest = Forest(**{name: stored[name] for name in _ARRAYS})
        forest.check(features)
        settings = Boosting(**facts["settings"])
        boosted = Boosted(forest, int(facts["iterations"]), float(facts["val_loss"]), settings)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s is damaged (%s): its trees are trained again", file, error)
        return None
    file.touch()  # as used last
    return boosted


def _write(file: Path, boosted: Boosted) -> None:
    facts = {
        "iterations": boosted.iterations,
        "val_loss": boosted.val_loss,
        "settings": asdict(boosted.settings),
    }
    arrays: dict[str, Any] = {"facts": np.array(json.dumps(facts)), **boosted.forest.arrays()}
    with atomic_path(file) as part, part.open("wb") as opened:
        np.savez(opened, **arrays)


def _make_room(folder: Path, newest: Path) -> None:
    """Remove the least recently used files beyond `MOST_BYTES`, but never the newest."""
    files = sorted(folder.glob("*.npz"), key=lambda file: file.stat().st_mtime)
    held = sum(file.stat().st_size for file in files)
    for file in files:
        if held <= MOST_BYTES:
            break
        if file != newest:
            held -= file.stat().st_size
            file.unlink(missing_ok=True)
