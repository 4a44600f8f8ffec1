"""What the Hugging Face cache holds and whether the Hub answers, found out in seconds at most.

`transformers` by itself retries an unreachable Hub for most of a minute, in silence. Here the Hub is asked one
question with a time limit, and what comes back is a clause for a sentence that a learner can act on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

import huggingface_hub
from huggingface_hub import constants, errors
from huggingface_hub import utils as hub_utils

HUB_SECONDS = 5

# A model that can be loaded has one of each row.
NEEDED_FILES = {
    "configuration": ("config.json",),
    "weights": [f"{name}{end}" for name in ("model.safetensors", "pytorch_model.bin") for end in ("", ".index.json")],
    # Checked because transformers 5 makes an empty tokenizer where it finds none.
    "tokenizer": ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model"),
}


def is_cached(name: str, **kwargs) -> bool:
    """Whether the Hugging Face cache holds configuration, weights and tokenizer of the model.

    `kwargs` are those of `from_pretrained`. Raises ValueError if the name can't be one on the Hub.
    """
    which = {key: kwargs[key] for key in ("revision", "cache_dir") if key in kwargs}

    def has(file: str) -> bool:
        return isinstance(huggingface_hub.try_to_load_from_cache(name, file, **which), str)

    try:
        return all(any(map(has, files)) for files in NEEDED_FILES.values())
    except errors.HFValidationError:
        raise ValueError(
            f'"{name}" is neither a folder nor a possible name on the Hugging Face Hub; names look like "gpt2" or '
            '"HuggingFaceTB/SmolLM2-135M".'
        ) from None


def hub_problem(name: str, **kwargs) -> str | None:
    """Why the Hub can't deliver the model right now, as a clause; None if it can. Takes `HUB_SECONDS` at most.

    Raises ValueError if the Hub answers that there is no such model, PermissionError if it is gated.
    """
    if constants.HF_HUB_OFFLINE:
        return "the environment variable HF_HUB_OFFLINE is set"
    place = {key: kwargs[key] for key in ("revision", "subfolder") if key in kwargs}
    url = huggingface_hub.hf_hub_url(name, "config.json", **place)

    def ask():
        # Not `get_hf_file_metadata`, which in huggingface_hub 0.x retries for half a minute.
        headers = hub_utils.build_hf_headers(token=kwargs.get("token"))
        response = hub_utils.get_session().request("HEAD", url, headers=headers, timeout=HUB_SECONDS)
        hub_utils.hf_raise_for_status(response)
        return [response, *response.history]

    page = f"{constants.ENDPOINT}/{name}"
    try:
        answers = _within(HUB_SECONDS, ask)
    except errors.GatedRepoError:
        raise PermissionError(
            f"{name} is gated: accept its terms at {page}, log in with `hf auth login`, then call again."
        ) from None
    except errors.RepositoryNotFoundError:
        raise ValueError(
            f'The Hugging Face Hub has no model "{name}" (or it is private); check the spelling at {page}, and '
            "log in with `hf auth login` if it is private."
        ) from None
    except (errors.RevisionNotFoundError, errors.EntryNotFoundError):
        raise ValueError(
            f"{name} on the Hugging Face Hub has no config.json in that place, so it isn't a model for transformers; "
            f"check the name and the revision at {page}."
        ) from None
    except errors.HfHubHTTPError as error:
        return f"the Hugging Face Hub answered with HTTP status {error.response.status_code}"
    except Exception as error:  # ours, or requests' or httpx's, by the version of huggingface_hub: nothing got through
        if "timeout" in type(error).__name__.lower():
            return f"no answer from the Hugging Face Hub within {HUB_SECONDS} s"
        return f"no connection to the Hugging Face Hub at {constants.ENDPOINT}"
    if any(constants.HUGGINGFACE_HEADER_X_REPO_COMMIT in answer.headers for answer in answers):
        return None
    return f"what answers at {constants.ENDPOINT} is not the Hugging Face Hub"  # but a hotel's log-in page, say


def _within(seconds: float, function: Callable):
    """`function()`, or TimeoutError. A thread, because no timeout of an HTTP library covers the name look-up."""
    outcome: Future = Future()

    def run():
        try:
            outcome.set_result(function())
        except Exception as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome.result(timeout=seconds)


def is_connection_error(error: BaseException | None) -> bool:
    """Whether an exception, or what caused it, is a lost connection rather than an answer."""
    while error is not None:
        # First, because in huggingface_hub 0.x "not in the cache either" is a kind of HTTP error too.
        if isinstance(error, (ConnectionError, TimeoutError, errors.LocalEntryNotFoundError)):
            return True
        if isinstance(error, errors.HfHubHTTPError):  # an answer, though a refusal
            return False
        if type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "requests", "urllib3"):
            return True
        error = error.__cause__ or error.__context__
    return False
