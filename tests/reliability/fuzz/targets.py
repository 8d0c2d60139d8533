"""What reads files that may be hostile, each with the ways to make such files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from hypothesis import strategies as st

from av1part.data.build.labels import stream_nodes
from av1part.data.build.layouts import RawFormat
from av1part.data.build.libaom import parse_inspect
from av1part.data.build.sources import open_source
from av1part.data.build.y4m import Y4mReader

from .bundles import Bundles
from .case import TARGETS, Case, Draw, Target
from .checkpoints import Checkpoints
from .hints import Figures, Hints
from .hostile import NUMBERS, TEXTS, changes, tree_changes
from .importers import Importers
from .stores import Stores

DATA = Path(__file__).parents[2] / "data"


def read_source(path: Path, raw: RawFormat | None = None) -> None:
    """Read a source to its end."""
    for _ in open_source(path, raw).frames():
        pass


@st.composite
def y4m_headers(draw: st.DrawFn) -> bytes:
    """A header line of the fields there are, each with a likely or an unlikely value."""
    number = st.one_of(st.sampled_from(["8", "9", "16", "24"]), st.sampled_from(NUMBERS))
    chroma = ["420", "420jpeg", "420p10", "422", "444p10", "mono", "mono10", "411", "444alpha"]
    text = st.one_of(st.sampled_from(chroma), st.sampled_from(TEXTS[:8]), number)
    fields = [f"W{draw(number)}", f"H{draw(number)}", f"C{draw(text)}"]
    fields += [f"F{draw(number)}:{draw(number)}", f"I{draw(text)}", f"X{draw(text)}"]
    kept = draw(st.lists(st.sampled_from(fields), min_size=2, max_size=8))
    line = " ".join(["YUV4MPEG2", *(fields[:2] if draw(st.booleans()) else []), *kept])
    return line.encode("utf-8", "surrogatepass")


class Y4m:
    """y4m of every kind that is taken, and headers that claim anything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._whole = [(DATA / "crops_72x56.y4m").read_bytes()]
        for kind, each in (("mono", 1), ("444", 3), ("422", 2), ("420p10", 3)):
            frame = b"FRAME\n" + bytes(16 * 8 * each)
            self._whole.append(b"YUV4MPEG2 W16 H8 F25:1 C" + kind.encode() + b"\n" + frame * 3)

    def case(self, draw: Draw) -> Case:
        file = self.folder / "clip.y4m"
        data = draw(st.sampled_from(self._whole))
        if draw(st.booleans()):
            body = draw(st.sampled_from([data.partition(b"\n")[2], b"FRAME\n" * 200, b""]))
            data = draw(y4m_headers()) + b"\n" + body
        data = draw(changes())(data) if draw(st.booleans()) else data
        # Of another kind it would be FFmpeg's, which has a target of its own.
        magic = Y4mReader.MAGIC
        file.write_bytes(data if data.startswith(magic) else magic + data[len(magic) :])
        return Case(lambda: read_source(file), str(file))


class RawYuv:
    """Raw files whose names, or whose users, claim anything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def case(self, draw: Draw) -> Case:
        for old in self.folder.iterdir():
            old.unlink()
        likely = st.sampled_from(["8", "16", "24"])
        odd = st.sampled_from([text for text in NUMBERS if len(text) < 50])
        number = likely if draw(st.booleans()) else st.one_of(likely, odd)
        ends = ["", "_10bit", "_10le", "_10be", "_8bit", "_420p10", "_9bit", "_\u0661\u0660bit"]
        name = f"c_{draw(number)}x{draw(number)}{draw(st.sampled_from(ends))}.yuv"
        file = self.folder / name
        frame = bytes(range(192)) * draw(st.sampled_from([0, 1, 1, 2, 6, 6]))
        file.write_bytes(draw(changes())(frame) if draw(st.booleans()) else frame)
        said = draw(st.booleans())
        sides = st.sampled_from([None, 8, 16, 1, 16385, 10**9, 10**30] if said else [None])
        depth = draw(st.sampled_from([None, 8, 10, 9, 64, 10**9] if said else [None]))
        raw = RawFormat(draw(sides), draw(sides), depth)
        return Case(lambda: read_source(file, raw), str(self.folder))


class Media:
    """Pictures and streams for FFmpeg."""

    def __init__(self, folder: Path) -> None:
        import numpy as np
        from PIL import Image

        self.folder = folder
        self._whole = {".ivf": (DATA / "crops_72x56.ivf").read_bytes()}
        picture = Image.fromarray(np.arange(24 * 16 * 3, dtype=np.uint8).reshape(16, 24, 3))
        for suffix in (".png", ".jpg", ".gif", ".bmp", ".tif", ".webp", ".ppm"):
            picture.save(folder / f"made{suffix}")
            self._whole[suffix] = (folder / f"made{suffix}").read_bytes()

    def case(self, draw: Draw) -> Case:
        suffix = draw(st.sampled_from(sorted(self._whole)))
        file = self.folder / f"picture{suffix}"
        file.write_bytes(draw(changes())(self._whole[suffix]))
        # How much a picture takes is its size's and FFmpeg's business, see SECURITY.md.
        return Case(lambda: read_source(file), str(file), bounded=False)


class Inspect:
    """What inspect prints: of two real streams, changed by byte, by line and by value."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._whole = {
            (2, 56, 72): (DATA / "crops_72x56.json").read_bytes(),
            (1, 51, 67): (DATA / "crop_67x51_10le.json").read_bytes(),
        }

    def case(self, draw: Draw) -> Case:
        shape = draw(st.sampled_from(sorted(self._whole)))
        lines = self._whole[shape].splitlines(keepends=True)
        if draw(st.booleans()):
            members = [i for i, line in enumerate(lines) if b'":' in line]
            at = draw(st.sampled_from(members))
            key, _, text = lines[at].decode().strip().rstrip(",").partition(":")
            try:
                value = draw(tree_changes())([json.loads(text)])
            except ValueError:
                value = []
            said = json.dumps(value[0]) if value else ""
            lines[at] = f"  {key}: {said},\n".encode()
        else:
            lines = draw(changes())(b"".join(lines)).splitlines(keepends=True)
        (self.folder / "printed.json").write_bytes(b"".join(lines))

        def run() -> None:
            frames = parse_inspect(lines, "clip.ivf")
            stream_nodes(frames, sequence="clip", shape=shape, sizes=(16, 8), one_to_four=False)

        return Case(run, "clip")


MAKERS: Mapping[str, Callable[[Path], Target]] = dict(
    zip(
        TARGETS,
        (
            *(Importers, Stores, Y4m, RawYuv, Media, Inspect, Checkpoints),
            *(Hints, Figures, Bundles),
        ),
        strict=True,
    )
)
"""Name of a target to what makes it in a folder."""
