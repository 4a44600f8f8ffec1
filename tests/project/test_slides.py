"""The slides: minutes that add up, notes, and decks that build, fit and need nothing from outside.

Whether a figure shows what its notebook measures now is seen where the notebooks are run, in `test_exercises.py`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import slides  # noqa: E402

DECKS = slides.decks()
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MINUTES = {deck.stem: 90 if deck.stem == "steering_workshop" else 50 for deck in DECKS}
SMALLEST, IN_FIGURES = 20, 15  # pixels of 720; a figure's labels are drawn with 12 points


def pages(deck: Path) -> list[str]:
    """A deck's slides, without the lines before the first."""
    source = deck.read_text(encoding="utf-8")
    return re.split(r"^---$", source.split("\n---\n", 1)[1], flags=re.MULTILINE)


def test_every_notebook_has_a_deck():
    assert [deck.stem for deck in DECKS] == [path.stem for path in NOTEBOOKS]


def test_no_figure_is_out_of_date():
    assert slides.out_of_date() == {}, "`make figures` draws them"
    kept = {f"{path.parent.name}/{path.stem}" for path in (ROOT / "slides" / "figures").glob("*/*.png")}
    assert kept == set(slides.index()) == set(slides.shown()), "figures that no deck shows"


@pytest.mark.parametrize("deck", DECKS, ids=lambda deck: deck.stem)
def test_a_deck_has_notes_whose_minutes_add_up(deck):
    clock = 0
    for page in pages(deck):
        (note,) = [n for n in re.findall(r"<!--\n(.*?)-->", page, re.DOTALL)]
        begin, end = map(int, re.match(r"(\d+)–(\d+) min · ", note).groups())
        assert begin == clock < end, note
        assert len(note) > 60, "a note says what to say"
        clock = end
    assert clock == MINUTES[deck.stem]
    assert len(pages(deck)) <= (26 if deck.stem == "steering_workshop" else 14)


@pytest.mark.parametrize("deck", DECKS, ids=lambda deck: deck.stem)
def test_a_deck_asks_shows_and_lets_the_room_work(deck):
    source = deck.read_text(encoding="utf-8")
    for kind in ("title", "ask", "do", "trap"):
        assert f"_class: {kind} " in source or kind == "ask" and re.search(r"Hands|hands|prediction", source), kind
    assert len(slides.FIGURE.findall(source)) >= 2
    notebook = (ROOT / "notebooks" / f"{deck.stem}.ipynb").read_text(encoding="utf-8")
    core = notebook[: notebook.index("## Go deeper")]
    for number in re.findall(r"### Exercise (\d)", core):
        assert re.search(rf"[Ee]xercises? (\d(, \d)* and )?{number}", source), f"exercise {number} isn't in the deck"
    for year in re.findall(r"\b(?:19|20)\d\d\b", source):
        assert year in notebook, f"a paper of {year} that the notebook doesn't name"


def test_a_figure_that_is_missing_or_drawn_by_other_code_is_named(tmp_path, monkeypatch, capsys):
    for folder in ("slides", "notebooks"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(slides, "ROOT", tmp_path)
    monkeypatch.setattr(slides, "SLIDES", tmp_path / "slides")
    monkeypatch.setattr(slides, "INDEX", tmp_path / "slides" / "figures" / "index.json")
    (tmp_path / "slides" / "deck.md").write_text("---\nmarp: true\n---\n\n![](figures/one/plot.png)\n")

    def write(first: str) -> None:
        nb = new_notebook(cells=[new_code_cell(first, id="first"), new_code_cell("plot()", id="plot")])
        nbformat.write(nb, tmp_path / "notebooks" / "one.ipynb")

    write("x = 1")
    assert slides.out_of_date() == {"one/plot": "missing"}
    assert slides.main([]) == 1 and "figures/one/plot.png: missing" in capsys.readouterr().err
    path = tmp_path / "slides" / "figures" / "one"
    path.mkdir(parents=True)
    shutil.copy(ROOT / "assets" / "live.png", path / "plot.png")
    slides.INDEX.write_text(
        json.dumps({"one/plot": {"code": slides.drawn_by("one/plot"), "alt": "A [map] of 1 thing."}})
    )
    assert slides.out_of_date() == {}
    woven = slides.woven(tmp_path / "slides" / "deck.md")
    assert "![ A  map  of 1 thing.](data:image/png;base64," in woven
    write("x = 2")
    assert slides.out_of_date() == {"one/plot": "drawn by other code than the notebook now has"}
    (tmp_path / "slides" / "deck.md").write_text("![](figures/one/nothing.png)")
    with pytest.raises(ValueError, match="no code cell with the id 'nothing'"):
        slides.out_of_date()
    (tmp_path / "slides" / "deck.md").write_text("![](figures/two/plot.png)")
    with pytest.raises(ValueError, match="no notebook called two"):
        slides.out_of_date()


def test_a_cells_last_figure_is_found_in_its_html():
    cell = new_code_cell("plot()", id="plot")
    image = '<img alt="A &lt; B" width="1" src="data:image/png;base64,{}">'
    cell.outputs = [new_output("display_data", {"text/html": image.format(data)}) for data in ("AAAA", "AAEC")]
    assert slides.figures_of(new_notebook(cells=[cell])) == {"plot": (b"\x00\x01\x02", "A < B")}


# -- built ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    browser = slides.browser()
    without = pytest.fail if os.environ.get("GLASS_BOX_REQUIRE_BROWSER") == "1" else pytest.skip
    if browser is None:
        without("no browser")
    marp = slides.SLIDES / "node_modules" / ".bin" / "marp"
    if not marp.exists():
        if shutil.which("npm") is None:
            without("slides are built by Marp, which needs node and npm")
        install = ["npm", "ci", "--no-audit", "--no-fund"]
        done = subprocess.run(install, cwd=slides.SLIDES, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"npm can't fetch Marp here: {done.stderr.strip()[-200:]}")
    out = tmp_path_factory.mktemp("slides")
    slides.build(marp, browser, out)
    return out


def unpacked(pdf: bytes):
    """A PDF's bytes, and those of its compressed streams."""
    yield pdf
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL):
        try:
            yield zlib.decompress(stream)
        except zlib.error:
            pass


@pytest.mark.slow
def test_every_deck_comes_as_html_pdf_and_pngs(built):
    for deck in DECKS:
        html = (built / "html" / f"{deck.stem}.html").read_text(encoding="utf-8")
        assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=\"(https?:)?//", html), "fetches something"
        assert not re.search(r"url\(\"?https?:", html) and "@import" not in html
        count = len(pages(deck))
        assert len(list((built / "png").glob(f"{deck.stem}.*.png"))) == count
        objects = b"\n".join(unpacked((built / "pdf" / f"{deck.stem}.pdf").read_bytes()))
        assert len(re.findall(rb"/Type\s*/Page\b(?!s)", objects)) == count
        assert len(re.findall(rb"/Subtype\s*/Text\b", objects)) >= count, "the notes are in the PDF"


@pytest.mark.slow
def test_everything_fits_and_can_be_read_from_the_back_row(built):
    sync = pytest.importorskip("playwright.sync_api")
    with sync.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        for deck in DECKS:
            page.goto((built / "html" / f"{deck.stem}.html").as_uri())
            found = page.evaluate(
                """() => [...document.querySelectorAll("section")].map((section, n) => {
                    const parts = [...section.children].filter(c => !["HEADER", "FOOTER", "SCRIPT"].includes(c.tagName));
                    const bottom = Math.max(...parts.map(c => c.offsetTop + c.offsetHeight));
                    const right = Math.max(...parts.map(c => c.scrollWidth - c.clientWidth));
                    const texts = [...section.querySelectorAll("*")].filter(
                        c => [...c.childNodes].some(t => t.nodeType == 3 && t.textContent.trim()) && !c.closest("svg.MathJax, mjx-container"));
                    const smallest = Math.min(...texts.map(c => parseFloat(getComputedStyle(c).fontSize)));
                    const images = [...section.querySelectorAll("img")];
                    const print = Math.min(...images.map(i => 12 / 72 * 200 * i.clientHeight / i.naturalHeight), 99);
                    return {n: n + 1, bottom, right, smallest, print, alt: images.every(i => i.alt.length > 40)};
                })"""
            )
            assert len(found) == len(pages(deck))
            for slide in found:
                about = f"{deck.stem}, slide {slide['n']}: {slide}"
                assert slide["bottom"] <= 676, f"runs into the footer: {about}"
                assert slide["right"] <= 1, f"is too wide: {about}"
                assert slide["smallest"] >= SMALLEST, f"is too small: {about}"
                assert slide["print"] >= IN_FIGURES, f"has a figure in too small print: {about}"
                assert slide["alt"], f"has an image without a text alternative: {about}"
        browser.close()
