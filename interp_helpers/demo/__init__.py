"""The live page. *Steer*: a prompt, a persona, a slider, and the model's text without and with steering, side by side. *Where is it?*:
two prompts, and a map of what each patch between them does.

    python -m interp_helpers demo        # http://127.0.0.1:5050; HOST, PORT and STRENGTH are environment variables

`texts` writes the two texts, `patches` gives the map, `queue` lets thirty people use one model, `guard` keeps what doesn't fit out, `app` is the HTTP
API, `serve` starts it. It needs FastAPI and uvicorn: `pip install "interp-helpers[demo]"`.
"""

from __future__ import annotations


def run() -> int:
    """Serve the page until it is stopped; the exit code.

    Raises:
        RuntimeError: FastAPI or uvicorn is not installed.
        ValueError: HOST, PORT or STRENGTH is not one.
        OSError: the address can't be had, as when the port is taken.
    """
    try:
        from . import serve
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "pydantic", "starlette"):
            raise
        raise RuntimeError(
            f"The live page needs FastAPI and uvicorn, and {error.name} is not installed: run "
            '`pip install "interp-helpers[demo]"`.'
        ) from None
    return serve.main()
