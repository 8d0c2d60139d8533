"""Hint files for the patched encoder and for `open_hints`, and what the encoder writes."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from av1part.data.build.libaom import Children, encode, encoder_arguments
from av1part.encoder.counts import (
    COSTS_DTYPE,
    COSTS_MAGIC,
    costs_table,
    read_costs,
    read_counts,
)
from av1part.encoder.hints import open_hints
from av1part.encoder.patched import find_patched
from av1part.partition import SIZES
from av1part.system.errors import EncoderError, HintsError

from ...encoding import corner, write_clip, write_hints
from .case import Case, Draw
from .hostile import changes, tree_changes

_SIDES = (64, 72)
_WORDS = (0, 1, 2, 3, 15, 16, 64, 72, 255, 0x3141, 0x4850, 0x3FF, 0x400, 0x7C00, 0x8000, 0xFFFF)


class Hints:
    """Hint files that fit a clip, changed: the encoder and `open_hints` must agree on each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._program = find_patched().path
        self._y4m = write_clip(folder / "a.y4m", [corner("chelsea", *_SIDES)])
        self._whole = []
        rng = np.random.default_rng(0)
        for sizes in ((16,), SIZES):
            file = folder / "whole.hints"
            write_hints(file, _SIDES, lambda _, s: rng.integers(0, 1024, s, np.uint16), sizes)
            self._whole.append(file.read_bytes())

    def case(self, draw: Draw) -> Case:
        file = self.folder / "fuzzed.hints"
        data = draw(st.sampled_from(self._whole))
        kind = draw(st.sampled_from(["bytes", "word", "header", "none"]))
        if kind == "bytes":
            data = draw(changes())(data)
        elif kind == "word":
            at = 2 * draw(st.integers(0, len(data) // 2 - 1))
            data = data[:at] + struct.pack("<H", draw(st.sampled_from(_WORDS))) + data[at + 2 :]
        elif kind == "header":
            sides = [draw(st.sampled_from([64, 72, 0, 1, 65535])) for _ in range(2)]
            words = [*sides, draw(st.integers(0, 17)), draw(st.integers(0, 3))]
            data = struct.pack("<7H", 0x3141, 0x4850, 1, *words) + data[14:]
        file.write_bytes(data)
        return Case(lambda: self._agree(file), str(file))

    def _agree(self, file: Path) -> None:
        """Raise what `open_hints` does, once the encoder refused the file as well."""
        refusal = self._encode(file)
        try:
            hints = open_hints(file)
        except HintsError:
            assert refusal, "the encoder takes what open_hints refuses"
            raise
        height, width = _SIDES
        if (hints.width, hints.height) == (width, height):
            assert not refusal, f"open_hints takes what the encoder refuses: {refusal}"
        else:
            assert "is for frames of another size" in refusal
            raise HintsError(f"{file} is for frames of another size")

    def _encode(self, file: Path) -> str:
        """Return the encoder's refusal, empty if it encodes."""
        arguments = encoder_arguments(55, bit_depth=8, cpu_used=6)
        environment = {"AV1PART_HINTS": str(file)}
        try:
            out = self.folder / "a.ivf"
            encode(self._program, self._y4m, out, arguments, Children(), environment)
        except EncoderError as error:
            refusal = str(error)
        else:
            return ""
        assert f"(exit status 2: av1part: {file} " in refusal
        return refusal


class Figures:
    """Counts and costs as the encoder writes them, changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        call = {"width": 16, "height": 8, "partition": 1, "calls": 3, "samples": 384}
        self._counts = {"version": 1, "calls": [call, {**call, "partition": 0}]}
        records = np.zeros(3, COSTS_DTYPE)
        records["size_log2"] = 4, 5, 6
        records["tried"] = 1
        self._costs = COSTS_MAGIC + records.tobytes()

    def case(self, draw: Draw) -> Case:
        file = self.folder / "figures"
        if draw(st.booleans()):
            file.write_bytes(draw(changes())(self._costs) if draw(st.booleans()) else self._costs)
            return Case(lambda: costs_table(read_costs(file)), str(file))
        counts = draw(tree_changes())(self._counts) if draw(st.booleans()) else self._counts
        data = json.dumps(counts).encode()
        file.write_bytes(draw(changes())(data) if draw(st.booleans()) else data)
        return Case(lambda: read_counts(file).work, str(file))
