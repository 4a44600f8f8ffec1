"""The page's second view: what it streams is what the library computes, what it refuses and how, and a room of thirty."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import httpx
import plain
import pytest
from fastapi.testclient import TestClient
from test_demo import ask, held, is_a_sentence, leave_later, serving, until
from tiny import tiny

from interp_helpers import logit_diff, patch_sweep
from interp_helpers.demo.app import create_app
from interp_helpers.demo.queue import POLL
from interp_helpers.engine import stop_if_asked
from interp_helpers.sweeps import LivePatches, laid_over

BASE, SOURCE = "The city of Rome is in", "The city of Paris is in"
WORDS = [" Italy", " France"]


@pytest.fixture(scope="module")
def lm():
    return tiny("gpt2", num_hidden_layers=12, max_position_embeddings=512)


@pytest.fixture(scope="module")
def client(lm):
    with TestClient(create_app(lm, held(lm))) as client:
        yield client


def wanted(**fields):
    return {"base": BASE, "source": SOURCE, "words": WORDS} | fields


def events(answer):
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/x-ndjson", answer.text
    assert answer.headers["cache-control"] == "no-store"
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert found.pop() == {"done": True}
    return found


def test_the_map_comes_in_steps_and_is_the_librarys(client, lm):
    found = events(client.post("/patch", json=wanted()))
    assert list(found[0]) == ["tokens"] and found[1] == {"words": WORDS}
    assert [len(event["layers"]) for event in found[2:]] == [5, 9, 12]
    expected = patch_sweep(lm, BASE, SOURCE, logit_diff(lm, " France", " Italy"), normalize=True).values
    for event in found[2:]:
        for layer, row in zip(event["layers"], event["values"], strict=True):
            assert row == pytest.approx(expected[layer].tolist(), abs=1e-4)
        assert event["said"].endswith("layers are measured.") == (len(event["layers"]) < 12)


@pytest.mark.parametrize("component", LivePatches.COMPONENTS)
@pytest.mark.parametrize("metric", LivePatches.METRICS)
def test_every_choice_has_a_map(client, component, metric):
    *_, last = events(client.post("/patch", json=wanted(component=component, metric=metric)))
    assert len(last["values"]) == 12


def test_a_cell_by_itself_and_with_the_map(client, lm):
    cell = {"layer": 7, "position": 3, "to": 1}
    (alone,) = events(client.post("/patch", json=wanted(cell=cell, map=False)))
    expected = LivePatches(lm, BASE, SOURCE, words=WORDS).patch(**cell)
    assert alone["cell"] == cell and alone["top"].keys() == expected["top"].keys()
    for name, top in alone["top"].items():
        assert [token for token, _ in top] == [token for token, _ in expected["top"][name]]
    _tokens, _words, first, *rest = events(client.post("/patch", json=wanted(cell={"layer": 7, "position": 3})))
    assert first["cell"] == {"layer": 7, "position": 3, "to": 3} and len(rest[-1]["values"]) == 12


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"base": " "}, "The base prompt is empty"),
        ({"source": "The"}, "The source prompt has 1 token, and 2 to 40"),
        ({"source": "The city"}, "The base prompt has 6 tokens and the source prompt 2"),
        ({"source": BASE}, "Both prompts are the same"),
        ({"words": [" a", " incomprehensibilities"]}, "one token was expected"),
        ({"cell": {"layer": 7, "position": 9}, "map": False}, "Position 9 is outside"),
        ({"cell": {"layer": 99, "position": 1}}, "99"),
    ],
)
def test_what_can_not_be_compared_is_told_in_place_of_the_map(client, changes, says):
    state = {}
    for event in events(client.post("/patch", json=wanted(**changes))):
        state = laid_over(state, event)
    assert says in state["problem"] and state["problem"].endswith(".") and "values" not in state


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"base": "one " * 41}, "The base prompt has 42 tokens, and 2 to 40 are taken: shorten it."),
        ({"source": "one " * 60}, "The source prompt has 61 tokens, and 2 to 40"),
        ({"base": "a" * 2001}, "base is 'aaa"),
        ({"source": None}, "source is None, and a text of at most 2000 characters was expected"),
        ({"component": "soul"}, "component is 'soul', and 'residual stream' or 'attention' or 'MLP' was expected"),
        ({"metric": "taste"}, "metric is 'taste', and 'logit difference' or"),
        ({"words": ["a"]}, "words is ['a'], and a list of two texts"),
        ({"words": ["a", "b" * 101]}, "words is ['a', 'bbb"),
        ({"cell": {"layer": -1, "position": 0}}, "cell is {"),
        ({"cell": {"layer": 1, "position": 40}}, "cell is {"),
        ({"map": "yes"}, "map is 'yes', and true or false was expected"),
        ({"prompt": "x"}, "There is no field 'prompt', and base, source, "),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_a_sentence(client, changes, says):
    answer = client.post("/patch", json=wanted(**changes))
    assert answer.status_code == 422 and says in is_a_sentence(answer)


def test_the_page_offers_what_the_api_takes(client):
    offered = client.get("/examples").json()["patches"]
    assert offered["components"] == list(LivePatches.COMPONENTS) and offered["metrics"] == list(LivePatches.METRICS)
    assert len(offered["examples"]) >= 6
    for example in offered["examples"]:
        *_, last = events(client.post("/patch", json=example))
        assert "problem" not in last, last


def test_the_page_has_the_notebooks_view_in_it(client):
    assert "export function liveMap" in client.get("/").text and "/* live.js */" not in client.get("/").text


def test_thirty_at_once_each_get_what_they_get_alone(lm):
    bodies = [
        wanted(base=f"The {noun} of Rome is in", source=f"The {noun} of Paris is in", metric=metric)
        for noun in ("city", "river", "tower", "house", "king", "sun", "sea", "food", "song", "law")
        for metric in LivePatches.METRICS
    ]

    async def streamed(client, body):
        answer = await client.post("/patch", json=body)
        return [json.loads(line) for line in answer.text.splitlines()]

    async def crowd(url):
        async with httpx.AsyncClient(base_url=url, timeout=120, limits=httpx.Limits(max_connections=40)) as client:
            steered = client.post("/generate", json=ask())
            together = await asyncio.gather(steered, *(streamed(client, body) for body in bodies))
            return [await streamed(client, body) for body in bodies], together[1:]

    with serving(create_app(lm, held(lm))) as url:
        alone, together = asyncio.run(crowd(url))
        health = httpx.get(f"{url}/health", timeout=60).json()
    assert any("waiting" in event for found in together for event in found)
    for mine, other in zip(together, alone, strict=True):
        mine = [event for event in mine if "waiting" not in event]
        assert mine[-1] == {"done": True} and len(mine) == len(other) == 6
        for one, two in zip(mine[2:-1], other[2:-1], strict=True):
            assert [pytest.approx(row, abs=1e-4) for row in one["values"]] == two["values"]
    assert not health["busy"] and health["waiting"] == 0


def test_who_types_on_stops_what_was_asked_for_at_once(lm, monkeypatch):
    """A sweep that would take a minute ends when its client hangs up, within a forward pass and a look at the connection."""
    ended = threading.Event()

    def forever(self, base, source, *args, **kwargs):
        try:
            for _ in range(3000):
                time.sleep(0.02)
                stop_if_asked()
        finally:
            ended.set()
        yield

    monkeypatch.setattr("interp_helpers.sweeps.live.patch_sweep", forever)
    with serving(create_app(lm, held(lm))) as url, httpx.Client(base_url=url, timeout=30) as client:
        leave = leave_later(url, "/patch", wanted())
        until(lambda: client.get("/health").json()["busy"])
        time.sleep(0.3)
        began = time.monotonic()
        leave()
        assert ended.wait(10) and time.monotonic() - began < POLL + 2
        until(lambda: not client.get("/health").json()["busy"])
        monkeypatch.undo()
        assert events(client.post("/patch", json=wanted()))


def test_the_model_is_as_it_was(client, lm):
    before = plain.snapshot(lm)
    client.post("/patch", json=wanted(cell={"layer": 1, "position": 1}))
    plain.assert_untouched(lm, before)
