"""Draw the picture that README.md opens with, from what the demo left.

    make readme-picture          docs/_static/partitions.png from runs/demo/pipeline

A crop of a validation picture with the encoder's cuts on the left and the cascade's on the right.
It is the crop of the report page, so nobody picks it by hand. The line that is printed counts its
nodes, for the caption in README.md.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

from av1part.report.draw.pictures import crop_window, nodes_in, partition_figure
from av1part.runs.samples import Samples, read_samples
from av1part.system.errors import Av1partError
from av1part.system.files import atomic_path

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "runs" / "demo" / "pipeline"
PICTURE = ROOT / "docs" / "_static" / "partitions.png"
DOTS_PER_INCH = 170
COLOURS = 128
"""Of the palette: luma in greys, and three colours. It halves the file."""
LARGEST = 300_000
"""Bytes that a README may cost."""


def draw(samples: Samples) -> bytes:
    """Return the picture as PNG on white, which is legible on a dark page as well."""
    height, width = samples.frame.shape
    figure = partition_figure(samples, crop_window((height, width), samples.nodes))
    buffer = io.BytesIO()
    tight = {"bbox_inches": "tight", "pad_inches": 0.05}
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, facecolor="white", **tight)
    picture = Image.open(buffer).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    packed = io.BytesIO()
    picture.save(packed, format="png", optimize=True)
    return packed.getvalue()


def caption(samples: Samples) -> str:
    """Return what the picture shows, with the share of its nodes that are predicted rightly."""
    height, width = samples.frame.shape
    nodes = nodes_in(samples.nodes, crop_window((height, width), samples.nodes))
    right = int((nodes.prediction == nodes.partition).sum())
    return (
        f"{samples.sequence} at qindex {samples.qindex}: {right} of {len(nodes)} nodes "
        "are predicted as the encoder cut them"
    )


def main(run: Path = RUN, picture: Path = PICTURE) -> int:
    """Write the picture of a pipeline's run folder; return the exit code."""
    try:
        samples = read_samples(run / "samples.npz")
    except Av1partError as error:
        print(f"readme_picture: {error} (`make demo` writes it)", file=sys.stderr)
        return 2
    content = draw(samples)
    if len(content) > LARGEST:
        print(f"readme_picture: {len(content)} bytes, over {LARGEST}", file=sys.stderr)
        return 1
    picture.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(picture) as part:
        part.write_bytes(content)
    print(f"{picture}: {len(content)} bytes; {caption(samples)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
