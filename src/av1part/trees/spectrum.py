"""Orthonormal DCTs of nodes: energies of bands, and what coefficients would cost."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from av1part.trees.parts import Floats, Named


@cache
def _basis(size: int) -> NDArray[np.float32]:
    """Return the orthonormal DCT-II of a size, rows frequencies, float32 `[N, N]`."""
    k, n = np.arange(size)[:, None], np.arange(size)
    basis = np.cos(np.pi * k * (2 * n + 1) / (2 * size)) * np.sqrt(2 / size)
    basis[0] /= np.sqrt(2)
    single: NDArray[np.float32] = basis.astype(np.float32)
    return single


def dct(core: NDArray[np.int32], size: int, scale: float) -> NDArray[np.float32]:
    """Return the coefficients of each block, float32 `[rows, cols, N * N]`, lines first."""
    rows, cols = (side // size for side in core.shape)
    blocks = core.reshape(rows, size, cols, size).swapaxes(1, 2).astype(np.float32)
    blocks *= np.float32(1 / scale)
    basis = _basis(size)
    coefficients: NDArray[np.float32] = np.matmul(basis, np.matmul(blocks, basis.T))
    return coefficients.reshape(rows, cols, size * size)


@cache
def _bands(size: int) -> Mapping[str, NDArray[np.float32]]:
    """Return the weights of each band's coefficients, which sum to 1, float32 `[N * N]`."""
    y, x = (i.ravel() for i in np.indices((size, size)))
    octave = np.floor(np.log2(np.maximum(np.maximum(y, x), 0.5))).astype(int)
    sides = {"x": x >= 2 * y, "y": y >= 2 * x}
    sides["xy"] = ~(sides["x"] | sides["y"])
    bands = {}
    for number in range(octave.max() + 1):
        for name, side in sides.items():
            if (chosen := (octave == number) & side).any():
                bands[f"band_{number}_{name}"] = (chosen / chosen.sum()).astype(np.float32)
    return bands


def spectrum(core: NDArray[np.int32], size: int, scale: float) -> tuple[Named, NDArray[np.float32]]:
    """Return the mean square of each band's coefficients, by name, and the coefficients."""
    coefficients, bands = dct(core, size, scale), _bands(size)
    energies = (coefficients**2) @ np.stack(list(bands.values()), axis=-1)
    return {name: energies[..., i] for i, name in enumerate(bands)}, coefficients


def rate(sizes: NDArray[np.float32], step: float) -> Floats:
    """Return the mean of log2(1 + size / step) over the last axis."""
    bits: Floats = np.log1p(sizes * np.float32(1 / step)).mean(-1) / np.log(2)
    return bits
