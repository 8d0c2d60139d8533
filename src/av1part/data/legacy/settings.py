"""The settings of an import, checked before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from av1part.data.build.planar import RawFormat
from av1part.data.build.settings import SIZES_TEXT, check_list
from av1part.partition import SIZES


@dataclass(frozen=True)
class ImportSettings:
    """What decides the content of an imported dataset, beside its files.

    Attributes:
        sizes: Node sizes to keep, of `SIZES`, each once.
        yuv: The clip, where the layout has one and its folder does not tell.
        raw: What is said of that clip.
    """

    sizes: Sequence[int] = SIZES
    yuv: str | Path | None = None
    raw: RawFormat = field(default_factory=RawFormat)

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigError: naming the first that cannot be.
        """
        check_list("sizes", self.sizes, SIZES, SIZES_TEXT)
