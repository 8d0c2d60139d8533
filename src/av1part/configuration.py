"""Composed configurations: resolvers, type checks against the defaults, plain values."""

from __future__ import annotations

import re
from typing import Any

from hydra import compose
from omegaconf import DictConfig, ListConfig, OmegaConf

from av1part.errors import ConfigError


def register_resolvers() -> None:
    """Register `slug`: text to a name of `[A-Za-z0-9_.-]`; safe to call again."""
    OmegaConf.register_new_resolver("slug", slug, replace=True)


def slug(text: str) -> str:
    """Return text as a run name.

    >>> slug("adapter.layers-[3,4]_seed-1")
    'adapter.layers-3-4_seed-1'
    """
    return re.sub(r"[^A-Za-z0-9_.]+", "-", str(text)).replace("-_", "_").strip("-") or "run"


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain, resolved values."""
    values = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    return {str(k): v for k, v in values.items()}


def check_types(cfg: DictConfig, config: str) -> None:
    """Check that values are of the kind their defaults are of.

    Args:
        cfg: The composed configuration.
        config: Name of the primary configuration, composed again for the defaults.

    Raises:
        ConfigError: naming the key.
    """
    defaults = compose(config_name=config)
    for key, default in _leaves(defaults):
        if key in _MANY_KINDS:
            continue
        value = OmegaConf.select(cfg, key, throw_on_missing=False, default=None)
        if value is None or default is None:
            continue
        kinds, name = _KINDS[type(default)]
        if type(value) not in kinds:
            raise ConfigError(f"{key} must be {name}, got {value!r}")


_MANY_KINDS = {"trainer.devices", "trainer.deterministic"}
"""Keys that Lightning takes in several kinds, and checks."""

_KINDS: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "an integer"),
    float: ((int, float), "a number"),
    str: ((str, int, float), "text"),  # a folder may be called 2026
    ListConfig: ((ListConfig,), "a list"),
}


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
