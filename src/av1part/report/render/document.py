"""What a report holds, whatever the format: chapters of sections of text, tables and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure as Drawing

from av1part.report.draw.svg import to_svg
from av1part.report.render.tables import Table


@dataclass(frozen=True)
class Headline:
    """The result in one line, set larger than a paragraph; code spans allowed."""

    text: str


@dataclass(frozen=True)
class Prose:
    """A paragraph; code spans allowed.

    Attributes:
        text: The paragraph.
        warns: Whether it is something the reader must not overlook.
    """

    text: str
    warns: bool = False


@dataclass(frozen=True)
class Facts:
    """Terms with their values in this run, in order."""

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
    """An interactive element, on the page alone.

    Attributes:
        html: An element with its own data and scripts.
        instead: Text of the other formats in its place.
        title: If given, the element is folded away under it until a reader opens it.
    """

    html: str
    instead: str
    title: str = ""


Item = Headline | Interactive | Prose | Facts | Listing | Table | Picture


@dataclass(frozen=True)
class Section:
    """A heading and the items under it."""

    title: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Chapter:
    """All sections about one run, or about several beside each other.

    Attributes:
        anchor: Its id in the page.
        title: Its heading.
        sections: Its sections, in order.
        lead: What stands before the first section: frame, result in one line, margins.
    """

    anchor: str
    title: str
    sections: tuple[Section, ...]
    lead: tuple[Item, ...] = ()

    @property
    def items(self) -> tuple[Item, ...]:
        """All items, in the order of the page."""
        return (*self.lead, *(item for section in self.sections for item in section.items))


@dataclass(frozen=True)
class Document:
    """The whole report.

    Attributes:
        title: Its title.
        subtitle: One line under the title.
        chapters: One a run, after the comparison if there are several.
        footer: Where the figures come from, in one line.
        kicker: What wrote it, above the title of the page.
    """

    title: str
    subtitle: str
    chapters: tuple[Chapter, ...]
    footer: str = ""
    kicker: str = "av1part report"

    @property
    def pictures(self) -> Mapping[str, str]:
        """Stand-alone SVG of every picture, by name."""
        return {
            item.name: item.svg
            for chapter in self.chapters
            for item in chapter.items
            if isinstance(item, Picture)
        }


def picture(name: str, caption: str, drawing: Drawing) -> Picture:
    """Render a drawing for a document; one narrower than 8 inches does not fill the page."""
    return Picture(name, caption, to_svg(drawing), drawing.get_figwidth() > 8)
