"""The frame viewer: luma, predicted and true cuts, probabilities, for a page without a network.

`predict` shows frames of a source in it, a report the frame of a run. The parts are
`templates/viewer.{html.j2,css,js}`; the geometry of types is written into the page from
`partition.RECTANGLES`, and the nodes by `draw.packed`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from av1part.partition import RECTANGLES, SIZES, Partition, legal_partitions
from av1part.report.draw.packed import ABSENT, DIFFERS, DRAWN, PackedFrame
from av1part.report.draw.pictures import CUT_COLOUR, WRONG_COLOUR
from av1part.report.draw.svg import CLASS_COLOURS
from av1part.report.render.document import Chapter, Document, Interactive, Prose
from av1part.report.render.html import document_html

FRAMES = 8
"""Frames of a sequence that a page shows at most."""
BYTES = 20_000_000
"""What frames and probabilities may take in a page, as long as one frame fits."""


@dataclass(frozen=True)
class NodeClasses:
    """What a node can be, and how a viewer draws and names it.

    Attributes:
        names: Of the classes, in index order.
        types: AV1's type of each class, drawn as its cuts; empty for classes of several types,
            which are drawn as tints.
        legal: By node size, indices of the classes that it can have; those of other sizes are all.
        predicted: What the predicted classes are called.
        differs: What a node is called whose true class is another.
        absent: What is said of a place without a prediction.
        note: How the predicted classes came about, in a sentence or two.
    """

    names: tuple[str, ...]
    types: tuple[Partition, ...]
    legal: Mapping[int, tuple[int, ...]]
    predicted: str
    differs: str
    absent: str
    note: str


MOST_PROBABLE = NodeClasses(
    tuple(f"PARTITION_{type_.name}" for type_ in Partition),
    tuple(Partition),
    {size: tuple(map(int, legal_partitions(size))) for size in SIZES},
    "most probable cuts",
    "node of another true type",
    "no prediction",
    "The cuts follow the most probable type from the largest predicted size down; a SPLIT goes on "
    "in its four quarters if their size is predicted.",
)
"""AV1's types, the most probable one drawn."""


@dataclass
class ShownSequence:
    """Frames of one sequence, in order.

    Attributes:
        name: Of the sequence.
        frames: Those that the page shows: at every `stride`-th number.
        stride: Between their numbers.
        total: Frames that there were to choose from.
    """

    name: str
    frames: list[PackedFrame] = field(default_factory=list)
    stride: int = 1
    total: int = 0

    def thin(self) -> None:
        """Drop every other frame."""
        self.stride *= 2
        self.frames = [f for f in self.frames if (f.number or 0) % self.stride == 0]


class FrameChoice:
    """Frames for a page, chosen while a source is read, evenly over its length.

    How long a source is need not be known: where there are too many frames or bytes, every other
    frame is dropped, and from then on half as many are taken. So memory is that of the page.
    """

    def __init__(self, frames: int = FRAMES, limit: int = BYTES) -> None:
        self._most, self._limit = frames, limit
        self.sequences: list[ShownSequence] = []
        self.left_out: list[str] = []
        """Sequences of which no frame fits."""

    def start(self, name: str) -> None:
        """Begin a sequence."""
        self.sequences.append(ShownSequence(name))

    def wants(self, number: int) -> bool:
        """Return whether the page would take a frame of the sequence, and count the frame."""
        own = self.sequences[-1]
        own.total = max(own.total, number + 1)
        return number % own.stride == 0 and own.name not in self.left_out

    def add(self, frame: PackedFrame) -> None:
        """Take a frame that `wants` asked for."""
        own = self.sequences[-1]
        own.frames.append(frame)
        while len(own.frames) > self._most:
            own.thin()
        while self.page_bytes > self._limit and self._shrink():
            pass

    @property
    def page_bytes(self) -> int:
        """What the frames add to a page."""
        return sum(frame.bytes for s in self.sequences for frame in s.frames)

    def _shrink(self) -> bool:
        """Thin the sequence that takes most, or leave out the last one; tell if there was any."""
        several = [s for s in self.sequences if len(s.frames) > 1]
        if several:
            max(several, key=lambda s: sum(frame.bytes for frame in s.frames)).thin()
            return True
        last = self.sequences[-1]
        if len(self.sequences) > 1 and last.frames:
            last.frames.clear()
            self.left_out.append(last.name)
            return True
        return False


def viewer_html(sequences: Sequence[ShownSequence], classes: NodeClasses = MOST_PROBABLE) -> str:
    """Return the viewer as an element with its own data, style and script.

    Args:
        sequences: At least one, each with at least one frame, packed with these classes.
        classes: What its nodes can be.

    Returns:
        HTML that needs no other file; a page may hold several.
    """
    environment = Environment(
        loader=PackageLoader("av1part.report.render"), undefined=StrictUndefined, autoescape=True
    )
    colours = [CLASS_COLOURS[i % len(CLASS_COLOURS)] for i in range(len(classes.names))]
    return environment.get_template("viewer.html.j2").render(
        data=json.dumps(_data(sequences, classes), separators=(",", ":")).replace("<", "\\u003c"),
        cut=CUT_COLOUR,
        wrong=WRONG_COLOUR,
        classes=classes,
        tints=[] if classes.types else list(zip(classes.names, colours, strict=True)),
    )


def _data(sequences: Sequence[ShownSequence], classes: NodeClasses) -> dict[str, Any]:
    return {
        "classes": classes.names,
        "cuts": [RECTANGLES[type_] for type_ in classes.types],
        "rectangles": [RECTANGLES[type_] for type_ in Partition],
        "legal": classes.legal,
        "absent": classes.absent,
        "marks": {"drawn": DRAWN, "differs": DIFFERS, "absent": ABSENT},
        "sequences": [
            {
                "name": sequence.name,
                "total": sequence.total,
                "frames": [
                    {
                        "number": frame.number,
                        "height": frame.height,
                        "width": frame.width,
                        "png": frame.png,
                        "layers": frame.layers,
                    }
                    for frame in sequence.frames
                ],
            }
            for sequence in sequences
        ],
    }


def viewer(choice: FrameChoice) -> Interactive:
    """Return the viewer of the chosen frames as an item of a document."""
    shown = [s for s in choice.sequences if s.frames]
    return Interactive(viewer_html(shown), "The page has a viewer of frames here.")


def predictions_page(choice: FrameChoice, predictor: str) -> str:
    """Return the page of a prediction: one HTML file that needs no other.

    Args:
        choice: The frames.
        predictor: Name of what predicted.

    Returns:
        The page. Without any frame it says so.
    """
    shown = [s for s in choice.sequences if s.frames]
    if not shown:
        item: Interactive | Prose = Prose("The sources had no frame.", warns=True)
    else:
        item = viewer(choice)
    frames = [f"{len(s.frames)} of {s.total} frames of {s.name}" for s in shown[:4]]
    if len(shown) > 4:
        frames.append(f"frames of {len(shown) - 4} more")
    facts = (
        f"Holds {', '.join(frames) or 'no frame'}; at most {FRAMES} of a source, and fewer where "
        f"they would take more than {BYTES / 1e6:.0f} MB ({choice.page_bytes / 1e6:.1f} MB here). "
        "All predictions are in the Parquet files beside this page."
    )
    lead: list[Interactive | Prose] = [item, Prose(facts)]
    if choice.left_out:
        text = f"Left out, as the page would be too large: {', '.join(choice.left_out)}."
        lead.append(Prose(text, warns=True))
    chapter = Chapter("predictions", "Predicted partitions", (), tuple(lead))
    document = Document(
        chapter.title,
        f"What {predictor} predicts for every node of AV1's partition tree.",
        (chapter,),
        "Written by av1part predict.",
        kicker="av1part predict",
    )
    return document_html(document)
