"""Bundles: small ones of every kind, their bytes, header, facts or arrays changed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from av1part.predictors.bundle import Bundle, bundle_contents, read_bundle, write_bundle
from av1part.predictors.bundle_file import sha256_array

from ...conftest import corners
from ...unit.predictors.small import small_predictors
from ...unit.predictors.test_bundle import header_of, put_together, take_apart, with_header
from .case import Case, Draw
from .hostile import TEXTS, changes, tree_changes

_PLANE = np.arange(40 * 40, dtype=np.uint8).reshape(40, 40)


class Bundles:
    """Opening a bundle and asking it, and showing what one holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        stores = (corners(folder / f"store{size}", 64, [size]) for size in (16, 8))
        self._whole = {}
        for kind, predictor in small_predictors(*stores).items():
            self._whole[kind] = write_bundle(folder / kind, Bundle(predictor)).read_bytes()

    def case(self, draw: Draw) -> Case:
        kinds = sorted(self._whole)
        whole, other = (self._whole[draw(st.sampled_from(kinds))] for _ in range(2))
        file = self.folder / "mine.av1part"
        file.write_bytes(self._changed(draw, whole, other))

        def ask() -> None:
            bundle = read_bundle(file)
            for size, probabilities in bundle.predict(_PLANE, 8, 100).items():
                assert size in bundle.domain.sizes
                assert np.abs(probabilities.sum(-1) - 1).max() < 1e-4

        run = draw(st.sampled_from([ask, ask, lambda: bundle_contents(file)]))
        return Case(run, str(file))

    def _changed(self, draw: Draw, whole: bytes, other: bytes) -> bytes:
        kind = draw(
            st.sampled_from(["none", "bytes", "header", "splice", *["facts", "arrays"] * 2])
        )
        if kind == "none":
            return whole
        if kind == "bytes":
            return bytes(draw(changes())(whole))
        if kind == "header":
            return with_header(whole, bytes(draw(changes())(header_of(whole))))
        if kind == "splice":
            at = int(draw(st.floats(0, 1)) * len(whole))
            return whole[:at] + other[min(at, len(other)) :]
        facts, stored = take_apart(whole)
        if kind == "facts":
            change = draw(tree_changes())
            part = draw(st.sampled_from(["domain", "content", "tensors", "sources", None]))
            facts = change(facts) if part is None else {**facts, part: change(facts[part])}
        else:
            self._change_arrays(draw, facts["tensors"], stored)
        with suppress(Exception):  # no JSON, or nothing that safetensors writes
            return put_together(facts, stored)
        return b""

    def _change_arrays(self, draw: Draw, names: dict[str, str], stored: dict[str, Any]) -> None:
        name = draw(st.sampled_from([*names, *TEXTS]))
        old = stored.get(names.get(name, ""), np.zeros(3))
        new = draw(st.sampled_from(_ARRAYS))(old)
        digest = sha256_array(new) if draw(st.integers(0, 4)) else draw(st.sampled_from(TEXTS))
        names[name] = digest.encode("utf-8", "replace").decode()
        stored[names[name]] = new
        for unused in set(stored) - set(names.values()):
            del stored[unused]


_ARRAYS = (
    lambda old: old.copy(),
    lambda old: old * 0,
    lambda old: old * 2,
    lambda old: -old,
    lambda old: (old * np.float64(1e35)).astype(old.dtype),
    lambda old: old.astype(np.float64),
    lambda old: old.astype(np.int64),
    lambda old: old.astype(np.float16),
    lambda old: np.full_like(old, np.nan, np.float64),
    lambda old: np.full_like(old, np.inf, np.float32),
    lambda old: old.reshape(-1),
    lambda old: old[None],
    lambda old: np.zeros((0, 10**9)),
    lambda old: np.zeros(0),
    lambda old: np.float64(0.5).reshape(()),
    lambda old: np.zeros((1,) * 9),
    lambda old: np.random.default_rng(0).normal(size=old.shape),
)
"""What may stand in the place of an array."""
