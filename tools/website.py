"""`make site`: the executed notebooks, the handouts, the slides and the library's pages as a static site, in build/site.

Nothing in it is fetched from elsewhere. Notebooks are taken from build/notebooks; one that isn't there, or that has changed since it
was run, is run first. A link that leads nowhere stops it.
"""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import nbformat

import interp_helpers
import notebooks

ROOT = Path(__file__).resolve().parents[1]
PAGES, OUT = ROOT / "build" / "website", ROOT / "build" / "site"
README = ROOT / "README.md"
# The library's pages, from the heart outwards: a title, and what stands on it, modules or whole rooms.
API = {
    "models": ("Models", ["models"]),
    "hooks": ("Sites, hooks, edits and metrics", ["hooks", "sites", "edits", "activations", "metrics"]),
    "sweeps": ("Sweeps", ["sweeps"]),
    "das": ("Subspaces and DAS", ["das"]),
    "steering": ("Steering", ["steering"]),
    "prompts": ("Prompts and facts", ["prompts"]),
    "figures": ("Figures and explorers", ["plotting", "widgets"]),
    "course": ("The course's machinery", ["course"]),
}


def executed(path: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs, from its last run if it hasn't changed since."""
    kept = notebooks.OUT / path.name
    source = nbformat.read(path, as_version=4)
    if not kept.exists() or [c.source for c in nbformat.read(kept, as_version=4).cells] != [
        c.source for c in source.cells
    ]:
        if notebooks.main([path.stem]):
            raise RuntimeError(f"{path.name} could not be run.")
    return nbformat.read(kept, as_version=4)


def page_of(nb) -> nbformat.NotebookNode:
    """An executed notebook as the site shows it: solutions folded, figures in the place of widgets, nothing from outside."""
    for cell in nb.cells:
        if cell.metadata.get("jupyter", {}).get("source_hidden"):
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
        if cell.id == "setup":
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "remove-cell"]
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\[!\[Open in Colab\]\([^)]*\)\]", "[Open in Colab]", cell.source)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    nb.metadata.pop("widgets", None)
    return nb


def handout(source: str) -> str:
    """A page of handouts/ without the lines that only print needs; libraries' names above their code."""
    text = re.sub(r"\A---\n.*?\n---\n", "", source, flags=re.DOTALL)
    return re.sub(r"^```python (.+)$", r"**\1**\n\n```python", text, flags=re.MULTILINE)


def modules_of(room: str) -> list[str]:
    """The modules of a room that define what `from interp_helpers import …` gives; else the room itself, as it lists its names."""
    exported = [getattr(interp_helpers, name) for name in interp_helpers.__all__]
    homes = {one.__module__.removeprefix("interp_helpers.") for one in exported if callable(one)}
    return sorted(home for home in homes if home.startswith(f"{room}.")) or [room]


def public(module) -> list[str]:
    """A module's public functions and classes: its own list, or what the package exports of it."""
    exported = [
        n for n in interp_helpers.__all__ if getattr(getattr(interp_helpers, n), "__module__", "") == module.__name__
    ]
    return [name for name in getattr(module, "__all__", exported) if callable(getattr(module, name))]


def api_page(title: str, rooms: list[str]) -> str:
    """A page of the library: each module's docstring, and its public names."""
    lines = [f"# {title}", ""]
    for name in [name for room in rooms for name in modules_of(room)]:
        module = importlib.import_module(f"interp_helpers.{name}")
        lines += [f"## {name}", "", "```{eval-rst}", f".. automodule:: interp_helpers.{name}", "   :no-members:", ""]
        lines += [f".. py:currentmodule:: interp_helpers.{name}", ""]
        for n in public(module):
            kind = "class" if isinstance(getattr(module, n), type) else "function"
            lines += [f".. auto{kind}:: interp_helpers.{name}.{n}", *["   :members:"] * (kind == "class"), ""]
        lines += ["```", ""]
    return "\n".join(lines)


def first_page(readme: str) -> tuple[str, list[str]]:
    """The README down to whom it is for, with links to the site's pages; and the figures that it shows or links to."""
    text = readme[: readme.index("\n## Who it is for")].replace(".ipynb", ".html")
    return text, sorted(set(re.findall(r'"([^":]+\.(?:png|gif))"', text)))


def put_together() -> None:
    """All pages, as Sphinx wants them, in build/website."""
    shutil.rmtree(PAGES, ignore_errors=True)
    for folder in ("notebooks", "handouts", "api", "_static", "_extra/slides"):
        (PAGES / folder).mkdir(parents=True)
    lists: dict[str, list[str]] = {"notebooks": [], "handouts": [], "api": []}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        nbformat.write(page_of(executed(path)), PAGES / "notebooks" / path.name)
        lists["notebooks"].append(f"notebooks/{path.stem}")
    for path in sorted((ROOT / "handouts").glob("*.md")):
        (PAGES / "handouts" / path.name).write_text(handout(path.read_text(encoding="utf-8")), encoding="utf-8")
        lists["handouts"].append(f"handouts/{path.stem}")
    for name, (title, rooms) in API.items():
        (PAGES / "api" / f"{name}.md").write_text(api_page(title, rooms), encoding="utf-8")
        lists["api"].append(f"api/{name}")
    decks = sorted((ROOT / "build" / "slides" / "html").glob("*.html"))
    for deck in decks:
        shutil.copy(deck, PAGES / "_extra" / "slides")
    slides = "**Slides**: " + " · ".join(f'<a href="slides/{d.name}">{d.stem.replace("_", " ")}</a>' for d in decks)
    readme, figures = first_page(README.read_text(encoding="utf-8"))
    for figure in figures:
        (PAGES / "_extra" / figure).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / figure, PAGES / "_extra" / figure)
    text = (ROOT / "website" / "index.md").read_text(encoding="utf-8")
    for name, entries in lists.items():
        text = text.replace(f"{{{name}}}", "\n".join(entries))
    text = text.replace("{readme}", readme).replace("{slides}", slides if decks else "")
    (PAGES / "index.md").write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "website" / "conf.py", PAGES)
    shutil.copy(ROOT / "website" / "wide.css", PAGES / "_static")


class Links(HTMLParser):
    """The links of a page, what it loads, and the places that can be linked to."""

    def __init__(self, page: str):
        super().__init__()
        self.links, self.loads, self.places = [], [], {""}
        self.feed(page)

    def handle_starttag(self, tag: str, attributes) -> None:
        found = dict(attributes)
        self.places |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag in ("img", "script", "iframe", "source") and found.get("src"):
            self.loads.append(found["src"])
        if (
            tag == "link"
            and found.get("href")
            and found.get("rel") not in ("canonical", "next", "prev", "index", "search")
        ):
            self.loads.append(found["href"])


def broken(site: Path) -> list[str]:
    """Links and anchors inside the site that lead nowhere, and what a page would fetch from outside."""
    pages = {path: Links(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    found = []
    for path, page in pages.items():
        for link in page.links + page.loads:
            url = urlparse(link)
            if url.scheme or url.netloc:
                if link in page.loads and url.scheme != "data":
                    found.append(f"{path.relative_to(site)} fetches {link}")
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists() or (target in pages and unquote(url.fragment) not in pages[target].places):
                found.append(f"{path.relative_to(site)} links to {link}")
    return sorted(set(found))


def main() -> int:
    """Put together, build, check."""
    put_together()
    shutil.rmtree(OUT, ignore_errors=True)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(PAGES), str(OUT)]
    if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
        return 1
    wrong = broken(OUT)
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    print(f"{len(list(OUT.rglob('*.html')))} pages: open {OUT / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
