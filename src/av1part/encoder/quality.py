"""What an encode looks like beside its source: PSNR, SSIM and, with its extra, VMAF."""

from __future__ import annotations

import math
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.image import structural_similarity_index_measure

from av1part.data.build.media import MediaReader
from av1part.data.build.y4m import Y4mReader
from av1part.data.build.yuv import YuvFrame, write_y4m
from av1part.system.errors import ConfigError, EncoderError, first_line
from av1part.system.files import load_json

_SSIM_WINDOW = 11
"""Side of the Gaussian window of Wang 2004, with a deviation of 1.5 samples."""


@dataclass(frozen=True)
class Quality:
    """Qualities of an encode, means over its frames.

    Attributes:
        psnr_y: In dB, from the peak 2^bits - 1; None where a frame is equal to the source.
        psnr_u: Likewise.
        psnr_v: Likewise.
        ssim: Of luma (Wang 2004: Gaussian window of 11x11, deviation 1.5), a fraction.
        vmaf: 0 to 100; None if it was not asked for.
    """

    psnr_y: float | None
    psnr_u: float | None
    psnr_v: float | None
    ssim: float
    vmaf: float | None = None


def measure(y4m: Path, ivf: Path, *, vmaf: bool = False) -> Quality:
    """Decode a stream and compare it with its source, frame by frame.

    Args:
        y4m: The source, 4:2:0.
        ivf: The stream.
        vmaf: Compute VMAF too.

    Returns:
        The qualities.

    Raises:
        EncoderError: if the stream does not hold the source's frames.
        SourceError: if the stream cannot be decoded.
    """
    source, decoded = Y4mReader(y4m), MediaReader(ivf)
    facts = [(r.width, r.height, r.bit_depth, r.frames) for r in (source, decoded)]
    if facts[0] != facts[1]:
        raise EncoderError(f"{ivf.name} has not the frames of {y4m.name}: {facts[1]}, {facts[0]}")
    peak = (1 << source.bit_depth) - 1
    psnrs, ssims = [], []
    for one, other in zip(source, decoded, strict=True):
        psnrs.append([psnr(a, b, peak) for a, b in zip(one, other, strict=True)])
        ssims.append(ssim(one[0], other[0], peak))
    means = np.mean(psnrs, axis=0).tolist()
    y, u, v = (value if math.isfinite(value) else None for value in means)
    score = _vmaf(y4m, decoded, source.bit_depth) if vmaf else None
    return Quality(y, u, v, float(np.mean(ssims)), score)


def psnr(one: NDArray[Any], other: NDArray[Any], peak: int) -> float:
    """Return the peak signal-to-noise ratio of two planes in dB; infinite if they are equal."""
    difference = one.astype(np.int32) - other.astype(np.int32)
    error = float(np.mean(np.square(difference, dtype=np.int64)))
    return 10 * math.log10(peak * peak / error) if error else math.inf


def ssim(one: NDArray[Any], other: NDArray[Any], peak: int) -> float:
    """Return the structural similarity of two planes (Wang 2004), over whole windows alone."""
    first, second = (torch.from_numpy(p.astype(np.float32))[None, None] for p in (one, other))
    with torch.inference_mode():
        _, full = structural_similarity_index_measure(
            first,
            second,
            kernel_size=_SSIM_WINDOW,
            sigma=1.5,
            data_range=float(peak),
            return_full_image=True,
        )
    edge = _SSIM_WINDOW // 2
    return float(full[..., edge:-edge, edge:-edge].mean())


@cache
def find_vmaf() -> Path:
    """Find the ffmpeg with libvmaf that the extra `vmaf` installs.

    Returns:
        The program.

    Raises:
        ConfigError: if there is none.
    """
    try:
        import imageio_ffmpeg  # type: ignore[import-not-found,import-untyped,unused-ignore]

        program = Path(imageio_ffmpeg.get_ffmpeg_exe())
        filters = subprocess.run(
            [program, "-hide_banner", "-filters"], capture_output=True, check=True, timeout=60
        )
    except (ImportError, RuntimeError, OSError, subprocess.SubprocessError) as error:
        raise ConfigError(
            f"vmaf=true needs the extra vmaf ({first_line(error)}): pip install 'av1part[vmaf]'"
        ) from None
    if b" libvmaf " not in filters.stdout:
        raise ConfigError(f"vmaf=true: {program} has no libvmaf: leave vmaf out")
    return program


def _vmaf(y4m: Path, decoded: Iterable[YuvFrame], bit_depth: int) -> float:
    """Return VMAF by libvmaf's default model, the mean over frames.

    Raises:
        EncoderError: if ffmpeg fails.
    """
    program = find_vmaf()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frames, log = folder / "decoded.y4m", folder / "vmaf.json"
        write_y4m(frames, decoded, bit_depth)
        graph = f"[0:v][1:v]libvmaf=n_threads=1:log_fmt=json:log_path={log.name}"
        command = [str(program), "-nostdin", "-hide_banner", "-loglevel", "error", "-threads", "1"]
        command += [
            "-i",
            str(frames),
            "-i",
            str(y4m.absolute()),
            "-lavfi",
            graph,
            "-f",
            "null",
            "-",
        ]
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
        if done.returncode != 0:
            message = done.stderr.decode(errors="replace").strip()
            raise EncoderError(f"ffmpeg failed on {y4m.name} ({message[-200:]}): leave vmaf out")
        return float(load_json(log)["pooled_metrics"]["vmaf"]["mean"])
