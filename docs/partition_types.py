"""Sphinx directive `partition-table`: the glossary's tables, made from `av1part.partition`.

```{partition-table} types
```
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from itertools import groupby

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from av1part.partition import (
    RECTANGLES,
    SIZES,
    SYMMETRIES,
    TAXONOMIES,
    Partition,
    Rect,
    Stage,
    Symmetry,
    Taxonomy,
    legal_partitions,
)

NODE_SIZES = (*SIZES, 128)
EXAMPLE_SIZE = 16
"""Side of the node whose blocks the table gives in luma samples."""

LETTER: tuple[Rect, ...] = ((0, 0, 4, 1), (0, 1, 1, 2), (2, 1, 1, 1))
"""An F, which all eight symmetries change."""


def picture(rects: Iterable[Rect], label: str, style: str = "") -> str:
    """Draw rectangles in a square as SVG, whose colours are the page's.

    Args:
        rects: In quarters of the square's side.
        label: Text for screen readers.
        style: A further CSS class.

    Returns:
        The element, in one line as a cell of a Markdown table needs it.
    """
    blocks = "".join(
        f'<rect x="{10 * col}" y="{10 * row}" width="{10 * width}" height="{10 * height}"/>'
        for row, col, height, width in rects
    )
    return (
        f'<svg class="{f"partition {style}".strip()}" viewBox="-1 -1 42 42" role="img" '
        f'aria-label="{label}">{blocks}</svg>'
    )


def blocks_of(partition: Partition, size: int) -> str:
    """Return the blocks a type cuts a node into, width x height in luma samples."""
    shapes = Counter((w * size // 4, h * size // 4) for _, _, h, w in RECTANGLES[partition])
    return ", ".join(f"{count} of {w}x{h}" for (w, h), count in shapes.items())


def path_of(partition: Partition, taxonomy: Taxonomy) -> str:
    """Return the class of a type at each stage on its way down, or that it has none."""
    if partition not in taxonomy.partitions:
        return "not in it"
    path: list[str] = []
    stage: Stage | None = taxonomy.root
    while stage is not None:
        (name,) = (n for n, members in stage.classes.items() if partition in members)
        path.append(name)
        stage = taxonomy.child(stage, name)
    return " → ".join(path)


def name_of(symmetry: Symmetry) -> str:
    """Name a symmetry by its steps, in their order."""
    steps = [step.replace("_", "-") for step, done in asdict(symmetry).items() if done]
    return ", ".join(steps) or "identity"


def types_table() -> str:
    """Picture, id, blocks, node sizes and classes of each type."""
    head = ["type", "", "id", f"cuts {EXAMPLE_SIZE}x{EXAMPLE_SIZE} into", "nodes of"]
    rows = [
        [
            f"**{p.name}**",
            picture(RECTANGLES[p], p.name),
            str(p.value),
            blocks_of(p, EXAMPLE_SIZE),
            ", ".join(str(size) for size in NODE_SIZES if p in legal_partitions(size)),
            *(path_of(p, taxonomy) for taxonomy in TAXONOMIES.values()),
        ]
        for p in Partition
    ]
    return _markdown([*head, *(f"`{name}`" for name in TAXONOMIES)], rows)


def symmetries_table() -> str:
    """What each symmetry makes of each type; an F shows the symmetry itself."""
    head = ["type"]
    for symmetry in SYMMETRIES:
        letter = picture(map(symmetry.rect, LETTER), f"F, {name_of(symmetry)}", "letter")
        head.append(f"{letter} {name_of(symmetry)}")
    rows = []
    for p in Partition:
        moved = [symmetry.partition(p) for symmetry in SYMMETRIES]
        cells = (f"{picture(RECTANGLES[q], q.name)} {q.name}" for q in moved)
        rows.append([f"**{p.name}**", *cells])
    return _markdown(head, rows)


def taxonomies_table() -> str:
    """Stages and classes of each taxonomy, by size of the nodes."""
    rows = []
    for taxonomy in TAXONOMIES.values():
        by_stages = groupby(SIZES, key=lambda size: taxonomy.at(size).stages)
        for stages, sizes in by_stages:
            where = ", ".join(map(str, sizes))
            for stage in stages:
                rows.append(
                    [f"`{taxonomy.name}`", where, f"`{stage.name}`", ", ".join(stage.class_names)]
                )
    return _markdown(["taxonomy", "nodes of", "stage", "classes, from index 0"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "types": types_table,
    "symmetries": symmetries_table,
    "taxonomies": taxonomies_table,
}


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


class PartitionTable(SphinxDirective):
    """One of `TABLES`, by name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table's nodes."""
        name = directives.choice(self.arguments[0], tuple(TABLES))
        table = nodes.container(classes=[f"partition-{name}"])
        table += self.parse_text_to_nodes(TABLES[name]())
        return [table]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("partition-table", PartitionTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
