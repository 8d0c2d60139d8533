"""Files cut off at random bytes: refused, read whole, or read shorter with a warning."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from av1part import embedded
from av1part.data.build.sources import open_source
from av1part.data.store.store import Store
from av1part.system.errors import SourceError

from .conftest import Reliability

pytestmark = pytest.mark.slow

INPUTS = Path(__file__).parents[1] / "data" / "inputs"
SEED = 17

VIDEOS = {
    "mp4": ("a.mp4", "libx264", "yuv420p", {}),
    "mp4, index first": ("b.mp4", "libx264", "yuv420p", {"movflags": "faststart"}),
    "mp4 in fragments": ("c.mp4", "libx264", "yuv420p", {"movflags": "frag_keyframe+empty_moov"}),
    "mkv": ("d.mkv", "libx265", "yuv420p", {}),
    "webm": ("e.webm", "libvpx-vp9", "yuv420p", {}),
    "webm, live": ("f.webm", "libvpx-vp9", "yuv420p", {"live": "1"}),
    "avi": ("g.avi", "mpeg4", "yuv420p", {}),
    "ts": ("h.ts", "libx264", "yuv420p", {}),
    "ivf": ("i.ivf", "libvpx-vp9", "yuv420p", {}),
    "y4m": ("j.y4m", "rawvideo", "yuv420p", {}),
    "gif": ("k.gif", "gif", "rgb8", {}),
    "wmv": ("l.wmv", "wmv2", "yuv420p", {}),
    "flv": ("m.flv", "flv", "yuv420p", {}),
    "mxf": ("n.mxf", "mpeg2video", "yuv420p", {}),
}
PICTURES = {"png": "o.png", "jpg": "p.jpg", "webp": "q.webp", "tif": "r.tif", "avif": "s.avif"}
REPORTED = ("trimmed.mp4", "opengop_cut.mkv", "vp8b.webm", "x.avi", "mpeg2_cut.ts", "motion.jpg")


def pictures(count: int) -> list[np.ndarray]:
    plane = Store.open(embedded.STORE).plane("chelsea")[0]
    return [np.ascontiguousarray(plane[40 + 2 * i :, 60 + 3 * i :][:64, :96]) for i in range(count)]


def make(folder: Path, kind: str) -> Path:
    """Write a moving or still picture of 96x64 and return its file."""
    if kind in REPORTED:
        path = folder / kind
        path.write_bytes((INPUTS / kind).read_bytes())
    elif kind in PICTURES:
        path = folder / PICTURES[kind]
        Image.fromarray(np.stack(pictures(3), axis=-1)).save(path)
    else:
        name, codec, pixels, options = VIDEOS[kind]
        path = folder / name
        format_ = "yuv4mpegpipe" if kind == "y4m" else None
        with av.open(str(path), "w", format=format_, options=options) as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 96, 64, pixels
            stream.codec_context.gop_size = 5
            for grey in pictures(20):
                frame = av.VideoFrame.from_ndarray(np.stack([grey] * 3, -1), format="rgb24")
                container.mux(stream.encode(frame.reformat(format=pixels)))
            container.mux(stream.encode(None))
    return path


def frames_of(path: Path) -> tuple[list[bytes], str]:
    source = open_source(path)
    return [planes[0].tobytes() for planes in source.frames()], source.reader.coding.end


def cut(path: Path, where: list[int]) -> Counter[str]:
    """Cut a copy off at each of these bytes, and count what becomes of it."""
    data, (whole, _) = path.read_bytes(), frames_of(path)
    shorter = path.with_name(f"cut-{path.name}")
    counts: Counter[str] = Counter()
    for end in where:
        shorter.write_bytes(data[:end])
        try:
            frames, known = frames_of(shorter)
        except SourceError:
            counts["refused"] += 1
            continue
        if frames == whole:
            counts["whole"] += 1
        elif known == "unknown":
            counts["shorter, with a warning"] += 1
        else:
            counts["shorter in silence"] += 1
    return counts


def record(reliability: Reliability, kind: str, counts: Counter[str], how: str) -> None:
    told = ", ".join(f"{counts[key]} {key}" for key in sorted(counts))
    silent = counts["shorter in silence"]
    reliability.record(f"Cut off: {kind}", counts.total(), silent, f"{told}; {how}")


@pytest.mark.parametrize("kind", [*VIDEOS, *PICTURES, *REPORTED])
def test_a_file_cut_at_a_random_byte(kind: str, tmp_path: Path, reliability: Reliability) -> None:
    path = make(tmp_path, kind)
    size = path.stat().st_size
    tries = reliability.pick(8, 50)
    counts = cut(path, sorted(random.Random(f"{SEED} {kind}").sample(range(1, size), tries)))
    record(reliability, kind, counts, f"at random bytes of {size}, seed {SEED}")
    assert counts["shorter in silence"] == 0


def test_a_transport_stream_cut_between_two_packets(
    tmp_path: Path, reliability: Reliability
) -> None:
    path = make(tmp_path, "ts")
    where = range(188, path.stat().st_size, 188)
    where = where[:: max(1, len(where) // reliability.pick(8, 50))]
    counts = cut(path, list(where))
    record(reliability, "ts between two packets", counts, "at multiples of 188 bytes")
    assert counts["shorter in silence"] == 0


def test_a_y4m_cut_between_two_frames_cannot_be_known(tmp_path: Path) -> None:
    path = make(tmp_path, "y4m")
    header, rest = path.read_bytes().split(b"\n", 1)
    frame = len(b"FRAME\n") + 96 * 64 * 3 // 2
    counts = cut(path, [len(header) + 1 + frame * i for i in (1, 7)])
    assert len(rest) == 20 * frame
    assert counts == {"shorter in silence": 2}, "its manifest says that the end is a frame's"
