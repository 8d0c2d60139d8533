"""Hint files of the points of a comparison, for one clip at one quantiser, with what they took.

predictor ── distributions of a frame, once ── policy of each point ── hint file of each point
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from av1part.data.build.libaom import Children, inspect_stream
from av1part.data.build.sources import Source
from av1part.data.build.tree import partition_tree
from av1part.encoder.hints import KEEP, Hints, HintsWriter, grid_shape, open_hints
from av1part.encoder.points import ORACLE, RANDOM, PlannedPoint
from av1part.encoder.policies import Policy
from av1part.partition import SIZES
from av1part.predictors.fitted import ByQindex, RandomSets
from av1part.predictors.interface import TYPES, Domain, Predictor
from av1part.predictors.oracle import Oracle, plane_sha256


@dataclass(frozen=True)
class HintFile:
    """A hint file.

    Attributes:
        path: The file.
        seconds: User and system seconds of this process from decoded planes to the file on disk.
    """

    path: Path
    seconds: float


@dataclass
class ClipHints:
    """Makes the hint files of one clip at one quantiser, those of one predictor together.

    Attributes:
        source: The clip.
        frames: Frames to encode at most; None for all.
        qindex: Base quantiser index of the frames.
        points: The plan's.
        wanted: Points whose hint files will be asked for.
        predictors: By a point's `predictor`.
        stock_stream: Returns the stream of a point without its hints, for the oracle.
        inspect: The program that reads its types.
        children: Kills programs when it is closed.
        folder: Where the files go.
    """

    source: Source
    frames: int | None
    qindex: int
    points: Mapping[str, PlannedPoint]
    wanted: Sequence[str]
    predictors: Mapping[str, Predictor]
    stock_stream: Callable[[PlannedPoint], Path]
    inspect: Path
    children: Children
    folder: Path
    _made: dict[str, HintFile] = field(default_factory=dict)

    def of(self, name: str) -> HintFile:
        """Return the hint file of a point that has hints."""
        if name not in self._made:
            self._make(name)
        return self._made[name]

    def _make(self, name: str) -> None:
        point = self.points[name]
        if point.types is not None:
            self._write_constant(name, point)
        elif point.predictor == ORACLE:
            self._write(self._oracle(point), [name])
        elif point.like is not None:
            like = self.points[point.like]
            assert like.predictor is not None
            domain = self.predictors[like.predictor].domain
            drawn = random_sets(open_hints(self.of(point.like).path), domain, self.qindex)
            everything = Policy(tau=1.0, keep=like.keep, sizes=drawn.domain.sizes)
            self._write(drawn, [name], everything)
        else:
            assert point.predictor is not None
            same = [n for n in self.wanted if self.points[n].predictor == point.predictor]
            likes = [self.points[n].like for n in self.wanted]
            same += [n for n in likes if n and self.points[n].predictor == point.predictor]
            self._write(self.predictors[point.predictor], list(dict.fromkeys([name, *same])))

    def _write(
        self, predictor: Predictor, names: Sequence[str], policy: Policy | None = None
    ) -> None:
        """Predict each frame once, and write the hint files of all points that share this."""
        reader, shared, own = self.source.reader, 0.0, dict.fromkeys(names, 0.0)
        paths = {name: self.folder / f"{name}.hints" for name in names}
        with ExitStack() as stack:
            writers = {}
            for name, path in paths.items():
                sizes = (policy or self.points[name].policy).hinted_sizes(predictor.domain)
                writer = HintsWriter(path, reader.width, reader.height, sizes)
                writers[name] = stack.enter_context(writer)
            for luma, _, _ in self.source.frames(self.frames):
                started = time.process_time()
                answer = predictor.predict(luma, reader.bit_depth, self.qindex)
                shared += time.process_time() - started
                for name, writer in writers.items():
                    started = time.process_time()
                    chosen = policy or self.points[name].policy
                    shape = (reader.height, reader.width)
                    domain = self.points[name].domain(predictor.domain)
                    writer.add(chosen.frame_masks(answer, shape, domain))
                    own[name] += time.process_time() - started
            started = time.process_time()
        closing = (time.process_time() - started) / len(names)
        for name, path in paths.items():
            self._made[name] = HintFile(path, shared + own[name] + closing)

    def _write_constant(self, name: str, point: PlannedPoint) -> None:
        """Write the same mask for every node."""
        reader, path = self.source.reader, self.folder / f"{name}.hints"
        sizes = tuple(point.sizes or SIZES)
        mask = point.mask | (KEEP if point.keep else 0)
        started = time.process_time()
        masks = {
            size: np.full(grid_shape(reader.width, reader.height, size), mask, np.uint16)
            for size in sizes
        }
        count = reader.frames if self.frames is None else min(self.frames, reader.frames)
        with HintsWriter(path, reader.width, reader.height, sizes) as writer:
            for _ in range(count):
                writer.add(masks)
        self._made[name] = HintFile(path, time.process_time() - started)

    def _oracle(self, point: PlannedPoint) -> Oracle:
        """Read the types that the encoder chose without hints."""
        stream = self.stock_stream(point.stock)
        frames = inspect_stream(self.inspect, stream, self.children)
        trees = {}
        planes = (luma for luma, _, _ in self.source.frames(self.frames))
        for luma, frame in zip(planes, frames, strict=True):
            trees[plane_sha256(luma), self.qindex] = list(partition_tree(frame.blocks))
        return Oracle(trees)


def random_sets(hints: Hints, domain: Domain, qindex: int) -> RandomSets:
    """Return a predictor that draws sets as large as those of a hint file, at random.

    Args:
        hints: The file.
        domain: Of the predictor behind it.
        qindex: Base quantiser index of its frames.

    Returns:
        The predictor of the file's node sizes, with the distribution of set sizes of each.
    """
    counts = {size: np.zeros(TYPES, np.int64) for size in hints.sizes}
    for masks in hints:
        for size, grid in masks.items():
            known = np.uint16(sum(1 << type_ for type_ in domain.types(size)))
            sets = np.bitwise_count(grid[grid != 0] & known)
            counts[size] += np.bincount(sets, minlength=TYPES + 1)[1:]
    shares = {(size, qindex): count.astype(np.float64) for size, count in counts.items()}
    own = Domain(hints.sizes, domain.qindexes, domain.bit_depths, domain.one_to_four)
    return RandomSets(own, ByQindex(shares))


def needs_stream(points: Mapping[str, PlannedPoint]) -> bool:
    """Return whether a point reads the stream of another."""
    return any(point.predictor == ORACLE for point in points.values())


def predictors_of(points: Mapping[str, PlannedPoint]) -> set[str]:
    """Return the predictors that have to be opened for these points."""
    return {p.predictor for p in points.values() if p.predictor not in (None, RANDOM, ORACLE)}
