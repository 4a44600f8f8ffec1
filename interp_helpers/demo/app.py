"""The HTTP API of the steering page, and the page itself.

`create_app(lm, vectors)` takes any model and its vectors; `serve` starts it on the course's own.
"""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Annotated

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from ..models import LanguageModel
from ..steering import SteeringVector, prompts
from .engine import Piece, Vectors, write
from .guard import Bodies, Refused, refuse_in_sentences, unexpected
from .room import Full, Gone, Room, Ticket

STRENGTH = 2.0  # the largest size of a strength, in units of the layer's mean residual norm; far beyond any sense
TEMPERATURE = 2.0
NEW_TOKENS = 200
PROMPT_CHARACTERS = 2000
PROMPT_TOKENS = 400
SEED = 2**53 - 1  # the largest whole number that JavaScript has
RETRY_AFTER = 10  # seconds

# ---------------------------------------------------------------------------------------------------------------------
# What comes in, and what goes out

Strength = Annotated[float, Field(ge=-STRENGTH, le=STRENGTH, allow_inf_nan=False)]


class _In(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Part(_In):
    """A persona and how strongly to steer towards it."""

    persona: str = Field(max_length=100, description="its id")
    strength: Strength | None = Field(None, description="by default the request's, else the persona's own")


class Ask(_In):
    """What to write."""

    prompt: str = Field(
        min_length=1, max_length=PROMPT_CHARACTERS, pattern=r"\S", description="the beginning to continue"
    )
    steering: (
        Annotated[str, Field(max_length=100)] | Annotated[list[Part], Field(min_length=1, max_length=2)] | None
    ) = Field(None, description="a persona's id, one or two of them with their strengths, or null for none")
    strength: Strength | None = Field(
        None, description="in units of the layer's mean residual norm; negative steers away"
    )
    layer: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        None, description="the block after which to steer; by default the persona's own"
    )
    max_length: int = Field(60, ge=1, le=NEW_TOKENS, description="how many tokens to write at most")
    temperature: float = Field(0.7, ge=0, le=TEMPERATURE, allow_inf_nan=False, description="0 is greedy")
    seed: int = Field(0, ge=0, le=SEED, description="the same seed gives the same text")


EXPECTED = {
    "prompt": f"a text of 1 to {PROMPT_CHARACTERS} characters that isn't blank",
    "steering": f"a persona's id, a list of one or two {{persona, strength from -{STRENGTH:g} to {STRENGTH:g}}}, or null",
    "strength": f"a finite number from -{STRENGTH:g} to {STRENGTH:g}, or null",
    "layer": "the number of a layer from 0 on, or null",
    "max_length": f"a whole number from 1 to {NEW_TOKENS}",
    "temperature": f"a finite number from 0 to {TEMPERATURE:g}",
    "seed": f"a whole number from 0 to {SEED}",
}


class Applied(BaseModel):
    """A vector as it was applied."""

    persona: str
    layer: int
    strength: float


class Generated(BaseModel):
    text: str
    steering: list[Applied]


class Token(BaseModel):
    text: str
    shift: float = Field(description="log p(steered) − log p(unsteered) of this token, in nats")


class Compared(BaseModel):
    base: str
    steered: str
    tokens: list[Token] = Field(description="of the steered text; joined, they are it")
    steering: list[Applied]


class Event(BaseModel):
    """A line of a stream: a token with its side (and, if steered, its shift); or what is being waited for (how many requests
    are before this one, a vector that is being built); and last, done or an error."""

    side: str | None = None
    token: str | None = None
    shift: float | None = None
    waiting: int | None = None
    building: Applied | None = None
    done: bool | None = None
    base: str | None = None
    steered: str | None = None
    steering: list[Applied] | None = None
    error: str | None = None


class About(BaseModel):
    """A persona, and what its vector is applied with by default."""

    id: str
    title: str
    layer: int
    strength: float
    mode: str
    layers: list[int]


class Available(BaseModel):
    model: str
    n_layers: int
    personas: list[About]


class Examples(BaseModel):
    prompts: list[str]


class Health(BaseModel):
    status: str
    model: str
    busy: bool
    waiting: int = Field(description="how many requests wait for their turn")
    places: int = Field(description="how many may wait")


class Problem(BaseModel):
    detail: str = Field(description="one sentence: what was got, what was expected, what to do")


REFUSALS = {
    400: {"model": Problem, "description": "The body is not JSON"},
    413: {"model": Problem, "description": "The body is too long"},
    422: {"model": Problem, "description": "A field is not what was expected"},
    503: {"model": Problem, "description": "Every place in the queue is taken"},
}

# ---------------------------------------------------------------------------------------------------------------------
# The work


@dataclass(frozen=True)
class Building:
    """Said before a vector is built, which takes a while."""

    vector: Applied


def perform(
    lm: LanguageModel, vectors: Vectors, ask: Ask, plan: list[Applied], base: bool
) -> Iterator[Building | Piece]:
    """Everything that a request makes the model do; runs in the worker thread."""
    steering = []
    for part in plan:
        if not vectors.is_ready(part.persona, part.layer):
            yield Building(part)
        steering.append((vectors.at(part.persona, part.layer), part.strength))
    yield from write(lm, ask.prompt, steering, ask.max_length, ask.temperature, ask.seed, base=base)


class TicketedStream(StreamingResponse):
    """A stream that gives its place back however it ends, even where it never began."""

    def __init__(self, content: AsyncIterator[str], ticket: Ticket):
        super().__init__(content, media_type="application/x-ndjson", headers={"Cache-Control": "no-store"})
        self._ticket = ticket

    async def __call__(self, scope, receive, send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ticket.leave()


def create_app(
    lm: LanguageModel,
    vectors: Vectors | Mapping[str, SteeringVector],
    *,
    strength: float | None = None,
    places: int = 40,
) -> FastAPI:
    """The app for one model.

    Args:
        lm: the model. Only the app may use it while it serves.
        vectors: the personas' vectors by id, or `Vectors`, which can build those for other layers.
        strength: what every persona is steered with by default, instead of its vector's own strength.
        places: how many requests may wait for their turn; whoever comes after that is asked to try again.
    """
    vectors = vectors if isinstance(vectors, Vectors) else Vectors(vectors)
    room = Room(places)
    tokenizer = copy.deepcopy(lm.tokenizer)  # the model's own is in use in the worker thread

    app = FastAPI(
        title="Glass Box: steering, live",
        description="Text without and with a steering vector. The same seed gives the same text.",
        docs_url=None,  # FastAPI's own pages load their scripts from another host
        redoc_url=None,
    )
    app.add_middleware(Bodies)
    refuse_in_sentences(app, EXPECTED)

    def default_strength(persona: str) -> float:
        own = vectors.own[persona].strength
        return strength if strength is not None else 0.3 if own is None else own

    def planned(ask: Ask) -> list[Applied]:
        """Which vectors a request is for. Raises Refused for what there isn't."""
        parts = [Part(persona=ask.steering)] if isinstance(ask.steering, str) else ask.steering or []
        plan = []
        for part in parts:
            if part.persona not in vectors.own:
                raise Refused(
                    f"There is no persona {part.persona!r}: choose one of {', '.join(vectors.own)}, or null for none."
                )
            layers = vectors.layers(part.persona)
            layer = vectors.own[part.persona].layer if ask.layer is None else ask.layer
            if layer not in layers:
                there = f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]} to {layers[-1]}"
                raise Refused(
                    f"layer is {layer}, and for {part.persona} there is {there} of {lm.name}: choose one of those, or null."
                )
            given = ask.strength if part.strength is None else part.strength
            plan.append(
                Applied(
                    persona=part.persona,
                    layer=layer,
                    strength=default_strength(part.persona) if given is None else given,
                )
            )
        if len({part.persona for part in plan}) < len(plan):
            raise Refused(
                f"steering names {plan[0].persona} twice, and two different personas were expected: leave one out."
            )
        return plan

    def fits(ask: Ask) -> None:
        """Raises Refused for a prompt that the model can't take."""
        n = len(tokenizer(ask.prompt)["input_ids"])
        context = getattr(lm.model.config, "max_position_embeddings", None) or PROMPT_TOKENS + NEW_TOKENS
        most = min(PROMPT_TOKENS, context - ask.max_length)
        if not 1 <= n <= most:
            room_for = f"1 to {most} tokens" if most >= 1 else f"a smaller max_length than {ask.max_length}"
            raise Refused(f"The prompt has {n} tokens for {lm.name}, and {room_for} were expected: change the prompt.")

    def admitted() -> Ticket:
        try:
            return room.ticket()
        except Full:
            raise Refused(
                f"{room.waiting} requests are waiting already, which is the most that is taken: try again in "
                f"{RETRY_AFTER} seconds.",
                503,
                {"Retry-After": str(RETRY_AFTER)},
            ) from None

    async def whole(ask: Ask, request: Request, base: bool) -> tuple[list[Piece], list[Applied]] | None:
        """Everything that is written for a request, once it is its turn; None if the client has gone."""
        plan = planned(ask)
        fits(ask)
        ticket = admitted()
        gone = request.is_disconnected
        try:
            async for _ in ticket.turn(gone):
                pass
            steps = ticket.work(perform(lm, vectors, ask, plan, base), gone)
            return [step async for step in steps if isinstance(step, Piece)], plan
        except Gone:
            return None
        finally:
            ticket.leave()

    @app.post("/generate", response_model=Generated, responses=REFUSALS, summary="The steered text")
    async def generate(ask: Ask, request: Request):
        done = await whole(ask, request, base=False)
        if done is None:
            return _nobody()
        return Generated(text=_joined(done[0], "steered"), steering=done[1])

    @app.post("/compare", response_model=Compared, responses=REFUSALS, summary="The base text and the steered one")
    async def compare(ask: Ask, request: Request):
        done = await whole(ask, request, base=True)
        if done is None:
            return _nobody()
        pieces, plan = done
        tokens = [Token(text=piece.text, shift=_rounded(piece.shift)) for piece in pieces if piece.side == "steered"]
        return Compared(base=_joined(pieces, "base"), steered=_joined(pieces, "steered"), tokens=tokens, steering=plan)

    stream_format = {"application/x-ndjson": {"schema": {"type": "string", "description": _one_line(Event.__doc__)}}}

    @app.post(
        "/stream",
        response_class=StreamingResponse,
        responses={**REFUSALS, 200: {"description": "Lines of JSON, one an event", "content": stream_format}},
        summary="Both texts, token by token",
        description=f"Newline-delimited JSON. {_one_line(Event.__doc__)}",
    )
    async def stream(ask: Ask, request: Request):
        plan = planned(ask)
        fits(ask)
        ticket = admitted()

        # A whole stream is smaller than what the server buffers for a client, so a slow one doesn't hold up the room.
        async def lines() -> AsyncIterator[str]:
            texts = {"base": "", "steered": ""}
            try:
                async for ahead in ticket.turn(request.is_disconnected):
                    yield _line(Event(waiting=ahead))
                async for step in ticket.work(perform(lm, vectors, ask, plan, True), request.is_disconnected):
                    if isinstance(step, Building):
                        yield _line(Event(building=step.vector))
                        continue
                    texts[step.side] += step.text
                    shift = None if step.shift is None else _rounded(step.shift)
                    yield _line(Event(side=step.side, token=step.text, shift=shift))
                ticket.leave()  # the next one needn't wait until this client has read everything
                yield _line(Event(done=True, steering=plan, **texts))
            except Gone:
                return
            except Exception as error:
                yield _line(Event(error=unexpected(error)))

        return TicketedStream(lines(), ticket)

    @app.get("/examples", summary="Prompts to begin with")
    async def examples() -> Examples:
        return Examples(prompts=prompts(held_out=True))

    @app.get("/vectors", summary="The personas, and what their vectors are applied with by default")
    async def available() -> Available:
        return Available(
            model=lm.name,
            n_layers=lm.n_layers,
            personas=[
                About(
                    id=persona,
                    title=vectors.titles[persona],
                    layer=vector.layer,
                    strength=round(default_strength(persona), 4),
                    mode=vector.mode,
                    layers=vectors.layers(persona),
                )
                for persona, vector in vectors.own.items()
            ],
        )

    @app.get("/health", summary="Is it there, and how many are waiting?")
    async def health() -> Health:
        return Health(status="ok", model=lm.name, busy=room.busy, waiting=room.waiting, places=room.places)

    page = resources.files(__package__).joinpath("page.html").read_text("utf-8")

    @app.get("/", include_in_schema=False)
    async def home() -> HTMLResponse:
        return HTMLResponse(page, headers=_HEADERS)

    return app


# The browser itself makes sure that nothing is loaded from another host.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def _joined(pieces: list[Piece], side: str) -> str:
    return "".join(piece.text for piece in pieces if piece.side == side)


def _line(event: Event) -> str:
    return json.dumps(event.model_dump(exclude_none=True), ensure_ascii=False) + "\n"


def _rounded(shift: float) -> float:
    return round(shift, 4) + 0.0  # and no -0.0


def _nobody() -> Response:
    return Response(status_code=499)  # nginx's number for a client that has gone; nobody reads it


def _one_line(text: str) -> str:
    return " ".join(text.split())
