"""`av1part validate --show`: the contents of a checkpoint, read without running code from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from av1part.checkpoints.contents import contents
from av1part.system.files import expanded, write_json
from av1part.system.terminal import printable


def show(path: Path, out: str | None) -> None:
    """Print the contents of a checkpoint, and write them as checkpoint.json to folder `out`."""
    sections = contents(path)
    print("\n".join(lines(sections)))
    if out is not None:
        write_json(expanded(out) / "checkpoint.json", sections)


def lines(sections: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return section names and entries, one per line, safe for a terminal."""
    output = []
    for name, section in sections.items():
        output.append(name)
        for key, value in section.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            output.append(f"  {printable(key):22s} {printable(text)}")
    return output
