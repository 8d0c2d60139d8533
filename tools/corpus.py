"""Build two datasets from a folder of pictures or clips, in the background.

    make corpus SOURCE=pictures [OUT=datasets/corpus]

    OUT/one_to_four   all sizes, with 1:4 partitions, cq levels 8, 20, 32, 43, 55
    OUT/study         all sizes, without 1:4, cq levels 20, 32, 43, 55
    OUT/split.csv     from the folders train, val and test in SOURCE, if it has such
    OUT/build.log     what the builds say

The same command continues builds that were killed, and says how far they are where they run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from av1part.data.build.sources import find_sources
from av1part.data.store.schema import sequence_name
from av1part.data.store.splits import SPLITS
from av1part.system.errors import Av1partError, ConfigError, SourceError
from av1part.system.files import write_csv

STORES = {
    "study": ["cq_levels=[20,32,43,55]"],
    "one_to_four": ["one_to_four=true", "cq_levels=[8,20,32,43,55]"],
}
"""Folder to words of `av1part data build`, the faster one first."""

NICE = 10


def parts_of(source: Path) -> dict[str, Path]:
    """Return the folders of the splits that a folder has; none if it holds files alone.

    Raises:
        SourceError: if it is no folder, or lacks train or val where it has one of them.
    """
    if not source.is_dir():
        raise SourceError(f"{source} is not a folder: name a folder of pictures or clips")
    parts = {split: source / split for split in SPLITS if (source / split).is_dir()}
    if parts and not {"train", "val"} <= parts.keys():
        raise SourceError(f"{source} has {', '.join(parts)}: it needs train and val, or neither")
    return parts


def write_split(parts: dict[str, Path], file: Path) -> None:
    """Write which sequence is in which split.

    Raises:
        SourceError: if two files would be the same sequence.
    """
    rows = [
        {"sequence": sequence_name(path.stem), "split": split}
        for split, folder in parts.items()
        for path in find_sources([folder])
    ]
    names = [row["sequence"] for row in rows]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SourceError(f"several files are called {twice[0]}: rename all but one")
    write_csv(file, sorted(rows, key=lambda row: row["sequence"]))


def build(source: Path, out: Path) -> int:
    """Build what is missing, one dataset after the other; return the exit code."""
    try:
        with FileLock(out / ".corpus.lock", timeout=0):
            os.nice(NICE)
            sources = list(parts_of(source).values()) or [source]
            for name, words in STORES.items():
                if (out / name).exists():
                    continue
                command = [Path(sys.executable).with_name("av1part"), "data", "build", *sources]
                done = subprocess.run([*command, f"out={out / name}", *words], check=False)
                if done.returncode:
                    return done.returncode
    except Timeout:
        return 0
    return 0


_FIRST_SECONDS = 10
"""To wait for a build to fail, once it is started."""


def running(out: Path) -> bool:
    """Return whether a process builds there."""
    try:
        with FileLock(out / ".corpus.lock", timeout=0):
            return False
    except Timeout:
        return True


def main(source: Path, out: Path) -> None:
    """Start or continue the builds, or say how far they are.

    Raises:
        ConfigError: if a build fails in its first seconds.
        SourceError: if the folder, or what is in it, cannot be a source.
    """
    parts = parts_of(source)
    out.mkdir(parents=True, exist_ok=True)
    if parts:
        write_split(parts, out / "split.csv")
    log = out / "build.log"
    missing = [name for name in STORES if not (out / name).exists()]
    if not missing:
        print(f"corpus: done: {', '.join(str(out / name) for name in STORES)}")
        return
    if running(out):
        lines = log.read_text(errors="replace").splitlines() or ["nothing yet"]
        print(f"corpus: building {missing[0]} in the background: {lines[-1]}")
        return
    with log.open("ab") as file:
        command = [sys.executable, Path(__file__).resolve(), "--build", source, out]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    try:  # what is wrong with a source shows at once
        code = process.wait(timeout=_FIRST_SECONDS)
    except subprocess.TimeoutExpired:
        code = 0
    if code:
        last = log.read_text(errors="replace").splitlines()[-1].removeprefix("av1part: ")
        raise ConfigError(f"{last}; log {log}")
    print(
        f"corpus: building {' and '.join(missing)} in {out}, process {process.pid}, log {log}; "
        "the same command says how far it is, and continues what was killed"
    )


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["--build"]:
            sys.exit(build(Path(sys.argv[2]), Path(sys.argv[3])))
        if len(sys.argv) != 3:
            raise ConfigError("make corpus SOURCE=folder: name a folder of pictures or clips")
        main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute())
    except (Av1partError, OSError) as error:
        print(f"corpus: {error}", file=sys.stderr)
        sys.exit(2)
