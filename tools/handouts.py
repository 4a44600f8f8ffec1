"""`make handouts`: every page of handouts/ as a PDF, in A4 and in Letter, in build/handouts.

A page is Markdown with a few lines before it, between `---`: how many columns it has. Chromium prints it.
"""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import mistune

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "handouts").glob("*.md"))
PAPERS = {"a4": "A4", "letter": "Letter"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
STYLE = """
@page { size: PAPER; margin: 12mm 13mm; }
* { box-sizing: border-box; }
body { font: 9.6pt/1.36 "DejaVu Sans", Verdana, sans-serif; color: #111; margin: 0; }
.columns { columns: COLUMNS; column-gap: 7mm; }
h1 { font-size: 17pt; margin: 0 0 2mm; column-span: all; border-bottom: .6mm solid #0072B2; padding-bottom: 1mm; }
h2 { font-size: 11.5pt; margin: 3mm 0 1mm; color: #00558a; break-after: avoid; }
p, ul { margin: 0 0 1.5mm; } ul { padding-left: 4mm; } li { margin: 0 0 .7mm; break-inside: avoid; }
pre { background: #f2f4f6; border-left: .8mm solid #0072B2; padding: 1.2mm 2mm; margin: 0 0 2mm; break-inside: avoid;
      font-size: 7.6pt; line-height: 1.3; white-space: pre-wrap; overflow-wrap: anywhere; }
code { font-family: "DejaVu Sans Mono", Menlo, monospace; font-size: .92em; }
pre code { font-size: inherit; }
.libraries { display: grid; grid-template-columns: 1fr 1fr; gap: 0 4mm; margin-bottom: 1mm; }
.libraries > div { break-inside: avoid; min-width: 0; } .libraries pre { font-size: 6.9pt; height: calc(100% - 5mm); }
.library { font-weight: bold; color: #00558a; margin: .6mm 0 .4mm; font-size: 8pt; }
table { border-collapse: collapse; width: 100%; margin: 0 0 2mm; break-inside: avoid; font-size: 8.6pt; }
th, td { text-align: left; vertical-align: top; padding: .5mm 2mm .5mm 0; border-bottom: .2mm solid #bbb; }
a { color: #00558a; text-decoration: none; }
"""


class Renderer(mistune.HTMLRenderer):
    """Code blocks that say which library they are of carry its name above them."""

    def block_code(self, code: str, info: str | None = None) -> str:
        library = (info or "").partition(" ")[2]
        block = f"<pre><code>{html.escape(code.rstrip())}</code></pre>"
        return f'<div><div class="library">{html.escape(library)}</div>{block}</div>\n' if library else block


def page(source: str, paper: str) -> str:
    """The page as HTML."""
    match = re.match(r"---\ncolumns: (\d)\n---\n", source)
    columns, text = (match[1], source[match.end() :]) if match else ("1", source)
    title = re.search(r"^# (.*)", text, re.MULTILINE)[1]
    body = mistune.create_markdown(renderer=Renderer(), plugins=["table"])(text)
    body = re.sub(
        r'((?:<div><div class="library">.*?</pre></div>\n)+)', r'<div class="libraries">\1</div>', body, flags=re.DOTALL
    )
    style = STYLE.replace("PAPER", PAPERS[paper]).replace("COLUMNS", columns)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style></head>'
        f'<body><main class="columns">{body}</main></body></html>'
    )


def printed(browser: str, document: str, pdf: Path) -> None:
    """Print a page; raises where the browser made no PDF."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        file.write_text(document, encoding="utf-8")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
        command += ["--no-pdf-header-footer", f"--print-to-pdf={pdf}", file.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    if not pdf.exists():
        raise RuntimeError(f"{browser} printed no {pdf.name}: {done.stderr.strip()[-500:]}")


def main() -> int:
    """Print every page in every size of paper."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(
            f"Handouts are printed by a browser, and none was found: install one of {', '.join(BROWSERS)}.",
            file=sys.stderr,
        )
        return 1
    for paper in PAPERS:
        folder = ROOT / "build" / "handouts" / paper
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for source in PAGES:
            printed(browser, page(source.read_text(encoding="utf-8"), paper), folder / f"{source.stem}.pdf")
    print(f"{len(PAGES)} handouts, in {' and '.join(PAPERS.values())}: {ROOT / 'build' / 'handouts'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
