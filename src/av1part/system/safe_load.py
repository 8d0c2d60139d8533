"""Reading what `torch.save` wrote without trusting it: no code, no bombs, tensors and values only.

The pickle may name nothing but what tensors are rebuilt from, which is checked before torch sees
it; then torch loads it with `weights_only=True`. The one place that calls `torch.load`.
"""

from __future__ import annotations

import mmap
import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from av1part.system.errors import first_line

_KNOWN = re.compile(
    r"torch (\w+Storage|Size|device|strided|sparse_\w+|bool|(b?float|q?u?int|complex)\d+)"
    r"|torch\._utils _rebuild_\w+|collections OrderedDict"
    r"|torch\._tensor _rebuild_from_type_v2|torch\.nn\.parameter Parameter"
    r"|torch\.serialization _get_layout"
)
"""Names a pickle may use; torch allows more, such as `bytearray`, whose size is any number."""

_NAMING = {"GLOBAL", "INST"}
_LEGACY_PICKLES = 5
"""Pickles before the tensors, as torch before 1.6 wrote: two marks, system, content, keys."""


class NotPlainError(Exception):
    """A file that is refused; the text follows "FILE is refused: "."""


def load_plain(path: Path, *, mapped: bool = False, legacy: bool = True) -> Any:
    """Load a file of `torch.save` onto the CPU without running code from it.

    A file that would unpack to more than its own size is refused.

    Args:
        path: The file.
        mapped: Map the tensors of a zip file instead of reading them.
        legacy: Also accept the form that torch wrote before 1.6, which is no zip file.

    Returns:
        The saved object.

    Raises:
        NotPlainError: if the file is damaged, is none of `torch.save`, or holds anything but
            tensors and plain values.
        OSError: if it cannot be opened.
    """
    with path.open("rb") as file:
        try:
            zipped = zipfile.is_zipfile(file)
            if zipped:
                _check_zip(file)
            elif legacy:
                _check_legacy(file)
            else:
                raise NotPlainError("it is truncated or no file of torch.save; restore it")
            with warnings.catch_warnings(action="ignore"):  # callers refuse it, or it is harmless
                return torch.load(
                    path, map_location="cpu", weights_only=True, mmap=mapped and zipped
                )
        except NotPlainError:
            raise
        except Exception as error:
            # torch, zipfile and pickletools raise a dozen types for damaged or hostile files.
            raise NotPlainError(_reason(error)) from None


def _check_zip(file: BinaryIO) -> None:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        unpacked = sum(member.file_size for member in members)
        # torch does not compress: a file that unpacks to more is meant to fill the memory.
        if unpacked > file.seek(0, 2):
            raise NotPlainError(
                f"it would unpack to {unpacked} bytes, which torch did not write; do not trust it"
            )
        if (damaged := archive.testzip()) is not None:
            raise NotPlainError(f"it is damaged in {damaged[:200]!r}; restore it")
        for member in members:
            if member.filename.lower().endswith(".pkl"):
                _check_names(archive.read(member))


def _check_legacy(file: BinaryIO) -> None:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for _ in range(_LEGACY_PICKLES):
            _check_names(data)


def _check_names(pickled: Any) -> None:
    for opcode, argument, _ in pickletools.genops(pickled):
        named = opcode.name in _NAMING
        if opcode.name == "STACK_GLOBAL" or (named and not _KNOWN.fullmatch(str(argument))):
            raise NotPlainError(_CODE)


_CODE = (
    "it holds code or objects instead of plain tensors and values, and nothing of it was run; "
    "do not trust it"
)


def _reason(error: Exception) -> str:
    if "weights_only" in str(error) or "Weights only" in str(error) or "Unsupported" in str(error):
        return _CODE
    return f"it is truncated or no file of torch.save ({first_line(error)}); restore it"
