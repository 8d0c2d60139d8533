"""Qualities against ones computed by hand and by scikit-image."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from av1part.data.build.libaom import Children, encode, encoder_arguments, find_aomenc
from av1part.data.build.media import MediaReader
from av1part.data.build.y4m import Y4mReader
from av1part.encoder.quality import find_vmaf, measure, psnr, ssim
from av1part.system.errors import ConfigError, EncoderError

from ...encoding import corner, write_clip


def test_psnr_by_hand() -> None:
    one, other = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    assert psnr(one, other, 255) == math.inf
    other[0, 0] = 4  # a squared error of 16 over 16 samples
    assert psnr(one, other, 255) == pytest.approx(20 * math.log10(255))
    assert psnr(one.astype(np.uint16), other.astype(np.uint16), 1023) == pytest.approx(
        20 * math.log10(1023)
    )
    full = np.full((4, 4), 1023, np.uint16)
    assert psnr(full, np.zeros_like(full), 1023) == 0


@pytest.mark.parametrize("peak", [255, 1023])
def test_against_scikit_image(peak: int) -> None:
    one = corner("coffee", 90, 120).astype(np.uint16) * (peak // 255)
    noise = np.random.default_rng(0).normal(0, 0.02 * peak, one.shape)
    other = np.clip(one + noise, 0, peak).astype(np.uint16)
    assert psnr(one, other, peak) == pytest.approx(
        peak_signal_noise_ratio(one, other, data_range=peak)
    )
    theirs = structural_similarity(
        one, other, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=peak
    )
    assert ssim(one, other, peak) == pytest.approx(theirs, abs=1e-5)


@pytest.mark.libaom
def test_an_encode_is_compared_with_its_source_frame_by_frame(tmp_path: Path) -> None:
    frames = [corner("coffee", 72, 96), corner("chelsea", 72, 96)]
    y4m, ivf = write_clip(tmp_path / "a.y4m", frames), tmp_path / "a.ivf"
    arguments = encoder_arguments(43, bit_depth=8, cpu_used=6)
    encode(find_aomenc().path, y4m, ivf, arguments, Children())
    found = measure(y4m, ivf)
    pairs = list(zip(Y4mReader(y4m), MediaReader(ivf), strict=True))
    by_frame = [peak_signal_noise_ratio(a[0], b[0], data_range=255) for a, b in pairs]
    assert len(by_frame) == 2
    assert found.psnr_y == pytest.approx(np.mean(by_frame))
    assert found.psnr_u is None  # neutral chroma comes back as it was
    assert found.vmaf is None
    assert 0.5 < found.ssim < 1
    write_clip(y4m, frames[:1])
    with pytest.raises(EncoderError, match="has not the frames"):
        measure(y4m, ivf)


@pytest.mark.libaom
def test_vmaf_where_its_extra_is_installed(tmp_path: Path) -> None:
    try:
        find_vmaf()
    except ConfigError as error:
        pytest.skip(str(error))
    y4m = write_clip(tmp_path / "a.y4m", [corner("coffee", 128, 128)] * 2)
    scores = []
    for level in (10, 60):
        ivf = tmp_path / f"{level}.ivf"
        arguments = encoder_arguments(level, bit_depth=8, cpu_used=6)
        encode(find_aomenc().path, y4m, ivf, arguments, Children())
        scores.append(measure(y4m, ivf, vmaf=True).vmaf)
    assert scores[0] is not None
    assert scores[1] is not None
    assert 100 >= scores[0] > scores[1] > 0
