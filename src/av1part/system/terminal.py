"""Text from files and other programs, made safe for a terminal."""

from __future__ import annotations


def printable(text: str, most: int | None = None) -> str:
    r"""Escape everything in a text that a terminal would act on.

    Control characters, escape sequences, line breaks and marks of writing direction are shown as
    Python's escapes; letters of any script stay.

    Args:
        text: From any source.
        most: Characters to keep; a longer text ends with its length.

    Returns:
        The text, on one line.

    >>> printable("caf\u00e9 \x1b[31mred\n")
    'café \\x1b[31mred\\n'
    >>> printable("abcdef", 4)
    'abcd... (6 characters)'
    """
    kept = text if most is None or len(text) <= most else text[:most]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in kept)
    return shown if len(kept) == len(text) else f"{shown}... ({len(text)} characters)"
