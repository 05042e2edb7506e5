"""Several amounts that reach one compression: their mean counts, at a level and over a range."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from made_results import PARAMETERS, changed, make_results

from shrinkbench.report.statistics.claims import judge
from shrinkbench.report.statistics.compare import winners
from shrinkbench.report.statistics.curves import Curve, at_equal, curves, repeated_amounts
from shrinkbench.report.statistics.observations import observe
from shrinkbench.report.verdict import reach_verdict

PAIR = (("cifar10", "resnet20"),)
OTHER, TWICE = "global_magnitude", "layerwise_magnitude"


def store(values=(0.9, 0.7), *, reached=10.0):
    """Whether 10x or 12x was asked of it, ``TWICE`` reaches 10x, for every seed."""
    made = make_results(pairs=PAIR, methods=(OTHER, TWICE), compressions=(1, 2, 4, 8, 10, 12))

    def change(r):
        if r.spec.method.name != TWICE or r.spec.is_control or r.spec.target < 10:
            return r
        value = values[r.spec.target == 12]
        size = {"compression": reached, "parameters_kept": round(PARAMETERS / reached)}
        return r.model_copy(
            update={
                "after": changed(r.after, top1=value),
                "validation": changed(r.validation, top1=value),
                "size": r.size.model_copy(update=size),
            }
        )

    return [change(r) for r in made]


@pytest.mark.parametrize("points", itertools.permutations([(10.0, 0.9), (10.0, 0.7), (8.0, 0.8)]))
def test_points_of_one_place_count_as_their_mean_at_it_and_on_the_way(points):
    x, y = np.array(sorted(points, key=lambda p: p[0])).T
    curve = Curve("t", "m", 0, x, y)
    assert curve.at(10.0) == curve.at(9.95) == pytest.approx(0.8)
    assert curve.mean(8.0, 10.0) == pytest.approx(0.8)


def test_every_seed_counts_the_mean_whatever_the_order_of_runs():
    expected = None
    for results in (store(), store()[::-1], store(values=(0.7, 0.9))):
        observed = observe(results)
        level = next(lv for lv in judge(observed).tasks[0].levels if lv.level == 10)
        own = level.block.values[level.block.methods.index(TWICE)]
        assert own == pytest.approx([0.8] * 3)
        values = at_equal(observed, "compression").set_index(["method", "level"])["value"]
        assert values.loc[TWICE, 10.0].tolist() == pytest.approx([0.8] * 3)
        ends = [c.mean(8, 10) for c in curves(observed, "compression", "headline") if c.method == TWICE]
        areas = judge(observed).tasks[0].block.values
        table = winners(observed)[["level", "best", "value", "difference", "p"]].to_numpy().tolist()
        found = (ends, areas.tolist(), table)
        assert expected is None or repr(found) == repr(expected)
        expected = found


def test_the_page_says_so_where_it_is_so():
    assert repeated_amounts(observe(store())) == {("cifar10 / resnet20", TWICE): ("10x", "12x")}
    said = "reached one compression, up to 1 %: layerwise_magnitude on cifar10 / resnet20 with 10x and 12x."
    assert any(said in warning for warning in reach_verdict(observe(store())).warnings)
    clean = observe(make_results(pairs=PAIR, methods=(OTHER, TWICE)))
    assert not repeated_amounts(clean)
    assert not any("one compression" in warning for warning in reach_verdict(clean).warnings)
