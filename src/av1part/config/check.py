"""A composed configuration, checked against the schema before anything is opened."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from av1part import embedded
from av1part.config.defects import check_defects
from av1part.config.limits import check_limits
from av1part.config.schema import GROUPS, Option, options_of
from av1part.config.unknown import no_such_key
from av1part.options import DRAWN, RENAMED_KEYS
from av1part.system.errors import ConfigError

log = logging.getLogger(__name__)


def own_keys(cfg: DictConfig) -> DictConfig:
    """Return a configuration without Hydra's own part."""
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain, resolved values."""
    values = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    return {str(k): v for k, v in values.items()}


def check_own_files(folder: Path) -> None:
    """Check the encoding of the configuration files in a folder of the user's.

    Hydra does not see the `# @package` line of a file that starts with a byte order mark, and would
    put its keys in another place without a word.

    Args:
        folder: What `--config-dir` names.

    Raises:
        ConfigError: naming the file.
    """
    for file in sorted(folder.rglob("*.yaml")):
        content = file.read_bytes()
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise ConfigError(f"{file} is not UTF-8 text: save it as UTF-8") from None
        if text.startswith("\ufeff"):
            raise ConfigError(
                f"{file} starts with a byte order mark: save it as UTF-8 without one (BOM)"
            )


def check_values(cfg: DictConfig, config: str) -> None:
    """Check that all keys are there, with values of their type and in their range.

    A whole number where a path belongs becomes text, in `cfg` itself: a folder may be called 2026.
    So do keys that a file of one's own has under their old names.

    Args:
        cfg: The composed configuration.
        config: Name of the primary configuration, composed again for the defaults.

    Raises:
        ConfigError: naming the key.
    """
    _rename_keys(cfg)
    folders = GlobalHydra.instance().config_loader().get_search_path()
    defaults, chosen = _defaults(config, str(folders))
    options = options_of(config)
    given = dict(leaves(cfg))
    _check_keys(given, defaults, chosen, options)
    for key, value in given.items():
        known = options.get(key) or options.get(key.rpartition(".")[0])
        if value is None:
            required = defaults.get(key) is not None if known is None else not known.nullable
            if required:
                raise ConfigError(f"{key} must have a value, got null")
        elif known is not None and known.path:
            text = _paths(key, value, many=known.many)
            if text != value:
                OmegaConf.update(cfg, key, text)
        else:
            _check_value(key, value, known)
    if config == "train":
        check_limits(cfg.trainer)
        if cfg.defects:
            check_defects(plain(cfg))
    if config == "train" and cfg.data.split_seed != defaults["data.split_seed"]:
        _check_split_seed(cfg.data)


def is_distributed(cfg: DictConfig) -> bool:
    """Return whether a composed configuration trains in several processes."""
    trainer = cfg.get("trainer")
    if trainer is None:
        return False
    devices = trainer.get("devices")
    one = devices in (1, "1") or (isinstance(devices, ListConfig) and len(devices) == 1)
    one = one or (devices == "auto" and trainer.get("accelerator") == "cpu")
    return not one or trainer.get("num_nodes") not in (None, 1)


def _rename_keys(cfg: DictConfig) -> None:
    for old, new in RENAMED_KEYS.items():
        group, _, name = old.rpartition(".")
        holder = OmegaConf.select(cfg, group)
        if isinstance(holder, DictConfig) and name in holder:
            log.warning("%s is now called %s", old, new)
            with open_dict(holder):
                OmegaConf.update(cfg, new, holder.pop(name))


def _paths(key: str, value: Any, *, many: bool) -> str | list[str]:
    """Return a path as text, or several where stages may be ensembles.

    Raises:
        ConfigError: if it is anything else.
    """
    listed = many and isinstance(value, ListConfig)
    paths = list(value) if listed else [value]
    if not all(type(path) in (str, int) for path in paths):
        expected = "a path or a list of paths" if many else "one path"
        raise ConfigError(f"{key} must be {expected}, got {value!r}{_quotes(paths[0])}")
    return [str(path) for path in paths] if listed else str(value)


def _quotes(value: Any) -> str:
    """Return the remedy for text that YAML reads as something else: 1_1_1 is 111, yes is true."""
    scalar = isinstance(value, (bool, int, float))
    return ": put it in quotes in the file that sets it" if scalar else ""


def _check_value(key: str, value: Any, known: Option | None) -> None:
    if known is not None and known.kind in _KINDS:
        kinds, name = _KINDS[known.kind]
        if type(value) not in kinds:
            remedy = _quotes(value) if known.kind == "str" else ""
            raise ConfigError(f"{key} must be {name}, got {value!r}{remedy}")
    # A sweep writes its settings as JSON, which has no such numbers.
    if not (known is not None and known.infinite) and not _all_finite(value):
        raise ConfigError(f"{key} must be finite, got {value!r}")
    if known is None:
        return
    if known.choices is not None and value not in known.choices:
        choices = ", ".join(map(str, known.choices))
        raise ConfigError(f"{key} must be one of {choices}, got {value!r}")
    if known.low is not None and known.high is not None:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not known.low <= value <= known.high:
            limits = f"from {known.low:g} to {known.high:g}"
            if known.high >= sys.float_info.max:
                limits = f"of at least {known.low:g}"
            raise ConfigError(f"{key} must be a number {limits}, got {value!r}")


def _check_split_seed(data: DictConfig) -> None:
    """Refuse a seed by which nothing is drawn: a sweep over it would be one run several times.

    Of a run's own configuration alone; what a checkpoint records of its data is taken as it is.

    Raises:
        ConfigError: naming the remedy.
    """
    if data.protocol not in DRAWN:
        why = f"data.protocol={data.protocol} is the same for every seed: leave it out"
    elif data.split_list is not None and data.protocol == "by_sequence":
        why = f"data.split_list={data.split_list} says the split: leave one of them out"
    elif data.path is None and data.protocol == "by_sequence":
        why = (
            "the embedded dataset has a split list of its own: leave it out, or have sequences "
            f"drawn by data.path={embedded.STORE}"
        )
    else:
        return
    raise ConfigError(f"data.split_seed={data.split_seed} does nothing, {why}")


def _check_keys(
    given: Mapping[str, Any],
    defaults: Mapping[str, Any],
    chosen: Mapping[str, str],
    options: Mapping[str, Option],
) -> None:
    """Check that no key is missing or unknown, as in a file of one's own for a whole group.

    Raises:
        ConfigError: naming the key.
    """
    inner = {key[:end] for key in given for end, char in enumerate(key) if char == "."}
    for key in given:
        group = key.partition(".")[0]
        known = key in defaults or key in options
        # What holds other keys, or lies below one, is judged with those.
        within = any(key.startswith(f"{k}.") or k.startswith(f"{key}.") for k in defaults)
        if group in GROUPS and GROUPS[group].closed and not (known or within):
            raise ConfigError(no_such_key(key, defaults))
    for key in defaults:
        group, _, name = key.partition(".")
        own = GROUPS[group].own if group in GROUPS else _DEMO_OWN.get(group)
        if key in inner:
            raise ConfigError(f"{key} must be a value or a list, not keys with values of their own")
        if key in given or (own is not None and name not in own and group in inner):
            continue
        remedy = "give it a value"
        if own is None and group in chosen:
            remedy = f"start your file of the group {group} with `defaults: [{chosen[group]}]`"
        raise ConfigError(f"{key} is missing: {remedy}, or leave out what removes it (~)")


_DEMO_OWN: Mapping[str, tuple[str, ...]] = {"plan": (), "cascade": ()}
"""Keys of the demo's mappings that must be there: none, a plan may have other runs."""


@cache
def _defaults(config: str, sources: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return leaves of a primary configuration, and the options of its groups.

    Composed once for all jobs of a sweep; `sources`, the folders it is composed from, only tells
    one such configuration from another.
    """
    cfg = compose(config_name=config, return_hydra_config=True)
    chosen = {str(group): str(option) for group, option in cfg.hydra.runtime.choices.items()}
    return dict(leaves(own_keys(cfg))), chosen


def _all_finite(value: Any) -> bool:
    if isinstance(value, ListConfig):
        return all(_all_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "true or false"),
    "int": ((int,), "an integer"),
    "float": ((int, float), "a number"),
    "str": ((str,), "text"),
    "list": ((ListConfig,), "a list"),
}
"""Annotation in the schema to the types it admits, and their name in an error."""


def leaves(cfg: DictConfig, prefix: str = "") -> list[tuple[str, Any]]:
    """Return dotted keys and resolved values of a configuration; missing ones are left out."""
    found: list[tuple[str, Any]] = []
    for key in map(str, cfg):
        name = f"{prefix}{key}"
        if OmegaConf.is_missing(cfg, key):
            continue
        value = cfg[key]
        found += leaves(value, f"{name}.") if isinstance(value, DictConfig) else [(name, value)]
    return found
