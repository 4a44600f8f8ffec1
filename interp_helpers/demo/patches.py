"""The page's second view, *Where is it?*: two prompts, and a map of what each patch between them does, line by line."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Literal

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from ..engine import stop_when
from ..models import LanguageModel
from ..prompts import pairs
from ..sweeps import LivePatches, live_events
from .guard import Body, unexpected
from .queue import Gone, Room, Ticket, TicketedStream

CHARACTERS = 2000
WORD = 100  # characters

Prompt = Annotated[str, Field(max_length=CHARACTERS)]
Word = Annotated[str, Field(max_length=WORD)]


class Place(Body):
    """One patch: the source's vector of a layer and a token, and the base's token at which it is put."""

    layer: int = Field(ge=0, le=1000)
    position: int = Field(ge=0, lt=LivePatches.MOST)
    to: Annotated[int, Field(ge=0, lt=LivePatches.MOST)] | None = Field(None, description="by default the same token")


class Patch(Body):
    """What to patch."""

    base: Prompt = Field(description=f"the prompt that is patched, of at most {LivePatches.MOST} tokens")
    source: Prompt = Field(description="the prompt that patches come from, of as many tokens")
    component: Literal[tuple(LivePatches.COMPONENTS)] = Field("residual stream", description="what is patched")
    metric: Literal[tuple(LivePatches.METRICS)] = Field("logit difference", description="what is measured")
    words: Annotated[list[Word], Field(min_length=2, max_length=2)] = Field(
        ["", ""],
        description="the base's and the source's answer; an empty one is the prompt's own likeliest next token",
    )
    cell: Place | None = Field(None, description="a patch whose next tokens are told of first")
    map: bool = Field(True, description="whether the map is wanted, too")


EXPECTED = {
    "base": f"a text of at most {CHARACTERS} characters",
    "source": f"a text of at most {CHARACTERS} characters",
    "component": " or ".join(map(repr, LivePatches.COMPONENTS)),
    "metric": " or ".join(map(repr, LivePatches.METRICS)),
    "words": f"a list of two texts of at most {WORD} characters",
    "cell": f"an object with layer, position and to, a layer from 0 on and tokens from 0 to {LivePatches.MOST - 1}, or null",
    "map": "true or false",
}


class Example(BaseModel):
    base: str
    source: str
    words: list[str]


class Choices(BaseModel):
    """What the view offers."""

    components: list[str]
    metrics: list[str]
    examples: list[Example]


def choices() -> Choices:
    """The components and metrics of `LivePatches`, and pairs of the banks."""
    some = [*pairs("landmark_city")[:6], *pairs("capital")[:6]]
    examples = [Example(base=p.base, source=p.source, words=[p.base_answer, p.source_answer]) for p in some]
    return Choices(components=list(LivePatches.COMPONENTS), metrics=list(LivePatches.METRICS), examples=examples)


def add_patches(app: FastAPI, lm: LanguageModel, room: Room, count: Callable[[str], int], refusals: dict) -> None:
    """`POST /patch`. `count` says how many tokens a text has."""

    @app.post("/patch", response_class=StreamingResponse, responses=refusals, summary="A map of patches, in steps")
    async def patch(asked: Patch, request: Request):
        """Newline-delimited JSON, one event a line: the tokens; the words; the map of a few layers, of more, of all; what one patch
        does, where a cell is asked for; a problem, in place of what there would be; how many requests are before this one; and last,
        done or an error."""
        try:
            lengths = [count(text) for text in (asked.base, asked.source)]
            LivePatches.require_length(*(max(n, 2) for n in lengths))  # too short a one is told in place of the map
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        ticket = room.ticket()

        async def lines() -> AsyncIterator[str]:
            try:
                async for ahead in ticket.turn(request.is_disconnected):
                    yield _line({"waiting": ahead})
                async for event in ticket.work(_events(lm, asked, ticket), request.is_disconnected):
                    yield _line(event)
                ticket.leave()
                yield _line({"done": True})
            except Gone:
                return
            except Exception as error:
                yield _line({"error": unexpected(error)})

        return TicketedStream(lines(), ticket)


def _events(lm: LanguageModel, asked: Patch, ticket: Ticket) -> Iterator[dict]:
    with stop_when(lambda: ticket.left):
        yield from live_events(lm, **asked.model_dump())


def _line(event: dict) -> str:
    return json.dumps(event) + "\n"
