"""How many cases a property test tries: some in `make test`, thousands in `make test-all`."""

from __future__ import annotations

import sys

import pytest
from hypothesis import HealthCheck, given, settings

SOME = settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
MANY = settings(SOME, max_examples=2000, derandomize=False)


def some_or_many(*strategies, **named):
    """`hypothesis.given`, as two tests: one of some cases, and one of many, "… many times", which is marked slow."""

    def tests(check):
        many = pytest.mark.slow(MANY(given(*strategies, **named)(check)))
        setattr(sys.modules[check.__module__], f"{check.__name__}_many_times", many)
        return SOME(given(*strategies, **named)(check))

    return tests
