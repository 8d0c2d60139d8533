"""Parts that stage runs and pipelines share: what was run, confusion, blocks, provenance."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from av1part.defects import banner
from av1part.options import PROTOCOLS
from av1part.report.chapters.frame import frame_viewer
from av1part.report.chapters.guessers import run_scores
from av1part.report.chapters.log_loss import loss_headline, loss_margins, size_loss, sizes_of
from av1part.report.chapters.scores import class_table, headline, run_margins
from av1part.report.draw.pictures import Window, gallery_figure
from av1part.report.draw.plots import confusion_figure
from av1part.report.render.document import (
    Facts,
    Headline,
    Item,
    Listing,
    Picture,
    Prose,
    Section,
    picture,
)
from av1part.runs.read import Run

SPLIT_NOTES = {
    "val": "val: choices (epoch, threshold, temperature) were made on it too",
    "test": "test: asked for explicitly, no choice was made on it",
    "train": "train: the model has seen these nodes",
}
"""How a report describes a split."""


def protocol_facts(split: str, protocol: str) -> list[tuple[str, str]]:
    """Return the protocol and the split, spelled out."""
    description = f"{protocol}: {PROTOCOLS[protocol]}" if protocol in PROTOCOLS else protocol
    return [
        ("Protocol", description),
        ("Evaluated on", SPLIT_NOTES.get(split, split)),
    ]


def environment_facts(run: Run) -> list[tuple[str, str]]:
    """Return dataset, seed, code and machine as environment.json and timing.json have them."""
    env = run.environment
    facts = [
        ("Dataset", str(env.get("dataset", "path") or "not recorded")),
        ("Manifest SHA-256", f"`{env.get('dataset', 'manifest_sha256') or 'not recorded'}`"),
        *([("Seed", _plain(env.get("seed")))] if env.get("seed") is not None else []),
        ("Git commit", f"`{env.get('git_commit') or 'not recorded'}`"),
        ("Versions", _plain(env.get("versions"))),
        ("Hardware", _plain(env.get("hardware"))),
    ]
    if run.timing is not None:
        facts.append(("Time", _time(run)))
    return facts


def _plain(value: Any) -> str:
    if value is None:
        return "not recorded"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(v)}" for key, v in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(v) for v in value) or "none"
    return value if isinstance(value, str) else json.dumps(value)


def _time(run: Run) -> str:
    timing = run.timing
    assert timing is not None
    parts = []
    seconds = timing.optional("seconds")
    if seconds is not None:
        minutes, rest = divmod(round(seconds), 60)
        parts.append(f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s")
    speed = timing.optional("blocks_per_second")
    if speed is not None:
        parts.append(f"{speed:,.0f} blocks a second")
    peak = timing.optional("fit_peak_memory_bytes")
    if peak is not None:
        parts.append(f"{peak / 2**30:.2f} GiB at most")
    return ", ".join(parts) or "not recorded"


def provenance(run: Run) -> Section:
    """Return where the figures come from, and the configuration as it was composed."""
    return Section(
        "Provenance",
        (
            Facts((("Run folder", f"`{run.name}`"), *environment_facts(run))),
            Listing("Configuration (`config.yaml`)", run.config),
        ),
    )


def class_section(run: Run, prefix: str) -> Section:
    """Return the per-class table and the confusion matrix."""
    caption = (
        "Confusion matrix: rows are true classes, columns predicted ones. Left the nodes, right "
        "each row in percent; both shaded by the row's percentages, so that the framed "
        "diagonal shows the recall of each class."
    )
    matrix = confusion_figure(run.confusion, run.class_names)
    predicted = run.confusion.sum(0)
    never = [name for name, n in zip(run.class_names, predicted, strict=True) if not n]
    return Section(
        "Class by class",
        joined(
            Prose(f"Never predicted: {', '.join(never)}.", warns=True) if never else None,
            class_table(run.confusion, run.class_names),
            picture(f"{prefix}confusion", caption, matrix),
        ),
    )


def gallery(run: Run, prefix: str, labels: list[int]) -> Picture | None:
    """Draw sample blocks of each class.

    Args:
        run: Whose samples.
        prefix: Of the picture's name.
        labels: Number of each class in samples.npz.

    Returns:
        The picture, or None if the run kept no blocks.
    """
    if not len(run.samples.block):
        return None
    size = run.samples.block.shape[-1] - 2 * run.samples.margin
    caption = (
        f"Sample blocks of {size}x{size} luma samples, one row for each true class, with the true "
        "cut drawn in yellow: left those that the model predicted correctly, right wrong ones with "
        "the predicted class. The first of each kind in `samples.npz`, none chosen by hand; "
        "contrast stretched per block."
    )
    figure = gallery_figure(run.samples, run.class_names, np.asarray(labels, dtype=np.int64))
    return picture(f"{prefix}blocks", caption, figure)


def frame_caption(run: Run, window: Window, wrong: int, drawn: int, what: str) -> str:
    """Return the caption of a frame's picture.

    Args:
        run: Whose frame.
        window: The crop.
        wrong: Nodes in the crop that are predicted wrongly.
        drawn: Nodes in the crop.
        what: What the two halves show.

    Returns:
        The caption, as Markdown.
    """
    samples = run.samples
    row, col, height, width = window
    size = int(samples.nodes.size[0]) if len(samples.nodes) else 0
    frame_height, frame_width = samples.frame.shape
    return (
        f"`{samples.sequence}` at qindex {samples.qindex}, the frame kept in `samples.npz` "
        f"({frame_width}x{frame_height}): the crop of {width}x{height} at row {row}, column {col} "
        f"with the most {size}x{size} nodes that are cut. {what} Of {drawn} nodes shown "
        f"{wrong} are wrong, each outlined in orange with a flag in its corner."
    )


def missing_frame() -> Prose:
    """Return the note of a run without a frame."""
    return Prose("The run kept no frame with nodes of one size, so none is drawn.")


def lead(
    run: Run, prefix: str, frame: Picture | None, *, above: bool, alone: bool
) -> tuple[Item, ...]:
    """Compose the beginning of a run's chapter.

    Args:
        run: The run.
        prefix: Of the pictures' names.
        frame: The drawn frame, if any.
        above: Whether the page shows the frame above all chapters.
        alone: Whether the page has no other run; else the margins are in its comparison.

    Returns:
        Frame, result in one line, margins; of a run alone also the viewer of its frame.
    """
    nodes, sequences = int(run.confusion.sum()), run.predictions.sequences
    if sizes_of(run.metrics):
        sentence = loss_headline(size_loss(run.metrics), sequences)
        margins = loss_margins(run.metrics, f"{prefix}margins")
    else:
        scores = run_scores(run)
        sentence = headline(scores["macro_f1"], nodes, sequences)
        margins = run_margins(scores, prefix)
    return joined(
        defect_notice(run),
        Prose("The frame of this run is at the top of the page.") if above else frame,
        frame_viewer(run) if alone else None,
        Headline(sentence),
        margins if alone else None,
    )


def defect_notice(run: Run) -> Prose | None:
    """Return what must be said first of a run that is defective on purpose, None of any other."""
    return Prose(banner(run.defects), warns=True) if run.defects else None


def marked(title: str, run: Run) -> str:
    """Return a title that says whether its run is defective."""
    return f"{title} (DEFECTIVE ON PURPOSE)" if run.defects else title


def joined(*items: Item | None) -> tuple[Item, ...]:
    """Return the items that are there."""
    return tuple(item for item in items if item is not None)
