"""The quiz of notebook 02, causal tracing."""

from __future__ import annotations

from ...course import Question, Quiz, right, wrong

Quiz(
    "tracing.quiz",
    Question(
        "The indirect effect of a site is …",
        right("p(restored) − p(corrupted)", "With the same noise in both runs, so that only the restoration differs."),
        wrong("p(clean) − p(corrupted)", "That is the total effect. No site plays a part in it."),
        wrong("p(clean) − p(restored)", "That is what the site does *not* bring back."),
    ),
    Question(
        "At the last block's last token the indirect effect is as large as the total effect. What does that tell you?",
        wrong(
            "The fact is stored in the last block",
            "It would be so for any fact and any model: everything has flowed into that vector by then.",
        ),
        wrong(
            "The noise was too weak",
            "It holds for every noise: the restored vector gives the clean logits whatever was corrupted.",
        ),
        right(
            "Nothing about the model: the logits are computed from that vector",
            "It is true by construction, and a good test of your code.",
        ),
    ),
    Question(
        "A single draw of noise gave an indirect effect of .45 at one site. What now?",
        wrong(
            "Report it: the effect is large",
            "The next draw may give little more than half of it: look at the bars in section 5.",
        ),
        right(
            "More draws, or more facts, and the standard error beside the mean",
            "Averages over facts are averages over draws, too.",
        ),
        wrong(
            "A fresh draw for the restored run",
            "Then the difference holds two draws' accidents: corrupted and restored share each draw.",
        ),
    ),
    Question(
        "Windows of ten MLPs restore a lot when centred at layers 0 to 5, single MLPs only at layer 0. What is safe to say?",
        right(
            "The windows' effect is in part layer 0's, and in part that of many layers together",
            "A window tells you about the window. Show width 1 as well.",
        ),
        wrong(
            "MLPs 0 to 5 each hold a part of the fact",
            "Restored one by one, layers 1 to 5 bring next to nothing. Each of those windows contains layer 0.",
        ),
        wrong("Windows are wrong", "They answer another question: what do ten MLPs do together?"),
    ),
    Question(
        "Tracing finds the MLPs of the lowest layers. Where should you edit the fact?",
        wrong(
            "In the lowest layers, for that is where it is stored",
            "Restored there is not stored there; and edits also succeed where tracing finds nothing (Hase et al. 2023).",
        ),
        wrong(
            "Nowhere: editing does not work",
            "It worked at most layers. What differed is how much the edit spilled over to other cities.",
        ),
        right(
            "Tracing doesn't say: try layers, and measure what each edit changes and what it breaks",
            "Where something can be restored and where something else can be written are two questions.",
        ),
    ),
)
