"""What the runs of one table were trained and evaluated on, where that differs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from av1part.report.render.tables import EMPTY_CELL, Table, table
from av1part.runs.read import Run

_FACTS = (
    ("Block size", "size"),
    ("Context", "context"),
    ("Taxonomy", "taxonomy"),
    ("Protocol", "split"),
    ("qindex", "qindex"),
)
"""Column, and the key of `dataset` in environment.json that it shows."""


def dataset_names(runs: Sequence[Run]) -> list[str]:
    """Return the name of each run's dataset.

    Args:
        runs: Any.

    Returns:
        Folder names; where different datasets have one name, with the beginning of their hash.
    """
    hashes = [_recorded(run, "manifest_sha256") for run in runs]
    names: dict[str, str] = {}  # one dataset may lie in several folders
    for run, digest in zip(runs, hashes, strict=True):
        names.setdefault(digest, _folder(run))
    shared = [name for name in names.values() if list(names.values()).count(name) > 1]
    return [
        f"{names[digest]} ({digest[:8]})" if names[digest] in shared else names[digest]
        for digest in hashes
    ]


def data_differences(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Return what differs in the data of runs.

    Args:
        runs: Those of one table.

    Returns:
        Heading to the value of each run; empty if all have the same data.
    """
    columns = {"Dataset": dataset_names(runs)}
    columns |= {title: [_recorded(run, key) for run in runs] for title, key in _FACTS}
    divisions = [_recorded(run, "split_sha256") for run in runs]
    places = list(zip(*columns.values(), strict=True))
    if len(set(zip(places, divisions, strict=True))) > len(set(places)):
        # Of other data the division is another one anyway.
        columns["Division"] = [digest[:8] for digest in divisions]
    columns["Costs"] = [_recorded(run, "costs_sha256")[:8] for run in runs]
    columns["Evaluated on"] = [str(run.metrics.get("split") or EMPTY_CELL) for run in runs]
    return {title: values for title, values in columns.items() if len(set(values)) > 1}


def data_table(runs: Sequence[Run]) -> Table | None:
    """Return the table of what differs in the data of runs.

    Args:
        runs: Those of one comparison, which names their datasets itself.

    Returns:
        The table; None if nothing but the dataset differs.
    """
    columns = data_differences(runs)
    if not columns.keys() - {"Dataset"}:
        return None
    caption = (
        "What these runs were trained and evaluated on, where it differs. Only scores on the same "
        "data can be compared."
    )
    rows = list(zip([run.name for run in runs], *columns.values(), strict=True))
    return table(caption, ["<Run", *(f"<{title}" for title in columns)], rows)


def datasets_caveat(runs: Sequence[Run]) -> str:
    """Return the warning that runs are of several datasets; empty if they are of one."""
    names = list(dict.fromkeys(dataset_names(runs)))
    if len(names) == 1:
        return ""
    shown = ", ".join(f"`{name}`" for name in names)
    return f"These runs are of {len(names)} datasets ({shown}): compare those of one dataset alone."


def _recorded(run: Run, key: str) -> str:
    value = run.environment.get("dataset", key)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return EMPTY_CELL if value is None else str(value)


def _folder(run: Run) -> str:
    path = PurePosixPath(_recorded(run, "path"))
    return "embedded" if path.parts[-2:] == ("embedded", "store") else path.name
