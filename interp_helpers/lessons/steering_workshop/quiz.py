"""The quiz of the steering workshop."""

from __future__ import annotations

from ...course import Question, Quiz, right, wrong

Quiz(
    "workshop.quiz",
    Question(
        "What is a steering vector?",
        wrong(
            "A prompt that the model doesn't show",
            "No words are added: the prompt stays as it is, and the activations are changed.",
        ),
        wrong(
            "A model that was trained anew on your sentences",
            "No weight is changed. Leave the `with` block, and the model is the old one.",
        ),
        right(
            "A direction in the activations: what the model computes for one kind of text, and not for the other",
            "It is added, or raised to a level, at one layer while the model writes.",
        ),
    ),
    Question(
        "Your sentences about the sea are all twice as long as the others. What will your vector hold?",
        wrong("The sea, and nothing else", "The model can't know which of the differences you meant."),
        right(
            "The sea, and whatever long sentences have",
            "A difference of means holds every difference between the two lists. So write them in pairs.",
        ),
        wrong("Nothing: lists must be of equal length", "It will hold something; you just don't know what."),
    ),
    Question(
        "Turned up, the strength brings the word into every text, and the texts make no sense any more. What do you report?",
        wrong("100 % success", "A text that makes no sense is no success for whoever has to read it."),
        right(
            "Both numbers, hits and perplexity, at a strength that was chosen by a rule",
            "Effect and price belong together; and the rule is stated before one looks.",
        ),
        wrong(
            "The strength at which it looks best to you", "Then the next one looks at other texts, and finds another."
        ),
    ),
    Question(
        "A random direction of the same length costs as much perplexity as your vector, and never brings the word. What do you learn?",
        right(
            "The push alone does not bring the word; the direction does",
            "And that part of the price is for being pushed at all.",
        ),
        wrong("Nothing: random is random", "It answers whether *any* push would have done what yours did."),
        wrong("Your vector is random, too", "Then it wouldn't bring the word either."),
    ),
    Question(
        "Somebody wants their shop's chatbot to sound more cheerful. What do you try first?",
        wrong("A steering vector, since it is the newer method", "Newer isn't better. Compare."),
        right(
            "A request in the prompt; then a vector, and both are measured",
            "Prompts often win (Wu et al. 2025), and cost nothing. A vector is worth it where prompts are not obeyed, or not allowed.",
        ),
        wrong("A larger strength", "That is a knob of a method that hasn't been compared with anything yet."),
    ),
)
