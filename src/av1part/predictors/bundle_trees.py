"""Boosted trees as plain values and arrays, and back."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from av1part.evaluation.attach import Compute
from av1part.options import TREE_WEIGHTS
from av1part.predictors.bundle_file import Arrays, Content, Packed, check_keys
from av1part.predictors.interface import Domain
from av1part.predictors.trees import BoostedTrees, TreesOfSize
from av1part.trees.features import FEATURES_VERSION, feature_names
from av1part.trees.forest import Forest

_NAMES = tuple(entry.name for entry in fields(Forest))


def pack_trees(predictor: BoostedTrees) -> Packed:
    """Take the trees of all sizes apart: arrays by size and name of the array."""
    arrays: dict[str, Any] = {}
    sizes: dict[str, Any] = {}
    for size, own in predictor.by_size.items():
        arrays |= {f"{size}/{name}": array for name, array in own.forest.arrays().items()}
        sizes[str(size)] = {
            "types": [type_.name for type_ in predictor.domain.types(size)],
            "iterations": own.iterations,
            "val_loss": own.val_loss,
        }
    content = {
        "features": FEATURES_VERSION,
        "class_weights": predictor.class_weights,
        "sizes": sizes,
    }
    return Packed(content, arrays)


def unpack_trees(
    content: Content, arrays: Arrays, domain: Domain, compute: Compute
) -> BoostedTrees:
    """Build trees from what a file claims that they are.

    Args:
        content: As `pack_trees` makes it.
        arrays: By size and name.
        domain: As the file has it.
        compute: Is not used.

    Returns:
        The predictor.

    Raises:
        ValueError: if the arrays are no trees of these features and types.
    """
    check_keys(content, {"features", "class_weights", "sizes"})
    if content["features"] != FEATURES_VERSION:
        raise ValueError(f"its features are of version {content['features']!r}")
    if content["class_weights"] not in TREE_WEIGHTS:
        raise ValueError("its class weights are none that this av1part knows")
    wanted = {f"{size}/{name}" for size in domain.sizes for name in _NAMES}
    if set(arrays) != wanted or set(content["sizes"]) != set(map(str, domain.sizes)):
        raise ValueError("its arrays are not those of the sizes of its domain")
    by_size = {}
    for size in domain.sizes:
        facts = content["sizes"][str(size)]
        check_keys(facts, {"types", "iterations", "val_loss"})
        types = domain.types(size)
        if facts["types"] != [type_.name for type_ in types]:
            raise ValueError(f"its types at {size} are not those of its domain")
        iterations, loss = facts["iterations"], facts["val_loss"]
        if type(iterations) is not int or type(loss) is not float or not math.isfinite(loss):
            raise ValueError("iterations or loss are no numbers")
        forest = Forest(**{name: arrays[f"{size}/{name}"] for name in _NAMES})
        forest.check(len(feature_names(size)))
        if len(forest.base) != len(types):
            raise ValueError(f"its trees at {size} are of {len(forest.base)} types")
        by_size[size] = TreesOfSize(forest, iterations, loss)
    return BoostedTrees(domain, by_size, content["class_weights"])
