"""A recommendation holds where the method was measured: not across a failed run, and not below the range."""

from __future__ import annotations

import numpy as np
import pytest
from made_results import make_result, make_results

from shrinkbench.report.recommendation import recommend
from shrinkbench.report.statistics.blocks import covers, known_stretches
from shrinkbench.report.statistics.claims import judge
from shrinkbench.report.statistics.curves import Curve, _hole
from shrinkbench.report.statistics.observations import observe
from shrinkbench.report.verdict import reach_verdict

BEST, SECOND, LAST = "global_magnitude", "layerwise_magnitude", "random"


def store(*, fails=(), seeds=(0,), without=(), compressions=(1, 2, 4, 8, 16, 32)):
    """``BEST`` fails at some compressions for some seeds, or lacks them."""
    made = make_results(
        pairs=(("cifar10", "resnet20"),), methods=(BEST, SECOND, LAST), compressions=compressions
    )

    def is_chosen(r, targets):
        return r.spec.method.name == BEST and r.spec.target in targets and not r.spec.is_control

    made = [r for r in made if not is_chosen(r, without)]
    return [
        make_result(r.spec, failed="diverged") if is_chosen(r, fails) and r.spec.seed in seeds else r
        for r in made
    ]


def told(results):
    (task,) = judge(observe(results)).tasks
    return [(s.method, round(s.to), s.since and round(s.since)) for s in recommend(task)]


def test_after_a_failed_run_it_begins_anew_at_the_next_level():
    assert told(store(fails=(8,))) == [(BEST, 4, None), (SECOND, 8, None), (BEST, 32, 16)]
    headline = reach_verdict(observe(store(fails=(8,)))).headline
    assert headline.startswith(
        "Up to 4× use global_magnitude (90.3 % there); beyond, up to 8×, layerwise_magnitude "
    )
    assert (
        "; from 16× up to 32×, global_magnitude (76.4 %; not all is known of it between 8× and 16×)" in headline
    )


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_what_fails_at_the_first_amount_is_recommended_from_the_second_on(seeds):
    assert told(store(fails=(2,), seeds=seeds)) == [(SECOND, 2, None), (BEST, 32, 4)]


def test_amounts_that_were_not_run_are_no_stretch_either():
    """Run at 2x and at 32x only, it is best there; of what lies between nothing is known."""
    assert told(store(without=(4, 8, 16))) == [(BEST, 2, None), (SECOND, 16, None), (BEST, 32, 32)]
    assert "; at 32×, global_magnitude (" in reach_verdict(observe(store(without=(4, 8, 16)))).headline


def test_below_the_range_nothing_is_recommended():
    """Without a control all begin at 2x."""
    assert told(store(compressions=(2, 4, 8))) == [(BEST, 8, 2)]
    assert reach_verdict(observe(store(compressions=(2, 4, 8)))).headline.startswith("From 2× up to 8× use")
    assert told(store()) == [(BEST, 32, None)]


def test_stretches_are_those_between_the_gaps_of_all_seeds():
    x = np.array([1.0, 2, 4, 8, 16, 32])

    def curve(seed, *absent, last=6):
        kept = np.isin(x, absent, invert=True) & (np.arange(6) < last)
        holes = tuple(_hole(x[kept], place, "failed", f"{place:g}x") for place in absent)
        return Curve("t", "m", seed, x[kept], x[kept] / 100, holes)

    def known(*curves):
        return known_stretches(curves, {"0", "1"})["m"]

    assert known(curve(0), curve(1, last=5)) == ((1, 16),)
    assert known(curve(0, 8.0), curve(1)) == ((1, 4), (16, 32))
    assert known(curve(0, 8.0), curve(1, 2.0)) == ((1, 1), (4, 4), (16, 32))
    assert known(curve(0, 32.0), curve(1)) == ((1, 16),)
    assert known(curve(0, 8.0), curve(2, 2.0)) == ((1, 4), (16, 32))
    assert not covers(known(curve(0, 8.0)), 4, 16)
    assert covers(known(curve(0, 8.0)), 16, 32)
    assert not covers((), 1, 2)


def test_where_no_other_can_be_compared_it_says_so():
    """One seed of all others lacks the last amount, at which the others may well be better."""
    made = [
        r
        for r in store()
        if r.spec.method.name == BEST or r.spec.seed != 0 or r.spec.target != 32 or r.spec.is_control
    ]
    *_, last = recommend(judge(observe(made)).tasks[0])
    assert (last.method, round(last.to), last.alone) == (BEST, 32, True)
    headline = reach_verdict(observe(made)).headline
    assert (
        "; beyond, up to 32×, global_magnitude (76.4 %; no other can be compared there). Over 1 to 16×"
        in headline
    )
    assert "no other can be compared" not in reach_verdict(observe(store())).headline
