"""The words after a verb: positional ones, overrides for Hydra, and its flags."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path

from av1part.config.words import exists
from av1part.options import PRETRAINED
from av1part.system.errors import ConfigError

_FLAGS_WITH_VALUE = {
    "--cfg",
    "-c",
    "--package",
    "-p",
    "--config-path",
    "-cp",
    "--config-name",
    "-cn",
    "--config-dir",
    "-cd",
    "--experimental-rerun",
}
_INFO = {"all", "config", "defaults", "defaults-tree", "plugins", "searchpath"}
OVERRIDE = re.compile(r"(\+{0,2}|~)[A-Za-z_][\w./@:-]*=.*|~[A-Za-z_][\w.@]*", re.DOTALL)


def key_of(word: str) -> str:
    """Return the first part of an override's key."""
    return re.split(r"[.=@/]", word.lstrip("+~"), maxsplit=1)[0]


def asks_hydra(rest: Sequence[str]) -> bool:
    """Return whether Hydra itself answers: `--cfg`, `--info`, `--hydra-help` and the like."""
    asks = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--version", "--shell-completion", "-sc")
    return any(word.split("=")[0] in asks for word in rest)


def split_positionals(
    words: Sequence[str],
    limits: tuple[int, int | None],
    after: Sequence[str] = (),
    keys: Collection[str] | None = None,
) -> tuple[list[str], list[str]]:
    """Separate positional words from overrides and flags.

    A verb's first words are positional as far as it needs them, whatever they look like; further
    ones if they exist as a path or do not look like an override. Flags and their values are not.

    Args:
        words: Words after the verb.
        limits: Least and most positional words; None is any number.
        after: Words after `--`, which are positional whatever they look like.
        keys: Keys and groups of the verb, where NAME=PATH is positional if NAME is none of them
            and PATH looks like a path, or is `pretrained`.

    Returns:
        Positional words; and overrides, then flags with their values, each in their order.

    Raises:
        ConfigError: if there are more positional words than the verb takes, or a file looks like a
            flag.
    """
    least, most = limits
    positional: list[str] = []
    overrides: list[str] = []
    flags: list[str] = []
    remaining = iter(words)
    before = ""
    for word in remaining:
        if word.startswith("-"):
            if Path(word).suffix and exists(word):
                raise ConfigError(f"{word} is read as an option: write ./{word}, or -- before it")
            flags.append(word)
            if word in _FLAGS_WITH_VALUE:
                flags += islice(remaining, 1)  # none: it lacks its value
        elif before in ("--info", "-i") and word in _INFO:
            flags.append(word)
        elif (keys is not None and _is_named(word, keys)) or _is_positional(
            word, most=most, wanted=len(positional) + len(after) < least
        ):
            positional.append(word)
        else:
            overrides.append(word)
        before = word
    positional += after
    if most is not None and len(positional) > most:
        raise ConfigError(
            f"unexpected {positional[most]!r}: options are key=value, and paths with = are quoted"
        )
    # Hydra's parser wants all overrides in one place.
    return positional, [*overrides, *flags]


def _is_positional(word: str, *, most: int | None, wanted: bool) -> bool:
    if not OVERRIDE.fullmatch(word):
        return True
    if most == 0:
        return False
    # An override never has a slash before its `=`, except for a group in a package.
    return exists(word) or (wanted and "/" in word.partition("=")[0])


def _is_named(word: str, keys: Collection[str]) -> bool:
    name, equals, path = word.partition("=")
    if not equals or name[:1] in ("+", "~") or key_of(word) in keys:
        return False
    return exists(path) or "/" in path or Path(path).suffix != "" or path == PRETRAINED
