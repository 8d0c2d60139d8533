"""What a build, an import or a run asks of its data, checked before anything is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from av1part.data.build.planar import RawFormat
from av1part.data.store.splits import PROTOCOLS
from av1part.system.errors import ConfigError
from av1part.options import AUGMENTATIONS, MOST, PLANES, SAMPLINGS
from av1part.partition import SIZES

_CQ_LEVELS = range(64)
_SPEEDS = range(10)
_SIZES_SAID = "8, 16, 32 and 64"
_MOST_CONTEXT_BY_SEGMENT = 8
"""Half of the narrowest gap that `splits` leaves: margins of two segments must not meet."""

_SERVED: Mapping[str, Collection[Any]] = {
    "sampling": SAMPLINGS,
    "augment": AUGMENTATIONS,
    "split": tuple(PROTOCOLS),
    "size": SIZES,
    "planes": PLANES,
}


@dataclass(frozen=True)
class BuildSettings:
    """What decides the content of a dataset, beside its sources.

    Attributes:
        cq_levels: aomenc's `--cq-level`, 0 to 63, each once.
        sizes: Node sizes to keep, of `SIZES`, each once.
        cpu_used: aomenc's `--cpu-used`, 0 (best) to 9.
        one_to_four: Allow the encoder HORZ_4 and VERT_4.
        frames: Frames to keep of each source at most; None for all.
        every: Keep each `every`-th frame, from the first.
    """

    cq_levels: Sequence[int] = (20, 32, 43, 55)
    sizes: Sequence[int] = (64, 32, 16, 8)
    cpu_used: int = 0
    one_to_four: bool = False
    frames: int | None = None
    every: int = 1

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigError: naming the first that cannot be.
        """
        _check_list("cq_levels", self.cq_levels, _CQ_LEVELS, "0 to 63")
        _check_list("sizes", self.sizes, SIZES, _SIZES_SAID)
        if not _is_integer(self.cpu_used) or self.cpu_used not in _SPEEDS:
            raise ConfigError(f"cpu_used={self.cpu_used}: give 0 to 9")
        if not isinstance(self.one_to_four, bool):
            raise ConfigError(f"one_to_four={self.one_to_four}: give true or false")
        if self.frames is not None:
            check_count("frames", self.frames)
        check_count("every", self.every)


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
        _check_list("sizes", self.sizes, SIZES, _SIZES_SAID)


def raw_format(width: object, height: object, bit_depth: object) -> RawFormat:
    """Check what is said of raw files; None leaves it to their names.

    Args:
        width: Luma samples, or None.
        height: Luma samples, or None.
        bit_depth: Bits a sample, or None.

    Returns:
        The values as they were given.

    Raises:
        ConfigError: naming the first that cannot be.
    """
    said = {"width": width, "height": height, "bit_depth": bit_depth}
    return RawFormat(**{k: check_count(k, v) for k, v in said.items() if v is not None})


def check_count(name: str, value: object) -> int:
    """Check a value that must be a whole number from 1 on.

    Args:
        name: What the user calls it.
        value: As given.

    Returns:
        The value.

    Raises:
        ConfigError: if it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name}={value}: give a whole number, at least 1")
    return value


def check_served(options: Mapping[str, Any]) -> None:
    """Check what a `BlockDataModule` is asked to serve.

    Args:
        options: Its arguments, without those of the run.

    Raises:
        ConfigError: if one is not one of its values, or does not fit another.
    """
    for name, known in _SERVED.items():
        if options[name] not in known:
            raise ConfigError(f"data.{name} must be one of {known}, got {options[name]!r}")
    sizes = [options[name] for name in ("batch_size", "eval_batch_size")]
    others = [options[name] for name in ("context", "num_workers", "noise", "mixup")]
    if min(sizes) < 1 or min(others) < 0:
        raise ConfigError(
            "data: batch sizes must be positive; context, num_workers, noise and mixup >= 0"
        )
    for name, most in MOST.items():
        if options[name] > most:
            raise ConfigError(f"data.{name} must be at most {most}, got {options[name]}")
    split, context = options["split"], options["context"]
    if split == "by_segment" and context > _MOST_CONTEXT_BY_SEGMENT:
        raise ConfigError(
            f"data.context={context} reaches over the gap between segments: at most "
            f"{_MOST_CONTEXT_BY_SEGMENT} with data.split=by_segment"
        )
    if options["split_list"] is not None and split != "by_sequence":
        raise ConfigError(
            f"data.split_list is of data.split=by_sequence, not of {split}: leave one out"
        )


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_list(name: str, values: object, allowed: Collection[int], said: str) -> None:
    if isinstance(values, (list, tuple)):
        good = all(_is_integer(v) and v in allowed for v in values)
        if good and values and len(set(values)) == len(values):
            return
        values = list(values)
    raise ConfigError(f"{name}={values}: give a list of {said}, at least one, each once")
