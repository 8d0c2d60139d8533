"""The end of `av1part demo`: its cascade as a bundle, and a bundle in the patched encoder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from hydra import compose

from av1part.checkpoints.load import load_stage
from av1part.config.check import plain
from av1part.data.build.sources import open_sources
from av1part.data.build.yuv import grey_to_420, write_y4m
from av1part.data.serve.datamodule import BlockDataModule
from av1part.encoder.compare import compare
from av1part.encoder.comparison import Comparison
from av1part.encoder.patched import find_patched
from av1part.encoder.points import MODEL, check_anchors, check_cq_levels, read_points
from av1part.evaluation.attach import attach_data
from av1part.predictors.bundle import Bundle, read_bundle, write_bundle
from av1part.predictors.cascade import load_cascades
from av1part.report import write_encodes_report
from av1part.system.errors import Av1partError
from av1part.system.files import atomic_path, sha256_file

BUNDLE = "model.av1part"
"""The file of the cascade, in the demo's folder."""

SIDE = 256
"""Most luma samples a side of the piece that is encoded."""


def bundle_cascade(checkpoints: Mapping[str, Sequence[Path]], folder: Path) -> Path:
    """Write the demo's cascade as a bundle, with the calibration that is stored beside it."""
    cascades = load_cascades({stage: list(paths) for stage, paths in checkpoints.items()})
    return write_bundle(folder / BUNDLE, Bundle(cascades))


def compare_in_encoder(bundle: Path, checkpoint: Path, folder: Path) -> list[str]:
    """Encode a piece of a val picture with a predictor and with presets, if the encoder is there.

    Args:
        bundle: The predictor.
        checkpoint: Of Stage 1, which names the dataset; that has luma alone, so chroma is grey.
        folder: For comparisons, one a bundle.

    Returns:
        Lines on what was found, and on how to do this with a video of one's own.
    """
    model = shlex.quote(str(bundle))
    own = (
        f"your own video: make encode SOURCE=clip.mp4 MODEL={model}, or without make "
        f"av1part encode clip.mp4 model={model} out=runs/encode"
    )
    try:
        find_patched()
        out = _compare(bundle, attach_data(load_stage(checkpoint)), folder)
    except Av1partError as error:  # the trainings are done all the same
        return [f"not compared in the encoder: {error}", own]
    files = write_encodes_report(out)
    return [
        "in the encoder, inference included, on a piece of one picture, so that it shows how this "
        f"is done and not what a predictor is worth: {files.headline.replace('`', '')}",
        f"its page: {files.html}",
        own,
    ]


def _compare(bundle: Path, data: BlockDataModule, folder: Path) -> Path:
    """Encode; return the folder of the comparison, one for each bundle."""
    plan = plain(compose("encode", ["plan=demo", "out=."]))["plan"]
    points = read_points(plan["points"])
    sha256 = sha256_file(bundle)
    comparison = Comparison(
        points,
        check_anchors(plan["anchors"], points),
        check_cq_levels(None, ctc=False),
        {MODEL: read_bundle(bundle)},
        {MODEL: {"file": bundle.name, "sha256": sha256}},
    )
    out = folder / sha256[:12]
    compare(open_sources([_write_piece(data, folder)]), comparison, out, progress=False)
    return out


def _write_piece(data: BlockDataModule, folder: Path) -> Path:
    """Write the middle of the first val picture as y4m."""
    sequence = str(data.store.nodes["sequence"][data.reader("val").nodes].min())
    plane = data.store.plane(sequence)[0]
    depth = int(data.store.manifest["sequences"][sequence]["bit_depth"])
    height, width = plane.shape
    top, left = max(0, (height - SIDE) // 2), max(0, (width - SIDE) // 2)
    luma = np.ascontiguousarray(plane[top : top + SIDE, left : left + SIDE])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{sequence}_piece.y4m"
    with atomic_path(path) as part:
        write_y4m(part, [grey_to_420(luma, depth)], depth)
    return path
