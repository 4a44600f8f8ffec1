"""The live view of patches: what it shows is what the library computes, live or not, and the last thing asked for counts."""

from __future__ import annotations

import threading
import time

import plain
import pytest
from pages import Page
from tiny import tiny

from interp_helpers import Site, intervene, logit_diff, patch_sweep, record, replace
from interp_helpers.engine import stop_if_asked
from interp_helpers.models import ALONE
from interp_helpers.plotting.display import VIEW
from interp_helpers.prompts.banks import Pair
from interp_helpers.sweeps import LivePatches, laid_over, live_events
from interp_helpers.widgets import LIVE_VIEW, live_patching
from interp_helpers.widgets import live as widgets

BASE, SOURCE = "The city of Rome is in", "The city of Paris is in"
LONG = Pair(BASE, SOURCE, "Rome", "Paris", " Italy", " France", "test")
TAGS = Pair("<b>&x</b> is", "<i>&y</i> is", "x", "y", " a", " b", "test")
WORDS = (" Italy", " France")


@pytest.fixture(scope="module")
def lm():
    return tiny("llama", num_hidden_layers=12)


def whole(lm, **asked):
    state = {}
    for event in live_events(lm, **{"base": BASE, "source": SOURCE} | asked):
        state = laid_over(state, event)
    return state


# -- what it computes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("component, name", LivePatches.COMPONENTS.items())
def test_its_maps_are_the_librarys(lm, component, name):
    expected = patch_sweep(lm, BASE, SOURCE, logit_diff(lm, " France", " Italy"), name, normalize=True).values
    live = LivePatches(lm, BASE, SOURCE, component, words=WORDS)
    seen = []
    for sweep in live.sweeps():
        plain.close(sweep.values, expected[sweep.labels["layer"]])
        seen.append(len(sweep.labels["layer"]))
    assert seen == [5, 9, 12]
    state = whole(lm, component=component, words=WORDS)
    assert state["values"] == [[pytest.approx(x, abs=1e-4) for x in row] for row in expected.tolist()]
    assert (state["layers"], state["of"], state["words"]) == (list(range(12)), 12, WORDS)


@pytest.mark.parametrize("metric", LivePatches.METRICS)
def test_every_metric_has_a_map_and_a_finding(lm, metric):
    state = whole(lm, metric=metric, words=WORDS)
    assert "problem" not in state and len(state["values"]) == 12
    assert state["said"].startswith("The patch that changes most is at layer ")
    values = [abs(x - state["ends"][0]) for row in state["values"] for x in row][:-1]
    layer = int(state["said"].split("layer ")[1].split(",")[0])
    assert max(values) == pytest.approx(max(abs(x - state["ends"][0]) for x in state["values"][layer]), abs=1e-3)


def test_words_are_each_prompts_own_unless_they_are_named(lm):
    own = tuple(lm.top(prompt, 1)[0][0] for prompt in (BASE, SOURCE))
    assert LivePatches(lm, BASE, SOURCE).words == own
    assert LivePatches(lm, BASE, SOURCE, words=("", " France")).words == (own[0], " France")


def test_a_words_first_space_may_be_left_out_where_the_prompts_own_has_one(lm, monkeypatch):
    for likeliest, typed, meant in (
        (" x", "France", " France"),
        (" x", " France", " France"),
        ("x", "France", "France"),
    ):
        monkeypatch.setattr(lm, "top_of", lambda logits, k, token=likeliest: [(token, 1.0)])
        assert LivePatches(lm, BASE, SOURCE, words=(" ", typed)).words == (likeliest, meant)


@pytest.mark.parametrize("component, name", LivePatches.COMPONENTS.items())
@pytest.mark.parametrize("to", [3, 1])
def test_its_next_tokens_are_those_of_a_patch_by_hand(lm, component, name, to):
    read = Site(name, 7, 3)
    with intervene(lm, replace(Site(name, 7, to), record(lm, SOURCE, read)[read])):
        expected = lm.top(BASE, 5)
    found = LivePatches(lm, BASE, SOURCE, component).top_tokens(7, 3, to)
    for one, other in ((found["patched"], expected), (found["base"], lm.top(BASE)), (found["source"], lm.top(SOURCE))):
        assert [token for token, _ in one] == [token for token, _ in other]
        assert [p for _, p in one] == pytest.approx([p for _, p in other], rel=1e-3)


def test_a_coarse_finding_says_that_it_is_coarse(lm):
    first, *_, last = [
        live.finding(sweep) for live in [LivePatches(lm, BASE, SOURCE, words=WORDS)] for sweep in live.sweeps()
    ]
    assert "So far 5 of 12 layers are measured." in first and "So far" not in last


PROBLEMS = [
    ({"base": ""}, "The base prompt is empty: write a sentence"),
    ({"source": "  "}, "The source prompt is empty"),
    ({"source": "The"}, "The source prompt has 1 token, and 2 to 40 are taken: write more"),
    ({"source": "one " * 60}, "and 2 to 40 are taken: shorten it"),
    ({"source": "The city of Paris"}, "The base prompt has 6 tokens and the source prompt 4, and patches go"),
    ({"source": BASE}, "Both prompts are the same"),
    ({"words": (" a", " a")}, "Both prompts go on with ' a'"),
    ({"words": (" Italy", " incomprehensibilities")}, "one token was expected"),
    ({"component": "soul"}, "There is no component 'soul': choose one of residual stream"),
    ({"metric": "taste"}, "There is no metric 'taste'"),
    ({"cell": {"layer": 99, "position": 0}}, "99"),
    ({"cell": {"layer": 0, "position": 0, "to": 9}, "map": False}, "Position 9 is outside"),
]  # fmt: skip


@pytest.mark.parametrize("asked, says", PROBLEMS)
def test_what_can_not_be_shown_is_a_sentence_in_place_of_the_map(lm, asked, says):
    before = plain.snapshot(lm)
    state = whole(lm, **asked)
    assert says in state["problem"] and "values" not in state
    plain.assert_untouched(lm, before)


def test_new_tokens_take_the_old_map_away():
    old = {"tokens": 1, "words": 2, "values": 3, "said": 4, "cell": 5, "top": 6, "waiting": 7}
    assert laid_over(old, {"tokens": 8}) == {"tokens": 8, "words": 2}, "and the next words of the old prompts, too"
    assert laid_over(old, {"problem": "!", "tokens": None}) == {"tokens": None, "words": 2, "problem": "!"}
    assert laid_over(old, {"cell": 9}) == {name: old[name] for name in old if name != "waiting"} | {"cell": 9}
    assert laid_over({"problem": "!", "tokens": 1}, {"tokens": 2}) == {"tokens": 2}


def test_a_cell_that_new_prompts_do_not_have_is_left_out(lm):
    state = whole(lm, base="In Rome", source="In Paris", cell={"layer": 3, "position": 5, "to": 1})
    assert "problem" not in state and "top" not in state and len(state["values"]) == 12
    state = whole(lm, source="The city of Paris", cell={"layer": 3, "position": 5, "to": 1})
    assert "patches go from a token" in state["problem"] and len(state["tokens"][1]) == 4


# -- without a browser --------------------------------------------------------------------------------------------------


def test_it_shows_itself_as_text_html_and_widget(lm):
    shown = live_patching(lm, [LONG]).choose(layer=7, position=3)
    bundle = shown._repr_mimebundle_()
    assert set(bundle) == {VIEW, "text/html", "text/plain"}
    page, patched = Page(bundle["text/html"]), LivePatches(lm, BASE, SOURCE).top_tokens(7, 3)["patched"][0][0]
    assert page and 'data-layer="7"' in bundle["text/html"] and f"patched: {patched!r}" in bundle["text/plain"]
    assert bundle["text/plain"].startswith(f"{BASE} ← {SOURCE}\nThe patch that changes most")
    assert "layer 7, token 3 to token 3:" in bundle["text/plain"]
    shown.choose(to=1)
    assert "layer 7, token 3 to token 1:" in repr(shown) and "layer=7" not in repr(shown)


def test_tags_and_problems_are_escaped(lm):
    shown = live_patching(lm, [TAGS])
    assert "<b>&x" not in shown.html and "<i>" not in shown.html
    shown.choose(source="<script>alert()</script>")
    assert "<script>" not in shown.html and "patches go from a token" in shown.html and "patches go" in repr(shown)


def test_it_begins_with_the_first_example_or_with_the_opening(lm):
    assert live_patching(lm, [LONG]).words == (" Italy", " France")
    assert "Colosseum" in live_patching(lm).base
    with pytest.raises(ValueError, match="There is no 'pair' to choose: base, source,"):
        live_patching(lm).choose(pair=LONG)


def test_without_ipywidgets_the_html_is_shown(lm, monkeypatch):
    monkeypatch.setattr(widgets, "_view", lambda: exec("raise ImportError"))
    assert set(live_patching(lm, [LONG])._repr_mimebundle_()) == {"text/html", "text/plain"}


# -- live ---------------------------------------------------------------------------------------------------------------


def until(condition, within=20):
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)


def test_what_is_typed_is_patched(lm, monkeypatch):
    monkeypatch.setattr(widgets, "PAUSE", 0.01)
    shown = live_patching(lm, [LONG])
    view = shown.widget
    assert view.state["of"] == 12 and view.state["asked"]["base"] == BASE and view._esm == LIVE_VIEW.read_text()
    asked = {**shown.asked, "base": "The river of Rome is in", "words": ["", ""], "map": True}
    seen = []
    view.observe(lambda change: seen.append(len(change["new"].get("layers", []))), names="state")
    view.asked = asked | {"number": 1}
    until(lambda: view.state.get("number") == 1 and view.state.get("layers") == list(range(12)))
    assert [n for n in seen if n] == [5, 9, 12] and shown.base == "The river of Rome is in"
    assert shown.words == ["", ""] and "river" in repr(shown)
    expected = whole(lm, base="The river of Rome is in")
    assert view.state["values"] == expected["values"]
    view.asked = asked | {"number": 2, "map": False, "cell": {"layer": 5, "position": 2, "to": 4}}
    until(lambda: view.state.get("number") == 2)
    assert view.state["values"] == expected["values"], "the map stays"
    assert (shown.layer, shown.position, shown.to) == (5, 2, 4)
    view.asked = asked | {"number": 3, "base": "too short"}
    until(lambda: "problem" in view.state)
    view.asked = asked | {"number": 4}
    until(lambda: view.state.get("layers") == list(range(12)) and view.state["number"] == 4)
    assert "problem" not in view.state


def working(work):
    put = []
    worker = widgets.Worker(work, lambda asked, event: put.append((asked, event)))
    return worker, put


def test_only_the_last_of_many_keystrokes_is_worked_out():
    begun = []

    def work(asked):
        begun.append(asked["number"])
        yield {"words": asked["number"]}
        yield {"map": asked["number"]}

    worker, put = working(work)
    for number in range(10):
        worker.ask({"number": number})
        time.sleep(0.02)
    until(lambda: any("map" in event for _, event in put))
    assert [event["map"] for _, event in put if "map" in event] == [9] and begun[-1] == 9


def test_a_keystroke_stops_a_sweep_that_runs():
    def work(asked):
        if asked["number"] == 0:
            while True:
                time.sleep(0.01)
                stop_if_asked()
        yield {"done": asked["number"]}

    worker, put = working(work)
    worker.ask({"number": 0})
    time.sleep(0.1)
    worker.ask({"number": 1})
    until(lambda: put)
    assert put == [({"number": 1}, {"done": 1})]


def test_what_fails_inside_is_told_and_the_next_goes_on():
    def work(asked):
        yield {"done": 1 / asked["number"]}

    worker, put = working(work)
    worker.ask({"number": 0})
    until(lambda: put)
    assert "Something failed inside (ZeroDivisionError" in put[0][1]["problem"]
    worker.ask({"number": 2})
    until(lambda: len(put) == 2)
    assert put[1][1] == {"done": 0.5}


def test_it_waits_for_another_threads_runs_and_says_so(lm):
    worker, put = working(lambda asked: iter([{"top": lm.top(BASE, 1)}]))
    with intervene(lm, replace(Site("block_output", 0, -1), record(lm, SOURCE, "block_output"))):
        changed = lm.top(BASE, 1)
        worker.ask({"number": 0})
        until(lambda: put)
        assert "Another cell runs the model" in put[0][1]["waiting"]
        assert len(put) == 1
    until(lambda: len(put) == 2)
    assert put[1][1]["top"] == lm.top(BASE, 1) and changed


def test_two_threads_hooks_never_meet(lm):
    """Each thread patches another place over and over; each gets what it gets alone."""
    source = record(lm, SOURCE, "block_output")

    def patched(layer):
        with intervene(lm, replace(Site("block_output", layer, 3), source)):
            return lm.next_token_logits(BASE)

    alone = {layer: patched(layer) for layer in range(4)}
    wrong = []

    def many(layer):
        for _ in range(15):
            if not patched(layer).allclose(alone[layer], atol=1e-5):
                wrong.append(layer)

    threads = [threading.Thread(target=many, args=(layer,)) for layer in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and ALONE.acquire(timeout=1)
    ALONE.release()
