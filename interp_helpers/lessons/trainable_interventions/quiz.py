"""The quiz of notebook 03, trainable interventions."""

from __future__ import annotations

from ...course import Question, Quiz, right, wrong

Quiz(
    "das.quiz",
    Question(
        "Exchanging the *whole* first hidden layer gave the counterfactual label in half of the pairs, although one direction of it gave "
        "it in nearly all. Why?",
        wrong(
            "The layer does not hold L",
            "One of its directions, exchanged, acted as L in nearly all new pairs. It is there.",
        ),
        right(
            "The whole layer holds R as well, and R was exchanged with it",
            "The network then gives the source's own answer, which agrees with the counterfactual one half of the time.",
        ),
        wrong(
            "The network was trained too little", "It solves the task; and the same network passed with one direction."
        ),
    ),
    Question(
        "You train a rotation with source = base. The IIA is 100 % and the rotation turns as you train. What have you learnt about the "
        "model?",
        wrong(
            "Where the variable is: the rotation moved there",
            "It moved by rounding errors, which Adam scales up. The loss was the same all along.",
        ),
        wrong(
            "That the subspace is sufficient", "Nothing was exchanged: s − b is zero, so h = b whatever the subspace."
        ),
        right(
            "Nothing", "The output doesn't depend on the subspace, so the experiment could not have come out otherwise."
        ),
    ),
    Question(
        "DAS gets .97 on held-out names. Which other result would you ask for *first* before calling it a finding of DAS?",
        right(
            "The difference of means and random subspaces on the same pairs",
            "If an untrained direction does as well, training found nothing that a mean does not; if a random one does, nobody did.",
        ),
        wrong(
            "The IIA on the training names", "It can only be as high or higher; the held-out names are the harder test."
        ),
        wrong("A larger rank", "More dimensions make a high IIA easier, not more telling."),
    ),
    Question(
        "On capitals, 16 learnt dimensions get 100 % on the training pairs and 0 % on other countries; the whole stream carries both. "
        "What follows?",
        wrong(
            "Capitals are stored elsewhere",
            "The whole stream at that token carries the capitals of the other countries as well.",
        ),
        right(
            "The subspace tells the training countries apart, and that is all that was learnt",
            "Ten countries differ along nine directions; any subspace that holds these passes the training pairs.",
        ),
        wrong(
            "The training should have gone on",
            "It was perfect on what it was trained on. No number of steps says anything about countries outside of it.",
        ),
    ),
    Question(
        "A subspace of an MLP's activation, exchanged, moves the answer; exchanging all of that activation does not. Your reading?",
        wrong(
            "The subspace isolates the variable, and the rest of the activation hides it",
            "In part it may: other directions can pull the other way. But decompose the subspace before believing that it is all.",
        ),
        wrong(
            "A bug: a part cannot do more than the whole",
            "It can: the source's other content may cancel what the part does.",
        ),
        right(
            "Suspicion: part of it may be unread, driving a path that is dormant otherwise",
            "Makelov et al. 2023. Exchange its read part and its unread part, each alone: if the unread part does nothing by itself and the subspace needs it all the same, it is that.",
        ),
    ),
)
