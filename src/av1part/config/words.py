"""The words of a command line, made ready for Hydra: renamed keys, quoted text.

Hydra reads values by a grammar of its own: 1_1_1 is a number, a comma lists values, many letters
are errors. Where the schema has text (a name, a path, a choice), what was typed is meant.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from av1part.config.schema import TEXT_OPTIONS, Option
from av1part.options import RENAMED_KEYS

if TYPE_CHECKING:
    from hydra.core.override_parser.overrides_parser import OverridesParser

log = logging.getLogger(__name__)

_FUNCTION = re.compile(r"(choice|range|interval|glob|sort|shuffle|tag)\(.*\)", re.DOTALL)
"""What Hydra computes values with."""

_LIST = re.compile(r"\[[^\[\]]*\]", re.DOTALL)
"""One list, without another in it."""


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


def quote_words(words: Sequence[str]) -> list[str]:
    """Quote values that are text for Hydra's grammar, by the schema; other words stay."""
    multirun = bool({"-m", "--multirun"} & set(words))
    return [quote_word(word, multirun=multirun) for word in words]


def quote_word(word: str, *, multirun: bool) -> str:
    """Quote the value of an override of text where Hydra would read something else.

    Args:
        word: Any word of a command line.
        multirun: Whether commas separate several values.

    Returns:
        The word; as it was if the user quoted the value, or if it is no override of text.

    >>> quote_word("name=1e3", multirun=False), quote_word("seed=1e3", multirun=False)
    ("name='1e3'", 'seed=1e3')
    >>> quote_word("name=1e3,b", multirun=True), quote_word("name=b", multirun=False)
    ("name='1e3',b", 'name=b')
    """
    key, equals, value = word.partition("=")
    known = TEXT_OPTIONS.get(key.lstrip("+"))
    if not equals or known is None or value == "" or value[0] in "'\"":
        return word
    if known.path and exists(value):
        return f"{key}={_quoted(value, known)}"
    if _LIST.fullmatch(value):
        items = [i.strip() for i in value[1:-1].split(",")] if value[1:-1].strip() else []
        return f"{key}=[{','.join(_quoted(i, known) for i in items)}]"
    if multirun and (value[0] == "[" or _FUNCTION.fullmatch(value)):
        return word  # several lists, or what Hydra computes
    values = [v.strip() for v in value.split(",")] if multirun else [value]
    return f"{key}={','.join(_quoted(v, known) for v in values)}"


def quote_path(value: str) -> str:
    """Quote one path for Hydra's grammar, interpolations escaped."""
    from hydra.core.override_parser.types import Quote, QuotedString  # slow, for a usage line

    # `${` would be an interpolation even in quotes.
    return QuotedString(value.replace("${", "\\${"), Quote.single).with_quotes()


def _quoted(text: str, known: Option) -> str:
    """Return text in quotes, unless Hydra reads the same, or it is in quotes already."""
    if text[:1] in ("'", '"') or (known.nullable and text == "null"):
        return text
    plain = _reads_the_same(text) and not (known.path and "${" in text)
    return text if plain else quote_path(text)


def _reads_the_same(text: str) -> bool:
    from hydra.errors import HydraException

    try:
        return bool(_parser().parse_override(f"key={text}").value() == text) and text != ""
    except HydraException:
        return False


@cache
def _parser() -> OverridesParser:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create()


def exists(word: str) -> bool:
    """Return whether a word of the command line is a path that exists."""
    try:
        return Path(word).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False
