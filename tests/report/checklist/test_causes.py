"""Causes: the sentence means exactly the points that are lacking, and is short where they have one cause."""

import re
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from shrinkbench.report.checklist.causes import find_clauses, say

TASKS, METHODS, AMOUNTS, SEEDS = ("t1", "t2"), ("A", "B", "C", "D"), ("2x", "4x", "8x"), (0, 1, 2)
WHOLE = list(product(TASKS, METHODS, AMOUNTS, SEEDS))
points = st.sampled_from(WHOLE)


def names(text, every):
    """The values that a part of a sentence names."""
    if text is None:
        return set(every)
    if text.startswith("every "):
        _, but, others = text.partition(" but ")
        return set(every) - (names(others, ()) if but else set())
    return set(re.split(", | and ", text))


def meaning(sentence, grid):
    """The points of ``grid`` that a sentence speaks of, read as a person reads it."""
    found = set()
    for clause in sentence.split("; ") if sentence else []:
        counted = re.fullmatch(r"\d+ of \d+ seeds \((.+)\) everywhere", clause)
        everywhere = counted or re.fullmatch(r"seeds? (.+) everywhere", clause)
        if everywhere:
            seeds, methods, amounts, tasks = everywhere[1], None, None, None
        else:
            read = re.fullmatch(r"(?:seeds? (.+?) of )?(.+?) at (.+?) on (.+)", clause)
            seeds, methods, amounts, tasks = read.groups()
        axes = [
            names(text, {str(p[axis]) for p in grid})
            for axis, text in zip((0, 1, 2, 3), (tasks, methods, amounts, seeds), strict=True)
        ]
        found |= {p for p in grid if all(str(value) in part for value, part in zip(p, axes, strict=True))}
    return found


def boxes():
    """Points that share values, as faults do, and what is left of a grid without some others."""
    part = st.tuples(
        *(st.lists(st.sampled_from(axis), unique=True) for axis in (TASKS, METHODS, AMOUNTS, SEEDS))
    )
    return st.lists(part, max_size=3)


@settings(max_examples=60, deadline=None)
@given(boxes(), st.sets(points, max_size=4), st.sets(points, max_size=12))
def test_a_sentence_means_the_points_that_are_lacking(parts, single, absent):
    grid = [p for p in WHOLE if p not in absent]
    lacking = single & set(grid)
    for part in parts:
        lacking |= {p for p in grid if all(not named or v in named for v, named in zip(p, part, strict=True))}
    assert meaning(say(lacking, grid, limit=None), grid) == lacking
    clauses, rest = find_clauses(lacking, grid)
    assert rest == 0
    assert {p for p in grid if any(clause.holds(p) for clause in clauses)} == lacking


@settings(max_examples=20, deadline=None)
@given(st.sets(points, min_size=1))
def test_what_is_not_told_is_counted(lacking):
    clauses, rest = find_clauses(lacking, WHOLE, limit=2)
    told = {p for p in WHOLE if any(clause.holds(p) for clause in clauses)}
    assert len(clauses) <= 2
    assert rest == len(lacking - told)
    assert (f"; {rest} more points" in say(lacking, WHOLE, limit=2)) == (rest > 0)


def test_one_cause_is_one_clause():
    def lacking(wanted):
        return say([p for p in WHOLE if wanted(*p)], WHOLE)

    assert lacking(lambda t, m, a, s: s == 2) == "1 of 3 seeds (2) everywhere"
    assert lacking(lambda t, m, a, s: s > 0) == "2 of 3 seeds (1 and 2) everywhere"
    assert lacking(lambda t, m, a, s: (m, s) == ("A", 2)) == "seed 2 of A at every amount on every task"
    assert lacking(lambda t, m, a, s: (t, a) == ("t1", "8x")) == "every method at 8x on t1"
    assert lacking(lambda t, m, a, s: m != "A") == "every method but A at every amount on every task"
    assert lacking(lambda *point: True) == "every method at every amount on every task"
    assert lacking(lambda *point: False) == ""


def test_seeds_are_counted_only_where_every_cell_has_all():
    grid = [p for p in WHOLE if p != ("t1", "A", "2x", 0)]
    assert say([p for p in grid if p[3] == 2], grid) == "seed 2 everywhere"


def test_axes_without_part_are_not_named():
    grid = [(task, method, None, None) for task, method in product(TASKS, METHODS)]
    assert say(grid[:1], grid) == "A on t1"
    assert say([p for p in grid if p[1] == "B"], grid) == "B on every task"
