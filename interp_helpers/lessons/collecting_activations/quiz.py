"""The quiz of notebook 05, collecting activations."""

from __future__ import annotations

from ...course import Question, Quiz, right, wrong

Quiz(
    "collecting.quiz",
    Question(
        "A model has 12 blocks and you run it with `output_hidden_states=True`. Which entry is the output of the *last* block?",
        wrong(
            "`hidden_states[12]`",
            "That is the last block's output *after the final norm*: another vector, often of quite another length.",
        ),
        wrong("`hidden_states[11]`", "That is the output of block 10, which enters the last block."),
        right(
            "None of the 13",
            "Entry 0 is the embeddings, entry i + 1 the output of block i, and the last one is normed. `record` or a hook gives it.",
        ),
    ),
    Question(
        "A probe finds the continent of a country from the *embeddings* on, before any block has run. What does that show?",
        wrong(
            "The first block computes the continent",
            "It had not run yet. Whatever the blocks do, it was readable before.",
        ),
        right(
            "The token itself says it: nothing about what the model computes",
            "Embeddings of similar words are similar. Depth tells something only where a label is not readable from the start.",
        ),
        wrong("The probe must be wrong", "It was right on countries that it had never seen."),
    ),
    Question(
        "A probe gets 100 % on randomly held-out sentences, and 50 % when labels are shuffled over the rows. A control task (a coin "
        "toss for each word) gets 94 %. What now?",
        wrong(
            "All is well: the shuffled labels are at chance",
            "Labels shuffled by row can't be learnt by heart. The control task's can, and were: the probe has met the test's words.",
        ),
        right(
            "Hold out the words, not the sentences, and measure again",
            "The probe can learn each word's label by heart. With unseen words in the test, that no longer helps.",
        ),
        wrong("Throw the probe away", "Its ability to memorise is no fault by itself; the split let it pay off."),
    ),
    Question(
        "At layer 18 a probe still reads a label at a token, and erasing its direction *there* changes nothing downstream. Which "
        "sentence is safe?",
        wrong(
            "The model never uses this label",
            "At an earlier layer, or by another direction or token, it may; the notebook found such a layer.",
        ),
        wrong("The probe is broken", "It is right on held-out items. Readable and used are two questions."),
        right(
            "For this behaviour, nothing reads that direction at this place any more",
            "That is what the intervention tested: one direction, one place, one behaviour.",
        ),
    ),
    Question(
        "The probe was trained on “The city of Rome is in Italy” and the like. On “… is *not* in Italy” it answers as if *not* weren't "
        "there. What did it learn?",
        right(
            "Whether city and country belong together",
            "On the training sentences that is the same as truth. A label's name is ours, not the model's.",
        ),
        wrong(
            "Truth, but it makes mistakes",
            "Its mistakes are systematic: nearly every negated sentence is turned round.",
        ),
        wrong("Nothing", "It is right on sentences about cities that it has never met."),
    ),
)
