"""What `method=meta` asks of a run's settings: its tasks are whole pictures, its steps its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from av1part.config.schema import Data
from av1part.options import META, PRECISIONS
from av1part.stages.meta import MetaOptions
from av1part.system.errors import ConfigError

_UNUSED = {
    "batch_size": "method.tasks is the number of tasks of a step",
    "eval_batch_size": "a batch of val is one task",
    "sampling": "a task has the blocks that its picture has",
    "augment": "a task is a picture as it is",
    "noise": "a task is a picture as it is",
    "mixup": "a task is a picture as it is",
    "planes": "features of the frozen trunk are what it trains on",
}
"""Keys of `data` that do nothing with this method, and why."""


def meta_options(settings: Mapping[str, Any]) -> MetaOptions | None:
    """Return the options of `method=meta`, None for another method.

    Args:
        settings: The configuration of the run.

    Returns:
        The options.

    Raises:
        ConfigError: if one is unknown, or has a wrong value.
    """
    options = dict(settings["method"])
    if options.pop("name") != META:
        return None
    try:
        return MetaOptions.of(options)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def check_meta(settings: Mapping[str, Any], options: MetaOptions) -> None:
    """Refuse what does nothing with `method=meta`, or contradicts it.

    Args:
        settings: The configuration of the run.
        options: Of the method.

    Raises:
        ConfigError: naming the key and the remedy.
    """
    data, trainer = settings["data"], settings["trainer"]
    default = Data()
    for key, why in _UNUSED.items():
        if data[key] != getattr(default, key):
            raise ConfigError(f"data.{key} does nothing with method={META} ({why}): leave it out")
    if data["protocol"] != "by_sequence":
        raise ConfigError(
            f"method={META} takes whole pictures as tasks, which data.protocol={data['protocol']} "
            "cuts or does not know: use data.protocol=by_sequence"
        )
    if data["context"] > options.episodes.gap:
        raise ConfigError(
            f"data.context={data['context']} reaches over method.gap={options.episodes.gap}, so "
            "that a labelled block would show the picture's others: give a gap of at least the "
            "context"
        )
    if settings["injection"]["source"] != "none":
        raise ConfigError(
            f"injection={settings['injection']['source']} does nothing with method={META}: a task "
            "has the blocks of its own picture; leave it out"
        )
    refused = {
        "compile=true": bool(trainer["compile"]),
        f"accumulate_grad_batches={trainer['accumulate_grad_batches']}": (
            trainer["accumulate_grad_batches"] not in (None, 1)
        ),
        f"gradient_clip_val={trainer['gradient_clip_val']}": bool(trainer["gradient_clip_val"]),
        f"precision={trainer['precision']}": trainer["precision"] != PRECISIONS[0],
    }
    for word, asked in refused.items():
        if asked:
            raise ConfigError(
                f"trainer.{word} does not go with method={META}, which takes its inner and outer "
                "steps itself, in float32: leave it out (method.tasks is how many tasks a step has)"
            )
