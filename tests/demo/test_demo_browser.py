"""The live page as a visitor has it: a real browser, mouse, keyboard and a phone's width, on a tiny model.

Without a browser the tests are skipped, unless GLASS_BOX_REQUIRE_BROWSER=1 makes that a failure. Screenshots go to
build/screenshots.
"""

from __future__ import annotations

import copy
import re

import pytest
from browsers import SCREENSHOTS
from test_demo import CHAT, made, serving
from tiny import tiny

from interp_helpers.demo.app import create_app
from interp_helpers.demo.texts import Vectors

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address():
    lm = tiny("gpt2", max_position_embeddings=512, num_hidden_layers=12)
    lm.tokenizer = copy.deepcopy(lm.tokenizer)
    lm.tokenizer.chat_template = CHAT
    titles = {"warm": "Warmth", "cold": "Cold"}
    vectors = Vectors(made(lm), titles, lambda persona, layer: made(lm, layer)[persona])
    with serving(create_app(lm, vectors)) as url:
        yield url


@pytest.fixture
def page(browser, address):
    """The page, freshly loaded; at the end, no error may stand in the console, and no other host may have been asked."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(15_000)
    complaints, hosts = [], set()
    page.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: hosts.add(re.match(r"\w+:(//[^/]*)?", request.url)[0]))
    page.goto(address)
    page.locator("body[data-ready]").wait_for()
    yield page
    page.close()
    assert [text for text in complaints if "422" not in text] == []
    assert hosts <= {address, "data:"}


def finished(page) -> str:
    """The steered text, once it is there."""
    page.locator("#status", has_text=re.compile(r"\d tokens in")).wait_for()
    return page.locator("#steered").inner_text()


def slide(page, value: float) -> str:
    """Move the slider, and wait for the text that follows."""
    page.evaluate("document.getElementById('status').textContent = ''")
    page.get_by_label("Strength").first.fill(str(value))
    return finished(page)


def photograph(page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"demo-{name}.png", full_page=True)


def test_an_example_writes_both_texts(page):
    example = page.get_by_role("group", name="Example prompts").get_by_role("button").nth(1)
    prompt = example.inner_text()
    example.click()
    steered, base = finished(page), page.locator("#base").inner_text()
    assert steered.startswith(prompt) and base.startswith(prompt) and steered != base
    assert page.get_by_label("Prompt").first.input_value() == prompt
    assert page.locator("#announce").inner_text() == f"Done. With steering: {steered}"
    photograph(page, "desktop")


def test_a_chat_has_a_system_prompt_and_both_answers(page):
    assert page.get_by_label("System prompt").is_hidden()
    page.get_by_role("button", name="Ask in a chat").click()
    page.get_by_label("System prompt").fill("Never mention any animal.")
    question = page.get_by_role("group", name="Example questions").get_by_role("button").first
    with page.expect_request("**/stream") as sent:
        question.click()
    assert sent.value.post_data_json["system"] == "Never mention any animal."
    steered, base = finished(page), page.locator("#base").inner_text()
    for text in (steered, base):
        assert text.startswith(f"{question.inner_text()}\n") and len(text) > len(question.inner_text()) + 3
    assert steered != base and page.get_by_label("Question", exact=True).input_value() == question.inner_text()
    slide(page, 0.2)
    assert page.locator("#base").inner_text() == base, "the slider changes the steered answer alone"
    photograph(page, "chat")
    page.get_by_role("button", name="Ask in a chat").click()
    assert page.get_by_label("System prompt").is_hidden()
    with page.expect_request("**/stream") as sent:
        page.get_by_role("group", name="Example prompts").get_by_role("button").first.click()
    assert sent.value.post_data_json["system"] is None
    finished(page)


def test_the_slider_changes_the_steered_text_alone(page):
    page.get_by_role("button", name="Write").click()
    first, base = finished(page), page.locator("#base").inner_text()
    ends = {value: slide(page, value) for value in (-1, 1)}
    assert len({first, *ends.values()}) == 3
    assert page.locator("#shown").inner_text() == "1.00" and page.locator("#base").inner_text() == base
    assert page.locator("#steered .token.up.strong").count() and page.locator("#steered .token.down").count()
    assert slide(page, 0) == base
    assert page.locator("#steered .token.strong").count() == 0
    assert slide(page, 1) == ends[1], "the same seed, the same text"


def test_moving_on_breaks_off_what_is_being_written(page):
    page.get_by_label("Strength").first.fill("1")
    page.get_by_role("button", name="Write").click()
    wanted = finished(page)
    for value in (-1, -0.5, 0, 0.5, 0.9):
        page.get_by_label("Strength").first.fill(str(value))
        page.wait_for_timeout(60)
    assert slide(page, 1) == wanted and page.locator("#base").inner_text() != ""
    assert page.request.get("/health".join([page.url.rstrip("/"), ""])).json()["busy"] is False


def test_two_personas_have_a_slider_each(page):
    assert page.locator("#strength2").is_hidden()
    page.get_by_label("Mixed with").select_option("Cold")
    assert page.get_by_label("Strength · Cold").is_visible() and page.get_by_label("Strength · Warmth").is_visible()
    page.get_by_role("button", name="Write").click()
    first = finished(page)
    page.evaluate("document.getElementById('status').textContent = ''")
    page.get_by_label("Strength · Cold").fill("-1")
    assert finished(page) != first
    assert page.locator("#applied").inner_text() == "Warmth 0.55 and Cold −1.00"


def test_a_tokens_number_for_the_mouse_and_for_the_keyboard(page):
    page.get_by_role("button", name="Write").click()
    finished(page)
    token = page.locator("#steered .token").first
    token.hover()
    tip = page.locator("#tip")
    tip.wait_for()
    assert re.fullmatch(
        r"[+−]?\d+\.\d\d · (as likely as without|[\d,.over ]+ times (likelier|less likely))", tip.inner_text()
    )
    page.mouse.move(5, 5)
    tip.wait_for(state="hidden")
    page.locator("#steered").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator("#steered .token.here").count() == 1 and tip.is_visible()
    assert "likel" in page.locator("#announce").inner_text()
    page.keyboard.press("Escape")
    assert tip.is_hidden()


def test_the_keyboard_reaches_every_control(page):
    page.get_by_text("Layer, temperature, length, seed").click()
    page.get_by_role("button", name="Write").click()
    finished(page)
    page.evaluate("document.getElementById('status').textContent = ''")
    page.get_by_label("Mixed with").select_option("Cold")
    finished(page)
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    page.locator("h1").click()
    reached, outlined = set(), True
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        outlined &= page.evaluate(
            "document.activeElement === document.body || getComputedStyle(document.activeElement).outlineStyle !== 'none'"
        )
    wanted = page.evaluate(
        "[...document.querySelectorAll('button, input, select, textarea, summary, a')]"
        ".filter(e => !e.disabled && e.checkVisibility()).map(e => e.id || e.textContent.trim())"
    )
    assert set(wanted) | {"steered"} <= reached, set(wanted) - reached
    assert outlined


def test_every_control_has_a_name(page):
    nameless = page.evaluate(
        "[...document.querySelectorAll('input, select, textarea')].filter(e => !e.labels.length || !e.labels[0].textContent.trim())"
        ".map(e => e.id)"
    )
    assert nameless == []
    page.get_by_label("Strength").first.fill("-0.5")
    assert page.locator("#strength").get_attribute("aria-valuetext") == "−0.50, away from Warmth"


def test_an_error_is_shown_as_the_server_says_it(page):
    page.get_by_label("Prompt").first.fill("   ")
    page.get_by_role("button", name="Write").click()
    alert = page.get_by_role("alert")
    alert.get_by_text("prompt is '   ', and a text of 1 to 2000 characters").wait_for()
    page.get_by_label("Prompt").first.fill("Better")
    page.get_by_role("button", name="Write").click()
    finished(page)
    assert alert.inner_text() == ""


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_scrolls_one_way(page, width):
    page.set_viewport_size({"width": width, "height": 780})
    page.get_by_text("Layer, temperature, length, seed").click()
    page.get_by_role("button", name="Write").click()
    finished(page)
    page.locator("#steered .token").last.hover()
    page.locator("#tip").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    base, steered = (page.locator(f"#{side}").bounding_box() for side in ("base", "steered"))
    assert steered["y"] > base["y"] + base["height"] and abs(steered["x"] - base["x"]) < 1, "one column"
    small = page.evaluate("[...document.querySelectorAll('button, select, input, summary')].filter(e => e.offsetHeight && e.offsetHeight < 32).length")  # fmt: skip
    assert small == 0, "large enough for a thumb"
    photograph(page, f"phone-{width}")


def test_motion_can_be_turned_off(page):
    page.emulate_media(reduced_motion="reduce")
    page.evaluate("document.getElementById('base').classList.add('writing')")
    assert page.evaluate("getComputedStyle(document.getElementById('base'), '::after').animationName") == "none"


# -- where is it? -------------------------------------------------------------------------------------------------------


@pytest.fixture
def patches(page):
    """The second view, with the first example's map."""
    page.get_by_role("link", name="Where is it?").click()
    view = page.locator("#patches")
    page.locator("#patches[data-state=whole]").wait_for()
    return view


def compare(page, view, base: str, source: str) -> None:
    view.get_by_label("Base: the prompt").fill(base)
    view.get_by_label("Source: the prompt").fill(source)
    page.locator("#patches .old").first.wait_for(state="detached")
    page.locator("#patches[data-state=whole]").wait_for()


def test_the_views_have_addresses_and_one_is_seen_at_a_time(page, patches):
    assert page.url.endswith("#where") and page.get_by_label("Persona").is_hidden()
    assert page.get_by_role("link", name="Where is it?").get_attribute("aria-current") == "page"
    photograph(page, "where")
    page.get_by_role("link", name="Steer").click()
    assert page.get_by_label("Persona").is_visible() and patches.is_hidden()
    page.goto(page.url.replace("#steer", "#where"))
    assert patches.is_visible()


def test_what_is_typed_is_patched_and_a_keystroke_drops_what_was_asked_for(page, patches):
    asked = []
    page.on("request", lambda request: request.url.endswith("/patch") and asked.append(request.post_data_json["base"]))
    base = patches.get_by_label("Base: the prompt")
    base.click()
    page.keyboard.press("Control+A")
    page.keyboard.type("The city of Rome is in", delay=20)
    patches.get_by_label("Source: the prompt").fill("The city of Paris is in")
    page.locator("#patches .map th", has_text="Paris → Rome").wait_for()
    page.locator("#patches[data-state=whole]").wait_for()
    assert len(asked) <= 3, "nobody is asked for every letter"
    assert "The patch that changes most is at layer " in patches.locator(".said").inner_text()
    for noun in ("river", "tower", "city", "song"):
        base.fill(f"The {noun} of Rome is in")
        page.wait_for_timeout(280)
    page.locator("#patches .map th", has_text="city → song").wait_for()
    page.locator("#patches[data-state=whole]").wait_for()
    assert page.request.get(f"{page.url.split('#')[0]}health").json()["waiting"] == 0


def test_a_cell_is_chosen_and_sent_by_mouse_and_by_keyboard(page, patches):
    compare(page, patches, "The city of Rome is in", "The city of Paris is in")
    patches.get_by_role("gridcell", name="layer 5, token 3  Rome").click()
    patches.locator(".site[data-layer='5'][data-position='3'][data-to='3'] td").first.wait_for()
    assert patches.locator(".top th").all_inner_texts() == ["base run", "patched", "source run"]
    patches.get_by_label("is sent to").select_option("1")
    patches.locator(".site[data-to='1'] td").first.wait_for()
    patches.get_by_role("gridcell", name="layer 5, token 3  Rome").focus()
    for key in ("ArrowRight", "ArrowUp", " "):
        page.keyboard.press(key)
    patches.locator(".site[data-layer='6'][data-position='2'] td").first.wait_for()
    assert patches.locator("[aria-selected=true]").count() == 1
    photograph(page, "where-sent")


def test_what_can_not_be_compared_is_a_sentence_and_the_form_lives_on(page, patches):
    patches.get_by_label("Base: the prompt").fill("Rome")
    page.locator("#patches[data-state=problem]").wait_for()
    assert "tokens and the source prompt" in patches.get_by_role("alert").inner_text()
    patches.get_by_label("Base: the prompt").fill("one " * 60)
    patches.get_by_text("and 2 to 40 are taken: shorten it.").wait_for()
    compare(page, patches, "The city of Rome is in", "The city of Paris is in")
    assert patches.get_by_role("alert").inner_text() == ""
    patches.get_by_label("The source’s word").fill("incomprehensibilities")
    patches.get_by_text("one token was expected").wait_for()


@pytest.mark.parametrize("width", [320, 1280])
def test_the_second_view_fits_and_every_control_has_a_name(page, patches, width):
    page.set_viewport_size({"width": width, "height": 780})
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    for control in patches.locator("input, select").all():
        assert control.evaluate("e => e.labels.length === 1 && e.labels[0].textContent.trim() !== ''")
    photograph(page, f"where-{width}")
