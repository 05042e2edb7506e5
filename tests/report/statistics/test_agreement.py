"""Whatever is stored, the answers of a report agree with one another, and name whom they leave out."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shrinkbench.report.recommendation import (
    CLOSE,
    FEW,
    between,
    only_pairs_text,
    over_tasks_text,
    range_text,
    recommend,
)
from shrinkbench.report.statistics.claims import FEWEST_TASKS, judge_curves
from shrinkbench.report.statistics.curves import Curve, _hole

LEVELS = (2.0, 4.0, 8.0, 16.0, 32.0)


@st.composite
def stores(draw, *, most_tasks=3, most_methods=4, holes=True, complete=False):
    """Curves of up to four methods (names sort as drawn), each with its own faults."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = np.array(draw(st.lists(st.sampled_from(LEVELS), min_size=2, unique=True).map(sorted)))
    noise = draw(st.sampled_from([0.0, 0.001, 0.01, 0.1]))
    seeds = range(draw(st.integers(1, 4)))
    methods = [f"m{i}" for i in range(draw(st.integers(2, most_methods)))]
    fault = st.sampled_from(["", "", "", "", "no control", "short", "a little short", "absent", "hole"])
    found = []
    for task in range(draw(st.integers(1, most_tasks))):
        shared = random.normal(0, 0.01, len(seeds))
        for method in methods:
            skill = random.normal(0, draw(st.sampled_from([0.0, 0.01, 0.05])))
            for seed in seeds:
                kind = "" if complete else draw(fault)
                x = np.r_[1.0, levels]
                y = 0.9 + shared[seed] + np.r_[0, skill + noise * random.standard_normal(len(levels))]
                if kind == "absent":
                    continue
                found.append(damaged(f"t{task}", method, seed, x, y, kind if holes else "", random))
    return found, tuple(levels)


def damaged(task, method, seed, x, y, kind, random):
    gaps = ()
    keep = np.ones(len(x), dtype=bool)
    if kind == "no control":
        keep[0] = False
    elif kind == "short":
        keep[-1] = False
    elif kind == "a little short":
        x = np.where(x == x[-1], 0.97 * x, x)
    elif kind == "hole":
        place = int(random.integers(1, len(x)))
        keep[place] = False
        gaps = (_hole(x[keep], float(x[place]), "failed", f"{x[place]:g}x"),)
    return Curve(task, method, seed, x[keep], y[keep], gaps)


def judged(store, **options):
    curves, levels = store
    return judge_curves(curves, levels, places={}, **options)


def everything(claims):
    yield from claims.pairs_over_tasks
    for task in claims.tasks:
        yield from task.pairs
        yield from (level.claim for level in task.levels if level.claim)


def headline(task):
    """From whom a sentence says that its best is told apart, and from whom not; the sentence names up to 3."""
    block = task.block
    best, *others = (block.methods[i] for i in np.argsort(-block.means, kind="stable"))
    return best, others, range_text(task, "")


def named(text, phrase):
    part = re.search(rf"{phrase} ((?:m\d(?:, | and )?)+)", text)
    return set(re.findall(r"m\d", part.group(1))) if part else set()


def agrees(best, others, pairs, text):
    decided = {other for other in others if between(pairs, best, other).decided}
    if len(decided) == len(others):
        assert "told apart from every one of them" in text
        return
    assert named(text, "told apart from") == decided
    assert named(text, "undecided against") == set(others) - decided


def denies_no_pair(task):
    """Without a comparison of several at once the sentence says which pairs are compared, and how it went."""
    text = only_pairs_text(task)
    assert ("No two methods can be compared" in text) == (not task.pairs)
    for pair in task.pairs[:FEW]:
        assert f"{pair.first} and {pair.second}{' (told apart)' * pair.decided}" in text
    assert text.count("told apart") == sum(pair.decided for pair in task.pairs[:FEW])


@settings(max_examples=100, deadline=None)
@given(stores(most_methods=6, most_tasks=1))
def test_headline_and_pairs_agree_where_few_methods_have_much_in_common(store):
    """With more methods, which lack one seed or another, several at once are seldom compared."""
    (task,) = judged(store).tasks or (None,)
    if task is None or len(task.block.methods) > 1:
        return
    denies_no_pair(task)


@settings(max_examples=40, deadline=None)
@given(stores())
def test_headline_and_pairs_agree(store):
    claims = judged(store)
    for task in claims.tasks:
        if len(task.block.methods) > 1:
            agrees(*headline(task)[:2], task.pairs, headline(task)[2])
        else:
            denies_no_pair(task)
    over = claims.over_tasks
    if over is not None and len(over.methods) > 1:
        order = [over.methods[i] for i in np.argsort(-over.means, kind="stable")]
        text = over_tasks_text(over.units, order[0], claims.pairs_over_tasks, order)
        if len(over.units) < FEWEST_TASKS:
            assert "nothing is told apart" in text
            assert not any(claim.decided or np.isfinite(claim.p) for claim in claims.pairs_over_tasks)
            return
        agrees(order[0], order[1:], claims.pairs_over_tasks, text)


@settings(max_examples=40, deadline=None)
@given(stores())
def test_no_lead_is_negative_and_what_is_decided_excludes_zero(store):
    claims = judged(store)
    for claim in everything(claims):
        assert not claim.decided or claim.low > 0 or claim.high < 0
        assert not claim.p < claim.p_raw * (1 - 1e-9)
        if claim.question == "level":
            assert claim.difference >= 0
    for task in claims.tasks:
        if len(task.block.methods) > 1:
            best, others, _ = headline(task)
            assert all(between(task.pairs, best, other).difference >= -1e-12 for other in others)


@settings(max_examples=40, deadline=None)
@given(stores())
def test_the_recommendation_never_contradicts_a_decided_level(store):
    for task in judged(store).tasks:
        segments = recommend(task)
        if not segments:
            continue
        for level in task.levels:
            told = next(s.method for s in segments if s.to >= level.block.high * (1 - 1e-12))
            assert told in level.block.methods
            if level.claim and level.claim.decided and told != level.claim.first:
                lead = next(c for c in level.leads if c.second == told)
                assert lead.difference < CLOSE


@settings(max_examples=80, deadline=None)
@given(stores(most_methods=5))
def test_nothing_is_recommended_where_a_run_of_it_is_absent(store):
    for task in judged(store).tasks:
        before = 1.0
        for segment in recommend(task):
            start, before = segment.since or before, segment.to
            own = [c for c in store[0] if (c.task, c.method) == (task.task, segment.method)]
            compared = [c for c in own if str(c.seed) in task.block.units]
            assert not any(c.holes_in(start, segment.to) for c in compared if start < segment.to)
            assert all(c.x[0] <= start * 1.1 and c.x[-1] >= segment.to * 0.9 for c in compared)


@settings(max_examples=40, deadline=None)
@given(stores())
def test_everybody_is_compared_or_named(store):
    claims = judged(store)
    for task in claims.tasks:
        here = [c for c in store[0] if c.task == task.task]
        for block in (task.block, *(level.block for level in task.levels)):
            assert sorted([*block.methods, *(one.method for one in block.left_out)]) == sorted(
                {c.method for c in here}
            )
            assert all(one.why for one in block.left_out)
            assert sorted([*block.units, *block.units_left_out]) == sorted({str(c.seed) for c in here})
            assert np.isfinite(block.values).all()
    if claims.over_tasks is not None:
        over = claims.over_tasks
        known = {c.method for c in store[0]}
        assert {*over.methods, *(one.method for one in over.left_out)} == known
        assert {*over.units, *over.units_left_out} == {task.task for task in claims.tasks}


@settings(max_examples=40, deadline=None)
@given(stores())
def test_a_method_with_a_hole_inside_the_range_is_not_compared_over_it(store):
    for task in judged(store).tasks:
        block = task.block
        for curve in store[0]:
            if (
                curve.task == task.task
                and str(curve.seed) in block.units
                and curve.holes_in(block.low, block.high)
            ):
                assert curve.method not in block.methods


def values_of(claims):
    return {
        (c.question, c.task, frozenset((c.first, c.second)), c.reach): (abs(c.difference), c.p, c.deviation)
        for c in everything(claims)
    }


@settings(max_examples=15, deadline=None)
@given(stores(), st.randoms(use_true_random=False))
def test_the_order_of_runs_changes_nothing(store, random):
    curves, levels = store
    shuffled = random.sample(curves, len(curves))
    assert repr(values_of(judged((shuffled, levels)))) == repr(values_of(judged(store)))


@settings(max_examples=15, deadline=None)
@given(stores(), st.permutations(["a", "b", "c", "d"]))
def test_names_change_nothing(store, names):
    curves, levels = store
    renamed = [replace(c, method=names[int(c.method[1:])]) for c in curves]
    before, after = (
        {(*key[:2], frozenset(by(m) for m in key[2])): value for key, value in values_of(claims).items()}
        for claims, by in (
            (judged(store), lambda m: names[int(m[1:])]),
            (judged((renamed, levels)), lambda m: m),
        )
    )
    ties = len(before) != len(after) or before.keys() != after.keys()
    if not ties:  # of two exactly alike, the name says which comes first
        for key, value in before.items():
            assert value == pytest.approx(after[key], rel=1e-9, abs=1e-15, nan_ok=True)


@settings(max_examples=15, deadline=None)
@given(stores(complete=True, most_tasks=2), st.sampled_from(["short", "other seeds", "failed at the end"]))
def test_a_method_that_cannot_be_compared_changes_nothing_for_the_others(store, kind):
    curves, levels = store
    added = []
    for c in curves:
        if c.method == "m0":
            x, y = c.x, c.y + 0.01 * c.seed
            seed = c.seed + 100 * (kind == "other seeds")
            holes = () if kind == "other seeds" else (_hole(x[:2], float(x[-1]), "failed", "last"),)
            keep = slice(None) if kind == "other seeds" else slice(0, 2)
            holes = holes if kind == "failed at the end" else ()
            added.append(Curve(c.task, "m9", seed, x[keep], y[keep], holes))
    before, after = judged(store), judged(([*curves, *added], levels))
    for one, other in zip(before.tasks, after.tasks, strict=True):
        assert one.block.methods == other.block.methods
        assert (one.block.low, one.block.high) == (other.block.low, other.block.high)
        there = {(c.first, c.second): c for c in other.pairs}
        for c in one.pairs:
            same = there[c.first, c.second]
            assert (c.difference, c.low, c.high) == pytest.approx(
                (same.difference, same.low, same.high), nan_ok=True
            )
        assert "m9" in {left_out.method for left_out in other.block.left_out}
