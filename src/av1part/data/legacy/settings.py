"""The settings of an import, checked before any file is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from av1part.data.build.layouts import RawFormat
from av1part.data.build.settings import SIZES_TEXT, check_list
from av1part.partition import SIZES


@dataclass(frozen=True)
class ImportSettings:
    """The settings that, with the files, determine an imported dataset.

    Attributes:
        sizes: Node sizes to keep, of `SIZES`, each once.
        yuv: The clip, if the layout has one and it is not in the folder.
        raw: The user's options on the format of the clip.
    """

    sizes: Sequence[int] = SIZES
    yuv: str | Path | None = None
    raw: RawFormat = field(default_factory=RawFormat)

    def __post_init__(self) -> None:
        """Check every value."""
        check_list("sizes", self.sizes, SIZES, SIZES_TEXT)
