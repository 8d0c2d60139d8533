"""Finding, checking and reading sources: raw, y4m, pictures and videos made here."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from av1part.data.build.layouts import RawFormat, raw_format_of
from av1part.data.build.sources import Source, find_sources, open_source, open_sources
from av1part.data.build.yuv import (
    CHROMA_BOX,
    GREY,
    NO_CONVERSION,
    RGB,
    YuvFrame,
    mean_chroma,
    rgb_to_420,
    write_y4m_frame,
    y4m_header,
)
from av1part.data.store.schema import sequence_name
from av1part.system.errors import ConfigError, SourceError


def draw(width: int, height: int, bit_depth: int = 8, frames: int = 3) -> list[YuvFrame]:
    """Random 4:2:0 frames."""
    rng = np.random.default_rng(width * height + frames)
    dtype = np.uint8 if bit_depth == 8 else np.uint16
    chroma = (height + 1) // 2, (width + 1) // 2

    def plane(shape: tuple[int, int]) -> np.ndarray:
        return rng.integers(0, 1 << bit_depth, shape).astype(dtype)

    return [(plane((height, width)), plane(chroma), plane(chroma)) for _ in range(frames)]


def raw_bytes(frames: list[YuvFrame]) -> bytes:
    return b"".join(plane.tobytes() for planes in frames for plane in planes)


def write_y4m(path: Path, frames: list[YuvFrame], bit_depth: int = 8) -> Path:
    height, width = frames[0][0].shape
    with path.open("wb") as file:
        file.write(y4m_header(width, height, bit_depth))
        for planes in frames:
            write_y4m_frame(file, planes)
    return path


def write_video(
    path: Path,
    codec: str,
    pixels: str,
    *,
    frames: int = 8,
    format_: str | None = None,
    **options: str,
) -> Path:
    """A moving picture of 64x48, encoded by FFmpeg."""
    rgb = np.random.default_rng(1).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    with av.open(str(path), "w", format=format_, options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(rgb, 3 * i, 1), format="rgb24")
            container.mux(stream.encode(frame.reformat(format=pixels)))
        container.mux(stream.encode(None))
    return path


def write_picture(path: Path, pixels: np.ndarray, format_: str) -> Path:
    codec = {".png": "png", ".jpg": "mjpeg"}[path.suffix]
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream(codec, rate=1)
        frame = av.VideoFrame.from_ndarray(pixels, format=format_)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, format_
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def assert_frames(source: Source, wanted: list[YuvFrame]) -> None:
    read = list(source.frames())
    assert source.reader.frames == len(read) == len(wanted)
    for ours, theirs in zip(read, wanted, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            assert (a == b).all()


# --- finding


def test_arguments_expand_to_each_file_once_sorted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b.png", "a.yuv", "notes.txt", "deep/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.setenv("HOME", str(tmp_path))
    names = [p.name for p in find_sources([tmp_path, tmp_path / "b.png", f"{tmp_path}/*.p?g"])]
    assert names == ["a.yuv", "b.png"], "a folder stands for its own videos and pictures"
    assert [p.name for p in find_sources(["~/notes.txt"])] == ["notes.txt"]
    assert [p.name for p in find_sources([f"{tmp_path}/**/*.png"])] == ["b.png", "c.png"]


def test_a_name_with_glob_characters_is_taken_literally_if_it_exists(tmp_path: Path) -> None:
    odd = tmp_path / "park = joy [1] (x).y4m"
    write_y4m(odd, draw(16, 16))
    assert find_sources([odd]) == [odd]
    assert open_source(odd).sequence == "park___joy__1___x_"


@pytest.mark.parametrize("argument", ["nothing.png", "*.png", "empty"])
def test_what_stands_for_nothing_is_refused(argument: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"does not exist|holds no video") as caught:
        find_sources([tmp_path / argument])
    assert argument in str(caught.value)


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    a = write_y4m(tmp_path / "clip a.y4m", draw(16, 16))
    b = write_y4m(tmp_path / "clip_a.y4m", draw(16, 16))
    with pytest.raises(SourceError, match="both be sequence clip_a"):
        open_sources([a, b])


# --- raw


@pytest.mark.parametrize("bit_depth", [8, 10])
@pytest.mark.parametrize(("width", "height"), [(16, 8), (17, 9), (24, 11)])
def test_raw_comes_back_exactly(tmp_path: Path, bit_depth: int, width: int, height: int) -> None:
    frames = draw(width, height, bit_depth)
    path = tmp_path / f"clip_{width}x{height}_{bit_depth}bit.yuv"
    path.write_bytes(raw_bytes(frames))
    source = open_source(path)
    assert (source.reader.bit_depth, source.reader.conversion) == (bit_depth, NO_CONVERSION)
    assert_frames(source, frames)


def test_a_raw_format_can_be_given(tmp_path: Path) -> None:
    frames = draw(20, 10, 10)
    (tmp_path / "clip.yuv").write_bytes(raw_bytes(frames))
    assert_frames(open_sources([tmp_path / "clip.yuv"], RawFormat(20, 10, 10))[0], frames)


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("Beauty_1920x1080_120fps_420_10bit_YUV", 10),
        ("a_64x48_8bit", 8),
        ("clip_576x324_10le", 10),
        ("x_64x48_yuv420p10le", 10),
        ("x_64x48_10-bit", 10),
        ("x_64x48", None),
        ("x10_64x48_25fps", None),
    ],
)
def test_raw_names(name: str, depth: int | None) -> None:
    format_ = raw_format_of(Path(f"{name}.yuv"))
    assert format_.bit_depth == depth
    assert f"{format_.width}x{format_.height}" in name


def test_raw_of_a_wrong_size_says_so(tmp_path: Path) -> None:
    path = tmp_path / "clip_16x16_8bit.yuv"
    path.write_bytes(raw_bytes(draw(16, 16))[:-1])
    with pytest.raises(SourceError, match="not a whole number of 16x16 frames of 8 bits"):
        open_source(path)
    with pytest.raises(SourceError, match="not a whole number of 18x16"):
        open_source(path, RawFormat(width=18))


def test_raw_without_a_size_asks_for_it(tmp_path: Path) -> None:
    (tmp_path / "clip.yuv").write_bytes(bytes(384))
    with pytest.raises(SourceError, match="give width= and height="):
        open_source(tmp_path / "clip.yuv")


def test_ten_bits_taken_for_eight_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "clip_16x16.yuv"
    path.write_bytes(raw_bytes(draw(16, 16, 10, frames=2)))
    with pytest.raises(SourceError, match="give bit_depth="):
        open_source(path)
    assert open_source(path, RawFormat(bit_depth=10)).reader.frames == 2
    black = tmp_path / "black_16x16.yuv"
    black.write_bytes(bytes(384))
    assert open_source(black).reader.bit_depth == 8


def test_samples_beyond_the_bit_depth_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip_16x16_10bit.yuv"
    path.write_bytes(b"\xff\xff" * 384)
    with pytest.raises(SourceError, match="holds 65535, more than 10 bits"):
        list(open_source(path).frames())


def test_a_raw_format_without_a_raw_file_is_refused(tmp_path: Path) -> None:
    path = write_y4m(tmp_path / "clip.y4m", draw(16, 16))
    with pytest.raises(ConfigError, match="describe raw"):
        open_sources([path], RawFormat(width=16))


@pytest.mark.parametrize("name", ["x_64x48_12bit", "x_64x48_16le", "x_64x48_10be", "x_4x4_8bit"])
def test_raw_formats_that_are_not_taken(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.yuv"
    path.write_bytes(bytes(64 * 48 * 3))
    with pytest.raises(SourceError, match=r"8 and 10 are taken|little endian|a side is"):
        open_source(path)


# --- y4m


@pytest.mark.parametrize("bit_depth", [8, 10])
@pytest.mark.parametrize(("width", "height"), [(16, 8), (17, 9)])
def test_y4m_comes_back_exactly(tmp_path: Path, bit_depth: int, width: int, height: int) -> None:
    frames = draw(width, height, bit_depth)
    source = open_source(write_y4m(tmp_path / "clip.y4m", frames, bit_depth))
    reader = source.reader
    assert (reader.width, reader.height, reader.bit_depth) == (width, height, bit_depth)
    assert reader.conversion == NO_CONVERSION
    assert_frames(source, frames)


@pytest.mark.parametrize(
    ("chroma", "shape", "conversion"),
    [("C422", (9, 9), CHROMA_BOX), ("C444", (9, 17), CHROMA_BOX), ("Cmono", None, GREY)],
)
def test_y4m_of_other_chroma(
    tmp_path: Path, chroma: str, shape: tuple[int, int] | None, conversion: str
) -> None:
    rng = np.random.default_rng(0)
    luma = rng.integers(0, 256, (9, 17), dtype=np.uint8)
    planes = [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(2)] if shape else []
    data = b"".join(p.tobytes() for p in (luma, *planes))
    path = tmp_path / "clip.y4m"
    path.write_bytes(f"YUV4MPEG2 W17 H9 F25:1 {chroma}\nFRAME Ip\n".encode() + data)
    if shape:
        box = (2, 2) if chroma == "C444" else (2, 1)
        u, v = (mean_chroma(p, *box) for p in planes)
    else:
        u = v = np.full((5, 9), 128, dtype=np.uint8)
    source = open_source(path)
    assert source.reader.conversion == conversion
    assert_frames(source, [(luma, u, v)])


@pytest.mark.parametrize("cut", [1, 100, 16 * 16 * 3 // 2 + 5])
def test_a_truncated_y4m_is_refused(tmp_path: Path, cut: int) -> None:
    path = write_y4m(tmp_path / "clip.y4m", draw(16, 16))
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(SourceError, match="truncated: it ends within frame 3"):
        open_source(path)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"YUV4MPEG2 W16 H16 F25:1 C420jpeg\n", "no frame"),
        (b"YUV4MPEG2 W16 F25:1\nFRAME\n", "broken y4m header"),
        (b"YUV4MPEG2 W16 H16 F25:1 C420p12\nFRAME\n", "8 and 10 are taken"),
        (b"YUV4MPEG2 W16 H16 F25:1 C410\nFRAME\n", "convert it to 4:2:0"),
        (b"YUV4MPEG2 W999999 H16 F25:1\nFRAME\n", "a side is 8 to 16384"),
        (b"YUV4MPEG2 W16 H16 F25:1\nGARBAGE\n" + bytes(384), "damaged or truncated"),
    ],
)
def test_broken_y4m_is_refused(tmp_path: Path, header: bytes, said: str) -> None:
    (tmp_path / "clip.y4m").write_bytes(header)
    with pytest.raises(SourceError, match=said):
        open_source(tmp_path / "clip.y4m")


# --- pictures and videos


def test_rgb_pictures_take_the_fixed_conversion(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (19, 33, 3), dtype=np.uint8)
    source = open_source(write_picture(tmp_path / "a.png", rgb, "rgb24"))
    assert source.reader.conversion == RGB
    assert_frames(source, [rgb_to_420(rgb, 8)])


def test_alpha_and_grey_pictures_are_rgb_pictures(tmp_path: Path) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    source = open_source(write_picture(tmp_path / "a.png", rgba, "rgba"))
    assert_frames(source, [rgb_to_420(rgba[..., :3], 8)])
    grey = rgba[..., 0].copy()
    source = open_source(write_picture(tmp_path / "g.png", grey, "gray"))
    assert_frames(source, [rgb_to_420(np.repeat(grey[..., None], 3, axis=2), 8)])


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "bit_depth", "conversion"),
    [
        ("a.mp4", "mpeg4", "yuv420p", 8, NO_CONVERSION),
        ("b.mkv", "ffv1", "yuv420p10le", 10, NO_CONVERSION),
        ("c.mkv", "ffv1", "yuv422p10le", 10, CHROMA_BOX),
        ("d.mkv", "ffv1", "yuv444p", 8, CHROMA_BOX),
        ("e.mkv", "ffv1", "gbrp10le", 10, RGB),
        ("f.nut", "rawvideo", "nv12", 8, NO_CONVERSION),
    ],
)
def test_videos_are_read_whole(
    tmp_path: Path, name: str, codec: str, pixels: str, bit_depth: int, conversion: str
) -> None:
    source = open_source(write_video(tmp_path / name, codec, pixels))
    reader = source.reader
    assert (reader.width, reader.height, reader.frames) == (64, 48, 8)
    assert (reader.bit_depth, reader.conversion) == (bit_depth, conversion)
    frames = list(source.frames())
    assert len(frames) == 8
    dtype = np.uint8 if bit_depth == 8 else np.uint16
    for planes in frames:
        assert [p.shape for p in planes] == [(48, 64), (24, 32), (24, 32)]
        assert all(p.dtype == dtype for p in planes)
        assert planes[0].std() > (1 << bit_depth) / 16, "noise stays noise"


def test_planes_are_what_ffmpeg_decodes(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", "ffv1", "yuv420p10le")
    with av.open(str(path)) as container:
        wanted = [
            [
                np.frombuffer(p, "<u2").reshape(p.height, -1)[:, : p.width].copy()
                for p in frame.planes
            ]
            for frame in container.decode(video=0)
        ]
    for planes, decoded in zip(open_source(path).frames(), wanted, strict=True):
        assert all((p == d).all() for p, d in zip(planes, decoded, strict=True))


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("fast.mp4", "mpeg4", {"movflags": "faststart"}),
        ("late.mp4", "mpeg4", {}),
        ("a.mkv", "ffv1", {}),
        ("b.avi", "mpeg4", {}),
    ],
)
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_truncated_video_is_refused(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], share: float
) -> None:
    path = write_video(tmp_path / name, codec, "yuv420p", **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(SourceError, match=name):
        list(open_source(path).frames())


def packets_of(path: Path) -> list[tuple[int, int]]:
    """Where each packet of a video starts in its file, and its size."""
    with av.open(str(path)) as container:
        return [(p.pos, p.size) for p in container.demux(video=0) if p.size]


def test_a_video_cut_between_two_packets_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", "mpeg4", "yuv420p", movflags="faststart")
    start, size = packets_of(path)[-2]
    path.write_bytes(path.read_bytes()[: start + size])
    with pytest.raises(SourceError, match="truncated: it ends before its last MP4 box does"):
        open_source(path)


def test_a_video_cut_by_a_byte_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", "mpeg4", "yuv420p", movflags="faststart")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SourceError, match="truncated"):
        open_source(path)


def copy_packets(whole: Path, path: Path, order: list[int]) -> Path:
    """Copy a video's packets in another order, by their numbers."""
    with av.open(str(whole)) as source, av.open(str(path), "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        packets = [p for p in source.demux(video=0) if p.size]
        for number, i in enumerate(order):
            packet = packets[i]
            packet.stream = stream
            packet.pts = packet.dts = 40 * number
            copy.mux(packet)
    return path


def test_a_video_that_starts_before_its_key_frame_is_read_from_there(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", "mpeg2video", "yuv420p")
    wanted = list(open_source(whole).frames())
    source = open_source(copy_packets(whole, tmp_path / "a.mkv", [1, 2, *range(8)]))
    assert_frames(source, wanted)
    assert source.reader.coding.skipped_packets == 2


def test_packets_that_give_no_frame_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.ivf"
    grey = np.full((64, 64, 3), 90, dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libsvtav1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        frames = [av.VideoFrame.from_ndarray(grey, format="rgb24") for _ in range(8)]
        packets = [p for f in [*frames, None] for p in stream.encode(f)]
        for number, packet in enumerate(packets):
            kept = av.Packet(b"\x12\0") if number == 4 else packet  # a temporal delimiter alone
            kept.stream, kept.time_base = stream, packet.time_base
            kept.pts, kept.dts = packet.pts, packet.dts
            container.mux(kept)
    with pytest.raises(SourceError, match="7 of 8 frames decode"):
        list(open_source(path).frames())


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_truncated_picture_is_refused(tmp_path: Path, name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    if name.endswith("jpg"):
        pixels = np.random.default_rng(0).integers(0, 256, (96, 64), dtype=np.uint8)
    path = write_picture(tmp_path / name, pixels, "yuvj420p" if name.endswith("jpg") else "rgb24")
    assert len(list(open_source(path).frames())) == 1
    data = path.read_bytes()
    for cut in (1, 200, len(data) // 2):
        path.write_bytes(data[:-cut])
        with pytest.raises(SourceError, match=name):
            open_source(path)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("not a video " * 100)


def _sound(path: Path) -> None:
    with av.open(str(path), "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))


def _twelve(path: Path) -> None:
    write_video(path, "ffv1", "yuv420p12le")


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_empty, "is empty"),
        (_text, "is not a video or picture"),
        (_sound, "no video stream"),
        (_twelve, "12 bits a sample; 8 and 10 are taken"),
        (_folder, "is not a file"),
    ],
)
def test_what_is_no_video_is_refused(
    tmp_path: Path, make: Callable[[Path], None], said: str
) -> None:
    path = tmp_path / "thing.mkv"
    make(path)
    with pytest.raises(SourceError, match=said) as caught:
        open_source(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"gone\.png does not exist"):
        open_source(tmp_path / "gone.png")


# --- which frames


@pytest.mark.parametrize(
    ("count", "every", "kept"),
    [(None, 1, [0, 1, 2, 3, 4, 5, 6]), (3, 1, [0, 1, 2]), (None, 3, [0, 3, 6]), (2, 3, [0, 3])],
)
def test_frames_and_every(tmp_path: Path, count: int | None, every: int, kept: list[int]) -> None:
    frames = draw(16, 16, frames=7)
    source = open_source(write_y4m(tmp_path / "clip.y4m", frames))
    read = list(source.frames(count, every))
    assert len(read) == len(kept)
    for planes, index in zip(read, kept, strict=True):
        assert (planes[0] == frames[index][0]).all()


def test_a_list_of_other_files_is_not_followed(tmp_path: Path) -> None:
    Image.new("RGB", (24, 16)).save(tmp_path / "other.png")
    file = tmp_path / "clip.mp4"
    file.write_text("ffconcat version 1.0\nfile other.png\n")
    with pytest.raises(SourceError, match=r"clip\.mp4 is a list of other files: name those"):
        open_source(file)


@pytest.mark.parametrize("name", ["http:a.png", "concat:a|b.png", "pipe:0.png", "a%d.png"])
def test_a_name_is_a_file_s_whatever_it_looks_like(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"a{number}.png")  # what a%d could stand for
    Image.new("RGB", (24, 16)).save(name)
    assert open_source(Path(name)).reader.width == 24


# --- folders, streams and options as users have them


def test_a_folder_is_taken_whole_and_what_is_left_out_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, codec, format_ in (
        ("a.mpg", "mpeg2video", "mpeg"),
        ("b.MTS", "mpeg2video", "mpegts"),
        ("c.3gp", "mpeg4", "mp4"),
        ("d.wmv", "wmv2", "asf"),
        ("e.flv", "flv", "flv"),
        ("f.odd", "mpeg4", "avi"),
    ):
        write_video(tmp_path / name, codec, "yuv420p", format_=format_)
    write_video(tmp_path / "g.pdf", "mjpeg", "yuvj420p", format_="mjpeg")
    (tmp_path / "._a.mpg").write_bytes(bytes(4096))
    (tmp_path / "notes.txt").write_text("a text\n" * 40)
    (tmp_path / "art.nfo").write_bytes(b"\x1b[31mhello\x1b[0m\r\n" * 40)
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n\n")
    (tmp_path / "more").mkdir()
    found = [path.name for path in find_sources([tmp_path])]
    assert found == ["a.mpg", "b.MTS", "c.3gp", "d.wmv", "e.flv", "f.odd"]
    (message,) = [record.getMessage() for record in caplog.records]
    for words in (
        "a.srt (has no video stream)",
        "art.nfo (is not a video or picture)",
        "g.pdf (may be a bare video stream: name it itself)",
        "more/ (a folder: name it too)",
        "notes.txt (is not a video or picture)",
    ):
        assert words in message
    assert "._a" not in message


def test_interlaced_frames_can_be_taken_as_coded(tmp_path: Path) -> None:
    data = b"YUV4MPEG2 W16 H16 F25:1 It\nFRAME\n" + raw_bytes(draw(16, 16, frames=1))
    (tmp_path / "a.y4m").write_bytes(data)
    with pytest.raises(SourceError, match="give interlaced=weave"):
        open_source(tmp_path / "a.y4m")
    source = open_source(tmp_path / "a.y4m", interlaced="weave")
    assert source.reader.coding.scan == "interlaced"
    assert_frames(source, draw(16, 16, frames=1))


def test_the_main_video_of_a_file_is_read_and_not_its_cover(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("ffv1", rate=25) for _ in range(2)]
        for stream, side in zip(streams, (16, 64), strict=True):
            stream.width, stream.height, stream.pix_fmt = side, side, "gray"
        streams[1].disposition = Disposition.default
        for stream, frames in zip(streams, (1, 5), strict=True):
            grey = np.full((stream.height, stream.width), 50, dtype=np.uint8)
            for _ in range(frames):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="gray")))
            container.mux(stream.encode(None))
    (source,) = open_sources([path])
    assert (source.reader.width, source.reader.frames) == (64, 5)
    assert source.reader.coding.other_streams == 1
    assert "of 2 videos in it, only the main one is read" in caplog.text


def test_a_file_that_says_no_end_is_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_video(tmp_path / "a.ts", "mpeg2video", "yuv420p", format_="mpegts")
    (source,) = open_sources([path])
    assert source.reader.coding.end == "unknown"
    assert "a.ts: nothing in such a file says where it ends" in caplog.text
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SourceError, match="before its last transport packet does"):
        open_source(path)


@pytest.mark.parametrize("layout", ["420", "gray"])
def test_a_layout_that_is_given_decides(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "gray_wolf_16x16.yuv"
    path.write_bytes(bytes(range(256)) * 3)
    with pytest.raises(SourceError, match="3 frames of gray by its name or 2 of 4:2:0"):
        open_source(path)
    source = open_source(path, RawFormat(layout=layout))
    assert len(list(source.frames())) == source.reader.frames == (3 if layout == "gray" else 2)


def test_a_number_of_frames_in_a_name_is_no_layout(tmp_path: Path) -> None:
    path = tmp_path / "clip_8x8_444.yuv"
    path.write_bytes(bytes(444 * 96))
    with pytest.raises(SourceError, match="222 frames of 444 by its name or 444 of 4:2:0"):
        open_source(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a_16x16_420_444.yuv", "layout 420 and 444 by its name: give layout="),
        ("a_16x16_8bit_420p10.yuv", "bit_depth 10 and 8 by its name: give bit_depth="),
        ("a_16x16_rgb24.yuv", "rgb24 by its name"),
        ("a_16x16_v210.yuv", "v210 by its name"),
        ("a_16x16_nv12.yuv", "in layout nv12: it is truncated"),
    ],
)
def test_a_name_that_says_what_cannot_be_is_refused(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).write_bytes(bytes(383))
    with pytest.raises(SourceError, match=words):
        open_source(tmp_path / name)


def test_a_long_name_is_shortened_to_one_of_its_own() -> None:
    first, second = (sequence_name("x" * 250 + end) for end in "ab")
    assert len(first) == len(second) == 120
    assert first != second
    assert sequence_name("x" * 120) == "x" * 120


# --- more of each kind


@pytest.mark.parametrize(
    ("name", "layout", "depth"),
    [
        ("a_352x288_y444", "444", None),
        ("a_352x288_Y42B", "422", None),
        ("a_352x288_I422_10LE", "422", 10),
        ("a_352x288_i010", "420", 10),
        ("a_352x288_YU12", "420", None),
        ("a_352x288_4-2-2", "422", None),
        ("a_4.4.4_352x288", "444", None),
        ("a_grayscale_352x288", "gray", None),
        ("a_monochrome_352x288", "gray", None),
        ("a_352x288_10b_420", "420", 10),
        ("a_352x288_420p_10bitle", "420", 10),
        ("a_352x288_420_10bpp", "420", 10),
        ("a_352x288_8b", None, 8),
        ("ParkScene_1920x1080_24", None, None),
        ("PeopleOnStreet_2560x1600_30_crop", None, None),
        ("sc_desktop_1920x1080_60_8bit_444", "444", 8),
        ("EBULupoCandlelight_1920x1080_50_10bit_444", "444", 10),
        ("Tango_4096x2160_60fps_10bit_420_jvet", "420", 10),
        ("Campfire_3840x2160_30fps_10bit_420_bt709_videoRange", "420", 10),
    ],
)
def test_names_of_public_test_sets(name: str, layout: str | None, depth: int | None) -> None:
    format_ = raw_format_of(Path(f"{name}.yuv"))
    assert (format_.layout, format_.bit_depth) == (layout, depth)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a_1920x1080_to_960x540", "size 1920x1080 and 960x540 by its name: give width="),
        ("a_352x288_411", "411 by its name"),
        ("a_352x288_yuva420p", "yuva420p by its name"),
        ("a_352x288_GBR", "gbr by its name"),
        ("a_352x288_RGB444", "rgb444 by its name"),
        ("a_352x288_NV61", "nv61 by its name"),
        ("a_352x288_yv24", "yv24 by its name"),
        ("a_352x288_420sp", "420sp by its name"),
        ("a_352x288_nv12_10le32", "10le32 by its name"),
        ("a_352x288_10bit_be", "big endian by its name"),
    ],
)
def test_names_that_are_not_read(name: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        raw_format_of(Path(f"{name}.yuv"))


def test_a_size_that_is_given_settles_two_in_a_name() -> None:
    format_ = raw_format_of(Path("a_1920x1080_to_960x540.yuv"), RawFormat(960, 540))
    assert (format_.width, format_.height) == (960, 540)


def test_400_is_grey_only_if_the_size_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "A_400_16x16.yuv"
    path.write_bytes(bytes(range(256)) * 3)
    with pytest.raises(SourceError, match="3 frames of gray by its name or 2 of 4:2:0"):
        open_source(path)
    path.write_bytes(bytes(range(256)) * 4)
    assert (open_source(path).reader.frames, open_source(path).reader.conversion) == (4, GREY)


def test_twelve_bits_taken_for_eight_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "clip_16x16.yuv"
    path.write_bytes(raw_bytes(draw(16, 16, 12, frames=2)))
    with pytest.raises(SourceError, match="give bit_depth="):
        open_source(path)


@pytest.mark.parametrize(("kind", "chroma"), [("444", (16, 16)), ("420JPEG", (8, 8))])
def test_y4m_may_say_its_chroma_as_mjpegtools_did(
    tmp_path: Path, kind: str, chroma: tuple[int, int]
) -> None:
    size = 256 + 2 * chroma[0] * chroma[1]
    data = (b"FRAME\n" + bytes(size)) * 2
    (tmp_path / "a.y4m").write_bytes(f"YUV4MPEG2 W16 H16 XYSCSS={kind}\n".encode() + data)
    assert open_source(tmp_path / "a.y4m").reader.frames == 2
    (tmp_path / "a.y4m").write_bytes(b"YUV4MPEG2 W16 H16 XYSCSS=411\n" + data)
    with pytest.raises(SourceError, match="y4m of kind C411, not taken"):
        open_source(tmp_path / "a.y4m")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_a_title_in_another_encoding_is_no_damage(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, "mpeg4", "yuv420p")
    wanted = list(open_source(path).frames())
    path.write_bytes(path.read_bytes().replace(b"Lavf", b"L\xe4vf"))
    assert_frames(open_source(path), wanted)


def times_of(path: Path) -> list[int | None]:
    with av.open(str(path)) as container:
        return [p.pts for p in container.demux(video=0) if p.size]


def test_frames_are_counted_where_few_packets_have_a_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mpg", "libx264", "yuv420p", frames=20)
    assert None in times_of(path)[1:]
    source = open_source(path)
    assert source.reader.frames == len(list(source.frames())) == 20
    assert source.reader.coding.skipped_packets == 0


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "mpeg4"), ("a.mpg", "mpeg2video")])
def test_frames_are_counted_where_times_start_anew(tmp_path: Path, name: str, codec: str) -> None:
    path = write_video(tmp_path / name, codec, "yuv420p")
    wanted = list(open_source(path).frames())
    path.write_bytes(path.read_bytes() * 2)
    source = open_source(path)
    assert_frames(source, wanted * 2)
    assert source.reader.coding.skipped_packets == 0


def test_bytes_after_the_last_frame_of_an_ivf_are_ignored(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ivf", "libvpx-vp9", "yuv420p")
    wanted = list(open_source(path).frames())
    path.write_bytes(path.read_bytes() + bytes(range(100)))
    assert_frames(open_source(path), wanted)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_what_is_behind_a_picture_is_ignored(tmp_path: Path, kind: str) -> None:
    path, data = tmp_path / f"a.{kind.lower()}", io.BytesIO()
    Image.effect_noise((32, 24), 50).convert("RGB").save(data, kind)
    path.write_bytes(data.getvalue())
    wanted = list(open_source(path).frames())
    for more in (data.getvalue(), b"\0\0\0\4tEXtabcd\0\0\0\0"):
        path.write_bytes(data.getvalue() + more)
        assert_frames(open_source(path), wanted)


def test_a_bare_stream_of_jpegs_does_not_end_with_the_first(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mjpg", "mjpeg", "yuvj420p", format_="mjpeg")
    assert (open_source(path).reader.frames, open_source(path).reader.coding.end) == (8, "unknown")


def test_a_truncated_qoi_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.qoi"
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("qoi", rate=1)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "rgb24"
        noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    assert open_source(path).reader.coding.end == "declared"
    for cut in (1, 9, len(data) // 2):
        path.write_bytes(data[:-cut])
        with pytest.raises(SourceError, match="it ends before its QOI end marker does"):
            open_source(path)


def test_a_jpeg_ls_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jls"
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("jpegls", rate=1)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "gray"
        noise = np.random.default_rng(0).integers(0, 256, (64, 96), dtype=np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="gray")))
        container.mux(stream.encode(None))
    assert (next(iter(open_source(path).frames()))[0] == noise).all()
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(SourceError, match="JPEG's end marker"):
        open_source(path)


def test_frames_with_rows_from_bottom_to_top_are_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", "amv", "yuvj420p")
    with pytest.raises(SourceError, match="rows from bottom to top"):
        open_source(path)
