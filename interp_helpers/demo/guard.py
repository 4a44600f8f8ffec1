"""What doesn't fit is refused with one sentence: what was got, what was expected, what to do. Never with a traceback."""

from __future__ import annotations

import ipaddress
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

BODY_BYTES = 64 * 1024
_HOST = re.compile(r"([^:\[\]]+|\[[^\[\]]+\])(:\d*)?")  # a name or an address, with a port or without
_log = logging.getLogger(__name__)


class Bodies:
    """ASGI middleware: reads the body of a POST, and lets it through if it is of a bounded size and JSON.

    It comes before FastAPI, which would read a body of any size, take NaN for a number, and stumble over numbers of five
    thousand digits and over lists in lists in lists.
    """

    def __init__(self, app: Callable):
        self.app = app

    async def __call__(self, scope: Mapping, receive: Callable[[], Awaitable], send: Callable) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self.app(scope, receive, send)
        body, more = bytearray(), True
        while more and len(body) <= BODY_BYTES:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if len(body) > BODY_BYTES:
            sentence = (
                f"The body has more than {BODY_BYTES:,} bytes, which is the most that is taken: send a shorter one."
            )
            # The rest of it is not read, so the connection can't go on.
            return await _answer(413, sentence, {"connection": "close"})(scope, receive, send)
        problem = _problem(bytes(body))
        if problem:
            return await _answer(400, problem)(scope, receive, send)
        replay = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def again() -> Mapping:
            return replay.pop() if replay else await receive()

        await self.app(scope, again, send)


class ThisMachine:
    """ASGI middleware: what comes in at an address of this machine alone has to ask for it by such a name, localhost or 127.0.0.1.

    Any site can make its own name point at 127.0.0.1, and a browser then lets its pages read what is served there (DNS rebinding).
    """

    def __init__(self, app: Callable):
        self.app = app

    async def __call__(self, scope: Mapping, receive: Callable[[], Awaitable], send: Callable) -> None:
        ours = (scope.get("server") or [None])[0]
        if scope["type"] == "lifespan" or not is_this_machine(ours):
            return await self.app(scope, receive, send)
        host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
        name = _HOST.fullmatch(host)
        if name and is_this_machine(name[1].strip("[]")):
            return await self.app(scope, receive, send)
        sentence = (
            f"This page is for this machine alone, and it was asked for as {shown(host)}: open it as {ours}, or start it with HOST={ours}, "
            "which lets any name in."
        )
        return await _answer(421, sentence)(scope, receive, send)


def is_this_machine(host: str | None) -> bool:
    """Whether an address can be reached from this machine alone; of a name that can't be told."""
    try:
        return str(host).lower() == "localhost" or ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


class Body(BaseModel):
    """What a request's body may hold: these fields, of just these types."""

    model_config = ConfigDict(strict=True, extra="forbid")


def refuse_in_sentences(app: FastAPI, expected: Mapping[str, Mapping[str, str]]) -> None:
    """Make every error of an app a {"detail": one sentence}.

    Args:
        app: the app.
        expected: of each path, for each field of a request's body, what it has to be.
    """

    @app.exception_handler(RequestValidationError)
    async def _(request: Request, error: RequestValidationError) -> JSONResponse:
        return _answer(422, _sentence(error, expected[request.url.path]))

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> JSONResponse:
        sentence = error.detail
        if error.status_code == 404:
            sentence = f"There is nothing at {request.url.path}: /openapi.json lists what there is."
        elif error.status_code == 405:
            allowed = error.headers["Allow"]
            sentence = f"{request.method} was got at {request.url.path}, and {allowed} is expected: see /openapi.json."
        return _answer(error.status_code, sentence, error.headers)

    @app.exception_handler(Exception)
    async def _(request: Request, error: Exception) -> JSONResponse:
        return _answer(500, unexpected(error))


def unexpected(error: Exception) -> str:
    """The sentence for an error that nobody foresaw; the error itself goes into the log."""
    _log.error("The live page failed.", exc_info=error)
    return f"Something failed inside ({type(error).__name__}): try again, and if it stays, look at the server's output."


def shown(value: object, most: int = 60) -> str:
    """A value as a sentence can have it: short, and free of what JSON or UTF-8 can't carry."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"a {type(value).__name__} that is nested too deeply"
    return text if len(text) <= most else text[: most - 1] + "…"


def _answer(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": sentence}, status, dict(headers or {}))


def _problem(body: bytes) -> str | None:
    """The sentence for a body that isn't JSON; None for one that is."""
    try:
        json.loads(body.decode("utf-8"), parse_constant=_not_json)
    except UnicodeDecodeError as error:
        return f"Byte {error.start} of the body is not UTF-8, and JSON in UTF-8 was expected: encode the body as UTF-8."
    except RecursionError:
        return "The body is nested too deeply, and a flat JSON object was expected: see /openapi.json for its fields."
    except json.JSONDecodeError as error:
        found = "is empty" if not body.strip() else f"is not JSON ({error.msg} at character {error.pos})"
        return f"The body {found}, and a JSON object was expected: see /openapi.json for its fields."
    except ValueError as error:  # NaN, infinity, or a number of thousands of digits
        return f"The body has a number that can't be used ({error}), and finite ones were expected: correct it."
    return None


def _not_json(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _sentence(error: RequestValidationError, expected: Mapping[str, str]) -> str:
    """The first of the errors that FastAPI found, as a sentence; its own would quote the whole input."""
    first = error.errors()[0]
    path = [part for part in first["loc"] if part != "body"]
    fields = ", ".join(expected)
    if not path or not isinstance(error.body, Mapping):
        got = "is missing" if error.body is None else f"is {shown(error.body)}"
        return f"The body {got}, and a JSON object with {fields} was expected: send one as application/json."
    if first["type"] == "extra_forbidden" and path[0] not in expected:
        return f"There is no field {shown(path[0])}, and {fields} were expected: leave it out, or correct its name."
    field = str(path[0])
    if field not in error.body:
        return f"{field} is missing, and {expected[field]} was expected: add it to the JSON object."
    return f"{field} is {shown(error.body[field])}, and {expected[field]} was expected: correct it and send it again."
