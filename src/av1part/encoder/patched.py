"""The patched encoder, which takes hints and counts its work: finding, proving and running it.

y4m --pipe--> aomenc-av1part + $AV1PART_HINTS -> stream, seconds, counts, costs
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from av1part.data.build.libaom import (
    Children,
    Tool,
    encode,
    encoder_arguments,
    program_version,
    programs_folder,
)
from av1part.data.build.yuv import grey_to_420, write_y4m
from av1part.encoder.counts import Counts, read_costs, read_counts
from av1part.encoder.hints import HintsWriter, grid_shape, open_hints
from av1part.partition import SIZES, Partition
from av1part.system.errors import EncoderError, HintsError
from av1part.system.files import read_json

NAME = "aomenc-av1part"
PATCH = "165220987 13577"
"""CRC and length of tools/libaom.patch, as `cksum` prints them; a test compares them."""

_REMEDY = "run `make libaom`"


@dataclass(frozen=True)
class Patched(Tool):
    """The patched encoder.

    Attributes:
        assembler: What its build assembled with, `nasm` or `yasm`; `none` makes it many times
            slower on x86.
    """

    assembler: str


@dataclass(frozen=True)
class Encode:
    """A finished encode.

    Attributes:
        stream: IVF.
        seconds: User and system seconds of the encoder.
        counts: Calls of its leaf search.
        costs: Of `COSTS_DTYPE`, None if they were not asked for.
    """

    stream: bytes
    seconds: float
    counts: Counts
    costs: NDArray[np.void] | None


def find_patched() -> Patched:
    """Find the patched encoder that `make libaom` built and see that it does what it should.

    Returns:
        The encoder.

    Raises:
        EncoderError: if there is none, it is of another patch, or it takes no hints.
    """
    path = programs_folder() / NAME
    if not path.is_file():
        raise EncoderError(f"no {NAME} found: {_REMEDY}")
    built = read_json(path.with_suffix(".json")) or {}
    if built.get("patch") != PATCH:
        raise EncoderError(f"{path} has another patch than this av1part: {_REMEDY}")
    tool = Patched(path, program_version(path, ["--help"]), str(built.get("assembler", "none")))
    _prove(path, path.stat().st_mtime_ns)
    return tool


@cache
def _prove(path: Path, _changed: int) -> None:
    """Encode one superblock of noise with hints that leave one leaf of it, and count the leaves.

    Raises:
        EncoderError: if there are others.
    """
    side = max(SIZES)
    luma = np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        y4m, hints = Path(folder) / "noise.y4m", Path(folder) / "noise.hints"
        write_y4m(y4m, [grey_to_420(luma, 8)], 8)
        with HintsWriter(hints, side, side, (side,)) as writer:
            writer.add({side: np.full(grid_shape(side, side, side), 1 << Partition.NONE)})
        arguments = encoder_arguments(32, bit_depth=8)
        try:
            with_hints = run_encode(path, y4m, arguments, Children(), hints=hints, costs=True)
        except (EncoderError, HintsError) as error:
            raise EncoderError(f"{path} is not the patched aomenc ({error}): {_REMEDY}") from None
    leaves = with_hints.counts.calls.select("width", "height", "partition").rows()
    if leaves != [(side, side, Partition.NONE)] or with_hints.costs is None:
        raise EncoderError(f"{path} takes no hints: {_REMEDY}")


def run_encode(
    program: Path,
    y4m: Path,
    arguments: Sequence[str],
    children: Children,
    *,
    hints: Path | None = None,
    costs: bool = False,
) -> Encode:
    """Encode a y4m file with the patched encoder.

    Args:
        program: The encoder.
        y4m: The input.
        arguments: As of `encoder_arguments`; one thread, or the encoder refuses to count.
        children: Kills the encoder when it is closed.
        hints: A hint file for these frames; None for the encoder's own search.
        costs: Record the costs of each searched node.

    Returns:
        The stream and its figures.

    Raises:
        HintsError: if the hint file is damaged, or for another number of frames.
        EncoderError: if the encoder fails, as on hints for frames of another size, or did no
            partition search.
    """
    opened = None if hints is None else open_hints(hints)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ivf, counts_file, costs_file = folder / "a.ivf", folder / "counts.json", folder / "costs"
        environment = {"AV1PART_COUNTS": str(counts_file)}
        if hints is not None:
            environment["AV1PART_HINTS"] = str(hints.absolute())
        if costs:
            environment["AV1PART_COSTS"] = str(costs_file)
        seconds = encode(program, y4m, ivf, arguments, children, environment)
        if not counts_file.is_file():
            raise EncoderError(
                f"{program.name} counted nothing on {y4m.stem}: it takes the patched encoder, and "
                "a speed that searches partitions"
            )
        stream = ivf.read_bytes()
        frames = int.from_bytes(stream[24:28], "little")
        if opened is not None and opened.frames != frames:
            raise HintsError(f"{hints} is for {opened.frames} frames, {y4m.stem} has {frames}")
        counts = read_counts(counts_file)
        return Encode(stream, seconds, counts, read_costs(costs_file) if costs else None)
