"""The Pareto front: its definition against brute force, its table and its figure."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import make_result, make_results

from shrinkbench.report.pareto import (
    COSTS,
    DOMINATED,
    drawn_costs,
    find_front,
    find_points,
    front_figure,
    front_tables,
)
from shrinkbench.report.statistics.observations import observe
from shrinkbench.spec.measures import Latency

PAIR = [("cifar10", "resnet20")]
few = st.integers(0, 6)  # so that ties are frequent


def dominates(a, b):
    return a[0] <= b[0] and a[1] >= b[1] and a != b


@given(st.lists(st.tuples(few, few)))
def test_the_front_is_what_nothing_dominates(points):
    expected = [not any(dominates(other, point) for other in points) for point in points]
    assert find_front(points) == expected


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1))), st.randoms())
def test_the_front_does_not_depend_on_the_order(points, random):
    order = list(range(len(points)))
    random.shuffle(order)
    shuffled = find_front([points[i] for i in order])
    assert [find_front(points)[i] for i in order] == shuffled


def timed(results, methods):
    """The same with a measured latency for the pruned networks of ``methods``."""

    def one(result):
        spec = result.spec
        if spec.is_control or spec.method.name not in methods:
            return result
        seconds = 1 / (1 + 0.1 * spec.target * (1 + methods.index(spec.method.name)))
        latency = Latency(
            batch_size=64, form="small", dense_seconds=1.0, seconds=seconds, threads=2, precision="float32"
        )
        return result.model_copy(
            update={"provenance": result.provenance.model_copy(update={"latency": (latency,)})}
        )

    return [one(result) for result in results]


@pytest.fixture(scope="module")
def observations():
    return observe(timed(make_results(pairs=[*PAIR, ("cifar10", "resnet56")]), ["random", "global_magnitude"]))


def test_points_are_means_over_seeds_and_fronts_are_of_one_task(observations):
    points = find_points(observations)
    rows = observations.pruned
    for cost in ("parameters_kept", "multiply_adds_kept"):
        means = rows.groupby(["task", "method", "amount"])[["top1", cost]].mean()
        for task in observations.tasks:
            control = observations.control[observations.control["task"] == task]
            here = [(x, y) for y, x in means.loc[task].astype(float).to_numpy()]
            here.append((float(control[cost].mean()), float(control["top1"].mean())))
            found = points[points["task"] == task]
            expected = {p for p in here if not any(dominates(q, p) for q in here)}
            front = found[found[f"on_{cost}"]]
            assert set(zip(front[cost].astype(float), front["headline"], strict=True)) == expected


def test_latency_counts_where_it_was_measured(observations):
    points = find_points(observations)
    known = points.dropna(subset=["latency"])
    assert set(known["method"]) == {"random", "global_magnitude", "control"}
    assert set(known.loc[known["is_control"], "latency"]) == {1.0}
    assert not points.loc[points["latency"].isna(), "on_latency"].any()
    pruned = observations.pruned
    cell = pruned[(pruned["method"] == "random") & (pruned["compression_target"] == 4)]
    row = points[(points["method"] == "random") & (points["compression_target"] == 4)]
    assert row["latency"].to_numpy() == pytest.approx((1 / cell["measured_speedup"]).mean())
    assert [cost.column for cost in drawn_costs(observations)] == [cost.column for cost in COSTS]
    plain = observe(make_results(pairs=PAIR, seeds=(0,)))
    assert [cost.column for cost in drawn_costs(plain)] == ["parameters_kept", "multiply_adds_kept"]
    assert find_points(plain)["latency"].isna().all()


def test_the_table_has_the_front_and_nothing_else(observations):
    points = find_points(observations)
    tables = front_tables(observations)
    assert len({table.name for table in tables}) == len(observations.tasks)
    for table, task in zip(tables, observations.tasks, strict=True):
        here = points[points["task"] == task]
        assert table.caption.startswith(f"{task}: ")
        assert len(table.rows) == here[[f"on_{cost.column}" for cost in COSTS]].any(axis=1).sum()
        for index, cost in enumerate(COSTS):
            assert sum(row[3 + index].best for row in table.rows) == here[f"on_{cost.column}"].sum()
        assert all({c.text for c in row} != {"–"} and any(c.best for c in row) for row in table.rows)


@pytest.mark.parametrize("cost", COSTS)
def test_the_figure_steps_along_the_front(observations, cost):
    observations = observations.renamed({"global_magnitude": "GM"})
    figure = front_figure(observations, cost)
    points = find_points(observations).dropna(subset=[cost.column])
    for panel, task in zip(figure.axes, observations.tasks, strict=True):
        here = points[(points["task"] == task)]
        front = here[here[f"on_{cost.column}"]].sort_values([cost.column, "headline"])
        (step,) = [line for line in panel.get_lines() if line.get_drawstyle() == "steps-post"]
        assert step.get_xdata() == pytest.approx(front[cost.column].to_numpy(dtype=float))
        assert step.get_ydata() == pytest.approx(front["headline"].to_numpy(dtype=float))
        grey = [line for line in panel.get_lines() if line.get_label() == DOMINATED]
        assert sum(len(line.get_xdata()) for line in grey) == len(here) - len(front)
    texts = {text.get_text() for text in figure.legends[0].get_texts()}
    on_front = set(points.loc[points[f"on_{cost.column}"], "method"])
    called = {"GM" if name == "global_magnitude" else name for name in on_front}
    assert texts == called | {DOMINATED}


def test_a_cell_without_a_value_is_no_point():
    results = make_results(pairs=PAIR, methods=["random"], seeds=(0,))
    observations = observe(results)
    observations.pruned.loc[0, "headline"] = np.nan
    assert len(find_points(observations)) == len(results) - 1


@pytest.mark.parametrize("failed", [True, False], ids=["failed", "not run"])
def test_the_seed_that_is_left_of_a_cell_dominates_nothing(failed):
    """A lucky seed whose others failed, or were never run, would keep even the control off the front."""

    def accuracy(spec):
        return 0.8 + 0.1 * (spec.seed == 0) - 0.01 * math.log2(spec.target or 1)

    names, lost = ["random", "global_magnitude"], []
    for run in make_results(pairs=PAIR, methods=names, compressions=(1, 2, 4, 8), accuracy=accuracy):
        gone = run.spec.method.name == "random" and run.spec.target == 8 and run.spec.seed > 0
        if failed and gone:
            lost.append(make_result(run.spec, failed="the loss is not finite"))
        elif not gone:
            lost.append(run)
    points = find_points(observe(lost))
    cell = points["method"].eq("random") & (points["amount"] == "8x")
    assert not points.loc[cell, "on_parameters_kept"].any()
    assert points.loc[points["is_control"], "on_parameters_kept"].all()
    assert points.loc[
        points["method"].eq("global_magnitude") & (points["amount"] == "8x"), "on_parameters_kept"
    ].all()
