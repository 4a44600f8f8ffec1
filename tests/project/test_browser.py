"""A learner's hour in small: real JupyterLab in a real browser, keyboard and mouse.

A shortened copy of notebook 1 is opened and *Run All* chosen; then predictions, quiz, figures, the folded section and
the map of patches are used as a person would. Screenshots go to build/screenshots. Without a browser the tests are skipped,
unless GLASS_BOX_REQUIRE_BROWSER=1 makes that a failure.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest
from browsers import SCREENSHOTS, need

from interp_helpers.course import registry

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.browser
NOTEBOOK = ROOT / "notebooks" / "01_activation_patching.ipynb"
TOKEN = "glass-box"
CELLS = """title setup-text setup imports question prompts tokens-text tokens metric-text metric ex1 ex1-cell ex1-solution
    sweep-text predict-token predict-layer sweep-scale sweep deeper ex3 ex3-cell explorer-text explorer recap quiz-text
    quiz progress""".split()


@pytest.fixture(scope="module")
def server(tmp_path_factory, browser):
    """The address of a JupyterLab with the shortened notebook in its folder."""
    need(shutil.which("jupyter-lab", path=str(Path(sys.executable).parent)), "JupyterLab is not installed")
    folder = tmp_path_factory.mktemp("lab")
    nb = nbformat.read(NOTEBOOK, as_version=4)
    by_id = {cell.id: cell for cell in nb.cells}
    nb.cells = [by_id[id] for id in CELLS]
    (folder / "notebooks").mkdir()
    nbformat.write(nb, folder / "notebooks" / "notebook.ipynb")
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "INTERP_MODEL": "offline",
        "INTERP_PROGRESS": str(folder / "progress.json"),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }
    arguments = ["--no-browser", "--allow-root", f"--ServerApp.port={port}", f"--IdentityProvider.token={TOKEN}"]
    command = [sys.executable, "-m", "jupyterlab", *arguments, f"--ServerApp.root_dir={folder / 'notebooks'}"]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        answers(f"http://127.0.0.1:{port}/api?token={TOKEN}", process, folder / "log.txt")
        yield f"http://127.0.0.1:{port}/lab/tree/notebook.ipynb?token={TOKEN}"
    finally:
        process.terminate()
        process.wait(30)


def answers(url: str, process: subprocess.Popen, log: Path, within: float = 90) -> None:
    """Wait until the server answers."""
    end = time.monotonic() + within
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except urllib.error.URLError:
            time.sleep(0.3)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def page(browser, server):
    """The notebook in the browser, after Run All."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(30_000)
    page.goto(server)
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60_000)
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.locator(".glassbox", has_text="Your progress").wait_for(state="attached", timeout=240_000)  # the last cell
    return page


def part(page, text: str, kind: str = ".jp-OutputArea-output"):
    """The output (or another part of the notebook) that has a piece of text in it, scrolled to."""
    found = page.locator(f".jp-Notebook {kind}", has_text=text).first
    found.scroll_into_view_if_needed()
    return found


def source(cell: str) -> str:
    """The source of a cell of the notebook."""
    return next(c.source for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.id == cell)


def photograph(page, name: str) -> None:
    page.wait_for_timeout(500)  # let the page settle
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def test_run_all_runs_everything_without_an_error(page):
    photograph(page, "end")
    assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']").count() == 0
    assert page.get_by_text("Error displaying widget").count() == 0
    part(page, "Afterwards you can", ".jp-MarkdownCell")
    photograph(page, "start")


def test_an_untouched_exercise_says_so_and_its_solution_is_folded(page):
    assert part(page, "Not attempted yet").locator(".glassbox-idle").count() == 1
    solution = page.locator(".jp-CodeCell", has_text="The solution passes the same check.").first
    assert solution.locator(".jp-Placeholder").count() >= 1, "the solution's code is behind a click"
    photograph(page, "exercise")


def prediction(page, cell: str):
    """The output of a cell that asks for a prediction."""
    question = re.search(r'predict\(\s*"[^"]+",\s*"([^"]+)"', source(cell))[1]
    return part(page, question.replace("*", ""))


def test_a_prediction_is_locked_in_by_a_click(page):
    asked = prediction(page, "predict-token")
    asked.get_by_role("radio").nth(2).click()
    asked.get_by_role("button", name="lock in my prediction").click()
    asked.get_by_role("status").get_by_text("You predict: a token in between").wait_for()
    assert asked.get_by_role("radio").first.is_disabled()
    assert asked.get_by_role("button", name="change my prediction").is_visible()
    photograph(page, "prediction")


def test_a_prediction_is_made_with_the_keyboard(page):
    asked = prediction(page, "predict-layer")
    before = int(asked.locator(".widget-readout").inner_text())
    asked.locator(".noUi-handle").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    for _ in range(5):  # on to the button
        page.keyboard.press("Tab")
        if asked.get_by_role("button", name="lock in my prediction").evaluate("b => b === document.activeElement"):
            break
    page.keyboard.press("Enter")
    asked.get_by_role("status").get_by_text(f"You predict: {before + 3}").wait_for()


def test_figures_carry_their_text_alternative(page):
    figures = page.locator(".jp-OutputArea-output img")
    figures.first.scroll_into_view_if_needed()
    photograph(page, "figure")
    assert figures.count() >= 1 and page.locator(".jp-RenderedImage").count() == 0
    for figure in figures.all():
        assert len(figure.get_attribute("alt") or "") > 40


def test_go_deeper_is_folded_and_was_run_all_the_same(page):
    heading = page.locator(".jp-MarkdownCell", has=page.get_by_role("heading", name="Go deeper"))
    heading.scroll_into_view_if_needed()
    assert not page.get_by_role("heading", name="Exercise 3").is_visible()
    photograph(page, "folded")
    heading.get_by_text(re.compile(r"\d+ cells hidden")).click()
    page.get_by_role("heading", name="Exercise 3").wait_for()
    assert page.locator(".glassbox-live").count() == 1


@pytest.fixture
def live(page):
    """The map of patches, and how to wait for a state of it."""
    live = page.locator(".glassbox-live")
    live.scroll_into_view_if_needed()
    return live


def reached(page, state: str) -> None:
    page.locator(f".glassbox-live[data-state='{state}']").wait_for()


def test_what_is_typed_has_a_coarse_map_then_a_whole_one(page, live):
    reached(page, "whole")  # the first example's, from the moment when the cell ran
    layers = live.locator(".map").get_attribute("data-layers")
    page.evaluate("""() => {  // every state that the view goes through
        const live = document.querySelector('.glassbox-live'); window.states = [];
        new MutationObserver(() => window.states.push(live.dataset.state + ' ' + (live.querySelector('.map')?.dataset.layers ?? 0)))
            .observe(live, {attributes: true, attributeFilter: ['data-state'], childList: true, subtree: true});
    }""")
    live.get_by_label("Base: the prompt").fill("The Colosseum is in the city of")
    live.get_by_label("Source: the prompt").click()
    page.keyboard.press("Control+A")
    page.keyboard.type("The Eiffel Tower is in the city of", delay=15)
    page.locator(".glassbox-live .said", has_text="to ' Paris'").wait_for()
    reached(page, "whole")
    states = page.evaluate("window.states")
    assert "coarse 5" in states and f"whole {layers}" in states, sorted(set(states))
    assert live.locator(".said").inner_text().startswith("The patch that changes most is at layer ")
    assert live.get_by_label("The base’s word").get_attribute("placeholder") == " Rome"
    photograph(page, "live")


def test_a_keystroke_drops_what_is_worked_on(page, live):
    source = live.get_by_label("Source: the prompt")
    for end in ("is in the city", "is in the city of", "is in the town of", "is in the city of"):
        source.fill(f"The Eiffel Tower {end}")
        page.wait_for_timeout(120)
    page.locator(".glassbox-live .said", has_text="to ' Paris'").wait_for()
    reached(page, "whole")
    source.fill("The Eiffel Tower is")
    reached(page, "problem")
    assert "patches go from a token to the one at the same place" in live.get_by_role("alert").inner_text()
    assert live.locator(".map").count() == 0 and "iffel | Tower | is" in live.locator(".said").inner_text()
    photograph(page, "live-problem")
    source.fill("The Eiffel Tower is in the city of")
    reached(page, "whole")
    assert live.get_by_role("alert").inner_text() == ""


def test_a_click_shows_what_one_patch_does_and_sends_it_elsewhere(page, live):
    live.get_by_role("gridcell", name="layer 10, token 2 osse").click()
    site = live.locator(".site[data-layer='10'][data-position='2'][data-to='2']")
    site.locator("td").first.wait_for()
    first = site.locator("tbody tr").first.inner_text()
    assert "Rome" in first and "Paris" in first
    site.get_by_label("is sent to").select_option("4")
    live.locator(".site[data-to='4'] td").first.wait_for()
    assert live.locator("tbody tr").last.inner_text() and site.count() == 0
    assert live.locator(".site tbody tr").first.inner_text() != first
    assert live.locator("td.chosen").count() == 1
    photograph(page, "live-sent")


def test_the_map_follows_the_keyboard(page, live):
    live.get_by_role("gridcell", name="layer 10, token 2 osse").focus()
    for key in ("ArrowRight", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    live.locator(".site[data-layer='11'][data-position='3'] td").first.wait_for()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("layer 11, token 3")
    live.get_by_label("is sent to").focus()
    page.keyboard.press("ArrowDown")
    live.locator(".site[data-layer='11'][data-to='4'] td").first.wait_for()
    assert page.evaluate("document.activeElement.tagName") == "SELECT"


def test_a_click_on_a_choice_shows_its_explanation(page):
    question = registry.find("quiz", "patching.quiz").questions[0]
    buttons = part(page, re.sub("[`*]", "", question.text)).get_by_role("button")
    for i in sorted(range(len(question.choices)), key=lambda i: question.choices[i].right):  # the right one last
        buttons.nth(i).click()
        page.get_by_text(re.split("[`*]", question.choices[i].feedback)[0][2:40]).wait_for()
    page.get_by_text(re.compile(r"1 of \d+ right so far")).wait_for()
    photograph(page, "quiz")


def test_it_can_be_read_in_the_dark(page):
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    page.locator(".lm-Menu-item", has_text="Theme").first.hover()
    page.get_by_role("menuitem", name="JupyterLab Dark", exact=True).click()
    page.wait_for_function("document.body.dataset.jpThemeLight === 'false'")
    page.locator(".glassbox-live").scroll_into_view_if_needed()
    photograph(page, "dark")
    for text in page.locator(".glassbox, .glassbox-live, .glassbox-live label").all():
        shade = text.evaluate("e => getComputedStyle(e).color").strip("rgba()").split(",")[:3]
        assert min(float(part) for part in shade) > 150, "light text on a dark page"
