"""Composed configurations: resolvers, type checks against the defaults, plain values."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, ListConfig, OmegaConf

from av1part import embedded
from av1part.options import (
    AUGMENTATIONS,
    CALIBRATION_SOURCES,
    CONDITIONINGS,
    DRAWN,
    ENSEMBLES,
    INJECTION_LABELS,
    INJECTION_SOURCES,
    MOST,
    OBJECTIVES,
    PATH_KEYS,
    PLACEMENTS,
    PLANES,
    PRECISIONS,
    PROTOCOLS,
    SAMPLINGS,
    SCHEDULES,
    VERIFICATIONS,
)
from av1part.partition import SIZES, TAXONOMIES
from av1part.system.errors import ConfigError
from av1part.system.files import slug


def register_resolvers() -> None:
    """Register `slug`, text to a name of `[A-Za-z0-9_.-]`; safe to call again."""
    OmegaConf.register_new_resolver("slug", slug, replace=True)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain, resolved values."""
    values = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    return {str(k): v for k, v in values.items()}


def check_values(cfg: DictConfig, config: str) -> None:
    """Check that all keys are there, with values of their defaults' kind and in their range.

    A number where a path belongs becomes text, in `cfg` itself: a folder may be called 2026.

    Args:
        cfg: The composed configuration.
        config: Name of the primary configuration, composed again for the defaults.

    Raises:
        ConfigError: naming the key.
    """
    folders = GlobalHydra.instance().config_loader().get_search_path()
    defaults, chosen = _defaults(config, str(folders))
    given = dict(_leaves(cfg))
    _check_keys(given, defaults, chosen)
    for key, value in given.items():
        default = defaults.get(key)
        if value is None:
            # Of an option that its group's default lacks, the range says that it is a number.
            if (default is not None or key in RANGES) and key not in _NULLABLE:
                raise ConfigError(f"{key} must have a value, got null")
        elif key in PATH_KEYS:
            text = _paths(key, value, many=config in _TAKE_LISTS)
            if text != value:
                OmegaConf.update(cfg, key, text)
        else:
            _check_value(key, value, default)
    if config == "train" and cfg.data.split_seed != defaults["data.split_seed"]:
        _check_split_seed(cfg.data)


def _paths(key: str, value: Any, *, many: bool) -> str | list[str]:
    """Return a path as text, or several where stages may be ensembles.

    Raises:
        ConfigError: if it is anything else.
    """
    many = many and key in _STAGES
    listed = many and isinstance(value, ListConfig)
    paths = list(value) if listed else [value]
    if not all(type(path) in _KINDS[str][0] for path in paths):
        said = "a path or a list of paths" if many else "one path"
        raise ConfigError(f"{key} must be {said}, got {value!r}")
    return [str(path) for path in paths] if listed else str(value)


def _check_value(key: str, value: Any, default: Any) -> None:
    if default is not None and key not in _MANY_KINDS:
        kinds, name = _KINDS[type(default)]
        if type(value) not in kinds:
            raise ConfigError(f"{key} must be {name}, got {value!r}")
    # A sweep writes its settings as JSON, which has no such numbers.
    if key not in _UNLIMITED and not _all_finite(value):
        raise ConfigError(f"{key} must be finite, got {value!r}")
    if value not in CHOICES.get(key, (value,)):
        known = ", ".join(map(str, CHOICES[key]))
        raise ConfigError(f"{key} must be one of {known}, got {value!r}")
    group = key.rpartition(".")[0]
    if key in RANGES or group in RANGES:
        _check_range(key, value, *RANGES.get(key, RANGES.get(group, (0.0, 0.0))))


def _check_split_seed(data: DictConfig) -> None:
    """Refuse a seed by which nothing is drawn: a sweep over it would be one run several times.

    Of a run's own configuration alone; what a checkpoint records of its data is taken as it is.

    Raises:
        ConfigError: naming the remedy.
    """
    if data.split not in DRAWN:
        why = f"data.split={data.split} is the same for every seed: leave it out"
    elif data.split_list is not None and data.split == "by_sequence":
        why = f"data.split_list={data.split_list} says the split: leave one of them out"
    elif data.path is None and data.split == "by_sequence":
        why = (
            "the embedded dataset has a split list of its own: leave it out, or have sequences "
            f"drawn by data.path={embedded.STORE}"
        )
    else:
        return
    raise ConfigError(f"data.split_seed={data.split_seed} does nothing, {why}")


def _check_keys(
    given: Mapping[str, Any], defaults: Mapping[str, Any], chosen: Mapping[str, str]
) -> None:
    """Check that no key is missing or unknown, as in a file of one's own for a whole group.

    Raises:
        ConfigError: naming the key.
    """
    inner = {key[:end] for key in given for end, char in enumerate(key) if char == "."}
    for key in given:
        group = key.partition(".")[0]
        known = key in defaults or key in RANGES or key in CHOICES
        within = any(key.startswith(f"{k}.") for k in defaults)  # of which below
        if group in _CLOSED and not (known or within):
            names = [k.removeprefix(f"{group}.") for k in defaults if k.startswith(f"{group}.")]
            raise ConfigError(f"there is no {key}: {group} has {', '.join(names)}")
    for key in defaults:
        group, _, name = key.partition(".")
        own = _OWN_KEYS.get(group)
        if key in inner:
            raise ConfigError(f"{key} must be a value or a list, not keys with values of their own")
        if key in given or (own is not None and name not in own and group in inner):
            continue
        remedy = "give it a value"
        if own is None and group in chosen:
            remedy = f"start your file of the group {group} with `defaults: [{chosen[group]}]`"
        raise ConfigError(f"{key} is missing: {remedy}, or leave out what removes it (~)")


@cache
def _defaults(config: str, sources: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return leaves of a primary configuration, and the options of its groups.

    Composed once for all jobs of a sweep; `sources`, the folders it is composed from, only tells
    one such configuration from another.
    """
    cfg = compose(config_name=config, return_hydra_config=True)
    chosen = {str(group): str(option) for group, option in cfg.hydra.runtime.choices.items()}
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    return dict(_leaves(own)), chosen


def _check_range(key: str, value: Any, low: float, high: float) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        raise ConfigError(f"{key} must be a number from {low:g} to {high:g}, got {value!r}")


def _all_finite(value: Any) -> bool:
    if isinstance(value, ListConfig):
        return all(_all_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


_TINY, _MANY = 1e-30, sys.float_info.max

RANGES: Mapping[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "data.split_seed": (0, 2**32 - 1),
    "data.batch_size": (2, _MANY),  # BatchNorm needs two values
    "data.eval_batch_size": (1, MOST["eval_batch_size"]),
    "data.context": (0, MOST["context"]),
    "data.num_workers": (0, 1024),  # each is a process
    "data.mixup": (0, _MANY),
    "data.noise": (0, 1),
    "injection.share": (0, 0.9),
    "backbone.width": (1, 4096),
    "adapter.bottleneck": (1, _MANY),
    "adapter.rank": (1, _MANY),
    "adapter.alpha": (_TINY, _MANY),
    "adapter.dropout": (0, 1),
    "adapter.init_std": (0, _MANY),
    "head.dropout": (0, 1),
    "method.lr_decay": (1, 1000),  # the fifth layer's rate is its fourth power below the first's
    "method.unfreeze": (0, _MANY),  # each layer's epoch
    "loss.beta": (0, 1 - 1e-12),  # at 1 the effective number of samples is 0 / 0
    "loss.gamma": (0, _MANY),
    "loss.smoothing": (0, 1 - 1e-12),  # at 1 no label is left
    "loss.ratio": (1, _MANY),
    "optimizer.lr": (_TINY, _MANY),  # each of its parts
    "optimizer.weight_decay": (0, _MANY),
    "scheduler.eta_min": (0, _MANY),
    "scheduler.pct_start": (_TINY, 1 - 1e-12),
    "trainer.max_epochs": (1, _MANY),
    "callbacks.patience": (1, _MANY),
    "callbacks.verify_batches": (1, _MANY),
    "callbacks.tolerance_pp": (0, 100),
    "cache.limit_gb": (0, math.inf),
}
"""Key, or the group of all keys in it, to the least and greatest value."""

CHOICES: Mapping[str, tuple[Any, ...]] = {
    "taxonomy": tuple(TAXONOMIES),
    "conditioning": CONDITIONINGS,
    "adapter.placement": PLACEMENTS,
    "adapter.kernel": (1, 3),
    "data.size": SIZES,
    "data.split": tuple(PROTOCOLS),
    "data.sampling": SAMPLINGS,
    "data.augment": AUGMENTATIONS,
    "data.planes": PLANES,
    "cache.mode": ("auto", "off"),
    "trainer.matmul_precision": ("highest", "high"),
    "trainer.profiler": (None, "simple", "advanced", "pytorch"),
    "callbacks.verify": VERIFICATIONS,
    "injection.source": INJECTION_SOURCES,
    "injection.labels": INJECTION_LABELS,
    "callbacks.verify_every": ("improvement", "epoch"),
    "callbacks.save_every": ("improvement", "epoch"),
    "scheduler.kind": SCHEDULES,
    "ensemble": ENSEMBLES,
    "calibration": CALIBRATION_SOURCES,
    "objective": OBJECTIVES,
    "precision": PRECISIONS,
    "trainer.precision": PRECISIONS,
}
"""Key to its values; checked here so that a mistake is told before anything is opened."""

_NULLABLE = {
    "callbacks.patience",
    "callbacks.verify_batches",
    "injection.share",
    "optimizer.lr.backbone",  # of a frozen backbone
    "method.lr_backbone",
}
"""Keys with a default that may be null all the same."""

_UNLIMITED = {"cache.limit_gb"}
"""Keys that may be infinite; none of them changes a result, so no JSON holds them."""

_MANY_KINDS = {"trainer.devices", "trainer.deterministic"}
"""Keys that Lightning takes in several kinds, and checks."""

_KINDS: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "an integer"),
    float: ((int, float), "a number"),
    str: ((str, int, float), "text"),  # a folder may be called 2026
    ListConfig: ((ListConfig,), "a list"),
}


_OWN_KEYS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("adapter", "head", "loss", "scheduler"), ("kind",)),
    "method": ("name", "lr_backbone"),
    "stage": ("name",),
    "backbone": ("weights",),
    **dict.fromkeys(("plan", "cascade"), ()),  # the demo's
}
"""Groups whose options differ in their keys, or that have defaults in the code, to what all have.

Of every other group all keys are needed, so that a run's configuration says all that it did.
"""

_CLOSED = ("data", "injection", "cache", "callbacks", "logger", "optimizer", "scheduler")
"""Groups without further keys; of the others the models and Lightning say which there are."""

_STAGES = {stage.name for tree in TAXONOMIES.values() for stage in tree.stages}
_TAKE_LISTS = ("pipeline", "calibrate")
"""Primary configurations whose stages may each be several checkpoints."""


def _leaves(cfg: DictConfig) -> list[tuple[str, Any]]:
    def walk(node: Any, prefix: str) -> list[tuple[str, Any]]:
        found = []
        for key in node:
            name = f"{prefix}{key}"
            if OmegaConf.is_missing(node, key):
                continue
            value = node[key]
            if isinstance(value, DictConfig):
                found += walk(value, f"{name}.")
            else:
                found.append((name, value))
        return found

    return walk(cfg, "")
