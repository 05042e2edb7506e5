"""The loop of a sequential comparison: which runs are asked for after each look, and what the report says."""

import itertools
import json

import numpy as np
import pytest
import scipy.stats
from made_results import METHODS, make_result, make_results, make_spec, write_store

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.report.deciding import decide
from shrinkbench.report.leaderboard import write_leaderboard
from shrinkbench.report.page.html import write_report
from shrinkbench.report.power import power_notes, power_tables
from shrinkbench.report.races import describe_race
from shrinkbench.report.result_tables import pairwise_table
from shrinkbench.report.statistics.claims import judge
from shrinkbench.report.statistics.observations import observe, observe_bundle
from shrinkbench.report.verdict import reach_verdict
from shrinkbench.results.bundle import read_source, write_bundle
from shrinkbench.results.merging import merge
from shrinkbench.results.store import ResultStore
from shrinkbench.results.verification import verify
from shrinkbench.runner.fixed_rules import check_rules
from shrinkbench.spec import ExperimentSpec, SeedsAdded, UntilDecided

NAMES = ("global_magnitude", "layerwise_magnitude", "random")
RULES = UntilDecided(max_seeds=6)
EXPERIMENT = ExperimentSpec(
    name="made",
    dataset=("cifar10",),
    model=("resnet20",),
    method=NAMES,
    compression=(1, 2, 4, 8),
    seed=tuple(range(6)),
    until_decided=RULES,
)
ADDED = SeedsAdded(rules=RULES, seeds=EXPERIMENT.seed)
GRID = [
    make_spec(method=METHODS[name], compression=float(ratio), seed=seed)
    for name in NAMES
    for ratio in EXPERIMENT.compression
    for seed in EXPERIMENT.seed
]


def accuracy(spec):
    """``random`` is far off, the two others differ by half a point."""
    whole = 0.9 + 0.002 * spec.seed
    if spec.is_control:
        return whole
    random = np.random.default_rng([spec.seed, NAMES.index(spec.method.name), int(spec.amount.ratio)])
    loss = {"global_magnitude": 0.0, "layerwise_magnitude": 0.004, "random": 0.05}[spec.method.name]
    return whole - (loss + 0.004 * random.standard_normal())


def told_of(result, added):
    """A result whose provenance has the rules by which seeds were added."""
    provenance = result.provenance.model_copy(update={"seeds_added": added})
    return result.model_copy(update={"provenance": provenance})


class MadeSweep:
    """Carries wanted runs out by a formula; ``broken`` ones stay missing."""

    def __init__(self, root, broken=lambda spec: False):
        self.store, self.broken, self.made = ResultStore(root), broken, []

    def __call__(self, wanted):
        runs = [spec for spec in GRID if wanted(spec)]
        check_rules(self.store, [EXPERIMENT])
        self.store.write_plan(EXPERIMENT, runs)
        for spec in runs:
            if not self.store.has(spec.key) and not self.broken(spec):
                self.store.write(told_of(make_result(spec, accuracy=accuracy), ADDED))
                self.made.append(spec)
        return self.store.status()


def seeds_by_method(store):
    results = store.results()[0]
    return {n: sorted({r.spec.seed for r in results if r.spec.method.name == n}) for n in NAMES}


def test_seeds_are_added_only_where_nothing_is_decided(tmp_path):
    looks = []
    sweep = MadeSweep(tmp_path)
    (race,) = decide(EXPERIMENT, sweep.store, sweep=sweep, on_look=looks.append)
    seeds = seeds_by_method(sweep.store)
    assert seeds["random"] == [0, 1, 2]
    assert len(seeds["global_magnitude"]) > 3
    assert seeds["global_magnitude"] == seeds["layerwise_magnitude"] == list(range(len(race.seeds)))
    assert len(looks) == len(race.seeds) - 2
    assert all("waits for its runs" in sentence for (sentence,) in looks[:-1])
    assert "waits" not in looks[-1][0]
    status = sweep.store.status()
    assert (status.missing, status.total) == (0, len(sweep.made))


def test_interrupted_and_gone_on_is_as_if_it_had_not_been(tmp_path):
    whole, parts = MadeSweep(tmp_path / "whole"), MadeSweep(tmp_path / "parts", broken=lambda s: s.seed == 2)
    (race,) = decide(EXPERIMENT, whole.store, sweep=whole)
    (held,) = decide(EXPERIMENT, parts.store, sweep=parts)
    assert (held.state, held.needs) == ("waiting", 3)
    parts.broken = lambda spec: False
    (again,) = decide(EXPERIMENT, parts.store, sweep=parts)
    assert (again.state, again.stops, again.pairs) == (race.state, race.stops, race.pairs)
    assert {s.key for s in parts.made} == {s.key for s in whole.made}


def test_before_the_first_look_nothing_is_said_of_who_can_be_compared(tmp_path):
    sweep = MadeSweep(tmp_path, broken=lambda s: s.method.name == "random" and s.seed == 2)
    decide(EXPERIMENT, sweep.store, sweep=sweep)
    bundle = read_source(tmp_path)
    observations = observe_bundle(bundle)
    notes = list(power_notes(bundle, observations))
    assert "cifar10 / resnet20: the first look, after 3 seeds, waits for its runs." in notes
    assert not any("alone" in note for note in notes)
    assert "No two methods" not in reach_verdict(observations).headline


@pytest.mark.slow
def test_the_report_of_a_store_or_bundle_says_that_it_is_sequential(tmp_path):
    sweep = MadeSweep(tmp_path / "store")
    (race,) = decide(EXPERIMENT, sweep.store, sweep=sweep)
    bundle = tmp_path / "made.zip"
    write_bundle(sweep.store.root, bundle)
    for source in (sweep.store.root, bundle):
        found = read_source(source)
        observations = observe(found.results, missing=found.missing, sequential=found.sequential)
        verdict = reach_verdict(observations)
        assert describe_race(race, RULES, observations.metric(race.task)) in verdict.headline
        assert any("sequential design" in warning for warning in verdict.warnings)
        assert not any(win.decided for task in verdict.tasks for basis in task.bases for win in basis.wins)
    written = write_report(sweep.store.root, tmp_path / "report", figures="none")
    assert "sequential design" in written.index.read_text()


@pytest.mark.parametrize("lost", ["the rules", "the plan"])
def test_runs_tell_of_the_rules_where_the_plan_has_lost_them(tmp_path, lost):
    sweep = MadeSweep(tmp_path)
    sweep(lambda spec: spec.seed < 4)
    whole = read_source(tmp_path)
    assert not verify(whole)
    plan = json.loads(sweep.store.plan_path.read_bytes())
    plan["experiments"][0]["until_decided"] = None
    sweep.store.plan_path.unlink()
    if lost == "the rules":
        sweep.store.plan_path.write_text(json.dumps(plan))
    read = read_source(tmp_path)
    assert read.sequential == whole.sequential == ADDED
    (task,) = judge(observe_bundle(read)).tasks
    assert task.race.seeds == (0, 1, 2, 3)
    told = [sentence for sentence in verify(read) if "seeds were added until decided" in sentence]
    assert len(told) == (lost == "the rules")
    with pytest.raises(ShrinkbenchError, match="seeds were added until it was decided"):
        write_leaderboard([tmp_path], tmp_path / "board")


def test_rules_are_fixed_before_the_first_result(tmp_path):
    sweep = MadeSweep(tmp_path)
    decide(EXPERIMENT, sweep.store, sweep=sweep)
    for other in (
        EXPERIMENT.model_copy(update={"until_decided": UntilDecided(max_seeds=6, alpha=0.1)}),
        EXPERIMENT.model_copy(update={"until_decided": None}),
        EXPERIMENT.model_copy(update={"name": "another"}),
    ):
        with pytest.raises(ShrinkbenchError, match="fixed before its first result"):
            check_rules(sweep.store, [other])
    check_rules(sweep.store, [EXPERIMENT])


def test_rules_that_come_after_results_are_refused(tmp_path):
    store = ResultStore(tmp_path)
    store.write_plan(EXPERIMENT.model_copy(update={"until_decided": None}), GRID[:1])
    with pytest.raises(ShrinkbenchError, match="holds runs already"):
        check_rules(store, [EXPERIMENT])
    with pytest.raises(ShrinkbenchError, match="parts"):
        check_rules(ResultStore(tmp_path / "new"), [EXPERIMENT, EXPERIMENT])


def test_an_experiment_lists_as_many_seeds_as_its_rules_take():
    given = EXPERIMENT.model_dump()
    with pytest.raises(ValueError, match="seed lists 3"):
        ExperimentSpec.model_validate(given | {"seed": (0, 1, 2)})
    with pytest.raises(ValueError, match="none of the methods"):
        ExperimentSpec.model_validate(
            given | {"until_decided": {"max_seeds": 6, "compare": ("random", "wanda")}}
        )


def test_the_plan_carries_the_rules(tmp_path):
    sweep = MadeSweep(tmp_path)
    sweep(lambda spec: spec.seed < 3)
    stored = json.loads(sweep.store.plan_path.read_text())
    assert stored["experiments"][0]["until_decided"]["max_seeds"] == 6
    assert len(stored["runs"]) == 3 * 4 * 3


def test_power_finds_what_it_promises():
    """The seeds that are named find the margin: the table's own numbers, put in again."""
    results = [make_result(s, accuracy=accuracy) for s in GRID if s.seed < 4]
    (table,) = power_tables(observe(results), margin=0.01)
    (closer,) = power_tables(observe(results), margin=0.002)
    for row, near in zip(table.rows, closer.rows, strict=True):
        assert (int(row[7].text) <= 4) == (float(row[6].text) <= 1.0)
        assert int(near[7].text) >= int(row[7].text)


def test_seeds_that_no_look_took_in_are_named(tmp_path):
    """Results of other seeds that were merged into its folder stand in the tables, not in the claim."""
    sweep = MadeSweep(tmp_path)
    decide(EXPERIMENT, sweep.store, sweep=sweep)
    looked = reach_verdict(observe(sweep.store.results()[0], sequential=ADDED)).tasks[0].sentences
    for seed in (7, 8):
        for name in NAMES:
            for ratio in EXPERIMENT.compression:
                spec = make_spec(method=METHODS[name], compression=float(ratio), seed=seed)
                sweep.store.write(make_result(spec, accuracy=accuracy))
    merged = reach_verdict(observe(sweep.store.results()[0], sequential=ADDED)).tasks[0].sentences
    told = [sentence for sentence in merged if sentence not in looked]
    assert told == [
        "Seeds that no look took in were run too, and take no part in it: 7 and 8; these rules did not ask for "
        "them."
    ]


def test_leads_at_equal_speed_are_of_the_last_look(tmp_path):
    """On its seeds and methods, and with its intervals: other runs of the folder do not move them."""
    sweep = MadeSweep(tmp_path)
    decide(EXPERIMENT, sweep.store, sweep=sweep)
    before = judge(observe(sweep.store.results()[0], sequential=ADDED), axis="theoretical_speedup")
    (task,) = judge(observe(sweep.store.results()[0], sequential=ADDED)).tasks
    assert task.race is not None
    for level in before.tasks[0].levels:
        lead = level.claim
        assert tuple(map(int, level.block.units)) == task.race.seeds
        half = scipy.stats.t.ppf(1 - task.race.level / 2, lead.freedom) * lead.deviation / np.sqrt(lead.n)
        assert (lead.high - lead.low) / 2 == pytest.approx(half)
        assert not lead.decided
    for seed in (7, 8):
        for name, ratio in itertools.product(NAMES, EXPERIMENT.compression):
            spec = make_spec(method=METHODS[name], compression=float(ratio), seed=seed)
            sweep.store.write(make_result(spec, accuracy=accuracy))
    after = judge(observe(sweep.store.results()[0], sequential=ADDED), axis="theoretical_speedup")
    assert [level.claim for level in after.tasks[0].levels] == [level.claim for level in before.tasks[0].levels]


def test_intervals_are_of_95_percent_whatever_level_decides(tmp_path):
    sweep = MadeSweep(tmp_path)
    sweep(lambda spec: spec.seed < 3)
    found = sweep.store.results()[0]
    widths = []
    for alpha in (0.01, 0.05, 0.3):
        rules = RULES.model_copy(update={"alpha": alpha})
        observations = observe(found, sequential=SeedsAdded(rules=rules, seeds=EXPERIMENT.seed))
        (task,) = judge(observations).tasks
        widths.append([claim.high - claim.low for claim in task.pairs])
        assert f"(bold: p < {alpha:g})" in pairwise_table(observations, task=task.task).caption
    assert widths[0] == widths[1] == widths[2]


def test_another_grid_is_not_merged_beside_rules_that_say_nothing_of_it(tmp_path):
    sweep, again = MadeSweep(tmp_path / "one"), MadeSweep(tmp_path / "again")
    for each in (sweep, again):
        each(lambda spec: spec.seed < 3)
    other = write_store(tmp_path / "other", make_results(methods=NAMES, pairs=[("cifar10", "resnet56")]))
    assert merge([sweep.store.root, again.store.root], tmp_path / "both").runs == len(sweep.made)
    for sources in ([sweep.store.root, other.root], [other.root, sweep.store.root]):
        with pytest.raises(ShrinkbenchError, match="by rules that say nothing of the other grids"):
            merge(sources, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def looked_at(rules, accuracy=accuracy):
    """What the report says once all seeds are there; who stops at an earlier look has them to no avail."""
    results = [make_result(spec, accuracy=accuracy) for spec in GRID]
    sequential = ADDED.model_copy(update={"rules": RULES.model_copy(update=rules)})
    return " ".join(reach_verdict(observe(results, sequential=sequential)).tasks[0].sentences)


def test_who_stopped_undecided_at_an_earlier_look_is_not_said_to_be_told_apart():
    said = looked_at({"alpha": 0.01, "futility": 0.05})
    assert "layerwise_magnitude after 3 seeds unlikely to be told apart" in said
    assert "the next of 2 (on 4 seeds); told apart from random; undecided against layerwise_magnitude" in said
    assert "every one of them" not in said


def test_who_the_design_does_not_ask_about_is_named():
    said = looked_at({"compare": ("global_magnitude", "layerwise_magnitude")})
    assert "Not compared: random (the design does not ask about it)." in said
