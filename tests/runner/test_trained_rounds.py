"""Rounds with training between them: controls end as their method does, and nothing is trained in vain."""

import pytest

from shrinkbench.pruning import METHODS
from shrinkbench.report.checklist import judge
from shrinkbench.results.store import ResultStore
from shrinkbench.runner import sweep
from shrinkbench.spec import ExperimentSpec, parse_value


def experiment(methods, **fields):
    base = {
        "name": "test",
        "dataset": "digits",
        "model": "digits-cnn",
        "method": methods,
        "compression": [1.6],
        "seed": [0],
        "pretrain": {"epochs": 6},
        "finetune": {"epochs": 1},
        "train_images": 64,
    }
    return parse_value(ExperimentSpec, {**base, **fields}, where="test")


def trained_between():
    methods = [METHODS.get(name) for name in METHODS if METHODS.origin(name) is None]
    return [m.name for m in methods if not m.in_one_step and m.schedule.during is None]


def layers(root):
    results, problems = ResultStore(root).results()
    assert not problems
    assert [r.error for r in results if r.error] == []
    return {r.spec.method.name: {n: d.kept for n, d in r.layers.items()} for r in results}


SOME = ["iterative_gradient", "lottery_ticket"]


@pytest.fixture(scope="module", params=["some", pytest.param("all", marks=pytest.mark.slow)])
def methods(request):
    return SOME if request.param == "some" else trained_between()


@pytest.fixture(scope="module")
def swept(methods, tmp_path_factory):
    root = tmp_path_factory.mktemp("rounds")
    controls = [f"{score}@{m}" for m in methods for score in ("random", "magnitude")]
    sweep(experiment([*controls, *methods]), root, device="cpu")
    return root


def test_controls_keep_of_every_layer_what_their_method_ends_with(swept, methods):
    found = layers(swept)
    assert {*SOME, "weight_rewinding"} <= {*trained_between()}
    for method in methods:
        for score in ("random", "magnitude"):
            assert found[f"{score}@{method}"] == found[method], (score, method)


def test_the_checklist_finds_all_controls_at_once(swept):
    results, _ = ResultStore(swept).results()
    lines = {line.id: line for line in judge(results)}
    for kind in ("random", "magnitude"):
        assert lines[f"{kind}-same-proportions"].status == "satisfied"


@pytest.mark.slow
def test_controls_keep_of_every_layer_what_a_hundred_rounds_end_with(tmp_path):
    names = ["random@synflow", "magnitude@synflow", "synflow"]
    sweep(experiment(names, compression=[8]), tmp_path, device="cpu")
    found = layers(tmp_path)
    assert found[names[0]] == found[names[1]] == found[names[2]]


def test_a_control_alone_carries_out_the_rounds_of_its_method(swept, tmp_path):
    method = "iterative_gradient"
    sweep(experiment([f"random@{method}", f"magnitude@{method}"]), tmp_path, device="cpu")
    alone, beside = layers(tmp_path), layers(swept)
    assert alone[f"random@{method}"] == alone[f"magnitude@{method}"] == beside[method]


def test_nothing_is_trained_for_a_target_out_of_reach(tmp_path):
    methods = ["lottery_ticket", "random@lottery_ticket", "gradual_magnitude", "amc", "channel_l1", "wanda"]
    status = sweep(experiment(methods, compression=[9000]), tmp_path, device="cpu")
    assert status.failed == 6
    results, _ = ResultStore(tmp_path).results()
    for result in results:
        assert result.error.startswith("compression 9000 cannot be met")
        assert "the largest possible target is" in result.error
    assert not (tmp_path / "shared").exists()
