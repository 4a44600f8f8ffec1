"""The live page's server: what it writes, what it refuses and how, and a room of thirty that shares one model."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import httpx
import pytest
import schemathesis
import torch
import uvicorn
from fastapi import HTTPException
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import some_or_many
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tiny import tiny

import interp_helpers.demo
from interp_helpers import SteeringVector, load_model, personas
from interp_helpers.__main__ import main
from interp_helpers.demo import app as demo_app
from interp_helpers.demo import patches, queue, serve
from interp_helpers.demo.app import create_app
from interp_helpers.demo.guard import BODY_BYTES
from interp_helpers.demo.queue import Gone, Room
from interp_helpers.demo.texts import Row, Vectors, write
from interp_helpers.steering import vector_path

ROOT = Path(__file__).parents[2]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
WARM = ["The sun is warm today", "A warm summer evening by the lake", "Hot tea, warm soup"]
COLD = ["The ice is cold today", "A cold winter morning by the lake", "Cold tea and ice"]
PROMPT = "Yesterday we went to"


@pytest.fixture(scope="module")
def lm():
    return tiny("gpt2", max_position_embeddings=512)


@pytest.fixture(scope="module")
def vectors(lm):
    return made(lm)


def held(lm, build=None):
    """The page's vectors, which are built where they are asked for."""
    titles = {"warm": "Warmth", "cold": "Cold"}
    return Vectors(made(lm), titles, build or (lambda persona, layer: made(lm, layer)[persona]))


def made(lm, layer=1):
    warm = SteeringVector.from_contrast(lm, WARM, COLD, layer, name="warm")
    return {
        "warm": SteeringVector(
            warm.direction, layer, name="warm", model=lm.name, scale=warm.scale, strength=0.8, mode="clamp"
        ),
        "cold": SteeringVector(-warm.direction, layer, name="cold", model=lm.name, scale=warm.scale, strength=0.5),
    }


@pytest.fixture(scope="module")
def client(lm):
    with TestClient(create_app(lm, held(lm))) as client:
        yield client


def ask(**fields):
    return {"prompt": PROMPT, "steering": "warm", "max_length": 12, "temperature": 0.7, "seed": 3} | fields


def texts(pieces):
    pieces = list(pieces)
    return tuple("".join(piece.text for piece in pieces if piece.side == side) for side in ("base", "steered"))


# -- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "opt"])
@pytest.mark.parametrize("prompt", [PROMPT, "Naïve 日本", "x"])
def test_greedy_rows_are_what_generate_writes(family, prompt):
    lm = tiny(family, max_position_embeddings=128)
    vector = made(lm)["warm"]
    base, steered = texts(write(lm, prompt, [(vector, 0.8)], 20, 0, 0))
    options = dict(repetition_penalty=1.1)
    assert base == lm.generate(prompt, 20, **options)
    with vector.apply(lm, 0.8):
        assert steered == lm.generate(prompt, 20, **options)
    assert base != steered
    assert texts(write(lm, prompt, [(vector, 0.8)], 20, 0, 0, base=False)) == ("", steered)


def test_a_shift_is_the_log_ratio_of_two_forward_passes(lm, vectors):
    pieces = [p for p in write(lm, PROMPT, [(vectors["warm"], 1.0)], 8, 0.7, 1) if p.side == "steered"]
    ids = lm.tokens(PROMPT)[0].tolist()
    for piece in pieces:
        token = lm.token_id(piece.text)
        plain = lm(torch.tensor([ids]))[0, -1].log_softmax(-1)[token]
        with vectors["warm"].apply(lm, 1.0):
            steered = lm(torch.tensor([ids]))[0, -1].log_softmax(-1)[token]
        assert piece.shift == pytest.approx((steered - plain).item(), abs=1e-3)
        ids.append(token)
    assert max(abs(piece.shift) for piece in pieces) > 0.1


def test_without_steering_both_sides_are_the_same(lm, vectors):
    for steering in ([], [(vectors["warm"], 0.0)]):
        pieces = list(write(lm, PROMPT, steering, 20, 1.0, 5))
        base, steered = texts(pieces)
        assert base == steered
        assert all(abs(piece.shift) < 1e-4 for piece in pieces if piece.side == "steered")


def test_a_seed_repeats_itself_and_leaves_the_global_state_alone(lm, vectors):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    once, twice, other = (texts(write(lm, PROMPT, [(vectors["warm"], 1.0)], 15, 1.0, seed)) for seed in (1, 1, 2))
    assert once == twice != other
    assert torch.equal(before, torch.get_rng_state())


def test_a_character_of_several_tokens_is_one_piece(lm):
    row = Row(lm, "steered", lm.tokens("x")[0].tolist(), 0, 0)
    tokens = lm.tokens(" 日本")[0].tolist()
    pieces = [piece for token in tokens for piece in row.add(token, 0.5)]
    assert "".join(piece.text for piece in pieces) == " 日本" and "\ufffd" not in str(pieces)
    assert 1 < len(pieces) < len(tokens)
    assert sum(piece.shift for piece in pieces) == pytest.approx(0.5 * len(tokens))


def test_a_text_ends_where_the_model_ends_it(lm, vectors, monkeypatch):
    first = list(write(lm, PROMPT, [], 1, 0, 0, base=False))[0].text
    monkeypatch.setattr(lm.model.generation_config, "eos_token_id", [0, lm.token_id(first)])
    assert list(write(lm, PROMPT, [], 20, 0, 0)) == []


def test_an_iterator_that_is_closed_takes_its_hooks_off(lm, vectors):
    plain = lm(PROMPT)
    pieces = write(lm, PROMPT, [(vectors["warm"], 2.0)], 20, 0, 0)
    next(pieces)
    pieces.close()
    assert torch.equal(lm(PROMPT), plain)


@pytest.mark.parametrize("temperature", [1e-300, 1e-6, 0.009, 0.011, 2.0])
@pytest.mark.parametrize("strength", [-2.0, 2.0])
def test_the_bounds_are_safe(lm, vectors, temperature, strength):
    assert texts(write(lm, PROMPT, [(vectors["warm"], strength)], 5, temperature, 2**53 - 1))[1]


# -- the API ----------------------------------------------------------------------------------------------------------


def test_generate_compare_and_stream_tell_the_same(client):
    generated = client.post("/generate", json=ask()).json()
    compared = client.post("/compare", json=ask()).json()
    assert generated["text"] == compared["steered"] == "".join(token["text"] for token in compared["tokens"])
    assert compared["base"] != compared["steered"]
    assert generated["steering"] == compared["steering"] == [{"persona": "warm", "layer": 1, "strength": 0.8}]
    with client.stream("POST", "/stream", json=ask()) as answer:
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        events = [json.loads(line) for line in answer.iter_lines()]
    *tokens, last = events
    assert last == {"done": True, **{key: compared[key] for key in ("base", "steered", "steering")}}
    for side in ("base", "steered"):
        assert "".join(event["token"] for event in tokens if event["side"] == side) == compared[side]
    steered = [{"text": event["token"], "shift": event["shift"]} for event in tokens if event["side"] == "steered"]
    assert steered == compared["tokens"]
    assert not any("shift" in event for event in tokens if event["side"] == "base")


CHAT = "{% for turn in messages %}<{{ turn['role'] }}> {{ turn['content'] }}\n{% endfor %}<assistant>"


def test_a_question_is_asked_in_a_chat(lm, vectors):
    assert lm.tokenizer.chat_template is None
    lm.tokenizer.chat_template = CHAT
    try:
        with TestClient(create_app(lm, held(lm))) as client:
            assert client.get("/vectors").json()["chats"] and client.get("/examples").json()["questions"]
            got = client.post("/generate", json=ask(system="Never mention any animal.", temperature=0)).json()["text"]
            without = client.post("/generate", json=ask(system=" ", temperature=0)).json()["text"]
    finally:
        lm.tokenizer.chat_template = None
    with vectors["warm"].apply(lm, 0.8):
        options = dict(repetition_penalty=1.1)
        assert got == lm.generate(f"<system> Never mention any animal.\n<user> {PROMPT}\n<assistant>", 12, **options)
        assert without == lm.generate(f"<user> {PROMPT}\n<assistant>", 12, **options)


def test_which_strength_and_layer_count(client):
    def applied(**fields):
        return [(one["persona"], one["layer"], one["strength"]) for one in client.post("/generate", json=ask(**fields)).json()["steering"]]  # fmt: skip

    assert applied(steering=None) == []
    assert applied(strength=-1.5) == [("warm", 1, -1.5)]
    assert applied(layer=2) == [("warm", 2, 0.8)]
    both = [{"persona": "warm", "strength": 0.1}, {"persona": "cold"}]
    assert applied(steering=both) == [("warm", 1, 0.1), ("cold", 1, 0.5)]
    assert applied(steering=both, strength=1) == [("warm", 1, 0.1), ("cold", 1, 1)]


def test_two_personas_act_together(client, lm, vectors):
    both = [{"persona": "warm", "strength": 0.6}, {"persona": "cold", "strength": 0.7}]
    got = client.post("/generate", json=ask(steering=both, temperature=0)).json()["text"]
    with vectors["warm"].apply(lm, 0.6), vectors["cold"].apply(lm, 0.7):
        assert got == lm.generate(PROMPT, 12, repetition_penalty=1.1)


def test_a_vector_for_another_layer_is_built_once(lm):
    built = []

    def build(persona, layer):
        built.append((persona, layer))
        return made(lm, layer)[persona]

    vectors = held(lm, build)
    with TestClient(create_app(lm, vectors)) as client:
        first, second, own = (client.post("/stream", json=ask(layer=n)).text.splitlines() for n in (0, 0, 1))
    assert json.loads(first[0]) == {"building": {"persona": "warm", "layer": 0, "strength": 0.8}}
    assert first[1:] == second != own and "building" not in own[0]
    assert built == [("warm", 0)] and vectors.at("warm", 1) is vectors.own["warm"]


def test_what_there_is(client, lm):
    available = client.get("/vectors").json()
    assert available["model"] == lm.name and available["n_layers"] == 3 and not available["chats"]
    assert available["personas"][0] == {
        "id": "warm", "title": "Warmth", "layer": 1, "strength": 0.8, "mode": "clamp", "layers": [0, 1, 2],
    }  # fmt: skip
    assert len(client.get("/examples").json()["prompts"]) >= 4
    assert client.get("/health").json() == {"status": "ok", "model": lm.name, "busy": False, "waiting": 0, "places": 40}


def test_the_page_loads_nothing_from_elsewhere(client):
    page = client.get("/")
    assert page.status_code == 200 and "default-src 'none'" in page.headers["content-security-policy"]
    for outside in ("http://", "https://", 'src="//', "@import", "url("):
        assert outside not in page.text.replace("http://www.w3.org/2000/svg", ""), outside


def test_the_page_links_to_a_schema_that_names_every_path_and_field(client):
    assert 'href="/openapi.json"' in client.get("/").text and client.get("/docs").status_code == 404
    schema = client.get("/openapi.json").json()
    assert list(schema["paths"]) == ["/generate", "/compare", "/stream", "/patch", "/examples", "/vectors", "/health"]
    for name, expected in (("Ask", demo_app.EXPECTED), ("Patch", patches.EXPECTED)):
        fields = schema["components"]["schemas"][name]["properties"]
        assert set(fields) == set(expected) and all("description" in field for field in fields.values())


# -- what is refused --------------------------------------------------------------------------------------------------

RAW = {
    "nothing": (b"", 400),
    "no JSON": (b"prompt=hello", 400),
    "half": (b'{"prompt": "a', 400),
    "not UTF-8": (b'{"prompt": "\xff\xfe"}', 400),
    "NaN": (b'{"prompt": "a", "strength": NaN}', 400),
    "infinity": (b'{"prompt": "a", "temperature": -Infinity}', 400),
    "1e999": (b'{"prompt": "a", "strength": 1e999}', 422),
    "a number of 5000 digits": (b'{"prompt": "a", "seed": 1' + b"0" * 5000 + b"}", 400),
    "nested": (b"[" * 30_000, 400),
    "nested but closed": (b'{"prompt":' + b"[" * 900 + b"]" * 900 + b"}", (400, 422)),
    "a list": (b"[1]", 422),
    "null": (b"null", 422),
    "a lone surrogate": (b'{"prompt": "a \\ud800 b"}', 422),
    "a lone surrogate as a persona": (b'{"prompt": "a", "steering": "\\udfff"}', 422),
    "a lone surrogate as a field": (b'{"prompt": "a", "\\ud800": 1}', 422),
    "huge": (b'{"prompt": "' + b"a" * BODY_BYTES + b'"}', 413),
}
FIELDS = {
    "no prompt": ({"prompt": None}, "prompt is None, and a text of 1 to 2000 characters that isn't blank was expected"),
    "empty": ({"prompt": ""}, "prompt is ''"),
    "blank": ({"prompt": " \n\t\u2003"}, "prompt is ' "),
    "too many characters": ({"prompt": "a " * 1001}, "prompt is 'a a a"),
    "too many tokens": ({"prompt": "☃" * 500}, "The prompt has 1000 tokens for tiny gpt2, and 1 to 400 tokens were"),
    "a number for a prompt": ({"prompt": 3}, "prompt is 3"),
    "a chat without a format for it": ({"system": "Be brief."}, "system can't be used: tiny gpt2 has no chat format"),
    "too long a system prompt": ({"system": "a " * 1001}, "system is 'a a a"),
    "unknown persona": ({"steering": "batman"}, "There is no persona 'batman': choose one of warm, cold, or null"),
    "unknown in a list": ({"steering": [{"persona": "batman"}]}, "There is no persona 'batman'"),
    "three": ({"steering": [{"persona": "warm"}] * 3}, "steering is [{"),
    "none in a list": ({"steering": []}, "steering is [], and a persona's id"),
    "twice": ({"steering": [{"persona": "warm"}] * 2}, "steering names warm twice"),
    "a list of names": ({"steering": ["warm"]}, "steering is ['warm']"),
    "an unknown key": ({"steering": [{"persona": "warm", "power": 1}]}, "steering is [{"),
    "a strong part": ({"steering": [{"persona": "warm", "strength": 2.1}]}, "steering is [{"),
    "strength": ({"strength": 2.01}, "strength is 2.01, and a finite number from -2 to 2, or null was expected"),
    "-strength": ({"strength": -2.01}, "strength is -2.01"),
    "a text for a strength": ({"strength": "0.3"}, "strength is '0.3'"),
    "true for a strength": ({"strength": True}, "strength is True"),
    "layer": ({"layer": 3}, "layer is 3, and for warm there are layers 0 to 2 of tiny gpt2"),
    "-layer": ({"layer": -1}, "layer is -1"),
    "half a layer": ({"layer": 0.5}, "layer is 0.5"),
    "max_length 0": ({"max_length": 0}, "max_length is 0, and a whole number from 1 to 200 was expected"),
    "max_length": ({"max_length": 201}, "max_length is 201"),
    "temperature": ({"temperature": 2.1}, "temperature is 2.1, and a finite number from 0 to 2 was expected"),
    "-temperature": ({"temperature": -0.1}, "temperature is -0.1"),
    "seed": ({"seed": -1}, "seed is -1"),
    "huge seed": ({"seed": 10**30}, "seed is 1000"),
    "unknown field": ({"temprature": 1}, "There is no field 'temprature', and prompt, "),
}  # fmt: skip


def is_a_sentence(answer) -> str:
    body = answer.json()
    assert set(body) == {"detail"} and isinstance(body["detail"], str), body
    assert body["detail"].endswith(".") and "Traceback" not in body["detail"] and len(body["detail"]) < 400
    return body["detail"]


@pytest.mark.parametrize("path", ["/generate", "/compare", "/stream", "/patch"])
@pytest.mark.parametrize("name", RAW)
def test_a_body_that_is_none_is_refused_in_a_sentence(client, path, name):
    body, status = RAW[name]
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (status if isinstance(status, tuple) else (status,)), answer.text
    is_a_sentence(answer)


@pytest.mark.parametrize("path", ["/generate", "/compare", "/stream"])
@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_does_not_fit_is_refused_in_a_sentence(client, path, name):
    fields, said = FIELDS[name]
    answer = client.post(path, json=ask(**fields))
    assert answer.status_code == 422
    assert said in is_a_sentence(answer)


def test_more_refusals(client):
    assert "prompt is missing" in is_a_sentence(client.post("/generate", json={}))
    form = client.post("/generate", content=json.dumps(ask()), headers={"content-type": "text/plain"})
    assert form.status_code == 422 and "as application/json" in is_a_sentence(form)
    assert "There is nothing at /nowhere" in is_a_sentence(client.get("/nowhere"))
    wrong = client.get("/generate")
    assert wrong.status_code == 405 and wrong.headers["allow"] == "POST" and "POST is expected" in is_a_sentence(wrong)
    small = tiny("gpt2")  # a context of 64
    with TestClient(create_app(small, held(small))) as short:
        assert "1 to 4 tokens were" in is_a_sentence(short.post("/generate", json=ask(prompt="a " * 9, max_length=60)))
        assert "a smaller max_length than 64" in is_a_sentence(short.post("/generate", json=ask(max_length=64)))


def test_a_chunked_body_without_a_length_is_bounded_too(client):
    answer = client.post("/generate", content=(b"a" * 1000 for _ in range(100)))
    assert answer.status_code == 413 and "65,536 bytes" in is_a_sentence(answer)


def test_what_fails_inside_is_a_sentence_too(lm, monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("secret")
        yield

    monkeypatch.setattr(demo_app, "write", fails)
    with TestClient(create_app(lm, held(lm)), raise_server_exceptions=False) as client:
        for path in ("/generate", "/compare"):
            answer = client.post(path, json=ask())
            assert answer.status_code == 500 and "secret" not in is_a_sentence(answer)
        last = json.loads(client.post("/stream", json=ask()).text.splitlines()[-1])
        assert "Something failed inside (RuntimeError)" in last["error"]
        assert client.get("/health").json()["busy"] is False


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ask(), "persona", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@some_or_many(
    st.sampled_from(["/generate", "/compare", "/stream", "/patch"]),
    st.binary(max_size=60) | JSON.map(json.dumps) | JSON,
)
def test_a_body_of_whatever_kind_is_served_or_refused_in_a_sentence(path, body):
    if isinstance(body, dict):  # near to what is expected
        near = {"base": "x y", "source": "z y"} if path == "/patch" else {"prompt": "x", "max_length": 1}
        body = json.dumps(near | body)
    raw = body if isinstance(body, bytes) else str(body).encode("utf-8", "surrogatepass")
    answer = for_any_body().post(path, content=raw, headers={"content-type": "application/json"})
    if answer.status_code != 200:
        assert answer.status_code in (400, 413, 422) and is_a_sentence(answer)
    assert for_any_body().get("/health").json()["busy"] is False


@cache
def for_any_body() -> TestClient:
    lm = tiny("gpt2", max_position_embeddings=512)
    return TestClient(create_app(lm, held(lm))).__enter__()


LOCAL = ["127.0.0.1", "127.0.0.1:80", "localhost:5050", "LOCALHOST", "[::1]:5050", "127.1.2.3:1"]
FOREIGN = [
    "evil.example",
    "evil.example:5050",
    "127.0.0.1.evil.example",
    "localhost.evil.example:80",
    "192.168.1.5:5050",
    "",
    "[::1",
    "a:b:c",
]


@pytest.mark.parametrize("path", ["/", "/health", "/generate"])
@pytest.mark.parametrize("host", LOCAL + FOREIGN)
def test_a_foreign_name_is_let_in_only_where_someone_has_opened_the_page(lm, path, host):
    """DNS rebinding: a site whose name points at 127.0.0.1 reads nothing."""

    def asked(address, **options):
        client = TestClient(
            create_app(lm, held(lm), **options), base_url=f"http://{address}:5050", headers={"host": host}
        )
        return client.post(path, json=ask(max_length=1)) if path == "/generate" else client.get(path)

    alone = asked("127.0.0.1")
    assert alone.status_code == (200 if host in LOCAL else 421)
    if host in FOREIGN:
        assert repr(host) in is_a_sentence(alone) and "HOST=127.0.0.1" in is_a_sentence(alone)
    assert asked("127.0.0.1", any_name=True).status_code == asked("192.168.1.5").status_code == 200


# -- whatever the schema allows ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schema(lm):
    return schemathesis.openapi.from_asgi("/openapi.json", create_app(lm, held(lm)))


PATHS = [
    "POST /generate",
    "POST /compare",
    "POST /stream",
    "POST /patch",
    "GET /examples",
    "GET /vectors",
    "GET /health",
]


def test_the_schema_has_every_path(schema):
    assert [operation.ok().label for operation in schema.get_all_operations()] == PATHS


@pytest.mark.parametrize(
    "path, mode",
    [(path, GenerationMode.POSITIVE) for path in PATHS]
    + [(path, GenerationMode.NEGATIVE) for path in PATHS if path.startswith("POST")],
)
def test_answers_are_as_the_schema_says(schema, path, mode):
    """Whatever is sent: no 5xx, a status that is documented, and a body of its form."""
    method, where = path.split()

    @given(case=schema[where][method].as_strategy(generation_mode=mode))
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    def send(case):
        if where != "/patch" and isinstance(case.body, dict) and isinstance(case.body.get("max_length", 60), int):
            case.body["max_length"] = min(case.body.get("max_length", 60), 3)  # to be done soon
        answer = case.call()
        answers.append(answer.status_code)
        case.validate_response(answer, checks=CHECKS)

    answers = []
    send()
    print(sorted(answers))
    if mode == GenerationMode.POSITIVE:
        assert 200 in answers
    else:
        assert {400, 422} & set(answers)


# -- a room of thirty -------------------------------------------------------------------------------------------------


@contextmanager
def serving(app):
    """A real server on a port of its own; its address."""
    listener = serve.listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive()


async def streamed(client, body):
    answer = await client.post("/stream", json=body)
    return [json.loads(line) for line in answer.text.splitlines()]


def test_thirty_at_once_each_get_what_they_get_alone(lm):
    bodies = [
        ask(
            prompt=f"{PROMPT} {i}",
            seed=i,
            steering=[None, "warm", [{"persona": "warm", "strength": -1.0}, {"persona": "cold"}]][i % 3],
            temperature=[0, 0.7, 1.5][i % 3],
        )
        for i in range(30)
    ]

    async def crowd(url):
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=40)) as client:
            alone = [await streamed(client, body) for body in bodies]
            return alone, await asyncio.gather(*(streamed(client, body) for body in bodies))

    with serving(create_app(lm, held(lm))) as url:
        alone, together = asyncio.run(crowd(url))
        health = httpx.get(f"{url}/health", timeout=60).json()  # the crowd's idle connections may be closing by now
    assert any("waiting" in event for events in together for event in events)
    assert [[e for e in events if "waiting" not in e] for events in together] == alone
    assert all(events[-1]["done"] for events in together)
    assert not health["busy"] and health["waiting"] == 0


def test_the_same_request_while_another_builds_its_vector(lm):
    """It waits, gets the same text, and the vector is built once; so does one whose predecessor hangs up while it builds."""
    built, begun, go_on = [], threading.Event(), threading.Event()

    def build(persona, layer):
        built.append((persona, layer))
        begun.set()
        assert go_on.wait(20)
        return made(lm, layer)[persona]

    async def crowd(url, layer):
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            first = asyncio.create_task(streamed(client, ask(layer=layer)))
            await asyncio.to_thread(begun.wait, 20)
            others = [asyncio.create_task(streamed(client, ask(layer=layer))) for _ in range(3)]
            await asyncio.sleep(0.3)
            assert (await client.get("/health")).json()["waiting"] == 3, "the server answers while a vector is built"
            go_on.set()
            return [await each for each in (first, *others)]

    with serving(create_app(lm, held(lm, build))) as url:
        first, *others = asyncio.run(crowd(url, 0))
        assert "building" in first[0] and all("waiting" in events[0] for events in others)
        assert all([e for e in events if "waiting" not in e] == first[1:] for events in others)
        begun.clear(), go_on.clear()
        leave = leave_later(url, "/stream", ask(layer=2))
        assert begun.wait(20)
        leave()
        go_on.set()
        after = httpx.post(f"{url}/stream", json=ask(layer=2), timeout=60).text.splitlines()
    assert json.loads(after[-1])["done"] and built == [("warm", 0), ("warm", 2)]


def test_a_vector_that_can_not_be_built_is_told_and_tried_again(lm):
    failures = iter([RuntimeError("secret"), None])

    def build(persona, layer):
        if error := next(failures):
            raise error
        return made(lm, layer)[persona]

    with TestClient(create_app(lm, held(lm, build))) as client:
        first, second = (
            [json.loads(e) for e in client.post("/stream", json=ask(layer=0)).text.splitlines()] for _ in "12"
        )
    assert "RuntimeError" in first[-1]["error"] and "secret" not in str(first) and second[-1]["done"]


@pytest.fixture
def slow(monkeypatch):
    """Tokens take a while, as a real model's do."""

    def slowly(*args, **kwargs):
        for piece in write(*args, **kwargs):
            time.sleep(0.02)
            yield piece

    monkeypatch.setattr(demo_app, "write", slowly)


def until(condition, within=10):
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def test_who_finds_no_place_is_asked_to_try_again(lm, slow, monkeypatch):
    monkeypatch.setattr(queue, "PLACES", 2)
    with serving(create_app(lm, held(lm))) as url, httpx.Client(base_url=url, timeout=30) as client:
        with client.stream("POST", "/stream", json=ask(max_length=200)) as running:
            lines = [running.iter_lines()]  # httpx hangs up on whoever lets go of them
            next(lines[0])
            with client.stream("POST", "/stream", json=ask()) as a, client.stream("POST", "/stream", json=ask()) as b:
                lines += [a.iter_lines(), b.iter_lines()]
                assert [json.loads(next(each)) for each in lines[1:]] == [{"waiting": 1}, {"waiting": 2}]
                for path in ("/generate", "/compare", "/stream"):
                    refused = client.post(path, json=ask())
                    assert refused.status_code == 503 and refused.headers["retry-after"] == "10"
                    assert "2 requests are waiting already" in is_a_sentence(refused)
                assert client.get("/health").json()["waiting"] == 2
        until(lambda: not client.get("/health").json()["busy"])
        assert client.post("/generate", json=ask()).status_code == 200


@pytest.mark.parametrize("path", ["/generate", "/compare", "/stream"])
def test_a_client_that_leaves_frees_its_place(lm, slow, path):
    """Both while it is served and while it waits; and whoever came later keeps their order."""
    with serving(create_app(lm, held(lm))) as url, httpx.Client(base_url=url, timeout=30) as client:

        def state():
            health = client.get("/health").json()
            return health["busy"], health["waiting"]

        started = time.monotonic()
        leaving = [leave_later(url, path, ask(max_length=200)) for _ in range(3)]
        until(lambda: state() == (True, 2))
        leaving[1]()  # while it waits
        until(lambda: state() == (True, 1))
        leaving[0]()  # while it is served
        until(lambda: state() == (True, 0))
        leaving[2]()
        until(lambda: state() == (False, 0))
        assert time.monotonic() - started < 8  # each by itself would take 8
        assert client.post("/generate", json=ask()).status_code == 200


def leave_later(url, path, body):
    """Ask over a bare socket; what is returned hangs up."""
    host, port = url.removeprefix("http://").split(":")
    data = json.dumps(body).encode()
    line = socket.create_connection((host, int(port)))
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    line.sendall(head.encode() + data)
    time.sleep(0.1)  # so that they come in this order
    return line.close


def test_first_come_first_served_whoever_leaves(monkeypatch):
    monkeypatch.setattr(queue, "PLACES", 10)

    async def play():
        queue, served = Room(), []

        async def person(i, leaves=False):
            ticket = queue.ticket()

            async def gone():
                return leaves

            def steps():
                yield i

            try:
                async for _ in ticket.turn(gone):
                    pass
                async for step in ticket.work(steps(), gone):
                    served.append(step)
                    await asyncio.sleep(0.1)
            except Gone:
                pass
            finally:
                ticket.leave()
                ticket.leave()

        cancelled = None
        tasks = []
        for i in range(8):
            tasks.append(asyncio.create_task(person(i, leaves=i in (2, 5))))
            if i == 3:
                cancelled = tasks[-1]
            await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert served[:2] == [0, 1] and [i for i in served if i not in (2, 5)] == [0, 1, 4, 6, 7]
        assert not queue.busy
        for _ in range(11):
            queue.ticket()
        with pytest.raises(HTTPException):
            queue.ticket()

    asyncio.run(play())


# -- the start --------------------------------------------------------------------------------------------------------


def test_settings_come_from_the_environment():
    assert serve.Settings.of({}) == serve.Settings("127.0.0.1", 5050, None)
    assert serve.Settings.of({"HOST": "", "PORT": "", "STRENGTH": ""}) == serve.Settings()
    assert serve.Settings.of({"HOST": "::1", "PORT": "80", "STRENGTH": "-.5"}) == serve.Settings("::1", 80, -0.5, True)
    for wrong in ({"PORT": "http"}, {"PORT": "65536"}, {"PORT": "-1"}, {"PORT": "²"}, {"STRENGTH": "strong"},
                  {"STRENGTH": "nan"}, {"STRENGTH": "2.5"}):  # fmt: skip
        name, value = next(iter(wrong.items()))
        with pytest.raises(ValueError, match=f"^{name} is '{value}', and a number from .* was expected: set"):
            serve.Settings.of(wrong)


def test_a_port_that_is_taken_is_told_before_the_model_is_loaded(monkeypatch, capsys):
    with serve.listen("127.0.0.1", 0) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv("PORT", str(port))
        monkeypatch.delenv("HOST", raising=False)
        monkeypatch.setattr(serve, "load_model", lambda: pytest.fail("the model was loaded"))
        assert main(["demo"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and f"PORT={port + 1}" in err
    assert err.startswith(
        f"Error: Port {port} is taken by another process, which `lsof -i :{port}` or `ss -ltnp` shows"
    )


def test_an_address_that_is_not_ours():
    with pytest.raises(OSError, match="can't listen on HOST=192.0.2.7"):
        serve.listen("192.0.2.7", 0)
    with pytest.raises(OSError, match="HOST is 'no such host', which is no address"):
        serve.listen("no such host", 0)


def test_the_announcement_says_who_can_reach_it():
    here = serve.announcement("127.0.0.1", 5050)
    assert "http://127.0.0.1:5050 for this machine alone" in here and "HOST=0.0.0.0" in here
    for address in ("::1", "localhost", "127.0.0.2"):
        assert "for this machine alone" in serve.announcement(address, 80)
    assert "http://[::1]:80 " in serve.announcement("::1", 80)
    there = serve.announcement("0.0.0.0", 5050)
    assert "for everyone on the network: HOST=0.0.0.0 opened it" in there and "http://0.0.0.0" not in there
    assert "http://192.0.2.7:5050, for everyone" in serve.announcement("192.0.2.7", 5050)


def test_whoever_sets_host_lets_any_name_in():
    assert not serve.Settings.of({"HOST": ""}).host_set and serve.Settings.of({"HOST": "127.0.0.1"}).host_set


def test_nothing_listens_beyond_this_machine_by_default():
    settings = serve.Settings.of({})
    with serve.listen(settings.host, 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn"])
def test_without_fastapi_the_command_says_what_to_install(monkeypatch, capsys, missing):
    for name in [name for name in sys.modules if name.startswith("interp_helpers.demo.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("app", "serve", "guard", "texts", "queue"):
        monkeypatch.delattr(interp_helpers.demo, name, raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == (
        f"Error: The live page needs FastAPI and uvicorn, and {missing} is not installed: run "
        '`pip install "interp-helpers[demo]"`.\n'
    )


def test_the_courses_vectors(monkeypatch, tmp_path, capsys):
    """On a model that nobody measured they are built at the start, at one layer, and elsewhere when they are asked for."""
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path))
    lm = tiny("gpt2", max_position_embeddings=512)
    vectors = serve.course_vectors(lm, 0.25)
    assert list(vectors.own) == list(personas()) and vectors.titles["toronto"] == "Toronto"
    assert {vector.strength for vector in vectors.own.values()} == {0.25}, "what STRENGTH says"
    assert "Building the vector for toronto, at an unmeasured layer" in capsys.readouterr().out
    assert vectors.own["happy"].layer == 2
    other = vectors.at("happy", 1)
    assert (other.layer, other.mode, other.strength) == (1, vectors.own["happy"].mode, vectors.own["happy"].strength)
    assert vectors.at("happy", 1) is other and "Built happy at layer 1" in capsys.readouterr().out


@pytest.fixture(params=["ready", pytest.param("built", marks=pytest.mark.slow)])
def course_cache(request, offline_path, tmp_path) -> Path:
    """The course's cache with the offline model in it; and with a vector for each persona, or the command builds them for minutes."""
    (tmp_path / offline_path.name).symlink_to(offline_path)
    if request.param == "ready":
        lm = load_model("offline")
        warm = SteeringVector.from_contrast(lm, WARM, COLD, 15)
        for id, persona in personas().items():
            of_the_persona = replace(warm, name=id, strength=0.3, provenance={"persona": persona.fingerprint})
            path = vector_path(lm, id, tmp_path / "vectors")
            path.parent.mkdir(parents=True, exist_ok=True)
            of_the_persona.save(path)
    return tmp_path


def test_the_command_serves_and_stops(course_cache):
    """The whole of it, in a process of its own, with the offline model."""
    made = {file: file.stat().st_mtime_ns for file in course_cache.rglob("*.safetensors")}
    env = {**os.environ, "INTERP_MODEL": "offline", "PORT": "0", "HOST": "", "OMP_NUM_THREADS": "1"}
    env["INTERP_CACHE"] = str(course_cache)
    command = [sys.executable, "-m", "interp_helpers", "demo"]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = next(
            word for line in process.stdout if "The live page is at" in line for word in line.split() if "://" in word
        )
        answer = httpx.post(f"{url}/compare", json=ask(steering="toronto", max_length=15), timeout=60).json()
        assert httpx.get(f"{url}/health", headers={"host": "evil.example"}).status_code == 421
        assert answer["base"] != answer["steered"] and len(answer["tokens"]) > 5
        process.send_signal(2)
        assert process.wait(20) in (0, 130)
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()
    now = {file: file.stat().st_mtime_ns for file in course_cache.rglob("*.safetensors")}
    assert len(now) >= len(personas()) and made.items() <= now.items(), "a vector that is there is taken as it is"
