"""AV1 partition types, their rectangles, the symmetries of a square, and the stage taxonomies.

Everything that depends on what a partition type *is* comes from this module: its id, its shape,
what a mirror or a quarter turn makes of it, and which class of which stage it belongs to. It
imports nothing of ours.

Reference: AV1 Bitstream & Decoding Process Specification, section 6.10.4 (partition semantics).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Rect = tuple[int, int, int, int]
"""(row, col, height, width) in quarters of the block's side."""

IGNORED = -1
"""Label of a partition type that does not reach a stage."""

SUPERBLOCK_STAGE = "superblock"
"""Name of the stage that tells all types apart at once, and belongs to no cascade."""

SIZES = (8, 16, 32, 64)
"""Sides, in luma samples, of the nodes a dataset may hold."""

SUPERBLOCK = SIZES[-1]
"""Side of the largest nodes, of which crops and frames hold a whole number."""


class Partition(IntEnum):
    """Partition types by their AV1 ids, the only integer encoding used anywhere."""

    NONE = 0
    HORZ = 1
    VERT = 2
    SPLIT = 3
    HORZ_A = 4
    HORZ_B = 5
    VERT_A = 6
    VERT_B = 7
    HORZ_4 = 8
    VERT_4 = 9


RECTANGLES: Mapping[Partition, tuple[Rect, ...]] = {
    Partition.NONE: ((0, 0, 4, 4),),
    Partition.HORZ: ((0, 0, 2, 4), (2, 0, 2, 4)),
    Partition.VERT: ((0, 0, 4, 2), (0, 2, 4, 2)),
    Partition.SPLIT: ((0, 0, 2, 2), (0, 2, 2, 2), (2, 0, 2, 2), (2, 2, 2, 2)),
    Partition.HORZ_A: ((0, 0, 2, 2), (0, 2, 2, 2), (2, 0, 2, 4)),
    Partition.HORZ_B: ((0, 0, 2, 4), (2, 0, 2, 2), (2, 2, 2, 2)),
    Partition.VERT_A: ((0, 0, 2, 2), (2, 0, 2, 2), (0, 2, 4, 2)),
    Partition.VERT_B: ((0, 0, 4, 2), (0, 2, 2, 2), (2, 2, 2, 2)),
    Partition.HORZ_4: tuple((i, 0, 1, 4) for i in range(4)),
    Partition.VERT_4: tuple((0, i, 4, 1) for i in range(4)),
}
"""The blocks each type cuts a square into (spec, section 5.11.4)."""

_BY_RECTANGLES = {frozenset(rects): type_ for type_, rects in RECTANGLES.items()}


def partition_from_rects(rects: frozenset[Rect]) -> Partition:
    """Find the type that cuts a block into exactly these rectangles.

    Args:
        rects: Rectangles in quarters of the block's side, in any order.

    Returns:
        The type.

    Raises:
        ValueError: if no partition type has these rectangles.
    """
    try:
        return _BY_RECTANGLES[rects]
    except KeyError:
        raise ValueError(f"no partition type cuts a block into {sorted(rects)}") from None


Cell = tuple[int, int]
"""(row, col) of a quarter-side square of the block."""


def cut_lines(partition: Partition) -> frozenset[tuple[Cell, Cell]]:
    """Return where a type cuts the block: every two neighbouring cells that it parts.

    Each pair is a line a quarter of the side long: the cells above and below it, or left and
    right of it.
    """
    owner: dict[Cell, Rect] = {}
    for rect in RECTANGLES[partition]:
        row, col, height, width = rect
        owner |= {(row + i, col + j): rect for i in range(height) for j in range(width)}
    lines = set()
    for (row, col), rect in owner.items():
        for other in ((row + 1, col), (row, col + 1)):
            if owner.get(other, rect) != rect:
                lines.add(((row, col), other))
    return frozenset(lines)


def legal_partitions(size: int, *, one_to_four: bool = True) -> tuple[Partition, ...]:
    """List the types AV1 allows for a square node.

    An 8x8 node has no AB and no 1:4 type; a 128x128 node has no 1:4 type.

    Args:
        size: Luma samples a side.
        one_to_four: Whether the encoder may use HORZ_4 and VERT_4.

    Returns:
        The types, in id order.

    Raises:
        ValueError: if `size` is not 8, 16, 32, 64 or 128.
    """
    if size not in (*SIZES, 128):
        raise ValueError(f"no partition node has size {size}; sizes are 8, 16, 32, 64, 128")
    last = Partition.SPLIT if size == 8 else Partition.VERT_B
    if one_to_four and size in (16, 32, 64):
        last = Partition.VERT_4
    return tuple(p for p in Partition if p <= last)


@dataclass(frozen=True)
class Symmetry:
    """One of the eight symmetries of a square: a transpose, then mirrors.

    Attributes:
        transpose: Swap rows and columns first.
        top_bottom: Then mirror top to bottom.
        left_right: Then mirror left to right.
    """

    transpose: bool = False
    top_bottom: bool = False
    left_right: bool = False

    def rect(self, rect: Rect) -> Rect:
        """Return where this symmetry takes a rectangle given in quarters of the side."""
        row, col, height, width = rect
        if self.transpose:
            row, col, height, width = col, row, width, height
        if self.top_bottom:
            row = 4 - row - height
        if self.left_right:
            col = 4 - col - width
        return row, col, height, width

    def partition(self, partition: Partition) -> Partition:
        """Return the type that this symmetry makes of `partition`, from its rectangles."""
        return partition_from_rects(frozenset(self.rect(r) for r in RECTANGLES[partition]))

    @cached_property
    def table(self) -> NDArray[np.int64]:
        """Lookup table, int64 of shape (10,): id before to id after."""
        return np.array([self.partition(p) for p in Partition], dtype=np.int64)


SYMMETRIES: tuple[Symmetry, ...] = tuple(
    Symmetry(transpose, top_bottom, left_right)
    for transpose in (False, True)
    for top_bottom in (False, True)
    for left_right in (False, True)
)
"""All eight; the first is the identity."""


@dataclass(frozen=True)
class Stage:
    """One classifier of the hierarchy: named classes over disjoint sets of partition types.

    Attributes:
        name: `stage1`, `stage2`, `stage3_rect`, ...
        classes: Class name to its partition types, in class-index order.
    """

    name: str
    classes: Mapping[str, tuple[Partition, ...]]

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names in class-index order."""
        return tuple(self.classes)

    @cached_property
    def population(self) -> frozenset[Partition]:
        """The types that reach this stage."""
        return frozenset(p for members in self.classes.values() for p in members)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Lookup table, int64 of shape (10,): partition id to class index, or `IGNORED`."""
        table = np.full(len(Partition), IGNORED, dtype=np.int64)
        for index, members in enumerate(self.classes.values()):
            table[list(members)] = index
        return table

    @cached_property
    def targets(self) -> NDArray[np.float32]:
        """Soft labels, float32 of shape (10, K), rows sum to 1: of every type, also foreign ones.

        A type of the stage has its class. Any other is shared evenly by the classes whose cut
        lines it shares most of (of a class with several types, its best): HORZ_A among HORZ and
        VERT is HORZ, SPLIT is half of each, and what has no line in common is a share of all.
        """
        table = np.empty((len(Partition), len(self.classes)), dtype=np.float32)
        for partition in Partition:
            lines = cut_lines(partition)
            shared = [
                max(len(lines & cut_lines(p)) for p in members) for members in self.classes.values()
            ]
            nearest = np.array(shared) == max(shared)
            if partition in self.population:
                nearest = np.arange(len(self.classes)) == self.labels[partition]
            table[partition] = nearest / nearest.sum()
        return table

    @cached_property
    def partitions(self) -> NDArray[np.int64]:
        """Inverse table, int64 of shape (K,): class index to partition id.

        `IGNORED` where a class holds several types, so that only a later stage can tell.
        """
        return np.array(
            [m[0] if len(m) == 1 else IGNORED for m in self.classes.values()], dtype=np.int64
        )


@dataclass(frozen=True)
class Taxonomy:
    """How partition types map to the classes of each stage.

    Attributes:
        name: What a dataset, a configuration or a checkpoint calls it.
        stages: Stages in the order of the cascade; a class of several types is refined by the
            stage whose population is exactly those types.
        size: Luma samples a side of the nodes it is for; None for sizes that have all its types.
    """

    name: str
    stages: tuple[Stage, ...]
    size: int | None = None

    def at(self, size: int) -> Taxonomy:
        """Restrict the taxonomy to the types AV1 allows for nodes of one size.

        Classes and stages that are left without a type go: at 8x8 there is no AB, no 1:4.

        Args:
            size: Luma samples a side, among `SIZES`.

        Returns:
            The taxonomy at this size, the types and classes that stay in their order.

        Raises:
            ValueError: if nodes have no such size.
        """
        if size not in SIZES:
            raise ValueError(f"nodes have sizes {', '.join(map(str, SIZES))}, got {size}")
        legal = set(legal_partitions(size))
        stages = []
        for stage in self.stages:
            kept = {n: tuple(p for p in m if p in legal) for n, m in stage.classes.items()}
            classes = {name: members for name, members in kept.items() if members}
            if len(classes) > 1:
                stages.append(Stage(stage.name, classes))
        return Taxonomy(self.name, tuple(stages), size)

    def stage(self, name: str) -> Stage:
        """Find a stage by its name.

        Args:
            name: Such as `stage2`.

        Returns:
            The stage.

        Raises:
            ValueError: if there is none.
        """
        for stage in (*self.stages, self.superblock):
            if stage.name == name:
                return stage
        names = ", ".join(s.name for s in self.stages)
        where = f" at {self.size}x{self.size}" if self.size else ""
        raise ValueError(f"taxonomy {self.name} has no stage {name!r}{where}; it has {names}")

    def child(self, stage: Stage, class_name: str) -> Stage | None:
        """Return the stage that refines a class, or None if the class is a single type."""
        members = frozenset(stage.classes[class_name])
        if len(members) == 1:
            return None
        return next(s for s in self.stages if s.population == members)

    def parent(self, stage: Stage) -> tuple[Stage, int] | None:
        """Return the stage that sends nodes to this one and the class index by which it does.

        None for the root.
        """
        for parent in self.stages:
            for index, name in enumerate(parent.class_names):
                if self.child(parent, name) == stage:
                    return parent, index
        return None

    @cached_property
    def root(self) -> Stage:
        """The stage every node enters."""
        return self.stages[0]

    @cached_property
    def superblock(self) -> Stage:
        """The stage outside of the cascade that has a class for every type, in id order."""
        return Stage(SUPERBLOCK_STAGE, {p.name: (p,) for p in self.partitions})

    @cached_property
    def partitions(self) -> tuple[Partition, ...]:
        """The types this taxonomy covers, in id order."""
        return tuple(sorted(self.root.population))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the covered types, in id order."""
        return tuple(p.name for p in self.partitions)


def _taxonomy(name: str, groups: Mapping[str, tuple[Partition, ...]]) -> Taxonomy:
    """Build NONE | PARTITION, then the groups, then one stage for every group of several types."""
    cut = tuple(sorted(p for members in groups.values() for p in members))
    stages = [
        Stage("stage1", {"NONE": (Partition.NONE,), "PARTITION": cut}),
        Stage("stage2", groups),
    ]
    stages += [
        Stage(f"stage3_{group.lower()}", {p.name: (p,) for p in members})
        for group, members in groups.items()
        if len(members) > 1
    ]
    return Taxonomy(name, tuple(stages))


_V6_GROUPS: Mapping[str, tuple[Partition, ...]] = {
    "SPLIT": (Partition.SPLIT,),
    "RECT": (Partition.HORZ, Partition.VERT),
    "AB": (Partition.HORZ_A, Partition.HORZ_B, Partition.VERT_A, Partition.VERT_B),
}

TAXONOMIES: Mapping[str, Taxonomy] = {
    t.name: t
    for t in (
        _taxonomy("v6", _V6_GROUPS),
        _taxonomy("v6_1to4", {**_V6_GROUPS, "1TO4": (Partition.HORZ_4, Partition.VERT_4)}),
    )
}
"""`v6`: the study's eight types; `v6_1to4`: all ten, with a fourth stage-2 class."""


def taxonomy(name: str) -> Taxonomy:
    """Find a taxonomy by its name.

    Args:
        name: A key of `TAXONOMIES`.

    Returns:
        The taxonomy.

    Raises:
        ValueError: if there is none.
    """
    try:
        return TAXONOMIES[name]
    except KeyError:
        raise ValueError(f"no taxonomy {name!r}; there are {', '.join(TAXONOMIES)}") from None
