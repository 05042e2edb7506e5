"""Repair plans: exactly the missing runs, and running them satisfies the lines they are for."""

from dataclasses import dataclass
from itertools import product

import pytest
from made_results import (
    FINETUNE,
    METHODS,
    PAIRS,
    Accuracy,
    make_result,
    make_results,
    make_spec,
    plain_accuracy,
    write_store,
)

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import METHODS as LIBRARY
from shrinkbench.report import gaps
from shrinkbench.report.checklist import judge
from shrinkbench.report.gaps import Repair, plan_repair
from shrinkbench.report.grids import plan_grids
from shrinkbench.results.plan import merge_plans
from shrinkbench.results.store import Plan, PlannedRun
from shrinkbench.spec import UNPRUNED, ChannelFraction, Compression, Constraints, ExperimentSpec

QUICK = ["global_magnitude", "layerwise_magnitude", "global_gradient", "layerwise_gradient", "random"]
LONG = FINETUNE.model_copy(update={"name": "long", "epochs": 60})
CONTROLS = {"random@global_gradient", "magnitude@global_gradient"}


def define(name):
    return (METHODS[name], None) if name in METHODS else None


def violated(store, **options):
    return {line.id for line in judge(store.results()[0], **options) if line.status == "violated"}


@dataclass
class Simulation:
    """A store whose sweeps make results by formula and count what they run."""

    store: object
    accuracy: Accuracy = plain_accuracy
    ran: list = None

    def resolve(self, experiment):
        axes = (
            experiment.dataset,
            experiment.model,
            experiment.method,
            experiment.compression,
            experiment.seed,
        )
        recipe = LONG if experiment.recipe == (LONG.name,) else FINETUNE
        return [
            make_spec(dataset=d, model=m, method=name, compression=c, seed=s, recipe=recipe)
            for d, m, name, c, s in product(*axes)
        ]

    def sweep(self, experiment):
        specs = self.resolve(experiment)
        self.store.write_plan(experiment, specs)
        new = [s for s in specs if not self.store.has(s.key) or self.store.read(s.key).status == "failed"]
        for spec in new:
            self.store.write(make_result(spec, accuracy=self.accuracy))
        self.ran = (self.ran or []) + new
        return len(new)

    def repair(self, **options) -> Repair:
        return plan_repair(
            self.store.read_plan(),
            self.store.results()[0],
            resolve=self.resolve,
            define=define,
            **options,
        )


def simulate(tmp_path, accuracy=plain_accuracy, **grid):
    grid = {"pairs": [("cifar10", "resnet20")], "methods": QUICK} | grid
    return Simulation(write_store(tmp_path, make_results(accuracy=accuracy, **grid)), accuracy)


def test_a_complete_store_lacks_nothing(tmp_path):
    for number, (dataset, model) in enumerate(PAIRS):
        simulation = simulate(tmp_path / str(number), pairs=[(dataset, model)], methods=list(METHODS))
        repair = simulation.repair()
        assert (repair.experiments, repair.runs, repair.incomplete) == ((), 0, ())


def test_a_quickstart_without_seeds_and_controls_is_completed_exactly(tmp_path):
    simulation = simulate(tmp_path, seeds=(0,))
    before = {r.key for r in simulation.store.results()[0]}
    assert {"seeds", "error-bars", "random-same-proportions"} <= violated(simulation.store)
    repair = simulation.repair()
    assert len(repair.experiments) == 1
    assert set(repair.experiments[0].method) == set(QUICK) | CONTROLS
    assert repair.experiments[0].seed == (0, 1, 2)
    assert simulation.sweep(repair.experiments[0]) == repair.runs == 7 * 6 * 3 - 5 * 6
    assert not before & {spec.key for spec in simulation.ran}
    assert violated(simulation.store) == {"pairs"}  # one pair only, and none was named
    assert simulation.repair().runs == 0


def test_a_removed_run_alone_is_run_again(tmp_path):
    simulation = simulate(tmp_path, methods=list(METHODS))
    victim = next(r for r in simulation.store.results()[0] if r.spec.target == 8)
    simulation.store.result_path(victim.key).unlink()
    repair = simulation.repair()
    assert repair.runs == 1
    assert simulation.sweep(repair.experiments[0]) == 1
    assert simulation.ran[0].key == victim.key


def test_a_failed_run_is_missing(tmp_path):
    simulation = simulate(tmp_path, methods=list(METHODS))
    victim = next(r for r in simulation.store.results()[0] if r.spec.target == 8)
    simulation.store.result_path(victim.key).unlink()
    simulation.store.write(make_result(victim.spec, failed="out of memory"))
    assert simulation.repair().runs == 1


@pytest.mark.parametrize("removed", ["random", "layerwise_magnitude"])
def test_a_removed_baseline_comes_back(tmp_path, removed):
    simulation = simulate(tmp_path, methods=[m for m in METHODS if m != removed])
    repair = simulation.repair()
    assert set(repair.experiments[0].method) >= {removed}
    assert (
        simulation.sweep(repair.experiments[0])
        == repair.runs
        == 6 * 3 * len(set(repair.experiments[0].method) - (set(METHODS) - {removed}))
    )


def test_missing_operating_points_and_control_come_back(tmp_path):
    simulation = simulate(tmp_path, methods=list(METHODS), compressions=(4,))
    repair = simulation.repair()
    assert repair.experiments[0].compression == (1, 2, 4, 8, 16, 32)
    assert simulation.sweep(repair.experiments[0]) == repair.runs == 7 * 5 * 3
    assert violated(simulation.store) == {"pairs"}


@pytest.mark.slow
def test_compression_grows_until_accuracy_collapses(tmp_path):
    def accuracy(spec):
        return plain_accuracy(spec) + (0.12 if 16 < spec.target < 100 else 0.0)

    simulation = simulate(tmp_path, accuracy, methods=list(METHODS))
    assert violated(simulation.store) == {"range", "pairs"}
    added = []
    for _ in range(5):
        repair = simulation.repair()
        if not repair.experiments:
            break
        added.append(max(repair.experiments[0].compression))
        simulation.sweep(repair.experiments[0])
    assert added == [64, 128]
    assert violated(simulation.store) == {"pairs"}


@pytest.mark.slow
def test_compression_never_exceeds_what_the_network_allows(tmp_path):
    simulation = simulate(tmp_path, lambda spec: 0.9, methods=list(METHODS))
    for _ in range(8):
        repair = simulation.repair()
        if not repair.experiments:
            break
        simulation.sweep(repair.experiments[0])
    limit = 262_000 / 1_568  # parameters over those that are never pruned
    largest = max(run.spec.target for run in simulation.store.read_plan().runs)
    assert 0.9 * limit < largest < limit
    assert any("largest compression that it allows" in note for note in repair.notes)


def test_targets_beyond_the_network_are_replaced(tmp_path):
    results = make_results(pairs=PAIRS[:1], compressions=(1, 2, 4, 8))
    beyond = [make_spec(method=m, compression=1000.0, seed=s) for m in METHODS for s in range(3)]
    results += [make_result(spec, failed="1000x cannot be met") for spec in beyond]
    simulation = Simulation(write_store(tmp_path, results))
    repair = simulation.repair()
    assert repair.experiments[0].compression == (1, 2, 4, 8, 16, 32)
    assert any("cannot be compressed beyond 167.1" in note for note in repair.notes)


@pytest.mark.slow
def test_targets_beyond_the_structure_of_a_method_get_further_points_within_it(tmp_path):
    """What a failed run could have met bounds further points, and it is not tried again; another failure is."""
    results = make_results(pairs=PAIRS[:1])
    far = [r for r in results if r.spec.target == 32 and r.spec.method.name == "layerwise_gradient"]
    failures = [make_result(r.spec, failed="32x cannot be met") for r in far]
    bounded = [r.model_copy(update={"reachable": 29.9927}) for r in failures]
    kept = [r for r in results if r not in far]
    simulation = Simulation(write_store(tmp_path, [*kept, *bounded]))
    repair = simulation.repair()
    assert repair.experiments[0].compression == (1, 2, 4, 8, 16, 29.6, 32)
    assert {spec.target for spec in repair.missing} == {29.6}
    assert any("a method cannot go beyond 29.99; its runs there stay failed" in note for note in repair.notes)
    assert not any("not finished" in reason for reason in repair.reasons)
    for failure in failures:
        simulation.store.write(failure)
    assert {spec.key for spec in simulation.repair().missing} == {r.key for r in far}


@pytest.mark.slow
def test_pairs_that_need_the_same_stay_one_experiment(tmp_path):
    results = make_results(pairs=[("cifar10", "resnet20")], seeds=(0, 1, 2))
    results += make_results(pairs=[("cifar10", "resnet56")], seeds=(0, 1))
    simulation = Simulation(write_store(tmp_path, results))
    repair = simulation.repair()
    assert [e.name for e in repair.experiments] == ["made"]
    assert simulation.sweep(repair.experiments[0]) == repair.runs == 7 * 6
    assert violated(simulation.store) == {"pairs"}
    assert simulation.repair().runs == 0


@pytest.mark.slow
def test_pairs_that_need_different_ratios_are_repaired_apart(tmp_path):
    def accuracy(spec):
        return plain_accuracy(spec) + (0.12 if spec.model.name == "resnet56" and 16 < spec.target < 64 else 0.0)

    simulation = simulate(tmp_path, accuracy, pairs=PAIRS[:2], methods=list(METHODS))
    repair = simulation.repair()
    assert [(e.name, e.model) for e in repair.experiments] == [("made-cifar10-resnet56", ("resnet56",))]
    assert simulation.sweep(repair.experiments[0]) == repair.runs == 7 * 3
    assert {spec.target for spec in simulation.ran} == {64.0}
    assert violated(simulation.store) == {"pairs"}
    assert simulation.repair().runs == 0


@pytest.mark.slow
def test_a_third_pair_is_added_when_named(tmp_path):
    results = make_results(pairs=PAIRS[1:])
    simulation = Simulation(write_store(tmp_path, results))
    assert simulation.repair().experiments == ()
    assert any("--pair" in note for note in simulation.repair().notes)
    repair = simulation.repair(pairs=[("cifar10", "resnet20")])
    assert simulation.sweep(repair.experiments[0]) == repair.runs == 7 * 6 * 3
    assert violated(simulation.store) == set()
    assert simulation.repair(pairs=[("cifar10", "resnet20")]).runs == 0


def test_a_run_that_was_not_measured_before_fine_tuning_is_run_again(tmp_path):
    simulation = simulate(tmp_path, methods=list(METHODS))
    victim = next(r for r in simulation.store.results()[0] if r.spec.target == 8)
    simulation.store.write(victim.model_copy(update={"before": None}))
    repair = simulation.repair()
    assert repair.incomplete == (victim.key,)
    assert repair.runs == 1


def test_a_control_that_the_library_lacks_is_told(tmp_path):
    simulation = simulate(tmp_path)
    plan, results = simulation.store.read_plan(), simulation.store.results()[0]
    repair = plan_repair(
        plan, results, resolve=simulation.resolve, define=lambda name: define(name) if name in QUICK else None
    )
    assert repair.runs == 0
    assert sum("random@global_gradient" in note for note in repair.notes) == 1


def add_experiment(simulation, name, **grid):
    """Sweep another experiment into the same store; return its runs."""
    first = simulation.store.read_plan().experiments[0]
    experiment = first.model_copy(update={"name": name, **grid})
    simulation.sweep(experiment)
    return simulation.resolve(experiment)


@pytest.mark.slow
def test_a_second_experiment_on_the_same_pair_is_completed_too(tmp_path):
    simulation = simulate(tmp_path, methods=list(METHODS))
    add_experiment(simulation, "second", recipe=("long",), seed=(0,))
    assert {"seeds", "error-bars"} <= violated(simulation.store)
    repair = simulation.repair()
    assert [(e.name, e.recipe, e.seed) for e in repair.experiments] == [("second", ("long",), (0, 1, 2))]
    assert set(repair.reasons) == {f"seeds: {seed} on cifar10 / resnet20 in second" for seed in (1, 2)}
    assert simulation.sweep(repair.experiments[0]) == repair.runs == 7 * 6 * 2
    assert violated(simulation.store) == {"pairs"}
    assert simulation.repair().experiments == ()


@pytest.mark.slow
def test_a_run_of_a_second_experiment_is_run_again(tmp_path):
    simulation = simulate(tmp_path, methods=list(METHODS))
    victim = add_experiment(simulation, "second", recipe=("long",))[40]
    simulation.store.result_path(victim.key).unlink()
    repair = simulation.repair()
    assert ([e.name for e in repair.experiments], repair.runs) == (["second"], 1)
    assert simulation.sweep(repair.experiments[0]) == 1
    assert simulation.ran[-1].key == victim.key


def test_methods_added_by_a_second_experiment_get_the_seeds_of_the_first(tmp_path):
    simulation = simulate(tmp_path, methods=[m for m in METHODS if m != "global_gradient"])
    add_experiment(simulation, "second", method=("global_gradient",), seed=(0,))
    repair = simulation.repair()
    assert "seeds: 1, 2 of global_gradient on cifar10 / resnet20" in repair.reasons
    assert sum(simulation.sweep(e) for e in repair.experiments) == repair.runs == 6 * 2
    assert simulation.repair().runs == 0


# --- every method of the library ---------------------------------------------------------------------------


class InMemory:
    """A plan and its results, swept without training: methods of the library, all else by formula."""

    def __init__(self, methods, compression=(1, 32)):
        first = ExperimentSpec(
            name="made", dataset=("cifar10",), model=("resnet20",), method=methods, compression=compression
        )
        self.tilts = {name: 0.01 + 0.0004 * number for number, name in enumerate(LIBRARY)}
        self.experiments, self.results = {}, {}
        self.sweep(first)

    def resolve(self, experiment):
        specs = []
        for name, seed in product(experiment.method, experiment.seed):
            method = LIBRARY.get(name)
            amounts = [Compression(ratio=c) for c in experiment.compression]
            if method.amount is not None:
                amounts = [amount for amount in amounts if amount == UNPRUNED] + [method.amount]
            specs += [make_spec(method=method.spec, amount=a, seed=seed) for a in amounts]
        return list({spec.key: spec for spec in specs}.values())

    def sweep(self, experiment):
        self.experiments[experiment.name] = experiment
        for spec in self.resolve(experiment):
            tilts = {} if spec.method.allocation.uniform else self.tilts
            self.results.setdefault(spec.key, make_result(spec, tilts=tilts))

    def repair(self):
        runs, planned = [], set()
        for name, experiment in self.experiments.items():
            new = [s for s in self.resolve(experiment) if s.key not in planned]
            planned |= {s.key for s in new}
            runs += [PlannedRun(key=s.key, spec=s, experiment=name) for s in new]
        plan = Plan(name="made", description="", experiments=tuple(self.experiments.values()), runs=tuple(runs))
        return plan_repair(plan, list(self.results.values()), resolve=self.resolve, define=defined_by_library)


def defined_by_library(name):
    try:
        method = LIBRARY.get(name)
    except ShrinkbenchError:
        return None
    return method.spec, method.amount


def names_of_controls(simulation):
    return {name for e in simulation.experiments.values() for name in e.method if "@" in name}


@pytest.fixture
def small_grids(monkeypatch):
    """One seed and one operating point are enough, so that many methods can be planned in a moment."""
    monkeypatch.setattr(gaps, "FEWEST_SEEDS", 1)
    monkeypatch.setattr(gaps, "FEWEST_POINTS", 1)


def built_in():
    """Methods of the library itself, whatever plug-ins other tests have loaded."""
    return tuple(name for name in LIBRARY if LIBRARY.origin(name) is None)


def alone():
    """One method of each kind that the checklist tells apart, all of several rounds, some with their amount."""
    kinds = {}
    for name in built_in():
        m = LIBRARY.get(name).spec
        allocation, after = m.allocation, (m.finetuning.weights, m.finetuning.recipe)
        schedule = (m.schedule.start, m.schedule.rounds, m.schedule.during)
        kinds[m.score.kind, allocation.scope, allocation.uniform, allocation.exact, schedule, after] = name
    several = [name for name in built_in() if LIBRARY.get(name).schedule.rounds != 1]
    with_amounts = ["network_slimming:60", "li2017:resnet56-a", "soft_filter_pruning:30"]
    return [*dict.fromkeys([*kinds.values(), *several]), *with_amounts]


@pytest.mark.slow
def test_every_kind_of_method_is_repaired_in_one_round(small_grids):
    for name in alone():
        simulation = InMemory((name,))
        for experiment in simulation.repair().experiments:
            simulation.sweep(experiment)
        repair = simulation.repair()
        assert (name, repair.experiments, repair.runs) == (name, (), 0)
        assert all(control.count("@") == 1 for control in names_of_controls(simulation))


@pytest.mark.slow
def test_the_whole_library_is_repaired_in_one_round(small_grids):
    simulation = InMemory(built_in())
    for experiment in simulation.repair().experiments:
        simulation.sweep(experiment)
    assert {"magnitude@obd", "magnitude@snip"} <= names_of_controls(simulation)
    assert simulation.repair().experiments == ()


def planned_names(*methods, compression=(1, 32)):
    return set().union(*(e.method for e in InMemory(methods, compression).repair().experiments))


def test_a_structured_method_gets_its_networks_from_scratch_and_equal_shares(small_grids):
    asked = planned_names("filter_taylor_2019")
    assert {"filter_taylor_2019[finetuning=scratch-b]", "layerwise_magnitude[structure=filters]"} <= asked
    assert not any("scratch-b" in name for name in planned_names("global_gradient"))
    assert not any("structure=" in name for name in planned_names("apoz"))  # of equal shares by itself
    assert not any("structure=" in name for name in planned_names("filter_taylor_2019", "filter_l1"))
    assert not any("structure=" in name for name in planned_names("residual_block_taylor"))  # whole layers


def test_the_equal_shares_of_a_fraction_of_channels_are_that_of_every_layer(small_grids):
    asked = planned_names("network_slimming:60", compression=(1,))
    assert "layerwise_magnitude[structure=scaled-channels]:60" in asked
    assert "network_slimming:60[finetuning=scratch-b]" in asked


def test_from_scratch_at_another_amount_is_not_enough(small_grids):
    own = ("network_slimming:60", "network_slimming:60[finetuning=scratch-b]", "network_slimming:70")
    asked = planned_names(*own)
    assert "network_slimming:70[finetuning=scratch-b]" in asked
    assert "network_slimming:60[finetuning=scratch-b]" in asked  # as planned before, and not once more
    assert not any(name.count("scratch-b") > 1 for name in asked)


def test_no_control_of_a_control_is_planned(small_grids):
    """The schedule and fine-tuning of these controls are not plain, and still they are controls."""
    simulation = InMemory(("lottery_ticket", "random@lottery_ticket", "magnitude@lottery_ticket"))
    for experiment in simulation.repair().experiments:
        assert not any(name.count("@") > 1 for name in experiment.method)


def test_a_method_with_its_own_amount_keeps_it(small_grids):
    """The controls of ``network_slimming:60`` remove as much, and no compression is asked of it."""
    simulation = InMemory(("network_slimming:60",), compression=(1,))
    repair = simulation.repair()
    (experiment,) = repair.experiments
    assert {"network_slimming:60", "random@network_slimming:60"} <= set(experiment.method)
    amounts = {s.amount for s in simulation.resolve(experiment) if s.method.allocation.like is not None}
    assert amounts == {UNPRUNED, ChannelFraction(fraction=0.6)}
    assert any("yours to add" in note for note in repair.notes)


def test_tasks_of_one_name_do_not_lend_each_other_their_controls(tmp_path):
    """A subset of the data is another task: controls that were run on all of it are none here."""
    whole = make_results(pairs=PAIRS[:1], methods=list(METHODS))
    subset = []
    for result in make_results(pairs=PAIRS[:1], methods=QUICK):
        data = result.spec.data.model_copy(update={"train_images": 100})
        task = result.spec.task.model_copy(update={"data": data})
        subset.append(make_result(result.spec.model_copy(update={"task": task})))
    store = write_store(tmp_path, subset)
    results = [*whole, *subset]
    specs = []
    plan_repair(store.read_plan(), results, define=define, resolve=lambda e: specs.append(set(e.method)) or [])
    assert specs[0] >= CONTROLS


def test_grids_within_other_bounds_are_completed_apart(tmp_path):
    free = make_results(pairs=PAIRS[:1], methods=["global_magnitude"], compressions=(1, 2, 4))
    store = write_store(tmp_path / "store", free)
    bounds = Constraints(max_ratio=0.5)
    bound = [r.spec if r.spec.is_control else r.spec.model_copy(update={"constraints": bounds}) for r in free]
    first = store.read_plan().experiments[0]
    other = first.model_copy(update={"name": "bound", "max_ratio": 0.5})
    plan = merge_plans(store.read_plan(), other, bound)
    grids = plan_grids(plan, define)
    assert [(g.experiment.name, g.experiment.max_ratio) for g in grids] == [("made", None), ("bound", 0.5)]
    assert [sorted({s.constraints.max_ratio or 0 for s in g.compared}) for g in grids] == [[0], [0, 0.5]]
