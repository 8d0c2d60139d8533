"""`av1part <verb> --help`: groups and keys with their values, ranges and meanings."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import ListConfig

from av1part.config.check import leaves, own_keys
from av1part.config.schema import MISSING, Option, groups_of, options_of

_WIDTH = 100


def help_text(config: str, overrides: Sequence[str]) -> str:
    """Return the help of a verb; Hydra must be initialised.

    Args:
        config: Name of its primary configuration.
        overrides: Words of the command line: the values shown are those composed with them.

    Returns:
        Groups with their choices, keys with values, ranges and meanings.

    Raises:
        HydraException: if the overrides do not compose.
    """
    cfg = compose(config, list(overrides), return_hydra_config=True)
    chosen = dict(cfg.hydra.runtime.choices)
    values = dict(leaves(own_keys(cfg)))
    options = options_of(config)
    given = {key[:end] for key in values for end, char in enumerate(f"{key}.") if char == "."}
    missing = [key for key in options if key not in given and _is_asked_for(key, config)]
    lines = []
    groups = groups_of(config)
    if groups:
        lines += ["Groups, choose by group=choice (* is chosen):", ""]
        lines += [line for group in groups for line in _group_lines(group, chosen.get(group))]
        if config == "train":
            lines += _wrapped(f"  {'experiment':<12} ", sorted(_choices("experiment")))
        lines.append("")
    lines += ["Keys, change by key=value:" if values or missing else "It has no keys.", ""]
    lines += [f"  {key:<26} {MISSING:<14} {options[key].text}" for key in missing]
    for key, value in values.items():
        known = options.get(key) or options.get(key.rpartition(".")[0])
        lines.append(_key_line(key, value, known))
    footer = "--cfg job prints the composed configuration, --config-dir DIR adds your own files"
    if config == "train":
        footer += ",\n-m with commas sweeps"
    return "\n".join([*lines, "", f"{footer}."])


def _is_asked_for(key: str, config: str) -> bool:
    """Return whether a key without a value must be given, and is no other choice's of a group."""
    return key.partition(".")[0] not in groups_of(config)


def _group_lines(group: str, chosen: str | None) -> list[str]:
    names = [f"{name}*" if name == chosen else name for name in sorted(_choices(group))]
    return _wrapped(f"  {group:<12} ", names)


def _choices(group: str) -> list[str]:
    """Return the choices of a group, those in folders below it with their paths."""
    loader = GlobalHydra.instance().config_loader()
    found = list(loader.get_group_options(group))
    for folder in loader.get_group_options(group, results_filter=ObjectType.GROUP):
        found += [f"{folder}/{name}" for name in loader.get_group_options(f"{group}/{folder}")]
    return found


def _wrapped(head: str, names: Sequence[str]) -> list[str]:
    return textwrap.wrap(
        head + ", ".join(names), _WIDTH, subsequent_indent=" " * len(head), break_on_hyphens=False
    )


def _key_line(key: str, value: object, known: Option | None) -> str:
    line = f"  {key:<26} {_shown(value):<14} "
    if known is None:
        return line.rstrip()
    limits = _limits(known)
    return f"{line}{known.text}{f' ({limits})' if limits else ''}".rstrip()


def _shown(value: object) -> str:
    """Return a value as it is typed on the command line."""
    if isinstance(value, ListConfig):
        return f"[{','.join(map(_shown, value))}]"
    return (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )


def _limits(known: Option) -> str:
    if known.choices is not None:
        return " | ".join("null" if choice is None else str(choice) for choice in known.choices)
    if known.low is None or known.high is None:
        return ""
    low = f"above {0:g}" if 0 < known.low < 1e-20 else f"{known.low:g}"
    if math.isinf(known.high) or known.high > 1e300:
        return low if low.startswith("above") else f"from {low}"
    high = "below 1" if 1 - 1e-9 < known.high < 1 else f"{known.high:g}"
    return f"{low}, {high}" if high.startswith("below") else f"{low} to {high}"
