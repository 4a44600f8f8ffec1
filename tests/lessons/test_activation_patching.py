"""The arithmetic that only the notebook on activation patching needs."""

from __future__ import annotations

from dataclasses import replace

from tiny import tiny

from interp_helpers import pairs
from interp_helpers.lessons.activation_patching import experiment


def test_the_notebook_opens_with_the_first_pair_that_the_model_knows(monkeypatch, capsys):
    lm = tiny("gpt2")
    monkeypatch.setattr(experiment, "_fits", lambda lm, pair: True)
    monkeypatch.setattr(experiment, "known", lambda lm, bank: bank)
    monkeypatch.setattr(experiment, "wrong_sources", lambda lm, pair, n: [pair.source])
    assert experiment.opening_pair(lm) == experiment.LANDMARKS
    other = pairs("landmark_city")[2]
    monkeypatch.setattr(experiment, "known", lambda lm, bank: [pair for pair in bank if pair == other])
    assert experiment.opening_pair(lm) == other
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(experiment, "known", lambda lm, bank: [])
    assert experiment.opening_pair(lm) == experiment.LANDMARKS
    assert "mean little" in capsys.readouterr().out


def test_a_model_that_knows_nothing_gets_pairs_all_the_same(monkeypatch, capsys):
    lm = tiny("gpt2")
    monkeypatch.setattr(experiment, "_fits", lambda lm, pair: True)
    monkeypatch.setattr(experiment, "known", lambda lm, bank: [])
    monkeypatch.setattr(experiment, "wrong_sources", lambda lm, pair, n: [pair.source])
    monkeypatch.setattr(experiment, "logit_diff", lambda *_: "metric")
    bank = experiment.pairs_to_average(lm, each=2)
    assert "mean little" in capsys.readouterr().out
    assert len(bank.pairs) == len(bank.bases) == len(bank.wrong) == len(bank.subjects) == 8
    assert {pair.family for pair in bank.pairs} == set(experiment.FAMILIES)


def test_a_pair_fits_if_both_prompts_have_the_same_places():
    lm = tiny("gpt2")
    pair = pairs("capital")[0]
    assert experiment._fits(lm, pair)
    assert not experiment._fits(lm, replace(pair, source="The big capital of Austria is"))
    assert not experiment._fits(lm, replace(pair, base_answer=" no such word at all"))
    assert [experiment.kind_of_token(i, range(1, 3), 5) for i in (1, 5, 3)] == list(experiment.TOKENS)
