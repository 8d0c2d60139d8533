"""The section on a predictor that was adapted to a clip: what that took, and gained on its rest."""

from __future__ import annotations

from collections.abc import Sequence

from av1part.report.chapters.compared_tables import decimals, of_size
from av1part.report.render.document import Facts, Section
from av1part.report.render.tables import Table, count, percent, table
from av1part.runs.compared import ADAPTED, BASE, Compared
from av1part.runs.fields import Fields

_SCORES = ("log_loss", "accuracy", "macro_f1")


def adapting_section(compared: Compared) -> Section:
    """Compose the section; of a folder of `av1part adapt` alone."""
    return Section("Adapting", (_facts(compared), summary_table(compared)))


def verdict(compared: Compared) -> str:
    """Say in a sentence whether adapting was better than not, on the held-back frames."""
    gains = {
        size: of_size(compared, size)[ADAPTED].number("difference", "log_loss", "estimate")
        for size in compared.record.children("sizes")
    }
    mean = sum(gains.values()) / len(gains)
    by_size = ", ".join(f"{size}x{size} {decimals(g, signed=True)}" for size, g in gains.items())
    frames = compared.record.integer("data", "pictures")
    where = f"on {count(frames)} held-back frame{'' if frames == 1 else 's'}"
    figures = f"mean log loss over node sizes {decimals(mean, signed=True)} nats ({by_size})"
    if mean < 0:
        return f"adapted is better than {BASE} {where}: {figures}"
    return f"adapted is NOT better than {BASE} {where}: {figures}; use {BASE} for this clip"


def summary_table(compared: Compared) -> Table:
    """List the scores of every predictor at every size."""
    rows = []
    for size in compared.record.children("sizes"):
        for name, record in of_size(compared, size).items():
            losses, *shares = (record.number("scores", key, "estimate") for key in _SCORES)
            nodes = compared.record.integer("sizes", size, "nodes")
            rows.append(
                (f"{size}x{size}", name, count(nodes), decimals(losses), *map(percent, shares))
            )
    columns = ("<Node size", "<Predictor", "Nodes", "Log loss", "Accuracy", "Macro-F1")
    return table("Held-back frames: log loss in nats, the rest in percent.", columns, rows)


def seconds_text(compared: Compared) -> str:
    """Say what labels and adapting took, and what only the scores needed."""
    own = compared.record.child("adapting")
    took = f"adapting {own.number('seconds', 'adapting'):.1f} s"
    if all(own.text("origin", part) == "there" for part in ("labelled", "held_back")):
        return f"labels were there already; {took}"
    labels, scored = _search(own, "labelled"), _search(own, "held_back")
    return f"{labels}, {took}; for the scores alone, {scored}"


def _search(own: Fields, part: str) -> str:
    """Say what the full search of a part took, as far as that is known."""
    frames = f"the {part.replace('_', '-')} frames"
    origin = own.text("origin", part)
    if origin == "there":
        return f"labels of {frames} were there already"
    if origin == "resumed":
        return f"full search of {frames} took an unknown time (a stopped run was resumed)"
    jobs = own.integer("jobs")
    at_a_time = f"{count(jobs)} encoder{'' if jobs == 1 else 's'} at a time"
    return f"full search of {frames} {own.number('seconds', part):.1f} s ({at_a_time})"


def _gap(labelled: Sequence[float], held_back: Sequence[float]) -> str:
    """Say how many frames lie between both sets."""
    between = int(min(held_back) - max(labelled)) - 1
    if not between:
        return "no gap: the first held-back frame is the one behind the last labelled frame"
    return (
        f"{count(between)} frame{'' if between == 1 else 's'} between the last labelled and the "
        "first held-back frame"
    )


def _facts(compared: Compared) -> Facts:
    own = compared.record.child("adapting")
    frames = own.numbers("labels", "frames")
    held_back = compared.record.numbers("data", "frames")
    kept = [f"{s}x{s}" for s, fit in own.children("sizes").items() if fit.get("kept")]
    return Facts(
        (
            (
                "clip",
                f"`{own.text('clip', 'file')}`, {count(own.integer('clip', 'frames'))} frames",
            ),
            ("labelled frames", ", ".join(f"{frame:.0f}" for frame in frames)),
            ("held-back frames", ", ".join(f"{frame:.0f}" for frame in held_back)),
            ("gap", _gap(frames, held_back)),
            (
                "labelled nodes",
                ", ".join(
                    f"{count(fit.integer('nodes'))} of {s}x{s}"
                    for s, fit in own.children("sizes").items()
                ),
            ),
            ("sizes with new heads", ", ".join(kept) or "none: unseen frames were no better"),
            ("time", seconds_text(compared)),
        )
    )
