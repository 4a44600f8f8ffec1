"""Start the live page: settings from the environment, the port, the model, the vectors, the server, in that order."""

from __future__ import annotations

import errno
import math
import os
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import uvicorn

from ..models import LanguageModel, load_model
from ..steering import SteeringVector, personas, saved_vector, vector_path
from .app import STRENGTH, create_app
from .guard import is_this_machine
from .texts import Vectors

HOST, PORT = "127.0.0.1", 5050


@dataclass(frozen=True)
class Settings:
    """Where to listen, the strength that every persona has by default (None: its own), and whether HOST was set: whoever sets it has
    decided who may come, and by which name."""

    host: str = HOST
    port: int = PORT
    strength: float | None = None
    host_set: bool = False

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Settings:
        """From the variables HOST, PORT and STRENGTH; one that is empty counts as not set.

        Raises:
            ValueError: PORT or STRENGTH is not one.
        """
        port, strength = environment.get("PORT") or str(PORT), environment.get("STRENGTH")
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
            raise ValueError(f"PORT is {port!r}, and a number from 0 to 65535 was expected: set PORT={PORT}, say.")
        if strength:
            try:
                number = float(strength)
            except ValueError:
                number = math.nan
            if not abs(number) <= STRENGTH:  # NaN, too
                raise ValueError(
                    f"STRENGTH is {strength!r}, and a number from -{STRENGTH:g} to {STRENGTH:g} was expected: set "
                    "STRENGTH=0.35, say, or leave it out for each persona's own."
                )
        host = environment.get("HOST")
        return cls(host or HOST, int(port), float(strength) if strength else None, bool(host))


def main() -> int:
    """Serve until stopped; the exit code. Errors are those of `Settings.of`, `listen` and `load_model`."""
    settings = Settings.of(os.environ)
    # Before the model is loaded: whoever has to wait should wait for nothing.
    with listen(settings.host, settings.port) as listener:
        lm = load_model()
        app = create_app(lm, course_vectors(lm, settings.strength), any_name=settings.host_set)
        print(announcement(settings.host, listener.getsockname()[1]), flush=True)
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        OSError: the port is taken, or the address isn't one of this machine's; in one sentence.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError):
        raise OSError(f"HOST is {host!r}, which is no address of a machine: leave it out for {HOST}.") from None
    try:
        if sys.platform != "win32":  # there it would share the port with whoever has it
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise OSError(
                f"Port {port} is taken by another process, which `lsof -i :{port}` or `ss -ltnp` shows: stop it, or take "
                f"another port with PORT={port + 1 if port < 65535 else PORT}."
            ) from None
        if error.errno == errno.EACCES:
            raise OSError(
                f"Port {port} is not for everyone to take: choose one above 1023, such as PORT={PORT}."
            ) from None
        raise OSError(
            f"This machine can't listen on HOST={host} ({error.strerror}): leave HOST out for {HOST}, or use 0.0.0.0 for all of "
            "its addresses."
        ) from None
    return listener


def announcement(host: str, port: int) -> str:
    """Where the page is, and who can reach it."""
    shown = f"[{host}]" if ":" in host else host
    if is_this_machine(host):
        return (
            f"The live page is at http://{shown}:{port} for this machine alone (HOST=0.0.0.0 opens it to the network). "
            "Ctrl+C stops it."
        )
    if host in ("0.0.0.0", "::"):
        shown = _own_address() or "<this machine's address>"
    return (
        f"The live page is at http://{shown}:{port}, for everyone on the network: HOST={host} opened it, without a password. "
        "Ctrl+C stops it."
    )


def course_vectors(lm: LanguageModel, strength: float | None = None) -> Vectors:
    """The personas' vectors for this model, with a line for each that has to be built first; each with its own strength, or with
    one for all."""
    own = {persona: _own_vector(lm, persona) for persona in personas()}
    if strength is not None:
        own = {persona: replace(vector, strength=strength) for persona, vector in own.items()}

    # One layer at a time: all of them in one pass take minutes, and the whole room would wait for them.
    def build(persona: str, layer: int) -> SteeringVector:
        started = time.monotonic()
        vector = personas()[persona].vectors(lm, [layer])[0]
        print(f"Built {persona} at layer {layer} in {time.monotonic() - started:.0f} s.", flush=True)
        return replace(vector, strength=own[persona].strength, mode=own[persona].mode)

    return Vectors(own, {id: persona.title for id, persona in personas().items()}, build)


def _own_vector(lm: LanguageModel, persona: str) -> SteeringVector:
    if vector_path(lm, persona).exists():
        return saved_vector(lm, persona)
    measured = lm.name in personas()[persona].measured
    how = (
        "" if measured else f", at an unmeasured layer (`vectors build --persona {persona}` finds the best, in minutes)"
    )
    print(f"Building the vector for {persona}{how} …", flush=True)
    started = time.monotonic()
    vector = saved_vector(lm, persona) if measured else personas()[persona].build(lm, layer=round(0.8 * lm.n_layers))
    print(f"  {time.monotonic() - started:.0f} s.", flush=True)
    return vector


def _own_address() -> str | None:
    """This machine's address in its network, as it would be used to reach another; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address that is kept for examples
            return probe.getsockname()[0]
        except OSError:
            return None
