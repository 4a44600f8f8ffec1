"""The site: its pages are put together, built without a warning, no link in it leads nowhere, and no page scrolls sideways."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest
from browsers import SCREENSHOTS
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import interp_helpers

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import website  # noqa: E402

WIDGET = "application/vnd.jupyter.widget-view+json"


def test_a_notebooks_page_folds_solutions_and_shows_figures_for_widgets():
    badge = "[![Open in Colab](https://colab.example/badge.svg)](https://colab.example/nb)"
    setup = new_code_cell("import x", id="setup")
    solution = new_code_cell("answer = 2", id="solution", metadata={"jupyter": {"source_hidden": True}})
    explorer = new_code_cell("explorer", id="explorer")
    explorer.outputs = [new_output("display_data", {WIDGET: {"model_id": "1"}, "text/html": "<b>the figure</b>"})]
    cells = [new_markdown_cell(badge), setup, solution, explorer]
    page = website.page_of(new_notebook(cells=cells, metadata={"widgets": {}}))
    assert page.cells[0].source == "[Open in Colab](https://colab.example/nb)"
    assert page.cells[1].metadata["tags"] == ["remove-cell"] and page.cells[2].metadata["tags"] == ["hide-input"]
    assert page.cells[3].outputs[0].data == {"text/html": "<b>the figure</b>"} and "widgets" not in page.metadata


def test_a_handouts_code_carries_its_librarys_name():
    page = website.handout("---\ncolumns: 2\n---\n# Title\n\n```python pyvene\nx = 1\n```\n\n```python\ny = 2\n```\n")
    assert page == "# Title\n\n**pyvene**\n\n```python\nx = 1\n```\n\n```python\ny = 2\n```\n"


def test_the_first_page_is_the_readmes_beginning():
    text, figures = website.first_page(website.README.read_text(encoding="utf-8"))
    assert text.startswith("# Glass Box\n") and "make lab" in text and "Who it is for" not in text
    assert len(figures) == 1 + len(list((ROOT / "notebooks").glob("*.ipynb"))), "one each, and the animation's still"
    assert 'href="notebooks/01_activation_patching.html"' in text and ".ipynb" not in text


def test_a_notebook_that_changed_is_run_again(tmp_path, monkeypatch):
    kept, path = tmp_path / "kept", tmp_path / "one.ipynb"
    kept.mkdir()
    runs = []

    def run(names):
        runs.append(names)
        nb = nbformat.read(path, as_version=4)
        nb.cells[0].outputs = [new_output("stream", text="run")]
        nbformat.write(nb, kept / path.name)
        return 0

    monkeypatch.setattr(website.notebooks, "OUT", kept)
    monkeypatch.setattr(website.notebooks, "main", run)
    for source, count in (("1", 1), ("1", 1), ("2", 2)):
        nbformat.write(new_notebook(cells=[new_code_cell(source, id="a")]), path)
        assert website.executed(path).cells[0].outputs[0].text == "run" and len(runs) == count
    monkeypatch.setattr(website.notebooks, "main", lambda names: 1)
    nbformat.write(new_notebook(cells=[new_code_cell("3", id="a")]), path)
    with pytest.raises(RuntimeError, match="one.ipynb could not be run"):
        website.executed(path)


def test_links_that_lead_nowhere_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<h1 id="top"></h1><a href="b.html#there">1</a><a href="#top">2</a><a href="https://elsewhere.example">3</a>'
        '<a href="c.html">4</a><a href="b.html#gone">5</a><a href="#gone">6</a><script src="https://cdn.example/x.js"></script>'
        '<img src="data:image/png;base64,AA"><link rel="stylesheet" href="gone.css"><a href="folder/">7</a>'
    )
    (tmp_path / "b.html").write_text('<p id="there"></p>')
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "index.html").write_text("<p></p>")
    assert website.broken(tmp_path) == [
        "a.html fetches https://cdn.example/x.js",
        "a.html links to #gone",
        "a.html links to b.html#gone",
        "a.html links to c.html",
        "a.html links to gone.css",
    ]


def with_a_wide_table(path: Path) -> nbformat.NotebookNode:
    """A notebook, not run, but for a cell that shows a table of forty columns."""
    nb = nbformat.read(path, as_version=4)
    wide = new_code_cell("wide", outputs=[new_output("display_data", {"text/html": f"<table>{40 * '<td>token</td>'}"})])
    nb.cells.append(wide)
    return nb


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built from notebooks that aren't run (`make site` runs them)."""
    pytest.importorskip("myst_nb", reason="the site needs pip install -e '.[site]'")
    folder = tmp_path_factory.mktemp("website")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(website, "PAGES", folder / "pages")
        patch.setattr(website, "OUT", folder / "site")
        patch.setattr(website, "executed", with_a_wide_table)
        assert website.main() == 0, "what Sphinx, or the check of the links, said stands above"
    return folder / "site"


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_every_link_in_it_leads_somewhere(site):
    for page in ("index", "notebooks/steering_workshop", "handouts/rosetta", "handouts/larger-models", "api/hooks"):
        text = (site / f"{page}.html").read_text(encoding="utf-8")
        assert "furo" in text and "<h1>" in text
    hooks = (site / "api" / "hooks.html").read_text(encoding="utf-8")
    assert 'id="interp_helpers.hooks.record"' in hooks and "Parameters" in hooks
    exported = [getattr(interp_helpers, name) for name in interp_helpers.__all__]
    names = {f"{one.__module__}.{one.__qualname__}" for one in exported if callable(one)}
    shown = "".join(path.read_text(encoding="utf-8") for path in (site / "api").glob("*.html"))
    assert {name for name in names if f'id="{name}"' not in shown} == set(), "public names without a page"


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 800, 1200, 1440, 1600])
def test_no_page_scrolls_sideways(browser, site, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    pages = ["index", "genindex", "notebooks/01_activation_patching", "notebooks/steering_workshop"]
    pages += ["handouts/timings", "handouts/rosetta", "api/sweeps", "_modules/interp_helpers/hooks"]
    too_wide = {}
    for name in pages:
        page.goto((site / f"{name}.html").as_uri())
        beyond = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        inside = page.evaluate("(c => c.scrollWidth - c.clientWidth)(document.querySelector('.content'))")
        if beyond > 0 or inside > 0:
            too_wide[name] = (beyond, inside)
        if name in pages[:3]:
            SCREENSHOTS.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=SCREENSHOTS / f"site-{Path(name).name}-{width}.png")
    page.close()
    assert too_wide == {}, "pixels beyond the window, and inside the text"


@pytest.mark.slow
def test_a_warning_stops_it(tmp_path, monkeypatch):
    pytest.importorskip("myst_nb", reason="the site needs pip install -e '.[site]'")
    monkeypatch.setattr(website, "PAGES", tmp_path / "pages")
    monkeypatch.setattr(website, "OUT", tmp_path / "site")
    monkeypatch.setattr(website, "put_together", lambda: None)
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "conf.py").write_text('extensions = ["myst_nb"]\n')
    (tmp_path / "pages" / "index.md").write_text("# Title\n\n[nowhere](nowhere.md)\n")
    assert website.main() == 1
