"""Sections that stage runs and pipelines share: what was run, confusion, blocks, provenance."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from av1part.options import PROTOCOLS
from av1part.report.chapters.scores import class_table
from av1part.report.draw.pictures import Window, gallery_figure
from av1part.report.draw.plots import confusion_figure
from av1part.report.render.document import Facts, Item, Listing, Picture, Prose, Section, picture
from av1part.runs.read import Run

SPLITS = {
    "val": "val: choices (epoch, threshold, temperature) were made on it too",
    "test": "test: asked for explicitly, no choice was made on it",
    "train": "train: the model has seen these nodes",
}
"""Splits spelled out."""


def protocol_facts(split: str, protocol: str) -> list[tuple[str, str]]:
    """Return the protocol and the split, spelled out."""
    said = f"{protocol}: {PROTOCOLS[protocol]}" if protocol in PROTOCOLS else protocol
    return [
        ("Protocol", said),
        ("Evaluated on", SPLITS.get(split, split)),
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
    said = []
    seconds = timing.optional("seconds")
    if seconds is not None:
        minutes, rest = divmod(round(seconds), 60)
        said.append(f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s")
    speed = timing.optional("blocks_per_second")
    if speed is not None:
        said.append(f"{speed:,.0f} blocks a second")
    peak = timing.optional("fit_peak_memory_bytes")
    if peak is not None:
        said.append(f"{peak / 2**30:.2f} GiB at most")
    return ", ".join(said) or "not recorded"


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
        "Confusion matrix: a row a true class, a column a predicted one. Left the nodes, right "
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
        f"Sample blocks of {size}x{size} luma samples, a row a true class, with the true cut drawn "
        "in yellow: left those the model got right, right those it got wrong and what it said. The "
        "first of each kind in `samples.npz`, none chosen by hand; contrast stretched per block."
    )
    figure = gallery_figure(run.samples, run.class_names, np.asarray(labels, dtype=np.int64))
    return picture(f"{prefix}blocks", caption, figure)


def frame_caption(run: Run, window: Window, wrong: int, drawn: int, what: str) -> str:
    """Say what a frame's picture shows.

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
        f"that holds the most {size}x{size} nodes that are cut. {what} Of {drawn} nodes shown "
        f"{wrong} differ, each outlined in orange with a flag in its corner."
    )


def missing_frame() -> Prose:
    """Say that there is no frame to draw."""
    return Prose("The run kept no frame with nodes of one size, so none is drawn.")


def joined(*items: Item | None) -> tuple[Item, ...]:
    """Return the items that are there."""
    return tuple(item for item in items if item is not None)
