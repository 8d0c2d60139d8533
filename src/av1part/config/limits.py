"""How long a run trains and how often it validates: these arguments of the Trainer, checked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from av1part.system.errors import ConfigError

_SHARES = ("limit_train_batches", "limit_val_batches", "val_check_interval")
_TIME = re.compile(r"(\d{1,4}):(\d\d):(\d\d):(\d\d)")


def check_limits(trainer: Mapping[str, Any]) -> None:
    """Refuse limits that contradict each other, or leave nothing to train or to validate.

    Args:
        trainer: The config group `trainer`.

    Raises:
        ConfigError: naming the key.
    """
    for name in _SHARES:
        value = trainer[name]
        whole = type(value) is int and value >= 1
        if value is not None and not whole and not (type(value) is float and 0 < value <= 1):
            raise ConfigError(
                f"trainer.{name} must be a number of batches from 1 (without a point), or a share "
                f"above 0 and up to 1.0, got {value!r}"
            )
    if trainer["max_steps"] == 0:
        raise ConfigError("trainer.max_steps must be -1 or at least 1, got 0")
    max_time(trainer)
    for name, most in (("epochs", trainer["max_epochs"]), ("steps", max_steps(trainer))):
        least = trainer[f"min_{name}"]
        if least is not None and most is not None and least > most:
            raise ConfigError(
                f"trainer.min_{name}={least} is more than trainer.max_{name}={most}: lower it"
            )
    algorithm = trainer["gradient_clip_algorithm"]
    if algorithm is not None and not trainer["gradient_clip_val"]:
        raise ConfigError(
            f"trainer.gradient_clip_algorithm={algorithm} does nothing without "
            "trainer.gradient_clip_val: give both"
        )


def check_batches(trainer: Mapping[str, Any], train: int, val: int) -> None:
    """Refuse a share or an interval that does not fit the number of batches.

    Args:
        trainer: The config group `trainer`.
        train: Training batches of an epoch, of one process.
        val: Validation batches, likewise.

    Raises:
        ConfigError: naming the key.
    """
    for name, batches in (("limit_train_batches", train), ("limit_val_batches", val)):
        if not limited(batches, trainer[name]):
            raise ConfigError(
                f"trainer.{name}={trainer[name]} leaves none of {batches} batches: give a larger "
                f"share, or trainer.{name}=1 for one batch"
            )
    interval, batches = (
        trainer["val_check_interval"],
        limited(train, trainer["limit_train_batches"]),
    )
    if isinstance(interval, int) and interval > batches:
        raise ConfigError(
            f"trainer.val_check_interval={interval} is more than the {batches} batches of an "
            "epoch: lower it, or use trainer.check_val_every_n_epoch"
        )


def limited(batches: int, limit: float | None) -> int:
    """Return how many batches a limit leaves: a number of them, or a share, rounded down.

    >>> limited(10, None), limited(10, 3), limited(10, 0.25), limited(10, 1.0)
    (10, 3, 2, 10)
    """
    if limit is None:
        return batches
    return int(batches * limit) if isinstance(limit, float) else min(batches, limit)


def planned_epochs(trainer: Mapping[str, Any], train: int) -> int:
    """Return the epochs that a run takes at most, the last one perhaps in part.

    Args:
        trainer: The config group `trainer`.
        train: Training batches of an epoch, of one process.

    Returns:
        The number of epochs.
    """
    epochs, steps = int(trainer["max_epochs"]), max_steps(trainer)
    if steps is None:
        return epochs
    batches = limited(train, trainer["limit_train_batches"])
    per_epoch = math.ceil(batches / (trainer["accumulate_grad_batches"] or 1))
    return min(epochs, math.ceil(steps / per_epoch))


def max_steps(trainer: Mapping[str, Any]) -> int | None:
    """Return trainer.max_steps, if it limits the run."""
    return None if trainer["max_steps"] in (None, -1) else int(trainer["max_steps"])


def max_time(trainer: Mapping[str, Any]) -> timedelta | None:
    """Return trainer.max_time, if there is one.

    Args:
        trainer: The config group `trainer`.

    Returns:
        The time, or None.

    Raises:
        ConfigError: if it is not DD:HH:MM:SS.
    """
    text = trainer["max_time"]
    if text is None:
        return None
    parts = _TIME.fullmatch(str(text))
    if parts is None or not any(map(int, parts.groups())):
        raise ConfigError(
            f"trainer.max_time must be days:hours:minutes:seconds, such as 00:12:00:00, got "
            f"{text!r}"
        )
    days, hours, minutes, seconds = map(int, parts.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
