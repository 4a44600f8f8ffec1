"""A question as a turn of a chat."""

from __future__ import annotations

import pytest
from tiny import tiny

from interp_helpers.steering import chat_prompt

TEMPLATE = "{% for turn in messages %}<{{ turn['role'] }}>{{ turn['content'] }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"


@pytest.fixture
def chatty():
    lm = tiny("gpt2", seed=3)
    lm.tokenizer.chat_template = TEMPLATE
    yield lm
    lm.tokenizer.chat_template = None


def test_the_models_own_format_is_used(chatty):
    assert chat_prompt(chatty, "Why?") == "<user>Why?<assistant>"
    assert chat_prompt(chatty, "Why?", "Be brief.") == "<system>Be brief.<user>Why?<assistant>"


def test_a_format_without_system_prompts_is_named(chatty):
    chatty.tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE
    )
    assert chat_prompt(chatty, "Why?") == "<user>Why?<assistant>"
    with pytest.raises(ValueError, match="takes no system prompt: no system"):
        chat_prompt(chatty, "Why?", "Be brief.")


def test_a_model_without_chats_is_named():
    with pytest.raises(ValueError, match="has no chat format"):
        chat_prompt(tiny("gpt2"), "Why?")
