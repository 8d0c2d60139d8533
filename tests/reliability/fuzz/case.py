"""What the targets of the fuzz tests and their runner agree on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

TARGETS = (
    *("importers", "store", "y4m", "raw", "media", "inspect", "checkpoint"),
    *("hints", "counts", "bundle"),
)
"""Names of what is fuzzed."""

MARK = Path("was-here")
"""What the code in hostile files would leave in the current folder."""

MEMORY = 256 << 20
"""Bytes that a try may take beyond what the process has before the first one."""

SECONDS = 60
"""Seconds of wall clock after which a try hangs; each takes some milliseconds."""

Draw = Callable[[Any], Any]
"""Draws a value of a strategy."""


@dataclass(frozen=True)
class Case:
    """One input, written and ready to be read.

    Attributes:
        run: Reads it, as far as a user would.
        names: What an error must name.
        bounded: Whether it must stay within the bound of memory, not only end within the limit.
    """

    run: Callable[[], object]
    names: str
    bounded: bool = True


class Target(Protocol):
    """A reader of files, and how to make hostile ones for it.

    Attributes:
        folder: Where its inputs are; kept if one is lost.
    """

    folder: Path

    def case(self, draw: Draw) -> Case:
        """Write one input."""
        ...
