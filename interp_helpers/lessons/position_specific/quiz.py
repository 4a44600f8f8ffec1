"""The quiz of notebook 04, position-specific intervention."""

from __future__ import annotations

from ...course import Question, Quiz, right, wrong

Quiz(
    "positions.quiz",
    Question(
        "A batch of four prompts of different lengths. Which positions name the last token of each prompt's subject?",
        wrong(
            "`positions=[3, 5, 2, 4]`",
            "One flat sequence names four places in *every* row, where one place was meant for each.",
        ),
        wrong("`positions=-1`", "That is each row's last token; the subject usually ends earlier."),
        right(
            "`positions=[[3], [5], [2], [4]]`",
            "One sequence a row. `lm.find` gives each row's numbers, so that nobody has to count.",
        ),
    ),
    Question(
        "Two prompts differ in their sixth token only. A patch at the third token changes nothing, in any layer. What follows?",
        wrong(
            "The third token doesn't matter for the answer",
            "It may matter a great deal. Both runs computed the same there, so there was nothing to exchange.",
        ),
        right(
            "Nothing: both runs have the same activation there",
            "A token sees only those before it. To ask about the third token, take a pair that differs there, or earlier.",
        ),
        wrong(
            "The hook did not fire",
            "It fired, and put in what was there already; at the sixth token the same hook moves the answer.",
        ),
    ),
    Question(
        "You patch a batch of eight prompts, and every row now prefers the *first* row's answer. What is the likeliest cause?",
        right(
            "Row 0's source was written into every row",
            "A vector without a batch axis serves all rows alike. Check by running one row alone: it must give the same number.",
        ),
        wrong(
            "The model mixes the rows of a batch",
            "It doesn't: rows are independent, which is why one row alone is such a good control.",
        ),
        wrong(
            "The prompts were padded", "Padding changes no number of a real token; and it would not carry an answer."
        ),
    ),
    Question(
        "The corrupted prompt names a third person where the clean one repeats the subject. What can this pair show?",
        wrong(
            "Where the indirect object's name is kept",
            "That name is the same in both prompts, at the same place: no patch between them can move it.",
        ),
        right(
            "Where the model keeps *who is repeated*",
            "That is all the two prompts differ in. Another corruption, such as a swapped name, asks another question.",
        ),
        wrong(
            "Everything that the answer depends on",
            "A pair shows only what differs between its two prompts; that choice defines the experiment.",
        ),
    ),
    Question(
        "Patching a head's output at the last token moves the logit difference by 0.5 of the way, and its direct effect is 0. How?",
        wrong(
            "One of the two measurements is wrong",
            "They answer different questions: the total effect, and the part that goes straight to the logits.",
        ),
        right(
            "It changes what later blocks do",
            "Later heads and MLPs read what it writes; a head may choose by it where to look. That path is not direct.",
        ),
        wrong(
            "The final norm removes what it writes",
            "The norm scales what is there and removes no head's write by itself; and then the patch would have had no effect.",
        ),
    ),
)
