"""The words of a command line, made ready for Hydra: renamed keys, quoted paths."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from av1part.config.schema import PATH_KEYS
from av1part.options import RENAMED_KEYS

log = logging.getLogger(__name__)


def rename_keys(words: Sequence[str]) -> list[str]:
    """Give overrides of renamed keys their new names, with a warning; other words stay."""
    return [_rename(word) for word in words]


def _rename(word: str) -> str:
    key, equals, value = word.partition("=")
    name = key.lstrip("+~")
    if name not in RENAMED_KEYS or not (equals or key.startswith("~")):
        return word
    log.warning("%s is now called %s", name, RENAMED_KEYS[name])
    return f"{key[: len(key) - len(name)]}{RENAMED_KEYS[name]}{equals}{value}"


def quote_paths(words: Sequence[str]) -> list[str]:
    """Quote the values of `PATH_KEYS` for Hydra's grammar; other words stay as they are."""
    multirun = bool({"-m", "--multirun"} & set(words))
    return [quote_word(word, multirun=multirun) for word in words]


def quote_word(word: str, *, multirun: bool) -> str:
    """Quote the value of an override of a path; with `multirun` commas separate several."""
    key, equals, value = word.partition("=")
    if not equals or key.lstrip("+") not in PATH_KEYS or value in ("", "null", "none", "imagenet"):
        return word
    if value[0] in "'\"" or (multirun and "," in value and not exists(value)):
        return word
    if value.startswith("[") and value.endswith("]") and not exists(value):
        items = [i.strip() for i in value[1:-1].split(",")] if value[1:-1].strip() else []
        quoted = [i if i[:1] in ("'", '"') else quote_path(i) for i in items]
        return f"{key}=[{','.join(quoted)}]"
    return f"{key}={quote_path(value)}"


def quote_path(value: str) -> str:
    """Quote one path for Hydra's grammar, interpolations escaped."""
    from hydra.core.override_parser.types import Quote, QuotedString  # slow, for a usage line

    # `${` would be an interpolation even in quotes.
    return QuotedString(value.replace("${", "\\${"), Quote.single).with_quotes()


def exists(word: str) -> bool:
    """Return whether a word of the command line is a path that exists."""
    try:
        return Path(word).expanduser().exists()
    except (OSError, RuntimeError):
        return False
