"""The file of a bundle: facts as JSON and arrays, read without trusting either.

    8 bytes   length of the header, little-endian
    header    JSON of safetensors; under __metadata__ the one key `av1part`, the facts as JSON
    the rest  the arrays' bytes

It is a safetensors file, so it holds no code. An array's name in the file is the SHA-256 of its
dtype, shape and bytes; `tensors` in the facts gives each its names, so that a backbone that
several stages share is stored once. `sha256` in the facts is that of all other facts.

An array of float16 is float32 to everything that computes: `halved` rounds before a file is
written, `widened` gives float32 back once it is read.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from av1part.system.errors import BundleError, first_line
from av1part.system.files import expanded

Arrays = Mapping[str, NDArray[Any]]
"""Name to array, float32, float64 or int64; in the file float16, too."""

Content = Mapping[str, Any]
"""Plain values of JSON."""

ENTRY = "av1part"
"""Key of the facts in the file's header."""

MOST_BYTES = 4 << 30
MOST_HEADER = 16 << 20
MOST_SHARING = 32
"""Times the file's size that its arrays may take, since several names may share one."""

_DTYPES = {"F16": np.float16, "F32": np.float32, "F64": np.float64, "I64": np.int64}
_LONGEST_NAME = 250
_MOST_DIMENSIONS = 8
_LENGTH = 8


@dataclass(frozen=True)
class Packed:
    """A predictor taken apart.

    Attributes:
        content: What it is beside name and domain.
        arrays: By name.
        sources: For each dataset it was trained on, its name and the hashes of manifest and split.
        weights: Names of the arrays that may be rounded to float16.
    """

    content: Content
    arrays: Arrays
    sources: Sequence[Content] = ()
    weights: Collection[str] = ()


def check_keys(values: Content, wanted: set[str]) -> None:
    """Check that an object of JSON has exactly these members.

    Args:
        values: The object.
        wanted: Names of its members.

    Raises:
        ValueError: if it has others, or lacks one.
    """
    if set(values) != wanted:
        raise ValueError(f"it has {sorted(values)}, not {sorted(wanted)}")


def halved(arrays: Arrays, weights: Collection[str]) -> dict[str, NDArray[Any]]:
    """Round weights to float16, the nearest value, ties to even.

    A weight keeps its dtype where float16 cannot hold it: where a value overflows, or where the
    largest magnitude is below the smallest normal number, so that its values would lose digits or
    become 0. Smaller values beside larger ones may: their error is at most 2^-25.

    Args:
        arrays: Name to array.
        weights: Names of those to round, of float32.

    Returns:
        All arrays, those that were rounded as float16.
    """
    rounded = dict(arrays)
    for name in weights:
        with np.errstate(over="ignore"):
            half = arrays[name].astype(np.float16)
        largest = np.abs(half).max(initial=0)
        if (largest == 0 and not arrays[name].any()) or np.finfo(
            np.float16
        ).smallest_normal <= largest < np.inf:
            rounded[name] = half
    return rounded


def is_half(arrays: Arrays) -> bool:
    """Return whether any array is of float16."""
    return any(array.dtype == np.float16 for array in arrays.values())


def widened(arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Return the arrays with float32, of the same values, for float16."""
    return {
        name: array.astype(np.float32) if array.dtype == np.float16 else array
        for name, array in arrays.items()
    }


def sha256_array(array: NDArray[Any]) -> str:
    """Return the SHA-256 over dtype, shape and bytes of an array, as hexadecimal digits."""
    digest = hashlib.sha256(f"{array.dtype.name}|{array.shape}|".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def canonical(value: Any) -> str:
    """Return a value as JSON, in the one way that is hashed; ASCII, keys sorted, without NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def to_bytes(facts: Mapping[str, Any], arrays: Arrays) -> bytes:
    """Return the file of a bundle; equal arguments give equal bytes.

    Args:
        facts: Plain values, without `tensors` and `sha256`.
        arrays: Name to array.

    Returns:
        The file.

    Raises:
        BundleError: if an array has another dtype.
    """
    stored: dict[str, NDArray[Any]] = {}
    names = {}
    for name, array in arrays.items():
        if array.dtype not in _DTYPES.values():
            raise BundleError(
                f"{name} is of {array.dtype}: a bundle holds float16, float32, float64, int64"
            )
        names[name] = sha256_array(array)
        stored[names[name]] = np.asarray(array, order="C")  # `ascontiguousarray` adds a dimension
    whole = {**facts, "tensors": names}
    whole["sha256"] = hashlib.sha256(canonical(whole).encode()).hexdigest()
    # One key: the order of several is not defined.
    return bytes(save(stored, {ENTRY: canonical(whole)}))


def read_facts(path: str | Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Read the facts of a bundle, without its arrays.

    Args:
        path: The file.

    Returns:
        The facts, whose hash is right, and whose meaning is not checked; and the number of stored
        arrays of each dtype, as the header has it.

    Raises:
        BundleError: if the file is missing, damaged, or no bundle.
    """
    path = expanded(path)
    facts, entries = _facts(path, _read(path, whole=False))
    _check_entries(path, entries)
    count = Counter(np.dtype(_DTYPES[entry["dtype"]]).name for entry in entries.values())
    return facts, dict(sorted(count.items()))


def read_bundle_file(path: str | Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read a bundle: facts and arrays, each equal to its hash, all numbers finite.

    Args:
        path: The file.

    Returns:
        The facts, whose meaning is not checked, and the arrays by name.

    Raises:
        BundleError: if the file is missing, damaged, hostile, or no bundle.
    """
    path = expanded(path)
    data = _read(path, whole=True)
    facts, entries = _facts(path, data)
    _check_entries(path, entries)
    names = facts["tensors"]
    if set(names.values()) != set(entries):
        _refuse(path, "it does not hold the arrays that it names")
    try:
        stored = load(data)
    except (SafetensorError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        _refuse(path, first_line(error))
    taken = sum(stored[digest].size * _itemsize(stored[digest]) for digest in names.values())
    if taken > MOST_SHARING * len(data):
        _refuse(path, f"its arrays would take {taken} bytes, more than {MOST_SHARING} times itself")
    for digest, array in stored.items():
        if sha256_array(array) != digest:
            _refuse(path, f"the SHA-256 of {_name_of(names, digest)} is another")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            _refuse(path, f"{_name_of(names, digest)} holds numbers that are not finite")
    return facts, {name: stored[digest] for name, digest in names.items()}


def _itemsize(array: NDArray[Any]) -> int:
    """Return the bytes that an item takes in memory, where float16 is widened."""
    return max(array.itemsize, np.dtype(np.float32).itemsize)


def _refuse(path: Path, reason: str) -> NoReturn:
    """Refuse a file.

    Raises:
        BundleError: always.
    """
    raise BundleError(f"bundle {path} is refused: {reason}; get it again, and do not trust it")


def _name_of(names: Mapping[str, str], digest: str) -> str:
    return next(name for name, own in names.items() if own == digest)


def _read(path: Path, *, whole: bool) -> bytes:
    """Read a file, or only its header, whose length is checked first.

    Raises:
        BundleError: if it is missing or no safetensors file.
    """
    if not path.is_file():
        raise BundleError(
            f"bundle {path} does not exist: give the path of a file of av1part bundle"
        )
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            start = file.read(_LENGTH)
            length = int.from_bytes(start, "little")
            if not _LENGTH + 2 <= _LENGTH + length <= size:
                _refuse(path, "it is truncated or no safetensors file")
            if length > MOST_HEADER or size > MOST_BYTES:
                _refuse(
                    path,
                    f"it has {size} bytes, {length} of them its header, more than the "
                    f"{MOST_BYTES} and {MOST_HEADER} that are read",
                )
            return start + file.read(-1 if whole else length)
    except OSError as error:
        raise BundleError(f"bundle {path} cannot be read ({error.strerror})") from None


def _facts(path: Path, data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the facts in the start of a file, and the header's entries of arrays.

    Raises:
        BundleError: if it has no facts, or not those that were hashed.
    """
    length = int.from_bytes(data[:_LENGTH], "little")
    header = _parse(path, data[_LENGTH : _LENGTH + length])
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not isinstance(metadata.get(ENTRY), str):
        raise BundleError(f"{path} is not a bundle: av1part bundle makes one, from checkpoints")
    facts = _parse(path, metadata[ENTRY])
    names, wanted = facts.get("tensors"), facts.pop("sha256", None)
    named = isinstance(names, dict) and all(isinstance(d, str) for d in names.values())
    if not named or hashlib.sha256(canonical(facts).encode()).hexdigest() != wanted:
        _refuse(path, "the SHA-256 of its facts is another")
    return facts, header


def _parse(path: Path, text: str | bytes) -> dict[str, Any]:
    """Parse a JSON object strictly: no key twice, no NaN, no bottomless nesting."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        canonical(value)
    except (RecursionError, ValueError) as error:
        _refuse(path, f"its header is not JSON ({first_line(error)})")
    if not isinstance(value, dict):
        _refuse(path, "its header is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's members.

    Raises:
        ValueError: if one is there twice.
    """
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key is there twice")
    return members


def _no_constant(name: str) -> NoReturn:
    """Refuse NaN and infinities.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"{name} is no number of JSON")


def _check_entries(path: Path, entries: Mapping[str, Any]) -> None:
    """Check names, dtypes and shapes; that they fill the file exactly, safetensors checks."""
    for name, entry in entries.items():
        if len(name) > _LONGEST_NAME or not name.isprintable():
            _refuse(path, "an array has a name that cannot be")
        known = isinstance(entry, dict) and entry.get("dtype") in list(_DTYPES)
        shape = entry.get("shape") if known else None
        if not isinstance(shape, list) or len(shape) > _MOST_DIMENSIONS:
            _refuse(path, f"array {name} is not of {', '.join(_DTYPES)}, or has no shape")
