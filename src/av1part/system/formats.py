"""Versions of file formats: the error for a file that this release does not read."""

from __future__ import annotations

import re
from typing import Any

from av1part import __version__

_VERSION = re.compile(r"\d[0-9A-Za-z.+-]{0,40}")


def refusal(what: str, version: Any, reads: int, wrote: Any, remedy: str) -> str:
    """Return the error for a file of another format, with the remedy.

    Args:
        what: The file, as an error names it.
        version: Its format.
        reads: The format that this release reads.
        wrote: The version of av1part that wrote it, if the file says so.
        remedy: Another remedy.

    Returns:
        One line; for a newer format it names the av1part that reads it.

    >>> refusal("a.ckpt", 2, 1, "0.9.0", "train again").partition(": ")[2]
    'it was written by av1part 0.9.0, use that or a later one, or train again'
    """
    line = f"{what} has format {version!r}, av1part {__version__} reads {reads}"
    if type(version) is not int or version < reads:
        return f"{line}: {remedy}"
    if isinstance(wrote, str) and _VERSION.fullmatch(wrote) and wrote != __version__:
        return f"{line}: it was written by av1part {wrote}, use that or a later one, or {remedy}"
    return f"{line}: use a later av1part, the one that wrote it or newer, or {remedy}"
