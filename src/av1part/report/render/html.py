"""A report as one HTML page that needs no other file."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from av1part.report.draw.svg import inline_svg
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


def document_html(document: Document) -> str:
    """Render a document as one HTML page that refers to nothing outside itself."""
    environment = Environment(
        loader=PackageLoader("av1part.report.render"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["item"] = lambda item: Markup(item_html(item))
    environment.filters["code"] = lambda text: Markup(inline_html(text))
    return environment.get_template("page.html.j2").render(document=document) + "\n"


def item_html(item: Item) -> str:
    """Render one item as HTML."""
    match item:
        case Table():
            return table_html(item)
        case Interactive(title=""):
            return f'<div class="interactive">{item.html}</div>'
        case Interactive():
            return (
                f'<details class="interactive"><summary>{inline_html(item.title)}</summary>'
                f"{item.html}</details>"
            )
        case Headline():
            return f'<p class="headline">{inline_html(item.text)}</p>'
        case Prose():
            kind = ' class="warning" role="note"' if item.warns else ""
            return f"<p{kind}>{inline_html(item.text)}</p>"
        case Facts():
            return _facts_html(item.pairs)
        case Listing():
            return (
                f"<details><summary>{inline_html(item.title)}</summary>"
                f"<pre>{inline_html(item.text).replace('`', '&#96;')}</pre></details>"
            )
        case Picture():
            label = item.name.replace("-", " ").replace("_", " ")
            wide = "wide" if item.wide else "narrow"
            return (
                f'<figure class="{wide}" id="{item.name}">{inline_svg(item.svg, item.name, label)}'
                f"<figcaption>{inline_html(item.caption)}</figcaption></figure>"
            )


def _facts_html(pairs: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{inline_html(t)}</dt><dd>{inline_html(v)}</dd>" for t, v in pairs)
    return f"<dl>{rows}</dl>"


def table_html(tab: Table) -> str:
    """Render a table as an HTML figure that scrolls sideways on a narrow window."""
    classes = ["text" if title.startswith("<") else "num" for title in tab.columns]
    head = "".join(
        f'<th scope="col" class="{c}">{inline_html(title.removeprefix("<"))}</th>'
        for c, title in zip(classes, tab.columns, strict=True)
    )
    body = []
    for index, row in enumerate(tab.rows):
        cells = "".join(
            f'<td class="{c}">{inline_html(v)}</td>' for c, v in zip(classes, row, strict=True)
        )
        strong = ' class="strong"' if index == tab.strong else ""
        body.append(f"<tr{strong}>{cells}</tr>")
    return (
        f'<figure class="table"><figcaption>{inline_html(tab.caption)}</figcaption>\n'
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(body)
        + "\n</tbody></table></div></figure>"
    )


def inline_html(text: str) -> str:
    """Escape text for HTML; `code` spans become elements."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))
