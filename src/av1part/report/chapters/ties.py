"""Tables of near ties: how far the encoder's second choice is from its first."""

from __future__ import annotations

import polars as pl

from av1part.report.render.tables import EMPTY_CELL, Table, count, percent, table
from av1part.runs.ties import ABANDONED, ALONE, BANDS, CLEAR, LIMITS, RIGHT
from av1part.system.files import slug

_TITLES = {
    **{
        f"{100 * high:g}": f"{100 * low:g} to {100 * high:g} %"
        for low, high in zip((0.0, *LIMITS), LIMITS, strict=False)
    },
    CLEAR: "Clear",
    ABANDONED: "Not known",
    ALONE: "Alone",
}


def ties_tables(rows: pl.DataFrame) -> dict[str, Table]:
    """Sum counts of near ties up over pictures and quantisers.

    Args:
        rows: Of `read_ties`.

    Returns:
        `near-ties`: shares of the nodes of each size by gap; and of each predictor
        `accuracy-NAME`: its accuracy at each size by gap.
    """
    counts = [name for name in rows.columns if name == "nodes" or name.startswith(RIGHT)]
    sums = rows.group_by("size", "band").agg(pl.sum(*counts))
    by_place = {(row["size"], row["band"]): row for row in sums.to_dicts()}
    sizes = sorted(rows["size"].unique().to_list())
    pictures = rows["picture"].n_unique()
    found = {"near-ties": _shares(by_place, sizes, pictures)}
    for name in (name.removeprefix(RIGHT) for name in counts[1:]):
        found[f"accuracy-{slug(name)}"] = _accuracy(by_place, sizes, name)
    return found


def _nodes(by_place: dict[tuple[int, str], dict[str, int]], size: int, band: str) -> int:
    return by_place.get((size, band), {}).get("nodes", 0)


def _shares(
    by_place: dict[tuple[int, str], dict[str, int]], sizes: list[int], pictures: int
) -> Table:
    rows = []
    for size in sizes:
        nodes = {band: _nodes(by_place, size, band) for band in BANDS}
        total = sum(nodes.values())
        below = [sum(nodes[b] for b in BANDS[: i + 1]) for i in range(len(LIMITS))]
        shares = [*below, *(nodes[b] for b in (CLEAR, ABANDONED, ALONE))]
        rows.append([f"{size}x{size}", count(total), *(percent(n / total) for n in shares)])
    columns = ["<Nodes", "n", *(f"Below {100 * limit:g} %" for limit in LIMITS)]
    columns += [_TITLES[band] for band in (CLEAR, ABANDONED, ALONE)]
    caption = (
        f"Nodes of the streams of {count(pictures)} pictures by how much more the cheapest other "
        "type costs than the chosen one, in percent of the nodes of a size; the first columns are "
        f"cumulated. Clear: {100 * LIMITS[-1]:g} % and more. Not known: all other types were "
        "abandoned once they cost more, so that near ties may be among them. Alone: no other type "
        "was tried."
    )
    return table(caption, columns, rows)


def _accuracy(
    by_place: dict[tuple[int, str], dict[str, int]], sizes: list[int], name: str
) -> Table:
    rows = []
    for size in sizes:
        nodes = {band: _nodes(by_place, size, band) for band in BANDS}
        right = {band: by_place[size, band][RIGHT + name] if nodes[band] else 0 for band in BANDS}
        shares = [percent(right[b] / nodes[b]) if nodes[b] else EMPTY_CELL for b in BANDS]
        all_nodes = percent(sum(right.values()) / sum(nodes.values()))
        rows.append([f"{size}x{size}", all_nodes, *shares])
    caption = (
        f"Accuracy in percent of the most probable type of `{name}`, by how much more the cheapest "
        "other type costs than the chosen one."
    )
    return table(caption, ["<Nodes", "All", *(_TITLES[band] for band in BANDS)], rows)
