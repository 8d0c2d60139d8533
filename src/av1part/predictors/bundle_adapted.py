"""An adapted superblock network as plain values and arrays, and back.

It holds the network that it was adapted from whole, so that it needs no other file.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from av1part.data.store.schema import BIT_DEPTHS, QINDEXES
from av1part.evaluation.attach import Compute
from av1part.predictors.adapted import AdaptedSuperblock, NodeHead, adapted_domain
from av1part.predictors.bundle_file import Arrays, Content, Packed, check_keys
from av1part.predictors.bundle_superblock import pack_superblock, unpack_network
from av1part.predictors.interface import Domain

_HEAD = re.compile(r"adapted/(8|16|32|64)/(weight|bias)")

_MOST_LISTED = 1 << 20
"""Frames that a file may name."""

_RECORD = {
    "base": {"file", "sha256", "licence"},
    "clip": {"file", "sha256", "frames", "width", "height", "bit_depth"},
    "labels": {"dataset", "manifest_sha256", "frames", "qindexes", "nodes", "made_by", "arguments"},
    "steps": {"steps", "rate", "prior"},
    "sizes": {"8", "16", "32", "64"},
}
"""What a file says of how a network was adapted; of `sizes` those that had labels."""


def pack_adapted(predictor: AdaptedSuperblock) -> Packed:
    """Take a network, its heads and the record of adapting it apart."""
    network, record = pack_superblock(predictor), predictor.record
    arrays: dict[str, Any] = dict(network.arrays)
    for size, head in predictor.heads.items():
        arrays |= {f"adapted/{size}/weight": head.weight, f"adapted/{size}/bias": head.bias}
    clip = {
        "clip": record["clip"]["file"],
        "clip_sha256": record["clip"]["sha256"],
        **{key: record["labels"][key] for key in ("dataset", "manifest_sha256", "frames")},
    }
    content = {"network": dict(network.content), "adapted": dict(record)}
    return Packed(content, arrays, [*network.sources, clip], network.weights)


def unpack_adapted(
    content: Content, arrays: Arrays, domain: Domain, compute: Compute
) -> AdaptedSuperblock:
    """Build a network with its adapted heads from what a file claims that they are.

    Args:
        content: As `pack_adapted` makes it.
        arrays: Tensors of the network and arrays of the heads, by name.
        domain: As the file has it.
        compute: Device and precision.

    Returns:
        The predictor.

    Raises:
        CheckpointError: if the network is not what its hyper-parameters describe.
        ValueError: if anything else does not fit; other errors of wrong types and values, too.
    """
    check_keys(content, {"network", "adapted"})
    own, record = {n: a for n, a in arrays.items() if n.startswith("adapted/")}, content["adapted"]
    network = unpack_network(
        content["network"], {n: a for n, a in arrays.items() if n not in own}, compute
    )
    _check_record(record)
    if domain != adapted_domain(
        network.domain, record["labels"]["qindexes"], record["clip"]["bit_depth"]
    ):
        raise ValueError("its domain is not that of its network and labels")
    heads = {}
    sizes = sorted({int(_matched(name)[1]) for name in own})
    for size in sizes:
        head = NodeHead(*(own[f"adapted/{size}/{part}"] for part in ("weight", "bias")))
        _check_head(head, NodeHead.of(network.module.classifier.head[str(size)]), size)
        heads[size] = head
    if sizes != sorted(int(size) for size, fit in record["sizes"].items() if fit["kept"]):
        raise ValueError("its heads are not those of the sizes that were adapted")
    return AdaptedSuperblock(
        network.module,
        network.temperatures,
        network.precision,
        network.pass_side,
        heads=heads,
        limits=domain,
        record=record,
    )


def _matched(name: str) -> re.Match[str]:
    found = _HEAD.fullmatch(name)
    if found is None:
        raise ValueError(f"{name[:100]!r} is no head of a node size")
    return found


def _check_head(head: NodeHead, base: NodeHead, size: int) -> None:
    """Check a head's arrays against those that it was adapted from.

    Raises:
        ValueError: if they have another shape or dtype.
    """
    for given, wanted in ((head.weight, base.weight), (head.bias, base.bias)):
        if given.shape != wanted.shape or given.dtype != np.float32:
            raise ValueError(
                f"its head at {size} is of {given.shape}, {given.dtype}, not {wanted.shape}"
            )


def _check_record(record: Any) -> None:
    """Check what of the record is computed with, and that it has its parts.

    Raises:
        ValueError: if it has others, or a list is of other values than it can be.
    """
    check_keys(record, set(_RECORD))
    for name, keys in _RECORD.items():
        if name == "sizes":
            if not set(record[name]) <= keys:
                raise ValueError("it was adapted at sizes that there are not")
            for fit in record[name].values():
                check_keys(fit, {"nodes", "before", "after", "kept"})
                if type(fit["kept"]) is not bool:
                    raise ValueError("it does not say which heads were kept")
        else:
            check_keys(record[name], keys)
    frames, qindexes = (record["labels"][key] for key in ("frames", "qindexes"))
    counts = record["clip"]["frames"]
    for values, below in ((frames, counts), (qindexes, QINDEXES)):
        if not values or len(values) > _MOST_LISTED or type(below) is not int:
            raise ValueError("it names no frames or quantisers")
        if any(type(value) is not int or not 0 <= value < below for value in values):
            raise ValueError("it names frames or quantisers that there are not")
    if record["clip"]["bit_depth"] not in BIT_DEPTHS:
        raise ValueError("its clip has a bit depth that none has")
