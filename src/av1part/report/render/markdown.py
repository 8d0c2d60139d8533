"""A report and its tables as Markdown."""

from __future__ import annotations

from av1part.report.render.document import (
    Document,
    Facts,
    Headline,
    Interactive,
    Item,
    Listing,
    Picture,
    Prose,
)
from av1part.report.render.tables import Table


def document_markdown(document: Document) -> str:
    """Render a document as Markdown; pictures are links to `plots/<name>.svg`."""
    first = document.chapters[0]
    parts = [f"# {document.title}", document.subtitle, *map(_item_markdown, first.lead)]
    single = len(document.chapters) == 1
    for chapter in document.chapters:
        if not single:
            parts.append(f"## {chapter.title}")
        if chapter is not first:
            parts += map(_item_markdown, chapter.lead)
        for section in chapter.sections:
            parts.append(f"{'##' if single else '###'} {section.title}")
            parts += map(_item_markdown, section.items)
    parts += [document.footer] if document.footer else []
    return "\n\n".join(parts) + "\n"


def _item_markdown(item: Item) -> str:
    match item:
        case Table():
            return table_markdown(item)
        case Interactive():
            return item.instead
        case Headline():
            return f"**{item.text}**"
        case Prose():
            return f"> {item.text}" if item.warns else item.text
        case Facts():
            return "\n".join(f"- {term}: {value}" for term, value in item.pairs)
        case Listing():
            return f"{item.title}:\n\n```yaml\n{item.text.rstrip()}\n```"
        case Picture():
            return f"![{item.name}](plots/{item.name}.svg)\n\n{item.caption}"


def table_markdown(tab: Table) -> str:
    """Render a table as Markdown, padded so that it also reads as plain text."""
    titles = [title.removeprefix("<") for title in tab.columns]
    lines = [[_cell_markdown(cell) for cell in row] for row in (titles, *tab.rows)]
    if tab.strong is not None:
        lines[tab.strong + 1] = [f"**{cell}**" if cell else "" for cell in lines[tab.strong + 1]]
    left = [title.startswith("<") for title in tab.columns]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(titles))]
    rule = [
        "-" * w if is_left else "-" * (w - 1) + ":" for w, is_left in zip(widths, left, strict=True)
    ]
    padded = [
        [
            c.ljust(w) if is_left else c.rjust(w)
            for c, w, is_left in zip(line, widths, left, strict=True)
        ]
        for line in (lines[0], rule, *lines[1:])
    ]
    body = "\n".join("| " + " | ".join(line) + " |" for line in padded)
    return f"{tab.caption}\n\n{body}"


def _cell_markdown(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
