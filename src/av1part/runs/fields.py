"""Typed access to a run's JSON: a missing value or another type is a one-line error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from av1part.metrics.intervals import Interval
from av1part.system.errors import ReportError
from av1part.system.files import load_json

REMEDY = "restore the file or run again"
"""How a user mends a damaged file of a run."""


@dataclass(frozen=True)
class Fields:
    """A JSON object and its file; a key is given in parts, outermost first.

    Attributes:
        data: The object.
        file: Its file.
        prefix: Its key in the file, for messages.
    """

    data: Mapping[str, Any]
    file: Path
    prefix: str = ""

    @classmethod
    def read(cls, file: Path) -> Fields:
        """Read a JSON file that holds one object.

        Args:
            file: The file.

        Returns:
            The object.

        Raises:
            ReportError: if the file is missing, not JSON, or not an object.
        """
        try:
            data = load_json(file)
        except FileNotFoundError:
            raise ReportError(f"{file} is missing: {REMEDY}") from None
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ReportError(f"{file} is not readable JSON ({reason}): {REMEDY}") from None
        if not isinstance(data, dict):
            raise ReportError(f"{file} does not hold a JSON object: {REMEDY}")
        return cls(data, file)

    def get(self, *path: str) -> Any:
        """Return the value at a key given in parts, or None."""
        value: Any = self.data
        for part in path:
            if not isinstance(value, Mapping):
                return None
            value = value.get(part)
        return value

    def number(self, *path: str) -> float:
        """Return the finite number at a key; ReportError if there is none."""
        value = self.get(*path)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._lacks("a number", path)
        if not math.isfinite(value):
            raise self._lacks("a finite number", path)
        return float(value)

    def optional(self, *path: str) -> float | None:
        """Return a finite number, or None where the key is absent or null."""
        return None if self.get(*path) is None else self.number(*path)

    def integer(self, *path: str) -> int:
        """Return the whole number at a key; ReportError if there is none."""
        value = self.number(*path)
        if not value.is_integer():
            raise self._lacks("a whole number", path)
        return int(value)

    def text(self, *path: str) -> str:
        """Return the string at a key; ReportError if there is none."""
        value = self.get(*path)
        if not isinstance(value, str):
            raise self._lacks("a string", path)
        return value

    def texts(self, *path: str) -> tuple[str, ...]:
        """Return the strings of a non-empty list; ReportError if there is none."""
        value = self.get(*path)
        if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
            raise self._lacks("a list of strings", path)
        return tuple(value)

    def numbers(self, *path: str) -> tuple[float, ...]:
        """Return the finite numbers of a list; ReportError if there is none."""
        value = self.get(*path)
        if not isinstance(value, list):
            raise self._lacks("a list of numbers", path)
        here = Fields({str(i): v for i, v in enumerate(value)}, self.file, self._name(path))
        return tuple(here.number(str(i)) for i in range(len(value)))

    def child(self, *path: str) -> Fields:
        """Return the object at a key; ReportError if there is none."""
        value = self.get(*path)
        if not isinstance(value, Mapping):
            raise self._lacks("an object", path)
        return Fields(value, self.file, self._name(path))

    def children(self, *path: str) -> dict[str, Fields]:
        """Return the objects in an object, by key; ReportError if a value is no object."""
        here = self.child(*path)
        return {key: here.child(key) for key in here.data}

    def items(self, *path: str) -> list[Fields]:
        """Return the objects of a list; ReportError if there is none or an item is no object."""
        value = self.get(*path)
        if not isinstance(value, list):
            raise self._lacks("a list of objects", path)
        here = Fields({str(i): v for i, v in enumerate(value)}, self.file, self._name(path))
        return [here.child(str(i)) for i in range(len(value))]

    def interval(self, *path: str) -> Interval | None:
        """Return an interval, None if none was recorded; ReportError if it has no numbers."""
        if self.get(*path, "estimate") is None:
            return None
        low, high = (self.optional(*path, end) for end in ("low", "high"))
        return Interval(self.number(*path, "estimate"), low, high)

    def _name(self, path: tuple[str, ...]) -> str:
        return ".".join((self.prefix, *path) if self.prefix else path)

    def _lacks(self, what: str, path: tuple[str, ...]) -> ReportError:
        return ReportError(f"{self.file} lacks `{self._name(path)}` ({what}): {REMEDY}")
