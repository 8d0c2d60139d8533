"""Versions of file formats: what is said of a file that this release does not read."""

from __future__ import annotations

import re
from typing import Any

from av1part import __version__

_VERSION = re.compile(r"\d[0-9A-Za-z.+-]{0,40}")


def refusal(what: str, found: Any, reads: int, wrote: Any, remedy: str) -> str:
    """Say that a file has another format than the one that is read, and what to do.

    Args:
        what: The file, as an error names it.
        found: The format it has.
        reads: The format that this release reads.
        wrote: The version of av1part that wrote it, if the file says so.
        remedy: What else mends it.

    Returns:
        One line; of a newer format it says which av1part reads it.

    >>> refusal("a.ckpt", 2, 1, "0.9.0", "train again").partition(": ")[2]
    'it was written by av1part 0.9.0, use that or a later one, or train again'
    """
    line = f"{what} has format {found!r}, av1part {__version__} reads {reads}"
    if type(found) is not int or found < reads:
        return f"{line}: {remedy}"
    if isinstance(wrote, str) and _VERSION.fullmatch(wrote) and wrote != __version__:
        return f"{line}: it was written by av1part {wrote}, use that or a later one, or {remedy}"
    return f"{line}: use a later av1part, the one that wrote it or newer, or {remedy}"
