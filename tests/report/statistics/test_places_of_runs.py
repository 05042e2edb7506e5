"""Of equal methods none wins by where its runs lie: a little less compressed, or midway between others'."""

import numpy as np
import pytest
from made_results import make_result, make_results, write_store

from shrinkbench.report.page.html import write_report
from shrinkbench.report.recommendation import recommend
from shrinkbench.report.result_tables import pairwise_table
from shrinkbench.report.statistics.blocks import common_block
from shrinkbench.report.statistics.claims import found_with, judge_curves
from shrinkbench.report.statistics.curves import Curve
from shrinkbench.report.statistics.observations import observe
from shrinkbench.report.statistics.readings import slack_of
from shrinkbench.report.verdict import reach_verdict

USUAL = (2, 4, 8, 16, 32)
OWN = {
    "9 % less": tuple(x / 1.09 for x in USUAL),
    "9 % less at one amount": (2, 4, 8, 16 / 1.09, 32),
    "9 % less at the last": (2, 4, 8, 16, 32 / 1.09),
    "midway": (1.42, 2.83, 5.66, 11.3, 22.6, 32),
    "three quarters": (1.5, 3, 6, 12, 24, 32),
    "a fifth more": (2.4, 4.8, 9.6, 19.2, 32),
}


def judged(own, store, *, lead=0.0, middle=3.7, steep=6, methods=4):
    """Quality falls at once around 2 ** ``middle``, for all methods alike but for the ``lead`` of one."""
    random = np.random.default_rng(store)
    grids = {f"m{i}": USUAL for i in range(methods - 1)} | {"own": own}
    found = []
    for method, grid in grids.items():
        x = np.r_[1.0, grid]
        fall = 0.004 * np.log2(x) + 0.25 / (1 + np.exp(-steep * (np.log2(x) - middle)))
        better = lead * (method == "own") * (x > 1)
        for seed in range(3):
            noise = random.normal(0, 0.004, len(x))
            found.append(Curve("t", method, seed, x, 0.92 - fall + better + 0.002 * seed + noise))
    return judge_curves(found, [float(x) for x in USUAL], places={}).tasks[0]


@pytest.mark.parametrize("middle", [3.7, 4.7])
@pytest.mark.parametrize("how", OWN)
def test_of_equal_methods_none_wins_by_where_its_runs_lie(how, middle):
    told = shaded = changed = 0
    for store in range(20):
        task = judged(OWN[how], store, middle=middle)
        told += any(claim.decided for claim in task.pairs)
        shaded += any(level.claim.decided for level in task.levels if level.claim)
        changed += len({segment.method for segment in recommend(task)}) > 1
    assert max(told, shaded, changed) <= 3


def test_what_places_may_make_does_not_depend_on_the_order_of_seeds_and_methods():
    for store in range(40):
        random = np.random.default_rng(store)
        collapse = random.uniform(1.5, 4.9)
        found = []
        for method in range(3):
            grid = np.array(USUAL) * np.exp(random.uniform(-0.04, 0.04, 5))
            for seed in range(3):
                x = np.r_[1.0, grid * np.exp(random.uniform(-0.02, 0.02, 5))]
                y = 0.9 - 0.25 * (np.log2(x) > collapse) + random.normal(0, 0.003, 6)
                found.append(Curve("t", f"m{method}", seed, x, y))
        other = [Curve("t", c.method, 2 - c.seed, c.x, c.y) for c in reversed(found)]
        for level in (None, 8.0):
            slack, again = (common_block(curves, level=level).slack for curves in (found, other))
            assert slack.keys() == again.keys()
            assert [again[pair] for pair in slack] == pytest.approx(list(slack.values()))


@pytest.mark.parametrize("how", ["9 % less", "midway"])
def test_a_lead_that_is_larger_than_that_is_told(how):
    found = [judged(OWN[how], store, lead=0.05) for store in range(5)]
    claims = [c if c.first == "own" else c.reversed for t in found for c in t.pairs if c.involves("own")]
    assert len(claims) == 15
    assert all(c.decided and c.difference > c.slack > 0 for c in claims)
    assert all(found_with(c) > c.slack for c in claims)


def line(x, y, method="a", seed=0):
    return Curve("t", method, seed, np.array(x, dtype=float), np.array(y, dtype=float))


def test_equal_places_and_straight_lines_make_nothing():
    alike = {"a": [line([1, 2, 4], [0.9, 0.8, 0.3])], "b": [line([1, 2.01, 3.99], [0.9, 0.8, 0.3], "b")]}
    assert slack_of(alike, 1.0, 3.99) == {}
    straight = {"a": [line([1, 2, 4, 16], [0.9, 0.8, 0.7, 0.5])], "b": [line([1, 8, 16], [0.9, 0.6, 0.5], "b")]}
    assert slack_of(straight, 1.0, 16.0) == {frozenset("ab"): pytest.approx(0, abs=1e-12)}


def test_what_places_make_at_a_level_by_hand():
    """The run at 4x is no more known with runs at 2 and 8x: its line has 0.6 there in place of 0.8."""
    pair = {"a": [line([1, 2, 4, 8], [0.9, 0.9, 0.8, 0.3])], "b": [line([1, 2, 8], [0.9, 0.8, 0.4], "b")]}
    assert slack_of(pair, 4.0, 4.0) == {frozenset("ab"): pytest.approx(0.2)}


def test_what_rests_on_one_place_by_hand():
    """Beside runs at 14.7 and at 16x lies all that differs: up to 8x, and beyond, nothing does."""
    near = [line([1, 2, 4, 8, 14.7, 32], [0.9, 0.9, 0.9, 0.9, 0.9, 0.3])]
    far = [line([1, 2, 4, 8, 16, 32], [0.9, 0.9, 0.9, 0.9, 0.3, 0.3], "b")]
    block = common_block([*near, *far])
    whole = block.values[0, 0] - block.values[1, 0]
    assert whole > 0.09
    assert block.slack == {frozenset("ab"): pytest.approx(whole)}
    assert common_block([*near, *far], level=8.0).slack == {}


def test_a_lead_where_another_ends_a_little_early_has_to_be_there_before():
    short, whole = line([1, 2, 4, 29.2], [0.9, 0.9, 0.9, 0.8], "b"), line([1, 2, 4, 32], [0.9, 0.9, 0.9, 0.6])
    block = common_block([whole, short], level=32.0)
    assert block.high == 29.2
    assert block.slack == {frozenset("ab"): pytest.approx(0.8 - whole.at(29.2))}


def test_a_lead_of_which_a_third_remains_without_any_place_is_taken_nothing_off_by_hand():
    """Both fall by the same line in log compression from 2x on, one a tenth below the other at all its runs."""
    fall = {2: 0.0, 4: 0.1, 8: 0.2, 8.4: 0.1 * np.log2(4.2), 16: 0.3}
    above = [line([1, 2, 4, 8, 16], [0.9, *(0.9 - fall[x] for x in (2, 4, 8, 16))])]
    below = [line([1, 2, 4, 8.4, 16], [0.9, *(0.8 - fall[x] for x in (2, 4, 8.4, 16))], "b")]
    assert common_block([*above, *below]).slack[frozenset("ab")] == pytest.approx(0, abs=1e-12)
    rests = [0.9 - fall[x] - (0.0 if x < 8 else 0.1 if x == 8.4 else 0.02) for x in (2, 4, 8.4, 16)]
    some = common_block([*above, line([1, 2, 4, 8.4, 16], [0.9, *rests], "b")])
    whole = some.values[0, 0] - some.values[1, 0]
    assert some.slack == {frozenset("ab"): pytest.approx(whole)}


def test_runs_that_scatter_around_one_place_are_noise():
    """All that differs lies at the last runs, whose compressions differ by 2 % from seed to seed."""
    plain, other = [0.9, 0.9, 0.9, 0.8], [0.9, 0.9, 0.9, 0.5]
    curves = [line([1, 2, 4, 16], plain, seed=seed) for seed in range(3)]
    for shifts, made in (((0.98, 1.0, 1.02), 0.01), ((0.97, 0.98, 0.97), None)):
        scattered = [line([1, 2, 4, 16 * by], other, "b", seed) for seed, by in enumerate(shifts)]
        block = common_block([*curves, *scattered])
        whole = float(block.means[0] - block.means[1])
        slack = block.slack[frozenset("ab")]
        assert slack == pytest.approx(whole) if made is None else slack < made < whole / 4


JUMPS = {
    "2 % less": tuple(x / 1.02 for x in USUAL),
    "9 % less": OWN["9 % less"],
    "apart by up to 18 %": (2.1, 3.7, 8.6, 15, 34),
    "midway": OWN["midway"],
}


@pytest.mark.parametrize("how", JUMPS)
def test_a_collapse_between_two_runs_that_lie_a_little_apart_is_no_lead(how):
    """Quality falls at once at a place of its own in each store, within some 5 % of a compression."""
    told = shaded = 0
    for store in range(40):
        middle = np.random.default_rng(store).uniform(3.2, 5)
        task = judged(JUMPS[how], store, middle=middle, steep=40)
        told += any(claim.decided for claim in task.pairs)
        shaded += any(level.claim.decided for level in task.levels if level.claim)
    assert max(told, shaded) <= 4


def stepped(spec):
    own = 0.0005 * np.random.default_rng(int(spec.key[:8], 16)).standard_normal()
    return 0.9 if spec.is_control else 0.9 + own - 0.01 * np.log2(spec.target) - 0.3 * (spec.target > 9)


def two_grids(own, pairs=(("cifar10", "resnet20"),)):
    usual = make_results(
        pairs=pairs, methods=["global_magnitude"], compressions=(1, 2, 4, 8, 16), accuracy=stepped
    )
    return usual, make_results(pairs=pairs, methods=["random"], compressions=(1, *own), accuracy=stepped)


def test_the_sentence_tells_what_places_may_make():
    usual, other = two_grids((1.42, 2.83, 5.66, 11.3, 16))
    said = reach_verdict(observe([*usual, *other])).headline
    assert "Runs lie at other compressions, which alone may make " in said
    assert "points over the range (global_magnitude and random): told apart is who differs by more" in said
    assert "lie at other compressions" not in reach_verdict(observe(usual)).headline


def test_where_places_make_a_point_no_number_of_seeds_is_told_to_decide_it():
    usual, other = two_grids((2, 4, 8, 15.5))
    fallen = [
        make_result(r.spec, accuracy=lambda spec: stepped(spec) + 0.3 * (spec.target == 15.5)) for r in other
    ]
    said = reach_verdict(observe([*usual, *fallen])).headline
    assert "runs at the same compressions would decide it, and no more seeds)" in said
    assert "further seeds" not in said


def test_over_tasks_at_levels_and_of_pairs_it_is_told_too(tmp_path):
    pairs = [("cifar10", "resnet20"), ("cifar10", "resnet56"), ("imagenet", "resnet18")]
    usual, other = two_grids((2.1, 4.2, 8.4, 15.2), pairs)
    observations = observe([*usual, *other])
    verdict = reach_verdict(observations)
    assert "which alone may make " in verdict.headline
    assert " on average over tasks (global_magnitude and random): told apart is who" in verdict.headline
    wins = [win for task in verdict.tasks for basis in task.bases for win in basis.wins]
    assert any(win.slack for win in wins)
    for task in (None, *observations.tasks):
        caption = pairwise_table(observations, task=task).caption
        assert "for more than the places of runs may make (up to " in caption
    store = write_store(tmp_path / "results", [*usual, *other])
    page = write_report(store.root, tmp_path / "report", figures="none").index.read_text()
    assert ", places may make " in page
    assert "by more than those places alone may make" in page
    assert "places" not in pairwise_table(observe(usual + two_grids((2, 4, 8, 16), pairs)[1])).caption
