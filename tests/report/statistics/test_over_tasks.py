"""Claims over tasks: which tasks and methods take part, and why there is none."""

from __future__ import annotations

import pytest
from made_results import make_result, make_results
from places import ROOT

from shrinkbench.report.statistics.claims import judge
from shrinkbench.report.statistics.observations import observe, observe_bundle
from shrinkbench.report.verdict import reach_verdict
from shrinkbench.results.bundle import read_source

NETWORKS = ("resnet110", "resnet18", "resnet20", "resnet32", "resnet44", "resnet56")
METHODS = ("global_gradient", "global_magnitude", "layerwise_gradient", "layerwise_magnitude")


def store(where):
    """Runs of each method on its networks."""
    made = make_results(pairs=[("cifar10", network) for network in NETWORKS], methods=METHODS)
    return [r for r in made if r.spec.model.name in where.get(r.spec.method.name, NETWORKS)]


def headline(results):
    return reach_verdict(observe(results)).headline


def test_two_groups_on_tasks_of_their_own_leave_an_answer():
    where = dict(zip(METHODS, (NETWORKS[:3], NETWORKS[:3], NETWORKS[3:], NETWORKS[3:]), strict=True))
    over = judge(observe(store(where))).over_tasks
    assert over.methods == METHODS[:2]
    assert len(over.units) == 3
    text = headline(store(where))
    assert text.startswith("Over 3 tasks on 1 dataset and 3 networks")
    assert "Not compared: layerwise_gradient (not compared on cifar10 / resnet110, " in text
    assert "Not part of it: cifar10 / resnet32, cifar10 / resnet44 and cifar10 / resnet56." in text


def test_a_method_on_a_task_of_each_group_takes_no_answer_away():
    where = dict(zip(METHODS, (NETWORKS[:3], NETWORKS[:3], NETWORKS[3:], NETWORKS[3:]), strict=True))
    stray = make_results(pairs=[("cifar10", n) for n in (NETWORKS[0], NETWORKS[3])], methods=("random",))
    over = judge(observe([*store(where), *stray])).over_tasks
    assert over.methods == METHODS[:2]
    assert len(over.units) == 3


def test_without_an_answer_over_tasks_the_reason_is_that_which_holds():
    where = {m: NETWORKS[n : n + 1] for n, m in enumerate(METHODS)}
    assert headline(store(where)).startswith(
        "Nothing is said over tasks: no two methods are both compared on two of them. Each task has"
    )
    weights = make_results(pairs=[("cifar10", "resnet20")], methods=METHODS[:2], weights=("a", "b"))
    assert headline(weights).startswith(
        "Nothing is said over tasks: they differ in initial weights alone, and count as one. Each task has"
    )
    specs = []
    for r in (one := make_results(pairs=[("cifar10", "resnet20")], methods=METHODS[:2])):
        data = r.spec.data.model_copy(update={"name": "again"})
        specs.append(r.spec.model_copy(update={"task": r.spec.task.model_copy(update={"data": data})}))
    assert headline([*one, *map(make_result, specs)]).startswith(
        "Nothing is said over tasks: they are one content under several names, or differ in initial weights"
    )
    mixed = make_results(
        pairs=[("cifar10", "resnet20"), ("cifar10", "resnet56")], methods=METHODS[:2], weights=("a", "b")
    )
    lacking = [
        r
        for r in mixed
        if (r.spec.method.name, r.spec.weights.name, r.spec.model.name) != (METHODS[0], "b", "resnet56")
    ]
    assert "both compared on two of them (on all the initial weights of each)." in headline(lacking)


@pytest.mark.parametrize("name", ["rethinking-table-9-small", "shrinkbench-figure-8-small"])
def test_shipped_bundles_of_several_weights_say_so(name):
    observations = observe_bundle(read_source(ROOT / "docs" / "results" / f"{name}.zip"))
    assert "differ in initial weights alone, and count as one" in reach_verdict(observations).headline
