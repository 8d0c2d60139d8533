"""The viewer of a run's frame: true against predicted, with the probabilities of every node."""

from __future__ import annotations

import polars as pl

from av1part.partition import Partition
from av1part.report.draw.packed import pack_frame, probability_columns
from av1part.report.render.document import Interactive
from av1part.report.render.viewer import NodeClasses, ShownSequence, viewer_html
from av1part.runs.read import Run, StageRun


def frame_viewer(run: Run) -> Interactive | None:
    """Return the viewer of the frame that a run kept.

    Args:
        run: A stage's run, or a pipeline's result.

    Returns:
        The viewer, folded away under its title; None if the run kept no frame, or its samples.npz
        does not say which predictions are those of the frame, as av1part 0.1 wrote it.
    """
    samples = run.samples
    if samples.nodes.node is None or not len(samples.nodes):
        return None
    predicted, true = frame_tables(run)
    frame = pack_frame(
        None,
        samples.frame,
        {samples.qindex: predicted},
        {samples.qindex: true},
        len(run.class_names),
    )
    html = viewer_html([ShownSequence(samples.sequence, [frame])], _classes(run))
    return Interactive(
        html,
        f"The page `report.html` shows all of the frame, with the true and the predicted class of "
        f"each of its {len(samples.nodes)} nodes and the probabilities.",
        "All of this frame, node by node: true against predicted, and the probabilities",
    )


def frame_tables(run: Run) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return what was predicted for the nodes of a run's frame, and what the encoder chose.

    Args:
        run: With the numbers of the frame's nodes.

    Returns:
        Two tables, a row a node, as `pack_frame` takes them: row, col, size, prediction and a
        column of probabilities a class; and row, col, size, partition, label. Classes are indices.
    """
    nodes, predictions = run.samples.nodes, run.predictions
    assert nodes.node is not None
    rows = predictions.rows_of(nodes.node)
    place = pl.DataFrame({"row": nodes.row, "col": nodes.col, "size": nodes.size})
    columns = probability_columns(len(run.class_names))
    shares = pl.DataFrame(predictions.probability[rows], schema=list(columns))
    predicted = place.with_columns(prediction=predictions.prediction[rows]).hstack(shares)
    true = place.with_columns(partition=nodes.partition, label=predictions.label[rows])
    return predicted, true


def _classes(run: Run) -> NodeClasses:
    """Return how the viewer draws a run's classes: as cuts if each is a type of AV1."""
    names, size = run.class_names, int(run.samples.nodes.size[0])
    are_types = all(name in Partition.__members__ for name in names)
    if isinstance(run, StageRun):
        absent = f"no {size}x{size} node of {run.stage}"
        note = "Bold is the predicted class."
    else:
        absent = f"no {size}x{size} node"
        note = (
            "Bold is the type that the cascade predicts: it decides stage by stage, so another "
            "type can be more probable."
        )
    return NodeClasses(
        names,
        tuple(Partition[name] for name in names) if are_types else (),
        {},
        "predicted cuts" if are_types else "predicted class",
        "wrong node",
        absent,
        note,
    )
