"""Predictors that are fitted by size and qindex, as tables of numbers, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from av1part.evaluation.attach import Compute
from av1part.predictors.bundle_file import Arrays, Content, Packed, check_keys
from av1part.predictors.fitted import ByQindex
from av1part.predictors.interface import TYPES, Domain, Predictor

_MOST_SEED = 2**32

_ROUNDING = 1e-6
"""By how much shares that are to sum to 1 may miss it."""

_KEY = re.compile(r"([a-z_]+)/(8|16|32|64)/(0|[1-9]\d{0,2})")


def pack_tables(predictor: Any) -> Packed:
    """Pack the tables by size and qindex of a predictor, and its seed if it has one."""
    arrays = {
        f"{table}/{size}/{qindex}": np.asarray(array, np.float64)
        for table, values in _tables(predictor).items()
        for (size, qindex), array in values.values.items()
    }
    return Packed({"seed": predictor.seed} if hasattr(predictor, "seed") else {}, arrays)


def _tables(predictor: Any) -> dict[str, ByQindex]:
    named = {entry.name: getattr(predictor, entry.name) for entry in fields(predictor)}
    return {name: value for name, value in named.items() if isinstance(value, ByQindex)}


@dataclass(frozen=True)
class Tables:
    """Rebuilds a predictor from its tables.

    Attributes:
        cls: The predictor.
        shapes: Table to the shape of its arrays; None is any length up to `TYPES`.
        seeded: Whether it has a seed.
    """

    cls: type
    shapes: Mapping[str, tuple[int | None, ...]]
    seeded: bool = False

    def __call__(
        self, content: Content, arrays: Arrays, domain: Domain, compute: Compute
    ) -> Predictor:
        """Build the predictor from what a file claims that it is.

        Args:
            content: The seed, if it has one.
            arrays: By table, size and qindex.
            domain: As the file has it.
            compute: Is not used.

        Returns:
            The predictor.

        Raises:
            ValueError: if a table is not as `fit` makes it.
        """
        check_keys(content, {"seed"} if self.seeded else set())
        tables: dict[str, dict[tuple[int, int], Any]] = {name: {} for name in self.shapes}
        for name, array in arrays.items():
            found = _KEY.fullmatch(name)
            if found is None or int(found[3]) > 255:
                raise ValueError(f"{name[:100]!r} is no table of a size and qindex")
            self._check(found[1], int(found[2]), array, domain)
            tables[found[1]][int(found[2]), int(found[3])] = array
        keys = [set(table) for table in tables.values()]
        if any(own != keys[0] for own in keys) or {size for size, _ in keys[0]} != set(
            domain.sizes
        ):
            raise ValueError("its tables are not of the sizes of its domain")
        seed = {"seed": content["seed"]} if self.seeded else {}
        if any(type(v) is not int or not 0 <= v < _MOST_SEED for v in seed.values()):
            raise ValueError("its seed is no number")
        built: Predictor = self.cls(
            domain=domain, **{name: ByQindex(table) for name, table in tables.items()}, **seed
        )
        return built

    def _check(self, table: str, size: int, array: Any, domain: Domain) -> None:
        """Check shape and values of one array.

        Raises:
            ValueError: if it is not what `fit` makes.
        """
        shape = self.shapes[table]
        fits = len(array.shape) == len(shape) and all(
            0 < own <= TYPES if wanted is None else own == wanted
            for own, wanted in zip(array.shape, shape, strict=True)
        )
        if not fits or array.dtype != np.float64:
            raise ValueError(f"{table} has an array of shape {array.shape}, {array.dtype}")
        if table == "edges":
            if (np.diff(array) < 0).any():
                raise ValueError("edges are not in order")
            return
        impossible = [t for t in range(array.shape[-1]) if t not in domain.types(size)]
        if table == "shares" and array[..., impossible].any():
            raise ValueError(f"shares at {size} are of types that cannot be there")
        usable = array[..., : len(domain.types(size))] if table == "set_sizes" else array
        total = usable.sum(-1)
        if (array < 0).any() or (total <= 0).any() or (abs(array.sum(-1) - 1) > _ROUNDING).any():
            raise ValueError(f"{table} at {size} do not sum to 1")
