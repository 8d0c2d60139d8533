"""A predictor over a source: frames in, distributions out, one frame in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from av1part.data.build.sources import Source
from av1part.predictors.interface import Distributions, Predictor


@dataclass(frozen=True)
class Prediction:
    """What a predictor says of a frame at a qindex.

    Attributes:
        frame: Number among the frames that were kept, from 0.
        qindex: Base quantiser index.
        luma: Luma plane, integers `[h, w]`.
        distributions: By node size.
        seconds: That the predictor took.
    """

    frame: int
    qindex: int
    luma: NDArray[Any]
    distributions: Distributions
    seconds: float

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the frame."""
        height, width = self.luma.shape
        return height, width


def predict_source(
    source: Source,
    predictor: Predictor,
    qindexes: Sequence[int],
    *,
    frames: int | None = None,
    every: int = 1,
) -> Iterator[Prediction]:
    """Predict the frames of a source, at every qindex.

    Args:
        source: The source.
        predictor: The predictor.
        qindexes: Base quantiser indexes.
        frames: Frames to keep at most; None for all.
        every: Keep each `every`-th frame, from the first.

    Yields:
        The predictions, in the order of frames, then qindexes.
    """
    depth = source.reader.bit_depth
    for number, (luma, _, _) in enumerate(source.frames(frames, every)):
        for qindex in qindexes:
            started = time.perf_counter()
            distributions = predictor.predict(luma, depth, qindex)
            seconds = time.perf_counter() - started
            yield Prediction(number, qindex, luma, distributions, seconds)


def qindex_of(cq_level: int) -> int:
    """Return the base_q_idx of aomenc's `--cq-level`, 0 to 63 (libaom's quantizer_to_qindex)."""
    return {62: 249, 63: 255}.get(cq_level, 4 * cq_level)
