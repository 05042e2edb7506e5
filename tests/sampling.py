"""Long lists of cases: a few are looked at by default, all of them in the slow runs."""

import pytest


def sampled(cases, *, every):
    """``cases`` for parametrize; of those that are not slow anyway, one in ``every`` runs by default."""
    found, number = [], 0
    for case in cases:
        values, marks = _parts(case)
        if not any(mark.name == "slow" for mark in marks):
            marks = (*marks, pytest.mark.slow) if number % every else marks
            number += 1
        found.append(pytest.param(*values, marks=marks))
    return found


def crossed(rows, columns, *, every):
    """All pairs for parametrize, of which one in ``every`` runs by default.

    Where ``every`` is no more than the shorter of both is long, each row and each column is in one of them.
    """
    return [
        pytest.param(row, column, marks=[pytest.mark.slow] * bool((at - beside) % every))
        for at, row in enumerate(rows)
        for beside, column in enumerate(columns)
    ]


COSTLY = ("obert", "gradual_woodfisher", "discrimination_aware")


def costly_slow(cases):
    """``cases``; those of the methods that take longest are left to the slow runs."""
    found = []
    for case in cases:
        values, marks = _parts(case)
        found.append(pytest.param(*values, marks=[*marks, *[pytest.mark.slow] * (values[0] in COSTLY)]))
    return found


def _parts(case):
    if hasattr(case, "marks"):
        return case.values, case.marks
    return (case if isinstance(case, tuple) else (case,)), ()
