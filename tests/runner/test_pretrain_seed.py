"""One network, trained here from a seed of its own, is what the runs of all seeds start from."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from commands import shrinkbench
from made_results import SNIP, make_result, make_spec

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import FINETUNINGS
from shrinkbench.report.checklist import judge
from shrinkbench.results.labels import task_labels
from shrinkbench.results.store import ResultStore
from shrinkbench.runner import Workspace, plan, sweep
from shrinkbench.runner.pretraining import initial_network, untrained_network, weights_to_restart_from
from shrinkbench.runner.workspace import BoundData
from shrinkbench.spec import ExperimentSpec, parse_value
from shrinkbench.spec.task import WeightsSpec
from shrinkbench.spec.value import digest
from shrinkbench.training import RECIPES

BASE = {
    "name": "once",
    "dataset": "digits",
    "model": "digits-cnn",
    "method": ["random", "global_magnitude"],
    "compression": [1, 2],
    "seed": [0, 1],
    "train_images": 100,
    "test_images": 50,
    "finetune": {"epochs": 1},
    "pretrain": {"epochs": 1},
}


def experiment(**fields):
    return parse_value(ExperimentSpec, {**BASE, **fields}, where="test")


def planned(root, **fields):
    workspace = Workspace(root=root)
    return workspace, plan(experiment(**fields), workspace).runs


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    root = tmp_path_factory.mktemp("once") / "results"
    assert sweep(experiment(pretrain_seed=7, seed=[0, 1, 2]), root, device="cpu").failed == 0
    return root, ResultStore(root).results()[0]


def test_all_seeds_start_from_one_network_and_go_on_from_their_own(swept):
    root, results = swept
    assert len(list((root / "shared" / "pretrained").iterdir())) == 1
    controls = {r.spec.seed: r for r in results if r.spec.is_control}
    assert controls[0].before == controls[1].before
    assert controls[0].epochs != controls[1].epochs  # the data come in another order


def test_the_report_says_that_they_share_it(swept):
    _, results = swept
    (line,) = [line for line in judge(results) if any("one initial network" in said for said in line.evidence)]
    assert line.status == "undecidable"
    assert "Runs start from the weights pretrain, seed 7" in line.needed
    assert any("share one initial network, whatever their seed" in said for said in line.evidence)


def test_it_is_what_the_same_grid_trains_for_that_seed(tmp_path):
    _, once = planned(tmp_path, pretrain_seed=1)
    _, each = planned(tmp_path)
    assert {run.pretraining.key for run in once} == {run.pretraining.key for run in each if run.seed == 1}
    assert not {run.key for run in once} & {run.key for run in each}
    assert len({run.task for run in once}) == 1
    assert len({run.control.key for run in once}) == 2


def test_rewinding_goes_back_to_its_first_weights(tmp_path):
    workspace, runs = planned(tmp_path, pretrain_seed=7, method="random[finetuning=rewind-weights-0]", seed=3)
    (spec,) = [run for run in runs if not run.is_control]
    data = BoundData(workspace.dataset("digits"), spec.data, "cpu")
    first = untrained_network("digits-cnn", data, 7).state_dict()
    found = weights_to_restart_from(spec, FINETUNINGS.get("rewind-weights-0"), workspace, data, 0)
    assert all(torch.equal(first[name], found[name]) for name in first)
    anew = weights_to_restart_from(spec, FINETUNINGS.get("scratch-e"), workspace, data, 0)
    expected = untrained_network("digits-cnn", data, 3, "anew", "0").state_dict()
    assert all(torch.equal(expected[name], anew[name]) for name in expected)


def test_methods_without_a_trained_network_draw_their_own(tmp_path):
    workspace, runs = planned(tmp_path, pretrain_seed=7, method=["random", "snip"], compression=2)
    runs = [run for run in runs if run.method.name == "snip"]
    data = BoundData(workspace.dataset("digits"), runs[0].data, "cpu")
    one, other = (initial_network(run, workspace, data).state_dict() for run in runs)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_tasks_are_told_apart_by_it():
    task = make_spec().task
    weights = [task.weights.model_copy(update={"seed": seed}) for seed in (None, 0, 1)]
    each, once, other = task_labels(task.model_copy(update={"weights": w}) for w in weights).values()
    assert (once, other) == (f"{each}, seed 0", f"{each}, seed 1")


def test_keys_without_it_are_what_they_were():
    """Digests of the values before there was such a seed."""
    drawn = WeightsSpec(kind="random", name="random")
    trained = WeightsSpec(kind="pretrain", name="pretrain", recipe=RECIPES.get("cifar-train"))
    assert digest(drawn) == "6be827706bac7f974fccf524ed0de549e2f2e4322934841710c54a9f309ed723"
    assert digest(trained) == "085f223aae19dfe94ce326c947842569db5fb094078e566f94335876b578949c"
    spec = trained.model_copy(update={"seed": 0})
    assert WeightsSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("-1", "greater than or equal to 0"),
        ("true", "valid integer"),
        ("0.5", "valid integer"),
        ('"a"', "valid integer"),
    ],
)
def test_a_bad_value_is_told_in_one_sentence(value, said, tmp_path):
    told = shrinkbench("sweep", "quickstart", "--out", tmp_path / "r", "--set", f"pretrain_seed={value}")
    assert (told.returncode, told.stdout, told.stderr.count("\n")) == (2, "", 1)
    assert "pretrain_seed" in told.stderr
    assert said in told.stderr


def test_one_that_has_no_say_is_told(tmp_path):
    with pytest.raises(ShrinkbenchError, match="pretrain_seed = 0 of experiment 'once' has no say"):
        planned(tmp_path, weights="random", pretrain_seed=0)
    with pytest.raises(ShrinkbenchError, match="methods all prune before training"):
        planned(tmp_path, method=["snip", "synflow"], compression=2, pretrain_seed=0)
    with pytest.raises(ValueError, match="leave it out"):
        WeightsSpec(kind="random", name="random", seed=0)


DRAWN = """
import torch
from torch import nn

class Drawn(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.register_buffer("places", torch.randn(64, 32), persistent=False)
        self.fc = nn.Linear(32, num_classes)

    def forward(self, x):
        return self.fc(torch.relu(x.flatten(1) @ self.places))
"""


def test_what_weights_do_not_hold_is_of_the_seed_that_they_were_trained_from(tmp_path):
    (tmp_path / "drawn.py").write_text(DRAWN)
    spec = experiment(model=f"{tmp_path}/drawn.py:Drawn", pretrain_seed=0, compression=1, method="random")
    sweep(spec, tmp_path / "runs", device="cpu")
    one, other = ResultStore(tmp_path / "runs").results()[0]
    assert one.before == other.before


@pytest.mark.parametrize(("method", "said"), [("random", True), (SNIP, False)])
def test_only_runs_that_start_from_shared_weights_are_said_to(method, said):
    """A method that prunes before training draws its own weights for each seed."""
    results = []
    for ratio, seed in product((1, 4), (0, 1, 2)):
        spec = make_spec(method=method, compression=ratio, seed=seed)
        weights = spec.task.weights.model_copy(update={"seed": 7})
        task = spec.task.model_copy(update={"weights": weights})
        results.append(make_result(spec.model_copy(update={"task": task})))
    told = [evidence for line in judge(results) for evidence in line.evidence]
    assert any("share one initial network, whatever their seed" in evidence for evidence in told) is said
