"""Sphinx configuration of the site that `make docs` builds.

The repository's root is the source folder, so that links between README, docs and experiments
mean the same in the site as in a checkout. The pages of the API are written to docs/api, which git
ignores: one for each module there is.
"""

import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))  # for the extension partition_types

project = "av1part"
version = release = installed_version("av1part")
root_doc = "docs/index"
include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/pt/*.md",
    "docs/api/*.rst",
    "experiments/**.md",
    "src/av1part/embedded/LICENCES.md",
]
exclude_patterns = ["build", "datasets", "docs/api/modules.rst", "runs", "**/.*"]

extensions = [
    "myst_parser",
    "partition_types",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
nitpicky = True
# Other libraries' names would be looked up over the network; ours must all be found.
nitpick_ignore_regex = [("py:.*", r"(?!av1part\b).*")]

myst_heading_anchors = 3
default_role = "code"  # of single backticks in docstrings
highlight_language = "none"  # of code blocks that name none: diagrams, formulas

apidoc_modules = [{"path": "../src/av1part", "destination": "docs/api"}]
apidoc_separate_modules = True
apidoc_module_first = True
apidoc_automodule_options = {"members", "show-inheritance"}
# What a package exports is described in its module alone.
autodoc_default_options = {"ignore-module-all": True}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # Attributes as a list; their types are in the class's signature
napoleon_attr_annotations = False
napoleon_custom_sections = ["Shapes", "Reference"]
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = "av1part"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_root"]  # index.html, which leads to docs/index.html
html_copy_source = False
html_show_copyright = False  # the licence is named in the README


def prepare_docstring(
    _app: Sphinx, what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    """Turn docstrings into reStructuredText, before napoleon reads their sections.

    In a module's docstring an indented paragraph is a diagram. An attribute's has no sections; an
    empty comment in its first line keeps napoleon from reading "Label: ..." there as a type.
    """
    if what == "module":
        text = re.sub(r"(?m)^(\S.*\n)\n(?= )", r"\1\n::\n\n", "\n".join(lines))
        lines[:] = text.split("\n")
    elif what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]


NDARRAY = r"~?numpy\.ndarray\[tuple\[~?typing\.Any, \.\.\.\], ~?numpy\.dtype\[([^]]*)\]\]"


def shorten_arrays(
    _app: Sphinx,
    _what: str,
    _name: str,
    _obj: object,
    _options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """Write types of arrays in signatures as the source does; autodoc spells them out."""

    def short(text: str | None) -> str | None:
        if text:
            text = re.sub(NDARRAY, r"NDArray[\1]", text)
            text = re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text)
        return text

    return short(signature), short(returns)


def unlink_folders(app: Sphinx, doctree: nodes.document) -> None:
    """Show links to folders as text: a checkout opens them, the site has no page for them."""
    for link in list(doctree.findall(addnodes.pending_xref)):
        if link["reftype"] == "myst":
            page = Path(app.srcdir, link["refdoc"])
            if (page.parent / link["reftarget"]).is_dir():
                link.replace_self(link.children)


def leave_tables_out(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Keep the experiments' tables out of the contents: their pages link to them."""
    for page in env.found_docs:
        if page.startswith("experiments/") and "/tables/" in page:
            env.metadata[page]["orphan"] = ""
    return []


def mark_language(
    _app: Sphinx, page: str, _template: str, context: dict[str, object], _doctree: object
) -> None:
    """Give pages in Portuguese their language, for screen readers and hyphenation."""
    if page.startswith("docs/pt/"):
        context["language"] = "pt-BR"


def setup(app: Sphinx) -> None:
    """Register what this file defines."""
    app.connect("doctree-read", unlink_folders)
    app.connect("env-updated", leave_tables_out)
    app.connect("html-page-context", mark_language)
    app.connect("autodoc-process-signature", shorten_arrays)
    app.connect("autodoc-process-docstring", prepare_docstring, priority=400)  # napoleon: 500
