"""The site's settings, for Sphinx. `make site` (tools/website.py) puts the pages together and runs it."""

import ast
import importlib.metadata
import re
import textwrap

repository = dict(url.split(", ") for url in importlib.metadata.metadata("interp-helpers").get_all("Project-URL"))[
    "Repository"
]

project = "Glass Box"
version = release = importlib.metadata.version("interp-helpers")
language = "en"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",
]
html_css_files = ["wide.css"]
html_static_path = ["_static"]
exclude_patterns = ["_extra"]
html_theme = "furo"
html_title = "Glass Box"
html_extra_path = ["_extra"]
html_show_sphinx = False
html_copy_source = False
html_domain_indices = False  # the index has every name, too
html_theme_options = {"source_repository": repository, "source_branch": "main"}

nb_execution_mode = "off"  # they come executed
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]

default_role = "py:obj"  # `record` in a docstring is a link
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature has them
autodoc_preserve_defaults = True
add_module_names = False
copybutton_exclude = ".linenos, .gp, .go"


def code_in(app, what, name, obj, options, lines: list[str]) -> None:
    """Indented blocks before the sections are code, as in Markdown; or a table of formulas, which isn't Python."""

    def marked(match: re.Match) -> str:
        try:
            ast.parse(textwrap.dedent(match[0]))
            kind = "python"
        except SyntaxError:
            kind = "text"
        return f".. code-block:: {kind}\n\n{match[0]}\n"

    head, *sections = re.split(r"(?m)^(?=(?:Args|Attributes|Raises|Returns|Yields):$)", "\n".join(lines), maxsplit=1)
    head = re.sub(r"(?<=\n\n) {4,}\S.*\n(?: {4,}.*\n|\n)*", marked, head + "\n")
    lines[:] = (head + "".join(sections)).split("\n")


def setup(app) -> None:
    app.connect("autodoc-process-docstring", code_in, priority=100)  # before napoleon
