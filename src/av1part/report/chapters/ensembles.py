"""The table of stages that several models answer."""

from __future__ import annotations

from av1part.report.render.tables import EMPTY_CELL, Table, percent, table
from av1part.runs.fields import Fields
from av1part.runs.read import PipelineRun


def ensemble_table(run: PipelineRun) -> Table | None:
    """Tabulate the scores and the disagreement of each ensemble.

    Args:
        run: The result.

    Returns:
        The table, or None if every stage has one model.

    Raises:
        ReportError: if a figure is not in the result's files.
    """
    if not run.pipeline.get("ensemble"):
        return None
    rows = []
    for stage, e in run.pipeline.children("ensemble").items():
        scores = e.numbers("each")
        guesses = (
            run.pipeline.optional("stages", stage, "standalone", "baselines", g, "macro_f1")
            for g in ("constant", "prior")
        )
        rows.append(
            (
                stage,
                str(e.integer("members")),
                ", ".join(percent(v) for v in scores) or EMPTY_CELL,
                percent(e.number("mean_probability")),
                percent(e.number("vote")),
                *(percent(g) for g in guesses),
                e.text("rule") if e.get("rule") is not None else EMPTY_CELL,
                percent(e.number("disagreement")),
                _pairs(e, "standalone"),
                percent(e.optional("cascade", "any")),
                _pairs(e, "cascade"),
            )
        )
    caption = (
        "Stages answered by several models: macro-F1 of each, of the mean of their probabilities "
        "and of their majority vote, beside the guessers, and by which rule the cascade joins "
        "them; then the share of nodes on which not all members agree, and of pairs of members "
        "the least and most on which two differ: of the nodes that belong to the stage, and of "
        "those that the cascade sends there; in percent."
    )
    columns = (
        "<Stage",
        "Members",
        "<Each",
        "Mean probability",
        "Vote",
        "Best constant",
        "Class prior",
        "<Rule",
        "Disagree",
        "By pairs",
        "In the cascade",
        "By pairs",
    )
    return table(caption, columns, rows)


def _pairs(ensemble: Fields, where: str) -> str:
    """Return the least and the greatest share on which two members differ."""
    if ensemble.get(where) is None:
        return EMPTY_CELL
    pairs = [pair.optional("share") for pair in ensemble.child(where).items("pairwise")]
    shares = [share for share in pairs if share is not None]
    return f"{percent(min(shares))} to {percent(max(shares))}" if shares else EMPTY_CELL
