"""`make handouts`: every page of handouts/, and a worksheet for each notebook, as PDFs in A4 and in Letter, in build/handouts.

A page is Markdown with a few lines before it, between `---`: how many columns it has. A worksheet is made from its notebook: what
it asks you to predict, with room to write, and its exercises. Chromium prints them.
"""

from __future__ import annotations

import ast
import html
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import mistune
import nbformat

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "handouts").glob("*.md"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
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
.line { border-bottom: .2mm solid #888; height: 6.5mm; } .small { font-size: 8.2pt; color: #333; }
.ask { break-inside: avoid; margin: 0 0 2.5mm; } .ask ul { list-style: "☐  "; padding-left: 6mm; }
a { color: #00558a; text-decoration: none; }
"""


def browser() -> str | None:
    """The browser that prints, if there is one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


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
    body = mistune.create_markdown(renderer=Renderer(escape=False), plugins=["table"])(text)
    body = re.sub(
        r'((?:<div><div class="library">.*?</pre></div>\n)+)', r'<div class="libraries">\1</div>', body, flags=re.DOTALL
    )
    style = STYLE.replace("PAPER", PAPERS[paper]).replace("COLUMNS", columns)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style></head>'
        f'<body><main class="columns">{body}</main></body></html>'
    )


def worksheet(path: Path) -> str:
    """A notebook's predictions and exercises, as a page to fill in by hand."""
    nb = nbformat.read(path, as_version=4)
    named = choices_of(nb)
    title = re.search(r"^# (.*)", nb.cells[0].source, re.MULTILINE)[1]
    lines = [
        "---", "columns: 2", "---", f"# {title}", "",
        "*Predict before you run. A wrong prediction that is written down teaches more than a right one that isn't.*", "",
    ]  # fmt: skip
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            for heading, below in re.findall(r"^(#{2,3} .*)\n+(.*)", cell.source, re.MULTILINE):
                if re.match(r"## (\d+ ·|Go deeper)", heading):
                    lines += [heading, ""]
                elif heading.startswith("### Exercise"):
                    lines += [f'☐ **{heading[4:]}** <span class="small">{below}</span>', ""]
        else:
            for call in asked(cell.source, named):
                lines += ['<div class="ask">', "", f"**?** {call['question']}", "", *call["answer"], ""]
                lines += [
                    '<span class="small">measured, and why:</span>',
                    2 * '<div class="line"></div>',
                    "",
                    "</div>",
                    "",
                ]
    if lines[-2] == "## Go deeper":  # nothing to fill in there
        del lines[-2:]
    lines += ["## One sentence to keep", "", '<div class="line"></div><div class="line"></div>']
    return "\n".join(lines)


def choices_of(nb) -> dict[str, list[str]]:
    """The lists of choices that the notebook's lesson keeps in its `experiment.py`, by the names that cells call them by."""
    lesson = re.search(r"from interp_helpers\.lessons\.(\w+) import experiment", "\n".join(c.source for c in nb.cells))
    if lesson is None:
        return {}
    file = ROOT / "interp_helpers" / "lessons" / lesson[1] / "experiment.py"
    found = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List | ast.Tuple):
            try:
                found[f"experiment.{node.targets[0].id}"] = ast.literal_eval(node.value)
            except (ValueError, AttributeError):  # no list of constants, or no single name
                continue
    return found


def asked(source: str, choices: dict[str, list[str]]) -> list[dict]:
    """The predictions that a cell asks for: the question, and what to answer with; `choices` are those with a name."""
    code = re.sub(r"^( *)%.*", r"\1pass", source, flags=re.MULTILINE)
    calls = [
        node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "predict"
    ]
    named: dict[str, list] = {}  # questions with a name, in pieces
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            named[node.targets[0].id] = [node.value]
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            named.setdefault(node.target.id, []).append(node.value)
    found = []
    for call in calls:
        options = {keyword.arg: keyword.value for keyword in call.keywords}
        pieces = named.get(getattr(call.args[1], "id", ""), [call.args[1]])
        parts = [part for piece in pieces for part in (piece.values if isinstance(piece, ast.JoinedStr) else [piece])]
        question = "".join(
            part.value if isinstance(part, ast.Constant) else "…" for part in parts
        )  # … : the model's number
        if "choices" in options:
            name = ast.unparse(options["choices"])
            try:
                answer = [f"- {choice}" for choice in choices.get(name) or ast.literal_eval(options["choices"])]
            except ValueError:  # the choices depend on what was computed before
                answer = ['<div class="line"></div>']
        else:
            unit = ast.literal_eval(options["unit"]) if "unit" in options else ""
            answer = [f"my answer: ______________ {unit}"]
        found.append({"question": question, "answer": answer})
    return found


def pages() -> dict[str, str]:
    """Every page's Markdown by its name."""
    written = {path.stem: path.read_text(encoding="utf-8") for path in PAGES}
    return written | {f"worksheet-{path.stem}": worksheet(path) for path in NOTEBOOKS}


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
    if not (printer := browser()):
        print(
            f"Handouts are printed by a browser, and none was found: install one of {', '.join(BROWSERS)}.",
            file=sys.stderr,
        )
        return 1
    for paper in PAPERS:
        folder = ROOT / "build" / "handouts" / paper
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, source in pages().items():
            printed(printer, page(source, paper), folder / f"{name}.pdf")
    print(f"{len(pages())} handouts, in {' and '.join(PAPERS.values())}: {ROOT / 'build' / 'handouts'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
