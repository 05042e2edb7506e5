"""One store's numbers, computed a second time from the documented formulas with NumPy and SciPy alone."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from made_results import make_results

from shrinkbench.report.statistics.claims import judge
from shrinkbench.report.statistics.compare import ranking
from shrinkbench.report.statistics.observations import observe
from shrinkbench.report.statistics.ranks import rank_methods

METHODS = ("global_magnitude", "layerwise_magnitude", "global_gradient", "layerwise_gradient", "random")
PAIRS = (("cifar10", "resnet20"), ("cifar10", "resnet56"), ("cifar10", "resnet110"))
X = np.array([1.0, 2, 4, 8, 16, 32])


def noisy(spec):
    """A method's loss by doubling, with noise of half a point by cell."""
    network = int(spec.model.name.removeprefix("resnet"))
    random = np.random.default_rng([spec.seed, len(spec.method.name), int(spec.target or 1), network])
    if spec.is_control:
        return 0.91 + 0.002 * spec.seed
    fall = 0.004 * METHODS.index(spec.method.name) + 0.01
    return 0.91 + 0.002 * spec.seed - fall * math.log2(spec.target) + random.normal(0, 0.005)


@pytest.fixture(scope="module")
def results():
    return make_results(pairs=PAIRS, methods=METHODS, accuracy=noisy)


@pytest.fixture(scope="module")
def claims(results):
    return judge(observe(results))


@pytest.fixture(scope="module")
def tables(results):
    """Accuracy by network: methods x seeds x compressions, 1 first."""
    found = {model: np.full((len(METHODS), 3, len(X)), np.nan) for _, model in PAIRS}
    sizes = {model: np.full((len(METHODS), 3, len(X)), np.nan) for _, model in PAIRS}
    for r in results:
        where = METHODS.index(r.spec.method.name), r.spec.seed, list(X).index(r.spec.target or 1.0)
        found[r.spec.model.name][where] = r.after["top1"]
        sizes[r.spec.model.name][where] = r.size.parameters / r.size.parameters_kept
    assert all(np.isfinite(table).all() for table in found.values())
    return {model: (sizes[model], found[model]) for model in found}


def areas(sizes, values):
    """Mean over log compression from 1 to where the first of all curves ends (all do so near 32x)."""
    end = sizes[:, :, -1].min()
    result = np.zeros(values.shape[:2])
    for m, s in np.ndindex(result.shape):
        x, y = np.log(sizes[m, s]), values[m, s]
        last = np.interp(math.log(end), x, y)
        x, y = np.r_[x[:-1], math.log(end)], np.r_[y[:-1], last]
        result[m, s] = sum((x[i + 1] - x[i]) * (y[i + 1] + y[i]) / 2 for i in range(len(x) - 1)) / math.log(end)
    return result


def differences(values):
    return {
        (METHODS[i], METHODS[j]): values[i] - values[j]
        for i, j in itertools.combinations(range(len(METHODS)), 2)
    }


def noise_of(levels):
    """Each pair's variance over that of all pairs, averaged over levels."""
    ratios = {}
    for values in levels:
        variances = {pair: np.var(d, ddof=1) for pair, d in differences(values).items()}
        mean = np.mean(list(variances.values()))
        for pair, variance in variances.items():
            ratios.setdefault(pair, []).append(variance / mean)
    return {pair: np.mean(found) for pair, found in ratios.items()}


def freedom_of_all(ratios, n, *, blocks):
    """Box's factor from the matrix of the methods' variances, as far as pairs tell of them, times (n - 1)."""
    m = len(METHODS)
    of = [sum(r for pair, r in ratios.items() if name in pair) for name in METHODS]
    # a pair's ratio is (w_i + w_j) / 2 with weights of mean 1
    w = np.clip([(2 * total - m) / (m - 2) for total in of], 0, None)
    w *= m / w.sum()
    centre = np.eye(m) - 1 / m
    product = centre @ np.diag(w) @ centre
    scatter = 1 + 2 / (blocks * (n - 1)) if blocks else 1
    squares = max((w**2).sum() / scatter, m)
    share = np.trace(product) ** 2 / (np.trace(product @ product) + (squares - (w**2).sum()) * (1 - 2 / m))
    return max(1, share) * (n - 1)


def t_test(values, pair, ratios, blocks):
    """Difference, its p and its interval: pooled variance over pairs, times the pair's ratio if above 1.5."""
    every = differences(values)
    ratio = ratios.get(pair, ratios.get(pair[::-1]))
    ratio = ratio if ratio > 1.5 else 1
    variance = np.mean([np.var(d, ddof=1) for d in every.values()]) * ratio
    first, second = (METHODS.index(name) for name in pair)
    d = values[first] - values[second]
    pooled = freedom_of_all(ratios, len(d), blocks=blocks)
    # what exceeds the pooled variance is known from the pair's own differences, which are a part of that one
    own = ((ratio - 1) / ratio) ** 2
    freedom = 1 / (own / (len(d) - 1) + (1 - own) / pooled)
    error = math.sqrt(variance / len(d))
    half = scipy.stats.t.ppf(0.975, freedom) * error
    p = 2 * scipy.stats.t.sf(abs(d.mean()) / error, freedom)
    return d.mean(), d.mean() - half, d.mean() + half, p


@pytest.fixture(scope="module")
def expected(tables):
    """(difference, low, high, p) by (question, task, first, second, level)."""
    found, means, at_levels, ranges = {}, [], {}, {}
    for model, (sizes, values) in tables.items():
        ends = np.minimum.reduce(sizes[:, :, -1], axis=None)
        levels = []
        for place in range(1, len(X)):
            level = min(X[place], ends)
            at = np.zeros(values.shape[:2])
            for m, s in np.ndindex(at.shape):
                nearest = np.abs(sizes[m, s] / level - 1).argmin()
                close = abs(sizes[m, s, nearest] / level - 1) < 0.01
                at[m, s] = (
                    values[m, s, nearest]
                    if close
                    else np.interp(math.log(level), np.log(sizes[m, s]), values[m, s])
                )
            levels.append(at)
        at_levels[model], ranges[model] = levels, areas(sizes, values)
        means.append(ranges[model].mean(axis=1))
    everywhere = noise_of([at for levels in at_levels.values() for at in levels])
    for model, levels in at_levels.items():
        noise = {pair: max(ratio, everywhere[pair]) for pair, ratio in noise_of(levels).items()}
        for pair in itertools.combinations(METHODS, 2):
            found["range", model, *pair, None] = t_test(ranges[model], pair, noise, len(levels))
        for place, at in enumerate(levels, start=1):
            best, second = np.argsort(-at.mean(axis=1))[:2]
            pair = METHODS[best], METHODS[second]
            found["level", model, *pair, X[place]] = t_test(at, pair, noise, len(levels))
    over = np.array(means).T
    variances = {pair: np.var(d, ddof=1) for pair, d in differences(over).items()}
    pooled = np.mean(list(variances.values()))
    ratios = {pair: max(variance / pooled, everywhere[pair]) for pair, variance in variances.items()}
    for pair in itertools.combinations(METHODS, 2):
        found["tasks", "", *pair, None] = t_test(over, pair, ratios, 0)
    return found


def shown(claims):
    """The same of the report, pairs in the order of METHODS."""
    found = {}
    for claim in claims.pairs_over_tasks:
        found["tasks", "", claim.first, claim.second, None] = claim
    for task in claims.tasks:
        model = next(m for _, m in PAIRS if m in task.task.lower().replace("-", ""))
        for claim in task.pairs:
            found["range", model, claim.first, claim.second, None] = claim
        for level in task.levels:
            found["level", model, level.claim.first, level.claim.second, level.level] = level.claim
    ordered = {}
    for (question, model, first, second, level), claim in found.items():
        swapped = question != "level" and METHODS.index(first) > METHODS.index(second)
        key = (question, model, *((second, first) if swapped else (first, second)), level)
        ordered[key] = claim.reversed if swapped else claim
    return ordered


def test_means_differences_intervals_and_p(claims, expected):
    found = shown(claims)
    assert found.keys() == expected.keys()
    assert len(found) == 3 * (10 + 5) + 10 == claims.comparisons
    for key, claim in found.items():
        got = claim.difference, claim.low, claim.high, claim.p_raw
        assert got == pytest.approx(expected[key], rel=1e-6, abs=1e-9), key


def test_the_correction(claims, expected):
    """Holm 1979 by hand: in order of p / weight, each against the weights that are left."""
    share = {"range": 0.25, "tasks": 0.25, "level": 0.5}
    counts = {q: sum(key[0] == q for key in expected) for q in share}
    weight = {key: share[key[0]] / counts[key[0]] for key in expected}
    left, highest, adjusted = 1.0, 0.0, {}
    for key in sorted(expected, key=lambda key: expected[key][3] / weight[key]):
        highest = max(highest, expected[key][3] * left / weight[key])
        adjusted[key] = min(1.0, highest)
        left -= weight[key]
    found = shown(claims)
    for key, p in adjusted.items():
        assert found[key].p == pytest.approx(p, rel=1e-6)
        assert found[key].decided == (p < 0.05)
    assert {claim.decided for claim in found.values()} == {True, False}


def test_ranks(results, tables):
    one = [r for r in results if r.spec.model.name == "resnet20"]
    methods, order = ranking(observe(one))
    whole = areas(*tables["resnet20"])[[METHODS.index(m) for m in methods]]
    ranks = scipy.stats.rankdata(-whole, axis=0)
    assert order.mean_ranks == pytest.approx(ranks.mean(axis=1))
    assert rank_methods(whole.T).blocks == whole.shape[1] == 3
