"""The kinds of predictors that a bundle can hold, each as plain values and arrays, and back.

A new kind of predictor is one more entry of `KINDS`; the file's format does not change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from av1part.evaluation.attach import Compute
from av1part.predictors.adapted import AdaptedSuperblock
from av1part.predictors.bundle_adapted import pack_adapted, unpack_adapted
from av1part.predictors.bundle_cascades import pack_cascades, unpack_cascades
from av1part.predictors.bundle_file import Arrays, Content, Packed
from av1part.predictors.bundle_superblock import pack_superblock, unpack_superblock
from av1part.predictors.bundle_tables import Tables, pack_tables
from av1part.predictors.bundle_trees import pack_trees, unpack_trees
from av1part.predictors.cascade import Cascades
from av1part.predictors.fitted import BINS, ClassPrior, RandomSets, VarianceRule
from av1part.predictors.interface import TYPES, Domain, Predictor
from av1part.predictors.superblock import SuperblockPredictor
from av1part.predictors.trees import BoostedTrees


@dataclass(frozen=True)
class Kind:
    """How a class of predictors is packed, and built again from what a file claims.

    `unpack` may raise any error of a wrong type or value; it must use every array. With `half` its
    weights may be stored as float16; it is unpacked from float32.
    """

    of: type
    pack: Callable[[Any], Packed]
    unpack: Callable[[Content, Arrays, Domain, Compute], Predictor]
    half: bool = False


KINDS: Mapping[str, Kind] = {
    "cascade": Kind(Cascades, pack_cascades, unpack_cascades),
    "prior": Kind(ClassPrior, pack_tables, Tables(ClassPrior, {"shares": (TYPES,)})),
    "variance": Kind(
        VarianceRule,
        pack_tables,
        Tables(VarianceRule, {"edges": (BINS - 1,), "shares": (BINS, TYPES)}),
    ),
    "random": Kind(
        RandomSets, pack_tables, Tables(RandomSets, {"set_sizes": (None,)}, seeded=True)
    ),
    "superblock": Kind(SuperblockPredictor, pack_superblock, unpack_superblock, half=True),
    "adapted": Kind(AdaptedSuperblock, pack_adapted, unpack_adapted, half=True),
    "trees": Kind(BoostedTrees, pack_trees, unpack_trees),
}
"""Name of a kind, as the file has it, to how it is packed."""
