"""Make the inputs of users, and expected.json: what each must be read as, or why it is refused.

    .venv/bin/python tests/data/inputs/make.py

The samples are drawn here, and coded without loss wherever the format allows it, so that the right
value is what was drawn and not what was read. JPEG is decoded by Pillow for comparison. The files
that BUGS names (`REPORTED`) were made elsewhere (CC0); for them FFmpeg's own first frame is taken.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

HERE = Path(__file__).parent
WIDTH, HEIGHT, FRAMES = 48, 32, 4
ROW = HEIGHT // 2
"""The row of luma that is compared, in the first frame."""

Expected = dict[str, Any]
Plane = NDArray[Any]
EXPECTED: dict[str, Expected] = {}

REPORTED: dict[str, Expected] = {
    "Kimono_96x64_24_444.yuv": {"frames": 4, "conversion": "chroma-box"},
    "clip_96x64_yuv422p.yuv": {"frames": 3, "conversion": "chroma-box"},
    "f00.y4m": {"frames": 10},
    "slow.y4m": {"frames": 4},
    "full_gray.y4m": {"frames": 2, "range": "full", "conversion": "neutral-chroma"},
    "grid.avif": {"refused": "picture in 4 tiles"},
    "inter.y4m": {"refused": "is interlaced"},
    "inter.mp4": {"refused": "is interlaced"},
    "motion.jpg": {"frames": 1, "range": "full", "conversion": "chroma-box"},
    "mpeg2_cut.ts": {"frames": 52, "range": "limited", "end": "unknown", "skipped_packets": 2},
    "opengop_cut.mkv": {"frames": 75, "range": "limited", "skipped_packets": 3},
    "trimmed.mp4": {"frames": 50},
    "vp8b.webm": {"frames": 120, "range": "limited"},
    "x.avi": {"frames": 10},
}


def luma(frame: int, bit_depth: int = 8) -> Plane:
    """A drawing that moves: a ramp, a grid and some noise, over the full range of samples."""
    rng = np.random.default_rng(7)
    row, col = np.mgrid[:HEIGHT, :WIDTH]
    ramp = (5 * col + 3 * row + 11 * frame) % 256
    grid = 40 * (((row // 8) + (col + frame) // 8) % 2)
    plane = (ramp + grid + rng.integers(0, 30, (HEIGHT, WIDTH))) % 256
    dtype = np.dtype("u1" if bit_depth == 8 else "<u2")
    return (plane << (bit_depth - 8)).astype(dtype)


def chroma(rows: int, cols: int, frame: int, bit_depth: int = 8) -> tuple[Plane, Plane]:
    """U and V that differ from luma and from each other."""
    shape = -(-HEIGHT // rows), -(-WIDTH // cols)
    dtype = np.dtype("u1" if bit_depth == 8 else "<u2")
    level = 1 << (bit_depth - 8)
    return (
        np.full(shape, (100 + frame) * level, dtype=dtype),
        np.full(shape, (150 + frame) * level, dtype=dtype),
    )


def expect(name: str, **facts: Any) -> None:
    """Note what a file must be read as, with the row of luma that was drawn."""
    facts.setdefault("frames", FRAMES)
    facts |= {"width": facts.get("width", WIDTH), "height": facts.get("height", HEIGHT)}
    depth = facts.setdefault("bit_depth", 8)
    if "luma" not in facts:
        facts["luma"] = [int(v) for v in luma(0, depth)[ROW]]
    EXPECTED[name] = facts


def refuse(name: str, words: str) -> None:
    """Note that a file is refused, with these words."""
    EXPECTED[name] = {"refused": words}


# Raw


def raw(name: str, rows: int, cols: int, *, bit_depth: int = 8, frames: int = FRAMES) -> bytes:
    """Planar frames: luma, then U and V unless rows is 0."""
    data = b""
    for i in range(frames):
        planes = [luma(i, bit_depth), *(chroma(rows, cols, i, bit_depth) if rows else ())]
        data += b"".join(plane.tobytes() for plane in planes)
    (HERE / name).write_bytes(data)
    return data


def semiplanar(name: str, *, bit_depth: int = 8, shift: int = 0) -> None:
    data = b""
    for i in range(FRAMES):
        u, v = chroma(2, 2, i, bit_depth)
        both = np.stack([u, v], axis=-1)
        data += (luma(i, bit_depth) << shift).tobytes() + (both << shift).tobytes()
    (HERE / name).write_bytes(data)


def make_raw() -> None:
    box, own = {"conversion": "chroma-box"}, {"conversion": "none"}
    for name, rows, cols, facts in (
        ("a_48x32_444.yuv", 1, 1, box),
        ("b_48x32_yuv422p.yuv", 1, 2, box),
        ("c_48x32_440.yuv", 2, 1, box),
        ("d_48x32_30fps_420.yuv", 2, 2, own),
        ("e_48x32.yv12", 2, 2, own),
    ):
        raw(name, rows, cols)
        expect(name, **facts)
    for name, rows, cols, facts in (
        ("f_48x32_422p10.yuv", 1, 2, box),
        ("g_48x32_yuv444p10le.yuv", 1, 1, box),
        ("h_48x32_420_10bit.yuv", 2, 2, own),
    ):
        raw(name, rows, cols, bit_depth=10)
        expect(name, bit_depth=10, **facts)
    raw("i_48x32_gray10le.yuv", 0, 0, bit_depth=10)
    expect("i_48x32_gray10le.yuv", bit_depth=10, conversion="neutral-chroma")
    semiplanar("j_48x32.nv12")
    expect("j_48x32.nv12", **own)
    semiplanar("k_48x32_p010le.yuv", bit_depth=10, shift=6)
    expect("k_48x32_p010le.yuv", bit_depth=10, **own)
    raw("gray_wolf_48x32.yuv", 2, 2)
    refuse("gray_wolf_48x32.yuv", "6 frames of gray by its name or 4 of 4:2:0: give layout=")
    raw("l_48x32_yuv420p12le.yuv", 2, 2, bit_depth=12)
    refuse("l_48x32_yuv420p12le.yuv", "12 bits a sample")
    raw("m_48x32_uyvy422.yuv", 1, 2)
    refuse("m_48x32_uyvy422.yuv", "uyvy422 by its name")
    raw("n_48x32_yuv420p10be.yuv", 2, 2, bit_depth=10)
    refuse("n_48x32_yuv420p10be.yuv", "big endian by its name")


# y4m


def y4m(name: str, header: str, rows: int = 2, cols: int = 2) -> None:
    with (HERE / name).open("wb") as file:
        file.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} {header}\n".encode())
        for i in range(FRAMES):
            planes = [luma(i), *(chroma(rows, cols, i) if rows else ())]
            file.write(b"FRAME\n" + b"".join(plane.tobytes() for plane in planes))


def make_y4m() -> None:
    y4m("timelapse.y4m", "F1:10 Ip")
    expect("timelapse.y4m", scan="progressive")
    y4m("norate.y4m", "F0:0")
    expect("norate.y4m", scan="unstated", end="frame")
    y4m("full.y4m", "F25:1 C420jpeg XCOLORRANGE=FULL")
    expect("full.y4m", range="full", conversion="none")
    y4m("limited.y4m", "F25:1 C444 XCOLORRANGE=LIMITED XSOMETHING=W1", 1, 1)
    expect("limited.y4m", range="limited", conversion="chroma-box")
    for letter in "tbm":
        y4m(f"fields_{letter}.y4m", f"F25:1 I{letter}")
        refuse(f"fields_{letter}.y4m", "is interlaced")


# Videos


def frames_of(pixel_format: str, count: int = FRAMES) -> Iterator[av.VideoFrame]:
    """Frames with the drawn luma."""
    for i in range(count):
        if pixel_format.startswith("gray"):
            yield av.VideoFrame.from_ndarray(luma(i), format="gray")
            continue
        u, v = chroma(2, 2, i)
        planes = np.concatenate([p.ravel() for p in (luma(i), u, v)])
        yield av.VideoFrame.from_ndarray(planes.reshape(HEIGHT * 3 // 2, WIDTH), format="yuv420p")


def video(
    name: str,
    codec: str,
    options: dict[str, str],
    *,
    count: int = FRAMES,
    format_: str | None = None,
    prepare: Callable[[Any], None] = lambda stream: None,
    **muxer: str,
) -> None:
    with av.open(str(HERE / name), "w", format=format_, options=muxer) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        prepare(stream)
        for frame in frames_of("yuv420p", count):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def full_range(stream: Any) -> None:
    stream.codec_context.color_range = 2


def make_videos() -> None:
    lossless = {"qp": "0", "preset": "ultrafast"}
    video("faststart.mp4", "libx264", lossless, movflags="faststart")
    expect("faststart.mp4", conversion="none", end="declared", scan="progressive")
    video("fragments.mp4", "libx264", lossless | {"g": "2"}, movflags="frag_keyframe+empty_moov")
    expect("fragments.mp4", conversion="none")
    video("full.mp4", "libx264", lossless, prepare=full_range)
    expect("full.mp4", range="full", conversion="none")
    video("turned.mp4", "libx264", lossless, prepare=lambda s: s.set_display_rotation(-90))
    expect("turned.mp4", orientation=6, conversion="none")
    video("fields.mkv", "libx264", lossless | {"x264-params": "tff=1"})
    refuse("fields.mkv", "is interlaced")
    video("fields.MTS", "libx264", lossless | {"x264-params": "tff=1"}, format_="mpegts")
    refuse("fields.MTS", "is interlaced")
    video("phone.3gp", "libx264", lossless, format_="mp4")
    expect("phone.3gp", end="declared")
    video("card.m2ts", "libx264", lossless, format_="mpegts")
    expect("card.m2ts", end="unknown")
    video("live.webm", "libvpx-vp9", {"lossless": "1", "cpu-used": "8"}, live="1")
    expect("live.webm", end="unknown")
    video("hevc.mkv", "libx265", {"x265-params": "lossless=1:log-level=0"})
    expect("hevc.mkv", end="declared")
    video("ffv1.avi", "ffv1", {})
    expect("ffv1.avi", end="declared")
    video("timelapse.mp4", "libx264", lossless, prepare=slow)
    expect("timelapse.mp4", end="declared")
    trailing("faststart.mp4", "trailing.mp4", b"\0" * 37 + b"GPS of the camera, and more")
    trailing("ffv1.avi", "trailing.avi", b"JUNK after the end")


def slow(stream: Any) -> None:
    stream.codec_context.framerate = Fraction(1, 30)
    stream.codec_context.time_base = Fraction(30, 1)


def trailing(whole: str, name: str, more: bytes) -> None:
    """Copy a file and append bytes that are none of it."""
    (HERE / name).write_bytes((HERE / whole).read_bytes() + more)
    EXPECTED[name] = dict(EXPECTED[whole])


# Pictures


def limited(red: Plane, green: Plane, blue: Plane) -> list[int]:
    """A row of BT.601 luma in limited range (ITU-R BT.601-7, section 2.5.3)."""
    rows = (plane[ROW].astype(float) for plane in (red, green, blue))
    weighted = sum(w * row for w, row in zip((65.481, 128.553, 24.966), rows, strict=True))
    return [int(v) for v in np.floor(16 + weighted / 255 + 0.5)]


def jpeg_luma(path: Path) -> list[int]:
    with Image.open(path) as picture:
        picture.draft("L" if picture.mode == "L" else "YCbCr", picture.size)
        plane = np.asarray(picture)
    return [int(v) for v in (plane if plane.ndim == 2 else plane[..., 0])[ROW]]


def make_pictures() -> None:
    colours = [luma(i) for i in range(3)]
    rgb = Image.fromarray(np.stack(colours, axis=-1))
    grey = Image.fromarray(colours[0])
    from_rgb = {"frames": 1, "conversion": "rgb-bt601-limited-box", "matrix": "rgb", "tolerance": 1}
    from_rgb |= {"range": "full", "end": "declared"}
    rgb_row, grey_row = limited(*colours), limited(*[colours[0]] * 3)
    alpha = rgb.copy()
    alpha.putalpha(grey)
    alpha.save(HERE / "alpha.png")
    expect("alpha.png", alpha=True, luma=rgb_row, **from_rgb)
    Image.merge("LA", (grey, grey)).save(HERE / "grey_alpha.png")
    expect("grey_alpha.png", alpha=True, luma=grey_row, **from_rgb)
    grey.save(HERE / "grey.png")
    expect("grey.png", luma=grey_row, **from_rgb)
    rgb.save(HERE / "rgb.webp", lossless=True)
    expect("rgb.webp", luma=rgb_row, **from_rgb)
    own = {"frames": 1, "range": "full", "end": "declared", "tolerance": 2}
    grey.save(HERE / "grey.jpg", quality=95)
    expect("grey.jpg", conversion="neutral-chroma", luma=jpeg_luma(HERE / "grey.jpg"), **own)
    exif = Image.Exif()
    for number, name in ((6, "turned.jpg"), (2, "mirrored.jpg")):
        exif[0x0112] = number
        rgb.save(HERE / name, quality=95, exif=exif, subsampling="4:2:0")
        facts = {"conversion": "none", "orientation": number, "luma": jpeg_luma(HERE / name)}
        expect(name, **facts, **own)
    rgb.save(HERE / "passes.jpg", quality=95, progressive=True, subsampling="4:2:0")
    expect("passes.jpg", conversion="none", luma=jpeg_luma(HERE / "passes.jpg"), **own)
    # A film behind the picture, with bytes in it that look like markers.
    trailing("turned.jpg", "film.jpg", b"\xff\xda\xff\xd8 moov \xff\xda" * 9)
    rgb.convert("CMYK").save(HERE / "print.jpg")
    refuse("print.jpg", "JPEG in CMYK")
    rgb.save(HERE / "pages.tif", save_all=True, append_images=[rgb], compression="tiff_lzw")
    refuse("pages.tif", "holds 2 pictures")
    Image.fromarray(luma(0, 16).astype("<u2")).save(HERE / "deep.png")
    refuse("deep.png", "16 bits a sample")
    greys = [Image.fromarray(luma(i)) for i in range(FRAMES)]
    greys[0].save(HERE / "moving.gif", save_all=True, append_images=greys[1:], duration=2000)
    trailing_gif = {"frames": FRAMES, "conversion": from_rgb["conversion"], "tolerance": 1}
    expect("moving.gif", luma=grey_row, end="declared", range="full", **trailing_gif)
    trailing("moving.gif", "trailing.gif", b"\0\0;\0more")
    interlaced_png("seven_passes.png", rgb)
    expect("seven_passes.png", luma=rgb_row, **from_rgb)


def interlaced_png(name: str, picture: Image.Image) -> None:
    with av.open(str(HERE / name), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("png", rate=1, options={"flags": "+ildct"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "rgb24"
        container.mux(
            stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24"))
        )
        container.mux(stream.encode(None))


def note_reported() -> None:
    """Add the files that were made elsewhere, with FFmpeg's first frame."""
    for name, facts in REPORTED.items():
        if "refused" in facts:
            EXPECTED[name] = facts
            continue
        if name.endswith(".yuv"):
            row = np.frombuffer((HERE / name).read_bytes(), np.uint8)[ROW * 96 :][:96]
        else:
            with av.open(str(HERE / name)) as container:
                plane = next(container.decode(video=0)).planes[0]
                row = np.frombuffer(memoryview(plane), np.uint8)[ROW * plane.line_size :][:96]
        expect(name, width=96, height=64, luma=[int(v) for v in row], **facts)


def main() -> None:
    av.logging.set_level(av.logging.ERROR)
    for make in (make_raw, make_y4m, make_videos, make_pictures, note_reported):
        make()
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(EXPECTED.items()))
    (HERE / "expected.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
