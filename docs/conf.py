"""How Sphinx makes the site of README.md and docs/: `make docs`."""

import posixpath
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import bertjax

ROOT = Path(__file__).resolve().parents[1]

# The sources are the repository itself, so that its relative links are those of the site.
project, release, author = "bertjax", bertjax.__version__, "the bertjax authors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**"]
exclude_patterns = [path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "docs"]

# Pages: links may name headings, as they do on GitHub.
myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]
# Of a code block that does not say its language.
highlight_language = "text"

# Notebooks are shown with the outputs that they are kept with (`make notebooks`).
nb_execution_mode = "off"
nb_merge_streams = True

# Docstrings: Google's sections and two of our own; `name` is code, as in Markdown.
default_role = "code"
napoleon_custom_sections = ["Source", "Differs"]
napoleon_use_ivar = True
napoleon_include_init_with_doc = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88

# Nothing on a page is loaded from elsewhere: the theme has no fonts, and formulas are MathML.
html_theme = "furo"
html_title = "bertjax"
html_math_renderer = "mathml"
html_show_copyright = False
html_copy_source = False
templates_path = ["_templates"]
html_additional_pages = {"index": "forward.html"}


def navigate(app: Any, docname: str, source: list[str]) -> None:
    """Makes the navigation of the links in the root page: a heading's are a part of it.

    A page that is linked twice is in the first part.
    """
    if docname != root_doc:
        return
    seen = set()
    for heading, text in re.findall(r"^## (.*)\n((?:(?!## ).*\n)*)", source[0], re.M):
        new = []
        for title, link in re.findall(r"\[([^\]]+)\]\((?!https?:)([^)#]+)", text):
            page = posixpath.normpath(posixpath.join("docs", link))
            if page not in seen:
                new.append(f"{title} </{page}>")
                seen.add(page)
        if new:
            entries = "\n".join(new)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {heading}\n\n{entries}\n```\n"


def mark_code(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Marks what is indented in a docstring as code, as Markdown has it; not within a section."""
    for number in range(len(lines) - 1, 1, -1):
        begins = lines[number].startswith("    ") and not lines[number - 1].strip()
        if begins and not lines[number - 2].startswith("  "):
            lines[number:number] = ["::", ""]


def shorten_types(text: str) -> str:
    """Returns the text of an annotation without the modules that everybody knows."""
    return re.sub(r"~?(?:jaxlib\._jax|jaxtyping|collections\.abc|typing|pathlib)\.", "", text)


def shorten_signature(
    app: Any, what: str, name: str, obj: Any, options: Any, taken: str | None, made: str | None
) -> tuple[str | None, str | None]:
    """Shortens the types of a signature."""
    return taken and shorten_types(taken), made and shorten_types(made)


def shorten_fields(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Shortens the types of fields, as napoleon has written them."""
    lines[:] = [shorten_types(line) for line in lines]


def leave_out(app: Any, what: str, name: str, obj: Any, skips: bool, options: Any) -> bool | None:
    """Leaves out the fields of a named tuple, which its docstring has."""
    return str(getattr(obj, "__doc__", "")).startswith("Alias for field number") or None


def show_formula(self: Any, node: nodes.Element) -> None:
    """Writes a formula as MathML."""
    formula = tex2mathml(node.astext(), as_block=isinstance(node, nodes.math_block))
    self.body.append(formula)
    raise nodes.SkipNode


def setup(app: Any) -> None:
    app.connect("source-read", navigate)
    # Before napoleon, which makes other markup of the sections.
    app.connect("autodoc-process-docstring", mark_code, priority=400)
    app.connect("autodoc-process-docstring", shorten_fields, priority=600)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-skip-member", leave_out)
    app.add_html_math_renderer(
        "mathml", inline_renderers=(show_formula, None), block_renderers=(show_formula, None)
    )
