"""What a report says, apart from how it is set: chapters of sections of text, tables, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure as Drawing

from av1part.report.draw.svg import inline_svg, to_svg
from av1part.report.render.tables import Table, inline_html, tex, to_html, to_latex, to_markdown


@dataclass(frozen=True)
class Prose:
    """A paragraph; code spans allowed.

    Attributes:
        text: What it says.
        warns: Whether it is something the reader must not overlook.
    """

    text: str
    warns: bool = False


@dataclass(frozen=True)
class Facts:
    """Terms and what they are in this run, in order."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Listing:
    """A text file shown as it is, folded away on the page."""

    title: str
    text: str


@dataclass(frozen=True)
class Picture:
    """A figure: a drawing under a name, with its caption.

    Attributes:
        name: Stem of `plots/<name>.svg`; unique in the document.
        caption: What one sees and how it was computed.
        svg: The drawing, stand-alone.
        wide: Whether it may use the full width of the page.
    """

    name: str
    caption: str
    svg: str
    wide: bool


@dataclass(frozen=True)
class Interactive:
    """Something to choose from, on the page alone.

    Attributes:
        html: An element with its own data and scripts.
        instead: What Markdown says in its place.
    """

    html: str
    instead: str


Item = Interactive | Prose | Facts | Listing | Table | Picture


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Chapter:
    """All sections about one run, or about several beside each other.

    Attributes:
        anchor: Its id in the page.
        title: Its heading.
        sections: What it says.
    """

    anchor: str
    title: str
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class Document:
    """The whole report.

    Attributes:
        title: Its title.
        subtitle: One line under the title.
        chapters: One a run, after the comparison if there are several.
    """

    title: str
    subtitle: str
    chapters: tuple[Chapter, ...] = field(default=())

    @property
    def pictures(self) -> Mapping[str, str]:
        """Stand-alone SVG of every picture, by name."""
        return {
            item.name: item.svg
            for chapter in self.chapters
            for section in chapter.sections
            for item in section.items
            if isinstance(item, Picture)
        }


def picture(name: str, caption: str, drawing: Drawing) -> Picture:
    """Render a drawing for a document; one narrower than 8 inches does not fill the page."""
    return Picture(name, caption, to_svg(drawing), drawing.get_figwidth() > 8)


def document_markdown(document: Document) -> str:
    """Render a document as Markdown; pictures are links to `plots/<name>.svg`."""
    parts = [f"# {document.title}", document.subtitle]
    single = len(document.chapters) == 1
    for chapter in document.chapters:
        if not single:
            parts.append(f"## {chapter.title}")
        for section in chapter.sections:
            parts.append(f"{'##' if single else '###'} {section.title}")
            parts += [_item_markdown(item) for item in section.items]
    return "\n\n".join(parts) + "\n"


def _item_markdown(item: Item) -> str:
    match item:
        case Table():
            return to_markdown(item)
        case Interactive():
            return item.instead
        case Prose():
            return f"> {item.text}" if item.warns else item.text
        case Facts():
            return "\n".join(f"- {term}: {value}" for term, value in item.pairs)
        case Listing():
            return f"{item.title}:\n\n```yaml\n{item.text.rstrip()}\n```"
        case Picture():
            return f"![{item.name}](plots/{item.name}.svg)\n\n{item.caption}"


def document_latex(document: Document, label: str) -> str:
    """Render a document as LaTeX sections; pictures are those in `figures/` beside it.

    Args:
        document: What to say.
        label: Prefix of the labels of tables and figures.

    Returns:
        LaTeX without a preamble, to be included.
    """
    parts = ["% Written by av1part; needs booktabs, graphicx and textcomp."]
    for chapter in document.chapters:
        parts.append(rf"\section{{{tex(chapter.title)}}}")
        for section in chapter.sections:
            parts.append(rf"\subsection{{{tex(section.title)}}}")
            parts += [
                _item_latex(item, f"{label}-{len(parts) + index}")
                for index, item in enumerate(section.items)
            ]
    return "\n\n".join(parts) + "\n"


def _item_latex(item: Item, label: str) -> str:
    match item:
        case Table():
            return to_latex(item, f"tab:{label}").rstrip()
        case Interactive():
            return tex(item.instead)
        case Prose():
            return tex(item.text)
        case Facts():
            lines = [rf"  \item[{tex(term)}] {tex(value)}" for term, value in item.pairs]
            return "\n".join([r"\begin{description}", *lines, r"\end{description}"])
        case Listing():
            return "\n".join([r"\begin{verbatim}", item.text.rstrip(), r"\end{verbatim}"])
        case Picture():
            return "\n".join(
                [
                    r"\begin{figure}",
                    r"  \centering",
                    rf"  \includegraphics[width=\linewidth]{{figures/{item.name}.pdf}}",
                    rf"  \caption{{{tex(item.caption)}}}",
                    rf"  \label{{fig:{label}}}",
                    r"\end{figure}",
                ]
            )


def item_html(item: Item) -> str:
    """Render one item as HTML."""
    match item:
        case Table():
            return to_html(item)
        case Interactive():
            return f'<div class="interactive">{item.html}</div>'
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
