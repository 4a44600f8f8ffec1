"""A question as a turn of a chat, in the format that the model was trained for."""

from __future__ import annotations

from ..models import LanguageModel


def chat_prompt(lm: LanguageModel, question: str, system: str | None = None) -> str:
    """The text that the model reads when somebody asks a question in a chat, up to where its answer begins.

    >>> chat_prompt(lm, "Why is the sky blue?", "Answer in one word.")
    '<|im_start|>system\\nAnswer in one word.<|im_end|>\\n<|im_start|>user\\nWhy is the sky blue?<|im_end|>\\n<|im_start|>assistant\\n'

    Args:
        lm: the model.
        question: what the user says.
        system: the instruction that stands before the chat. Without one the model's own template decides what stands there.

    Raises:
        ValueError: the model's tokenizer has no chat format, or its format takes no system prompt.
    """
    if not lm.tokenizer.chat_template:
        raise ValueError(f"{lm.name} has no chat format: it was trained to continue texts.")
    turns = [{"role": "user", "content": question}]
    if system is not None:
        turns.insert(0, {"role": "system", "content": system})
    try:
        return lm.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # jinja's, raised by the template itself
        if system is None:
            raise
        raise ValueError(f"The chat format of {lm.name} takes no system prompt: {error}") from error
