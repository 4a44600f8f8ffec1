"""The HTTP API of the live page, and the page itself.

`create_app(lm, vectors)` takes any model and its vectors; `serve` starts it on the course's own.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Iterator
from importlib import resources
from typing import Annotated

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import AfterValidator, BaseModel, Field

from ..models import LanguageModel
from ..steering import chat_prompt, prompts
from ..widgets import LIVE_VIEW
from .guard import Bodies, Body, ThisMachine, refuse_in_sentences, unexpected
from .patches import EXPECTED as EXPECTED_OF_A_PATCH
from .patches import Choices, add_patches, choices
from .queue import PLACES, Gone, Room, Ticket, TicketedStream
from .texts import Piece, Vectors, write

STRENGTH = 2.0  # the largest size of a strength, in units of the layer's mean residual norm; far beyond any sense
TEMPERATURE = 2.0
NEW_TOKENS = 200
PROMPT_CHARACTERS = 2000
PROMPT_TOKENS = 400
SEED = 2**53 - 1  # the largest whole number that JavaScript has
QUESTIONS = [
    "How do I make a paper plane?",
    "Why is the sky blue?",
    "How do I boil an egg?",
    "What should I cook tonight?",
    "What is a rainbow?",
]

# ---------------------------------------------------------------------------------------------------------------------
# What comes in, and what goes out

Strength = Annotated[float, Field(ge=-STRENGTH, le=STRENGTH, allow_inf_nan=False)]


class Part(Body):
    """A persona and how strongly to steer towards it."""

    persona: str = Field(max_length=100, description="its id")
    strength: Strength | None = Field(None, description="by default the request's, else the persona's own")


class Ask(Body):
    """What to write."""

    prompt: str = Field(
        min_length=1, max_length=PROMPT_CHARACTERS, pattern=r"\S", description="the beginning to continue"
    )
    system: str | None = Field(
        None,
        max_length=PROMPT_CHARACTERS,
        description="asks the prompt as a question in a chat, after this system prompt; null continues it as a text",
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
    "system": f"a text of at most {PROMPT_CHARACTERS} characters, or null",
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


Shift = Annotated[float, AfterValidator(lambda shift: round(shift, 4) + 0.0)]  # and no -0.0


class Token(BaseModel):
    text: str
    shift: Shift = Field(description="log p(steered) − log p(unsteered) of this token, in nats")


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
    shift: Shift | None = None
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
    chats: bool = Field(description="whether the model has a chat format, so that a request may have a system prompt")
    personas: list[About]


class Examples(BaseModel):
    prompts: list[str]
    questions: list[str] = Field(description="for a chat")
    patches: Choices


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
NDJSON = {"application/x-ndjson": {"schema": {"type": "string"}}}
STREAMED = {**REFUSALS, 200: {"description": "Lines of JSON, one an event", "content": NDJSON}}

# ---------------------------------------------------------------------------------------------------------------------
# The work


def read(lm: LanguageModel, ask: Ask) -> str:
    """What the model reads: the prompt, or the prompt as a question in a chat, whose system prompt may be empty.

    Raises:
        ValueError: the model has no chat format.
    """
    return ask.prompt if ask.system is None else chat_prompt(lm, ask.prompt, ask.system.strip() or None)


def perform(
    lm: LanguageModel, vectors: Vectors, ask: Ask, plan: list[Applied], base: bool
) -> Iterator[Applied | Piece]:
    """Everything that a request makes the model do; runs in the worker thread. A vector that has to be built, which takes a while,
    is named first."""
    steering = []
    for part in plan:
        if (part.persona, part.layer) not in vectors.made:
            yield part
        steering.append((vectors.at(part.persona, part.layer), part.strength))
    yield from write(lm, read(lm, ask), steering, ask.max_length, ask.temperature, ask.seed, base=base)


def create_app(lm: LanguageModel, vectors: Vectors, *, any_name: bool = False) -> FastAPI:
    """The app for one model, which only the app may use while it serves.

    Args:
        lm: the model.
        vectors: what it is steered with.
        any_name: answer whatever name the machine is asked for by. Otherwise, where it is reached from itself, only as localhost,
            127.0.0.1 and the like.
    """
    room = Room()
    tokenizer = copy.deepcopy(lm.tokenizer)  # the model's own is in use in the worker thread

    app = FastAPI(
        title="Glass Box, live",
        description="Text without and with a steering vector, where the same seed gives the same text; and maps of patches.",
        docs_url=None,  # FastAPI's own pages load their scripts from another host
        redoc_url=None,
        responses={
            421: {
                "model": Problem,
                "description": "The page is this machine's alone, and was asked for by another name",
            }
        },
    )
    app.add_middleware(Bodies)
    if not any_name:
        app.add_middleware(ThisMachine)  # the last one added is the first that is asked
    expected = dict.fromkeys(("/generate", "/compare", "/stream"), EXPECTED) | {"/patch": EXPECTED_OF_A_PATCH}
    refuse_in_sentences(app, expected)

    @app.exception_handler(Gone)
    async def _(request: Request, error: Gone) -> Response:
        return Response(status_code=499)  # nginx's number for a client that has gone; nobody reads it

    def planned(ask: Ask) -> list[Applied]:
        """Which vectors a request is for. Raises HTTPException for what there isn't."""
        parts = [Part(persona=ask.steering)] if isinstance(ask.steering, str) else ask.steering or []
        plan = []
        for part in parts:
            if part.persona not in vectors.own:
                raise HTTPException(
                    422,
                    f"There is no persona {part.persona!r}: choose one of {', '.join(vectors.own)}, or null for none.",
                )
            own = vectors.own[part.persona]
            layer = own.layer if ask.layer is None else ask.layer
            if layer >= lm.n_layers:
                raise HTTPException(
                    422,
                    f"layer is {layer}, and for {part.persona} there are layers 0 to {lm.n_layers - 1} of {lm.name}: choose one of "
                    "those, or null.",
                )
            given = (strength for strength in (part.strength, ask.strength, own.strength) if strength is not None)
            plan.append(Applied(persona=part.persona, layer=layer, strength=next(given)))
        if len({part.persona for part in plan}) < len(plan):
            raise HTTPException(
                422, f"steering names {plan[0].persona} twice, and two different personas were expected: leave one out."
            )
        return plan

    def admitted(ask: Ask) -> tuple[list[Applied], Ticket]:
        """The vectors that a request is for, and its place in the queue. Raises HTTPException for a prompt that the model can't take."""
        plan = planned(ask)
        try:
            n = len(tokenizer(read(lm, ask))["input_ids"])
        except ValueError as error:
            raise HTTPException(422, f"system can't be used: {error}") from None
        context = getattr(lm.model.config, "max_position_embeddings", None) or PROMPT_TOKENS + NEW_TOKENS
        most = min(PROMPT_TOKENS, context - ask.max_length)
        if not 1 <= n <= most:
            room_for = f"1 to {most} tokens" if most >= 1 else f"a smaller max_length than {ask.max_length}"
            raise HTTPException(
                422, f"The prompt has {n} tokens for {lm.name}, and {room_for} were expected: change the prompt."
            )
        return plan, room.ticket()

    async def whole(ask: Ask, request: Request, base: bool) -> tuple[list[Piece], list[Applied]]:
        """Everything that is written for a request, once it is its turn."""
        plan, ticket = admitted(ask)
        gone = request.is_disconnected
        try:
            async for _ in ticket.turn(gone):
                pass
            steps = ticket.work(perform(lm, vectors, ask, plan, base), gone)
            return [step async for step in steps if isinstance(step, Piece)], plan
        finally:
            ticket.leave()

    @app.post("/generate", response_model=Generated, responses=REFUSALS, summary="The steered text")
    async def generate(ask: Ask, request: Request):
        pieces, plan = await whole(ask, request, base=False)
        return Generated(text=_joined(pieces, "steered"), steering=plan)

    @app.post("/compare", response_model=Compared, responses=REFUSALS, summary="The base text and the steered one")
    async def compare(ask: Ask, request: Request):
        pieces, plan = await whole(ask, request, base=True)
        tokens = [Token(text=piece.text, shift=piece.shift) for piece in pieces if piece.side == "steered"]
        return Compared(base=_joined(pieces, "base"), steered=_joined(pieces, "steered"), tokens=tokens, steering=plan)

    @app.post(
        "/stream",
        response_class=StreamingResponse,
        responses=STREAMED,
        summary="Both texts, token by token",
        description=f"Newline-delimited JSON. {Event.__doc__}",
    )
    async def stream(ask: Ask, request: Request):
        plan, ticket = admitted(ask)

        # A whole stream is smaller than what the server buffers for a client, so a slow one doesn't hold up the room.
        async def lines() -> AsyncIterator[str]:
            texts = {"base": "", "steered": ""}
            try:
                async for ahead in ticket.turn(request.is_disconnected):
                    yield _line(Event(waiting=ahead))
                async for step in ticket.work(perform(lm, vectors, ask, plan, True), request.is_disconnected):
                    if isinstance(step, Applied):
                        yield _line(Event(building=step))
                        continue
                    texts[step.side] += step.text
                    yield _line(Event(side=step.side, token=step.text, shift=step.shift))
                ticket.leave()  # the next one needn't wait until this client has read everything
                yield _line(Event(done=True, steering=plan, **texts))
            except Gone:
                return
            except Exception as error:
                yield _line(Event(error=unexpected(error)))

        return TicketedStream(lines(), ticket)

    add_patches(app, lm, room, lambda text: len(tokenizer(text)["input_ids"]), STREAMED)

    @app.get("/examples", summary="Prompts to begin with")
    async def examples() -> Examples:
        return Examples(prompts=prompts(held_out=True), questions=QUESTIONS, patches=choices())

    @app.get("/vectors", summary="The personas, and what their vectors are applied with by default")
    async def available() -> Available:
        return Available(
            model=lm.name,
            n_layers=lm.n_layers,
            chats=bool(lm.tokenizer.chat_template),
            personas=[
                About(
                    id=persona,
                    title=vectors.titles[persona],
                    layer=vector.layer,
                    strength=round(vector.strength, 4),
                    mode=vector.mode,
                    layers=list(range(lm.n_layers)),
                )
                for persona, vector in vectors.own.items()
            ],
        )

    @app.get("/health", summary="Is it there, and how many are waiting?")
    async def health() -> Health:
        return Health(status="ok", model=lm.name, busy=room.busy, waiting=room.waiting, places=PLACES)

    page = resources.files(__package__).joinpath("page.html").read_text("utf-8")
    page = page.replace("/* live.js */", LIVE_VIEW.read_text("utf-8"))

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
    return event.model_dump_json(exclude_none=True) + "\n"
