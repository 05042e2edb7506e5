"""Aggregates over tasks against SciPy and brute force, and what the report shows of them."""

import itertools

import numpy as np
import pytest
import scipy.stats
from made_results import SKILL, make_results
from PIL import Image

from shrinkbench.report.profiles import PROFILES, profile_figure, write_profiles
from shrinkbench.report.result_tables import all_tables
from shrinkbench.report.statistics.aggregates import (
    Scores,
    aggregate_scores,
    draw_runs,
    interquartile_mean,
    normalised_scores,
    performance_profile,
    probability_of_improvement,
)
from shrinkbench.report.statistics.claims import judge
from shrinkbench.report.statistics.observations import observe

METHODS = ("global_magnitude", "layerwise_magnitude", "random")


@pytest.fixture(scope="module")
def results():
    return make_results(methods=METHODS)


def made(tasks=3, seeds=4, methods=3):
    random = np.random.default_rng(1)
    runs = tuple(range(i * seeds, (i + 1) * seeds) for i in range(tasks))
    values = 0.9 + 0.05 * random.standard_normal((methods, tasks * seeds))
    return Scores(METHODS[:methods], tuple(f"task {i}" for i in range(tasks)), values, runs)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9, 24, 37])
def test_the_interquartile_mean_is_scipys(n):
    values = np.random.default_rng(n).standard_normal((3, n))
    assert interquartile_mean(values) == pytest.approx(scipy.stats.trim_mean(values, 0.25, axis=1))


def test_the_probability_of_improvement_is_that_of_all_pairs_and_mann_whitneys():
    random = np.random.default_rng(2)
    x, y = ([random.integers(0, 5, n) for n in (3, 5, 2)] for _ in range(2))
    share = [
        np.mean([(a > b) + (a == b) / 2 for a, b in itertools.product(i, j)]) for i, j in zip(x, y, strict=True)
    ]
    assert probability_of_improvement(x, y) == pytest.approx(np.mean(share))
    u = [scipy.stats.mannwhitneyu(i, j).statistic / (len(i) * len(j)) for i, j in zip(x, y, strict=True)]
    assert probability_of_improvement(x, y) == pytest.approx(np.mean(u))
    assert probability_of_improvement(x, y) + probability_of_improvement(y, x) == pytest.approx(1)


def test_a_profile_falls_from_one_to_nothing():
    values = made().values
    levels = np.linspace(0.5, 1.3, 50)
    profile = performance_profile(values, levels)
    assert profile == pytest.approx(np.array([[np.mean(row > t) for t in levels] for row in values]))
    assert (np.diff(profile, axis=1) <= 0).all()
    assert (profile[:, 0] == 1).all()
    assert (profile[:, -1] == 0).all()


def test_resamples_draw_tasks_and_then_seeds_within():
    scores = made(tasks=3, seeds=4)
    draws = draw_runs(scores.runs, resamples=300)
    tasks = np.array([[np.unique(columns[p] // 4) for p in places] for columns, places in draws]).reshape(
        300, 3
    )
    assert (np.bincount(tasks.ravel()) / 900).tolist() == pytest.approx([1 / 3] * 3, abs=0.06)
    assert {len(set(row)) for row in tasks} == {1, 2, 3}
    within = np.concatenate([columns % 4 for columns, _ in draws])
    assert (np.bincount(within) / len(within)).tolist() == pytest.approx([1 / 4] * 4, abs=0.04)


def test_aggregates_by_brute_force():
    scores = made()
    found = {a.method: a for a in aggregate_scores(scores, resamples=200)}
    best = max(scores.methods, key=lambda m: found[m].interquartile_mean.value)
    assert found[best].beaten is None
    draws = draw_runs(scores.runs, resamples=200)
    for row, method in enumerate(scores.methods):
        values = scores.values[row]
        by_task = [values[list(part)] for part in scores.runs]
        a = found[method]
        assert a.interquartile_mean.value == pytest.approx(scipy.stats.trim_mean(values, 0.25))
        assert a.median.value == pytest.approx(np.median([v.mean() for v in by_task]))
        assert a.mean.value == pytest.approx(values.mean())
        drawn = [scipy.stats.trim_mean(values[columns], 0.25) for columns, _ in draws]
        assert (a.interquartile_mean.low, a.interquartile_mean.high) == pytest.approx(
            np.quantile(drawn, [0.025, 0.975]).tolist()
        )
        if method != best:
            other = [scores.values[scores.methods.index(best)][list(part)] for part in scores.runs]
            assert a.beaten.value == pytest.approx(probability_of_improvement(other, by_task))
            assert a.beaten.low <= a.beaten.value <= a.beaten.high


def test_a_score_is_the_mean_over_log_compression_over_the_runs_own_control(results):
    observations = observe(results)
    scores = normalised_scores(observations)
    claims = judge(observations)
    assert scores.tasks == claims.over_tasks.units
    for name, runs in zip(scores.tasks, scores.runs, strict=True):
        task = claims.of(name)
        here = observations.control[observations.control["task"] == name].set_index("seed")["top1"]
        control = np.array([here[int(seed)] for seed in task.block.units])
        for row, method in enumerate(scores.methods):
            area = task.block.values[task.block.methods.index(method)]
            assert scores.values[row, list(runs)] == pytest.approx(area / control)


def test_one_task_has_no_aggregates():
    observations = observe(make_results(methods=METHODS, pairs=[("cifar10", "resnet20")]))
    assert normalised_scores(observations) is None
    assert "over-tasks" not in {table.name for table in all_tables(observations)}


def test_a_method_without_controls_has_no_score_and_is_named(results):
    kept = [r for r in results if not (r.spec.is_control and r.spec.model.name == "resnet20")]
    assert normalised_scores(observe(kept)) is None  # all share them


def test_the_table_says_what_its_intervals_are_worth(results):
    table = next(t for t in all_tables(observe(results)) if t.name == "over-tasks")
    assert [row[0].text for row in table.rows] == sorted(METHODS, key=SKILL.__getitem__)
    assert "fewer than 10" in table.caption
    assert table.rows[0][-1].text == "–"


def test_the_figure_has_a_line_per_method(tmp_path):
    scores = made()
    axes = profile_figure(scores).axes[0]
    assert [line.get_label() for line in axes.lines] == list(scores.methods)
    for line, values in zip(axes.lines, scores.values, strict=True):
        x, y = line.get_data()
        assert y == pytest.approx([np.mean(values > t) for t in x])
    paths = write_profiles(scores, tmp_path)
    assert {p.name for p in paths} == {f"{PROFILES}.{e}" for e in ("svg", "pdf", "png")}
    with Image.open(tmp_path / f"{PROFILES}.png") as image:
        assert image.width > 1000
