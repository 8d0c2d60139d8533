"""How a source codes its frames: what its file says of the samples, and what the manifest keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from av1part.data.build.ends import End

Range = Literal["full", "limited", "unstated"]
Scan = Literal["progressive", "interlaced", "unstated"]
INTERLACED = ("refuse", "weave")
"""What is done with interlaced frames: refused, or taken as coded, both fields in one frame."""


@dataclass(frozen=True)
class Coding:
    """What a file says of its frames. None of it changes samples, except as `conversion` says.

    Attributes:
        pixel_format: FFmpeg's name, such as `yuv420p10le`.
        range: `full`, `limited` or `unstated`, which is limited by convention.
        matrix: Of RGB to YCbCr (ITU-T H.273, table 4), such as `bt709`; `rgb` for RGB and its grey.
        scan: Whether frames are whole pictures or two fields.
        orientation: How a player turns or mirrors the frames, by EXIF's numbers: 1 as coded, 6 a
            quarter clockwise, 3 upside down, 8 a quarter anticlockwise, the others mirrored. They
            are stored as coded.
        alpha: Whether there is transparency, which is ignored.
        end: How well it is known that the file is whole.
        skipped_packets: Coded frames before the first that can be shown.
        other_streams: Further videos in the file, which are left out.
    """

    pixel_format: str
    range: Range = "unstated"
    matrix: str = "unstated"
    scan: Scan = "unstated"
    orientation: int = 1
    alpha: bool = False
    end: End = "frame"
    skipped_packets: int = 0
    other_streams: int = 0

    def as_json(self) -> Mapping[str, Any]:
        """Return the manifest's entry."""
        return asdict(self)
