"""`av1part validate --show`: what a checkpoint holds, with nothing run from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from av1part.checkpoints.contents import contents
from av1part.system.files import expanded, write_json
from av1part.system.terminal import printable


def show(path: Path, out: str | None) -> None:
    """Print what a checkpoint holds, and write it as checkpoint.json if a folder is given.

    Args:
        path: The checkpoint.
        out: Folder, or None.

    Raises:
        CheckpointError: if the file is refused.
    """
    found = contents(path)
    print("\n".join(lines(found)))
    if out is not None:
        write_json(expanded(out) / "checkpoint.json", found)


def lines(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return sections and their entries, one a line, safe for a terminal."""
    shown = []
    for name, section in found.items():
        shown.append(name)
        for key, value in section.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            shown.append(f"  {printable(key):22s} {printable(text)}")
    return shown
