"""--train-smaller is part of a run's provenance: same keys, same numbers up to rounding, states never mixed."""

import json

import pytest
import torch
from typer.testing import CliRunner

from shrinkbench.cli import app
from shrinkbench.results.record import RunResult, TrainedSmaller
from shrinkbench.results.store import ResultStore
from shrinkbench.runner import Workspace, plan, prepare_sweep, run_stored, store_plan, sweep
from shrinkbench.runner.beside_plan import read_beside
from shrinkbench.runner.deriving import keep_networks
from shrinkbench.runner.execution import run
from shrinkbench.runner.keeping import read_kept
from shrinkbench.spec import ExperimentSpec, parse_value

BASE = {
    "name": "smaller",
    "dataset": "digits",
    "model": "digits-cnn",
    "method": ["channel_l1", "global_magnitude"],
    "compression": [1, 2],
    "train_images": 64,
    "test_images": 100,
    "pretrain": {"epochs": 2},
    "finetune": {"epochs": 2},
}
ALL = TrainedSmaller(trainings=1, smaller=1)


def experiment(**fields):
    return parse_value(ExperimentSpec, {**BASE, **fields}, where="test")


def results_of(root):
    results, problems = ResultStore(root).results()
    assert not problems
    assert not [r.error for r in results if r.error]
    return {(r.spec.method.name, r.spec.target): r for r in results}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    root = tmp_path_factory.mktemp("smaller")
    for name in ("masked", "smaller"):
        sweep(experiment(keep="weights"), root / name, device="cpu", train_smaller=name == "smaller")
    return root


def test_keys_sizes_and_masks_are_those_of_masked_training_and_numbers_up_to_rounding(roots):
    masked, smaller = results_of(roots / "masked"), results_of(roots / "smaller")
    assert {k: r.key for k, r in masked.items()} == {k: r.key for k, r in smaller.items()}
    for name, one in masked.items():
        other = smaller[name]
        assert (other.size, other.layers, other.cost, other.before) == (
            one.size,
            one.layers,
            one.cost,
            one.before,
        )
        assert other.after["top1"] == pytest.approx(one.after["top1"], abs=0.011)  # one image of a hundred
        assert other.after["loss"] == pytest.approx(one.after["loss"], rel=1e-3)
        for a, b in zip(one.epochs, other.epochs, strict=True):
            assert b.train_loss == pytest.approx(a.train_loss, rel=1e-3)
        stored = [read_kept(roots / root / "runs" / one.key)[0] for root in ("masked", "smaller")]
        assert stored[0].masks.equal(stored[1].masks)
        for parameter, weight in stored[1].module.named_parameters():
            assert not weight[~stored[1].masks[parameter]].any() if parameter in stored[1].masks else True
            torch.testing.assert_close(weight, stored[0].module.get_parameter(parameter), atol=1e-3, rtol=1e-2)


def test_provenance_says_what_was_trained(roots):
    masked, smaller = results_of(roots / "masked"), results_of(roots / "smaller")
    assert {r.provenance.smaller for r in masked.values()} == {None}
    assert smaller["channel_l1", 2].provenance.smaller == ALL
    assert smaller["global_magnitude", 2].provenance.smaller == TrainedSmaller()  # both networks are one
    assert smaller["channel_l1", 1].provenance.smaller is None  # nothing is pruned


def test_single_weights_and_controls_are_equal_to_the_bit(roots):
    masked, smaller = results_of(roots / "masked"), results_of(roots / "smaller")
    for name in (("global_magnitude", 2), ("channel_l1", 1)):
        assert smaller[name].after == masked[name].after
        assert smaller[name].epochs == masked[name].epochs


def test_results_from_before_there_was_the_choice_are_read(roots):
    stored = results_of(roots / "masked")["channel_l1", 2]
    fields = json.loads(stored.model_dump_json())
    del fields["provenance"]["smaller"]
    assert RunResult.model_validate_json(json.dumps(fields)) == stored


def test_a_network_that_was_not_kept_is_made_again_as_it_was_trained(roots, tmp_path):
    sweep(experiment(method="channel_l1"), tmp_path, device="cpu", train_smaller=True)
    key = results_of(tmp_path)["channel_l1", 2].key
    sweep(experiment(method="channel_l1"), tmp_path, device="cpu")  # the last sweep asks for masked training
    (folder,) = keep_networks([key], tmp_path)
    module = read_kept(folder)[0].module
    same = read_kept(roots / "smaller" / "runs" / key)[0].module
    for one, other in zip(module.parameters(), same.parameters(), strict=True):
        assert torch.equal(one, other)


def one_run(tmp_path, **fields):
    (spec,) = plan(experiment(method="channel_l1", compression=[2], **fields), Workspace(root=tmp_path)).runs
    return spec


class Stopped(BaseException):
    """The process ends."""


def stopping_after(epochs):
    seen = []

    def on_epoch(record):
        seen.append(record)
        if len(seen) == epochs:
            raise Stopped

    return on_epoch


def trained(root, spec, **settings):
    return run(spec, Workspace(root=root, **settings))


@pytest.mark.parametrize("first", [False, True], ids=["masked first", "smaller first"])
@pytest.mark.parametrize("then", [False, True], ids=["then masked", "then smaller"])
def test_a_training_goes_on_only_from_a_state_of_its_own(tmp_path, roots, first, then):
    spec = one_run(tmp_path, finetune={"epochs": 4, "optimizer": "adam"})
    whole = trained(tmp_path / "whole", spec, train_smaller=then)
    with pytest.raises(Stopped):
        trained(
            tmp_path / "parts", spec, train_smaller=first, on_epoch=stopping_after(2 + 2)
        )  # two of pretraining
    folder = ResultStore(tmp_path / "parts").run_dir(spec.key)
    (left,) = folder.glob("checkpoint*")
    assert left.name.startswith("checkpoint-0-smaller-" if first else "checkpoint-0.pt")
    epochs = []
    again = trained(tmp_path / "parts", spec, train_smaller=then, on_epoch=epochs.append)
    assert [record.epoch for record in epochs] == ([3, 4] if first == then else [1, 2, 3, 4])
    assert (again.after, again.epochs) == (whole.after, whole.epochs)
    assert again.provenance.smaller == whole.provenance.smaller == (ALL if then else None)
    assert not list(folder.glob("checkpoint*"))


def test_rounds_with_training_between_run_on_smaller_and_smaller_networks(tmp_path):
    method = "channel_l1[schedule=iterative-50]"
    fields = {"method": method, "compression": [3], "finetune": {"epochs": 1}}
    for name in ("masked", "smaller"):
        sweep(experiment(**fields), tmp_path / name, device="cpu", train_smaller=name == "smaller")
    (one,), (other,) = (results_of(tmp_path / name).values() for name in ("masked", "smaller"))
    assert other.provenance.smaller.trainings == other.provenance.smaller.smaller > 1
    assert (one.key, one.size, one.cost) == (other.key, other.size, other.cost)
    assert other.after["loss"] == pytest.approx(one.after["loss"], rel=1e-2)


DROPS = """
from torch import nn
from torch.nn import functional as F

class Drops(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, num_classes)

    def forward(self, x):
        x = F.dropout(F.relu(self.norm(self.conv(x))), 0.1, self.training)
        return self.fc(x.mean((2, 3)))
"""


def test_a_network_from_outside_is_trained_masked_and_the_run_says_why(tmp_path):
    plugin = tmp_path / "drops.py"
    plugin.write_text(DROPS)
    notes = []
    fields = {"model": f"{plugin}:Drops", "method": ["channel_l1", "uniform_channels"], "compression": [1.3]}
    for name in ("masked", "smaller"):
        sweep(
            experiment(**fields),
            tmp_path / name,
            device="cpu",
            train_smaller=name == "smaller",
            on_note=notes.append,
        )
    (note,) = [note for note in notes if "was trained masked" in note]  # once, of two runs
    why = "is code from outside, and one batch does not prove what it does later in training"
    assert note.endswith(why)
    one, other = (results_of(tmp_path / name)["channel_l1", 1.3] for name in ("masked", "smaller"))
    told = other.provenance.smaller
    assert told == TrainedSmaller(trainings=1, masked_because=told.masked_because)
    assert told.masked_because.endswith(why)
    assert (other.after, other.epochs) == (one.after, one.epochs)


def test_single_runs_do_as_the_sweep_unless_told_otherwise(tmp_path):
    grid = experiment(method="channel_l1", compression=[1.5, 2])
    store_plan(prepare_sweep(grid, tmp_path, device="cpu", train_smaller=True), device="cpu")
    assert read_beside(tmp_path).train_smaller
    keys = {run.spec.target: run.key for run in ResultStore(tmp_path).read_plan().runs}
    run_stored([keys[2]], tmp_path)
    found = CliRunner().invoke(app, ["run", keys[1.5], "--store", str(tmp_path), "--train-masked"])
    assert found.exit_code == 0, found.output
    assert [results_of(tmp_path)["channel_l1", c].provenance.smaller for c in (2, 1.5)] == [ALL, None]


def test_the_command_takes_the_choice(tmp_path):
    file = tmp_path / "x.toml"
    file.write_text(
        'name = "x"\ndataset = "digits"\nmodel = "digits-cnn"\nmethod = "channel_l1"\ncompression = [2]\n'
        "seed = [0]\ntrain_images = 64\ntest_images = 100\npretrain.epochs = 1\nfinetune.epochs = 1\n"
    )
    out = tmp_path / "out"
    found = CliRunner().invoke(
        app, ["sweep", str(file), "--out", str(out), "--device", "cpu", "--train-smaller"]
    )
    assert found.exit_code == 0, found.output
    assert results_of(out)["channel_l1", 2].provenance.smaller == ALL
