"""`make slides`: every deck of slides/ as HTML (one file that needs nothing else), as PDF with the speaker's notes, and as PNGs, in
build/slides. `make figures`: run the notebooks whose figures the decks show, and keep those figures in slides/figures.

A deck shows a figure of a notebook by the id of its cell: `![](figures/02_causal_tracing/map.png)`. `slides/figures/index.json` keeps
what each figure was drawn by (a hash of the notebook's code down to that cell) and its text alternative, which is put into the deck
as it is built. Where a figure is missing, or its code has changed since, nothing is built.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from PIL import Image

from handouts import BROWSERS, browser
from notebooks import executed

ROOT = Path(__file__).resolve().parents[1]
SLIDES, OUT = ROOT / "slides", ROOT / "build" / "slides"
INDEX = SLIDES / "figures" / "index.json"
FIGURE = re.compile(r"!\[(?P<how>[^\]]*)\]\(figures/(?P<name>[\w-]+/[\w-]+)\.png\)")
IMAGE = re.compile(r'<img alt="([^"]*)"[^>]*src="data:image/png;base64,([^"]*)"')
LARGE_PRINT = """
from interp_helpers.plotting.figures import STYLE
STYLE.update({"font.size": 13, "axes.titlesize": 15, "axes.labelsize": 12})
"""


def decks() -> list[Path]:
    """The decks' sources."""
    return sorted(SLIDES.glob("*.md"))


def shown() -> list[str]:
    """The figures that the decks show, each once: notebook/cell."""
    return sorted({match["name"] for deck in decks() for match in FIGURE.finditer(deck.read_text(encoding="utf-8"))})


def drawn_by(name: str) -> str:
    """A hash of the code that draws a figure: the notebook's code cells down to its own.

    Raises:
        ValueError: there is no such notebook, or it has no such cell.
    """
    notebook, cell_id = name.split("/")
    path = ROOT / "notebooks" / f"{notebook}.ipynb"
    if not path.exists():
        raise ValueError(f"figures/{name}.png: there is no notebook called {notebook}.")
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    ids = [cell.id for cell in code]
    if cell_id not in ids:
        raise ValueError(f"figures/{name}.png: {notebook} has no code cell with the id {cell_id!r}; it has {ids}.")
    return hashlib.sha256("\n\n".join(c.source for c in code[: ids.index(cell_id) + 1]).encode()).hexdigest()[:16]


def index() -> dict[str, dict]:
    """What is known of each kept figure."""
    return json.loads(INDEX.read_text(encoding="utf-8")) if INDEX.exists() else {}


def out_of_date() -> dict[str, str]:
    """The figures that the decks show and that have to be drawn (again), each with the reason."""
    known, reasons = index(), {}
    for name in shown():
        code = drawn_by(name)
        if name not in known or not (SLIDES / "figures" / f"{name}.png").exists():
            reasons[name] = "missing"
        elif known[name]["code"] != code:
            reasons[name] = "drawn by other code than the notebook now has"
    return reasons


def figures_of(nb) -> dict[str, tuple[bytes, str]]:
    """The last figure of every cell of an executed notebook: {cell's id: (PNG, text alternative)}."""
    found = {}
    for cell in nb.cells:
        for output in cell.get("outputs", []):  # a figure, and an explorer's, are in its HTML
            for alt, png in IMAGE.findall(output.get("data", {}).get("text/html", "")):
                found[cell.id] = base64.b64decode(png), html.unescape(alt)
    return found


def draw(names: list[str]) -> None:
    """Run the notebooks of these figures, in large print, and keep the figures.

    Raises:
        ValueError: a cell shows no figure, or one without a text alternative.
    """
    known = index()
    for notebook in sorted({name.split("/")[0] for name in names}):
        code = {
            name: drawn_by(name) for name in names if name.startswith(f"{notebook}/")
        }  # before: it may be edited meanwhile
        with tempfile.TemporaryDirectory() as folder:
            startup = Path(folder) / "ipython" / "profile_default" / "startup"
            startup.mkdir(parents=True)
            (startup / "large_print.py").write_text(LARGE_PRINT, encoding="utf-8")
            os.environ["IPYTHONDIR"] = str(startup.parents[1])
            found = figures_of(executed(ROOT / "notebooks" / f"{notebook}.ipynb", Path(folder)))
        for name in code:
            png, alt = found.get(name.split("/")[1], (b"", ""))
            if not alt:
                raise ValueError(f"figures/{name}.png: that cell shows no figure with a text alternative.")
            path = SLIDES / "figures" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            # 128 colours are enough for a figure of ours, and make a quarter of the file.
            Image.open(io.BytesIO(png)).convert("RGB").quantize(128).save(path, optimize=True)
            known[name] = {"code": code[name], "alt": alt}
            print(f"figures/{name}.png: {alt}", flush=True)
        kept = {name: known[name] for name in shown() if name in known}  # what is drawn stays, should the next one fail
        INDEX.write_text(json.dumps(kept, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    for path in (SLIDES / "figures").glob("*/*.png"):
        if f"{path.parent.name}/{path.stem}" not in shown():
            path.unlink()


def woven(deck: Path) -> str:
    """The deck's Markdown with its figures in it, each with its text alternative."""
    known = index()

    def put(match: re.Match) -> str:
        png = (SLIDES / "figures" / f"{match['name']}.png").read_bytes()
        alt = re.sub(r"[\[\]\n]", " ", known[match["name"]]["alt"])
        return f"![{match['how']} {alt}](data:image/png;base64,{base64.b64encode(png).decode()})"

    return FIGURE.sub(put, deck.read_text(encoding="utf-8"))


def build(marp: Path, printer: str, out: Path) -> None:
    """Build every deck in every form; raises where marp fails."""
    shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        for deck in decks():
            (Path(folder) / deck.name).write_text(woven(deck), encoding="utf-8")
        for kind, options in {
            "html": [],
            "pdf": ["--pdf", "--pdf-notes", "--pdf-outlines"],
            "png": ["--images", "png"],
        }.items():
            for deck in decks():  # a browser for each: one that has drawn a deck's PNGs may not answer for the next
                command = [str(marp), "--config", str(SLIDES / "marp.config.mjs"), "--browser-path", printer, *options]
                command += [str(Path(folder) / deck.name), "--output", str(out / kind / f"{deck.stem}.{kind}")]
                done = subprocess.run(
                    command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, cwd=SLIDES
                )
                if done.returncode or not any((out / kind).glob(f"{deck.stem}*.{kind}")):
                    raise RuntimeError(f"marp built no {kind} of {deck.stem}: {done.stderr.strip()[-1500:]}")


def main(arguments: list[str]) -> int:
    """Draw what is out of date, or build."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--draw", action="store_true", help="run the notebooks whose figures are out of date")
    parser.add_argument("--all", action="store_true", help="with --draw: all figures, out of date or not")
    options = parser.parse_args(arguments)
    stale = out_of_date()
    if options.draw:
        draw(shown() if options.all else list(stale))
        return 0
    if stale:
        said = "\n".join(f"  figures/{name}.png: {reason}" for name, reason in stale.items())
        print(f"`make figures` draws what the decks show and isn't up to date:\n{said}", file=sys.stderr)
        return 1
    marp, printer = SLIDES / "node_modules" / ".bin" / "marp", browser()
    if printer is None or not marp.exists():
        wants = f"a browser ({', '.join(BROWSERS)})" if printer is None else "marp (`npm ci` in slides/ installs it)"
        print(f"Slides need {wants}, and none was found.", file=sys.stderr)
        return 1
    build(marp, printer, OUT)
    print(f"{len(decks())} decks as HTML, PDF and PNG in {OUT}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
