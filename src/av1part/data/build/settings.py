"""The settings of a build, checked before any source is read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from av1part.data.build.coding import INTERLACED
from av1part.data.build.layouts import LAYOUTS, RawFormat
from av1part.partition import SIZES
from av1part.system.errors import ConfigError

_CQ_LEVELS = range(64)
_SPEEDS = range(10)
SIZES_TEXT = "8, 16, 32 and 64"


@dataclass(frozen=True)
class BuildSettings:
    """The settings that, with the sources, determine a dataset.

    Attributes:
        cq_levels: aomenc's `--cq-level`, 0 to 63, each once.
        sizes: Node sizes to keep, of `SIZES`, each once.
        cpu_used: aomenc's `--cpu-used`, 0 (best) to 9.
        one_to_four: Allow the encoder HORZ_4 and VERT_4.
        frames: Frames to keep of each source at most; None for all.
        every: Keep each `every`-th frame, from the first.
        interlaced: One of `INTERLACED`.
    """

    cq_levels: Sequence[int] = (20, 32, 43, 55)
    sizes: Sequence[int] = (64, 32, 16, 8)
    cpu_used: int = 0
    one_to_four: bool = False
    frames: int | None = None
    every: int = 1
    interlaced: str = "refuse"

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigError: naming the first that is not valid.
        """
        check_list("cq_levels", self.cq_levels, _CQ_LEVELS, "0 to 63")
        check_list("sizes", self.sizes, SIZES, SIZES_TEXT)
        if not _is_integer(self.cpu_used) or self.cpu_used not in _SPEEDS:
            raise ConfigError(f"cpu_used={self.cpu_used}: give 0 to 9")
        if not isinstance(self.one_to_four, bool):
            raise ConfigError(f"one_to_four={self.one_to_four}: give true or false")
        if self.frames is not None:
            check_count("frames", self.frames)
        check_count("every", self.every)
        if self.interlaced not in INTERLACED:
            raise ConfigError(f"interlaced={self.interlaced}: give one of {', '.join(INTERLACED)}")


def raw_format(
    width: object, height: object, bit_depth: object, layout: object = None
) -> RawFormat:
    """Check the user's options on raw files; None leaves a value to the file's name.

    Args:
        width: A count.
        height: A count.
        bit_depth: A count.
        layout: A key of `LAYOUTS`, which YAML may have read as a number.

    Returns:
        The format.

    Raises:
        ConfigError: naming the first option that is not valid.
    """
    counts = [
        None if value is None else check_count(name, value)
        for name, value in (("width", width), ("height", height), ("bit_depth", bit_depth))
    ]
    name = None if layout is None else str(layout)
    if name is not None and name not in LAYOUTS:
        raise ConfigError(f"layout={layout}: give one of {', '.join(LAYOUTS)}")
    return RawFormat(counts[0], counts[1], counts[2], name)


def check_count(name: str, value: object) -> int:
    """Check that an option is a whole number of at least 1.

    Args:
        name: The option.
        value: Its value.

    Returns:
        The value.

    Raises:
        ConfigError: if it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name}={value}: give a whole number, at least 1")
    return value


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check_list(name: str, values: object, allowed: Collection[int], expected: str) -> None:
    """Check that an option is a list of distinct integers.

    Args:
        name: The option.
        values: Its value.
        allowed: Values the list may hold.
        expected: `allowed` in words.

    Raises:
        ConfigError: if it is not.
    """
    if isinstance(values, (list, tuple)):
        good = all(_is_integer(v) and v in allowed for v in values)
        if good and values and len(set(values)) == len(values):
            return
        values = list(values)
    raise ConfigError(f"{name}={values}: give a list of {expected}, at least one, each once")
