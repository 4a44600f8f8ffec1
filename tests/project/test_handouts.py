"""The handouts: what they name exists, one-page pages have one page, and every page prints on both sizes of paper."""

from __future__ import annotations

import importlib.util
import os
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import interp_helpers
from interp_helpers.models.anatomy import COMPONENTS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "handouts").glob("*.md"))
ONE_PAGE = {"cheat-sheet", "pitfalls", "resources"}

_spec = importlib.util.spec_from_file_location("handouts", ROOT / "tools" / "handouts.py")
handouts = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(handouts)


def text(name: str) -> str:
    return (ROOT / "handouts" / f"{name}.md").read_text(encoding="utf-8")


def test_what_the_cheat_sheet_names_is_in_the_library():
    table = re.findall(r"^\| (`.*?) \|", text("cheat-sheet"), re.MULTILINE)
    assert len(table) >= 13
    prose = re.sub(r"```.*?```", "", text("cheat-sheet"), flags=re.DOTALL)
    named = {name for cell in re.findall(r"`([^`]+)`", prose) for name in re.findall(r"^(\w+)(?=\(|$)", cell)}
    known = set(interp_helpers.__all__) | set(COMPONENTS) | {"query_", "key_"}
    assert named - known == set()
    assert {"replace", "noise", "patch_sweep", "causal_trace", "train_das", "SteeringVector"} <= named


def test_the_cheat_sheets_code_runs():
    from tiny import tiny

    (code,) = re.findall(r"```python\n(.*?)```", text("cheat-sheet"), re.DOTALL)
    lm = tiny("gpt2", num_hidden_layers=9)
    code = re.sub(r"^lm = .*$", "", code, flags=re.MULTILINE)
    names = {"lm": lm, "base": "The city of Rome", "source": "The city of Cairo"}
    exec(code, names)
    assert names["logits"].shape[-1] == 50257
    assert (names["logits"][0, -1] - lm(names["source"])[0, -1]).abs().max() < 1e-3, "the last block's whole last token"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_has_a_title_and_becomes_html(path):
    source = path.read_text(encoding="utf-8")
    document = handouts.page(source, "a4")
    assert len(re.findall(r"<h1>", document)) == 1
    assert "size: A4" in document and "size: Letter" in handouts.page(source, "letter")
    assert "```" not in document and "| --- |" not in document and "columns:\n" not in document
    assert not re.search(r"<(script|link|img)", document), "nothing is fetched from outside"


def test_the_four_libraries_stand_side_by_side():
    document = handouts.page(text("rosetta"), "a4")
    grids = re.findall(
        r'<div class="libraries">(.*?)</div></div>\n?</div>|<div class="libraries">', document, re.DOTALL
    )
    assert len(grids) == 5
    assert document.count('<div class="library">') == 20


def test_papers_have_one_address_each_and_numbers_that_can_be():
    found = re.findall(r"\[([^\]]+)\]\((https://[^)]+)\)", text("resources"))
    assert len(found) > 20
    for label, link in found:
        if "arxiv.org" in link:
            assert link == f"https://arxiv.org/abs/{label}" and re.fullmatch(r"\d{4}\.\d{4,5}", label)
    assert len({link for _, link in found}) >= len(found) - 1


def test_every_paper_of_the_notebooks_is_in_the_resources():
    cited = {
        n for path in handouts.NOTEBOOKS for n in re.findall(r"arxiv\.org/abs/([\d.]+)\)", path.read_text("utf-8"))
    }
    assert len(cited) > 20 and cited - set(re.findall(r"arxiv\.org/abs/([\d.]+)\)", text("resources"))) == set()


def test_the_glossary_is_in_order_and_says_each_term_once():
    terms = [term.split(",")[0].lower() for term in re.findall(r"^\*\*(.+?)\*\*", text("glossary"), re.MULTILINE)]
    assert len(terms) >= 30 and terms == sorted(terms) and len(set(terms)) == len(terms)


@pytest.mark.slow
def test_all_pages_print(tmp_path):
    browser = handouts.browser()
    if browser is None:
        (pytest.fail if os.environ.get("GLASS_BOX_REQUIRE_BROWSER") == "1" else pytest.skip)("no browser")
    for paper in handouts.PAPERS:
        for name, source in handouts.pages().items():
            pdf = tmp_path / f"{name}-{paper}.pdf"
            handouts.printed(browser, handouts.page(source, paper), pdf)
            count = len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf.read_bytes()))
            one = name in ONE_PAGE or name.startswith("worksheet")
            assert count == 1 if one else 1 <= count <= 6, f"{name} takes {count} pages of {paper}"


@pytest.mark.parametrize("path", handouts.NOTEBOOKS, ids=lambda path: path.stem)
def test_a_worksheet_asks_what_its_notebook_asks(path):
    sheet = handouts.worksheet(path)
    source = path.read_text(encoding="utf-8")
    assert sheet.count('<div class="ask">') == len(re.findall(r'"predict\(', source)) > 0
    assert "**?** …\n" not in sheet
    for question in re.findall(r"\*\*\?\*\* (.*)", sheet):
        assert re.search(r"[.?…:)]$", question), f"a question that breaks off: {question}"
    assert re.findall(r"☐ \*\*(Exercise .*?)\*\*", sheet) == re.findall(r"### (Exercise .*?)\\n", source)
    assert sheet.count("☐ **") >= 3 and "## One sentence to keep" in sheet
    assert not re.search(r"## Go deeper\n\n## One", sheet)


def test_without_a_browser_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(handouts.shutil, "which", lambda name: None)
    assert handouts.main() == 1 and "install one of chromium" in capsys.readouterr().err


def answers(link: str) -> int:
    """The status with which an address answers; some servers refuse HEAD, and some refuse programs (403, 429), which still is an answer."""
    for method in ("HEAD", "GET"):
        request = urllib.request.Request(link, method=method, headers={"User-Agent": "Mozilla/5.0 (link check)"})
        try:
            with urllib.request.urlopen(request, timeout=20) as reply:
                return reply.status
        except urllib.error.HTTPError as error:
            if method == "GET" or error.code == 404:
                return error.code
    raise AssertionError("unreachable")


@pytest.mark.slow
def test_every_link_on_paper_leads_somewhere():
    links = {link for path in PAGES for link in re.findall(r"\]\((https://[^)]+)\)", path.read_text(encoding="utf-8"))}
    assert len(links) > 20
    try:
        answers("https://arxiv.org/abs/2202.05262")
    except OSError as error:
        pytest.skip(f"links are checked where there is a network, and here: {error}")
    assert {link: code for link in sorted(links) if (code := answers(link)) in (404, 410) or code >= 500} == {}
