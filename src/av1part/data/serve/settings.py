"""Checks of the options of a `BlockDataModule`, before any data is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from av1part.options import AUGMENTATIONS, MOST, PLANES, PROTOCOLS, SAMPLINGS
from av1part.partition import SIZES
from av1part.system.errors import ConfigError

_MOST_CONTEXT_BY_SEGMENT = 8
"""Half of the narrowest gap between segments: margins of two segments must not overlap."""

_SERVED: Mapping[str, Collection[Any]] = {
    "sampling": SAMPLINGS,
    "augment": AUGMENTATIONS,
    "protocol": tuple(PROTOCOLS),
    "size": SIZES,
    "planes": PLANES,
}


def check_served(options: Mapping[str, Any]) -> None:
    """Check the options of a `BlockDataModule`.

    Args:
        options: Its arguments by name, without `path`, `stage`, `taxonomy`, `injection` and seeds.

    Raises:
        ConfigError: if a value is not allowed, or does not fit another option.
    """
    for name, known in _SERVED.items():
        if options[name] not in known:
            raise ConfigError(f"data.{name} must be one of {known}, got {options[name]!r}")
    sizes = [options[name] for name in ("batch_size", "eval_batch_size")]
    amounts = [options[name] for name in ("context", "num_workers", "noise", "mixup")]
    if min(sizes) < 1 or min(amounts) < 0:
        raise ConfigError(
            "data: batch sizes must be positive; context, num_workers, noise and mixup >= 0"
        )
    for name, most in MOST.items():
        if options[name] > most:
            raise ConfigError(f"data.{name} must be at most {most}, got {options[name]}")
    protocol, context = options["protocol"], options["context"]
    if protocol == "by_segment" and context > _MOST_CONTEXT_BY_SEGMENT:
        raise ConfigError(
            f"data.context={context} reaches over the gap between segments: at most "
            f"{_MOST_CONTEXT_BY_SEGMENT} with data.protocol=by_segment"
        )
    if options["split_list"] is not None and protocol != "by_sequence":
        raise ConfigError(
            f"data.split_list is of data.protocol=by_sequence, not of {protocol}: leave one out"
        )
