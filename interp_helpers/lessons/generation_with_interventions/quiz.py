"""The quiz of notebook 06, generation with interventions."""

from __future__ import annotations

from ...course import Question, Quiz, right, wrong

Quiz(
    "generation.quiz",
    Question(
        "With the cache, you steer new tokens only, and strongly. The first new token is the same as without steering. Why?",
        wrong(
            "The cache still holds the unsteered vector",
            "The cache holds keys and values of the prompt; nothing stale is in it.",
        ),
        right(
            "It is decided where the prompt's last token is read, and that is not a new token",
            "The forward that reads the prompt gives the first new token. Steering starts one forward later.",
        ),
        wrong("Sampling is random", "With greedy decoding it is the same every time."),
    ),
    Question(
        "Your hook steers wherever it sees a single token, `h.shape[1] == 1`. When does that go wrong?",
        wrong(
            "With long prompts",
            "A long prompt is read in one forward of many tokens, which the hook rightly leaves alone.",
        ),
        right(
            "With prompts of one token, and without the cache",
            "A prompt of one token looks like a new one; and without the cache every forward reads everything, so it never fires.",
        ),
        wrong("With several prompts at once", "The batch is another axis; padding is a trap, too, but not this one."),
    ),
    Question(
        "Doubling the strength raised the hits from 70 % to 75 % and *lowered* the perplexity. What do you look at first?",
        right(
            "Repetition, and some of the texts",
            "A text that goes round in circles is easy to predict. A low perplexity alone does not mean good text.",
        ),
        wrong("Nothing: both numbers got better", "Read a few of the texts: a loop scores well on both."),
        wrong(
            "The random direction",
            "It is the control for the hits; a perplexity that is too good asks for another look.",
        ),
    ),
    Question(
        "A vector built from sentences with “happy” raises the share of texts with “happy” in them. Which control is still missing to say "
        "that it makes the model write *happier* texts?",
        wrong("A larger sample", "It makes the same number more certain, and doesn't change what is counted."),
        right(
            "A judge that doesn't count the words of the contrast set",
            "Otherwise the vector may just push these words. So count other words, or ask for a judgement of the rest of the text.",
        ),
        wrong("Another seed of the sampling", "Useful, but it counts the same words."),
    ),
    Question(
        "You project a direction out at every layer, and “she” prompts turn to “he”, while “he” prompts stay. Your reading?",
        wrong("The direction means “he”", "Then removing it would have taken “he” away."),
        wrong(
            "The model doesn't use the direction for “he” prompts",
            "It may; both classes' coordinates were set to zero, and only one of them crossed over.",
        ),
        right(
            "Zero is not neutral: for this model it lies on the side of “he”",
            "Look at the coordinates of both classes. Ablating to the middle of the two takes the difference away without deciding for one of them.",
        ),
    ),
)
