"""The quiz of notebook 01, activation patching."""

from __future__ import annotations

from ...course import Question, Quiz, right, wrong

Quiz(
    "patching.quiz",
    Question(
        "You patch `block_output` of layer 5 at *every* token, from source to base. What do the final logits equal?",
        right(
            "The source run's",
            "Everything that later blocks read at any token is now the source's, so from there on it *is* the source run.",
        ),
        wrong("The base run's", "That holds when the source equals the base; here every token's stream was replaced."),
        wrong(
            "Something in between, depending on how much layer 5 matters",
            "Nothing of the base run is left above layer 5: block outputs hold all that later blocks can read.",
        ),
    ),
    Question(
        "Patching the subject's last token at layer 10 moves 90 % of the logit difference. Which sentence is safe?",
        wrong(
            "Layer 10 stores the fact",
            "The same number comes out at the layers before and after it: the stream carries it past layer 10. Carrying is not storing.",
        ),
        wrong(
            "Without that site the model could not answer",
            "That is necessity, another experiment (noising); and backups may exist.",
        ),
        right(
            "In this pair, that site's content is enough to move most of the answer",
            "That is what denoising shows: sufficiency, relative to this base and source.",
        ),
    ),
    Question(
        "A wrong source (another country) moved the logit difference half of the way. Why?",
        right(
            "Losing the base's answer already raises the difference",
            "logit(source answer) − logit(base answer) grows when the second falls, whatever replaces it.",
        ),
        wrong(
            "The patch was applied at the wrong layer",
            "The same layer moved all of the way with the right source; only the source was changed.",
        ),
        wrong(
            "The metric is broken", "It measures what it says. It takes a control to know which of its two terms moved."
        ),
    ),
    Question(
        "`Site('block_output', 8, positions=3)`: which block and token is that?",
        wrong("The eighth block, third token", "Both are counted from 0."),
        right("The ninth block, fourth token", "Layer 0 is the first block and position 0 the first token."),
        wrong("The ninth block, third token", "The block is right; positions start at 0 as well."),
    ),
    Question(
        "Attribution patching estimated a patch at an early layer with the wrong sign. What went wrong?",
        wrong(
            "The gradient was computed with the wrong batch size",
            "The method uses a single pair, and the same gradients were good at later layers.",
        ),
        wrong(
            "Early layers can't be patched",
            "Patching them for real gave a clear effect; it is the estimate that failed.",
        ),
        right(
            "The model isn't linear between the two runs there",
            "One gradient is a straight line; the farther source and base are apart, and the more blocks lie above, the worse it fits.",
        ),
    ),
)
