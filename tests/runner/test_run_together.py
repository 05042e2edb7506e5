"""One run in several processes: the same masks and, up to rounding, the same numbers."""

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from shrinkbench.cli import app
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.results.store import ResultStore
from shrinkbench.runner import sweep
from shrinkbench.spec import ExperimentSpec, parse_value


def experiment(**fields):
    base = {
        "name": "test",
        "dataset": "digits",
        "model": "digits-cnn",
        "method": "weight_rewinding[schedule=one-shot][finetuning=rewind-weights-1]",
        "compression": 2,
        "pretrain": {"epochs": 2, "optimizer": "sgd", "learning_rate": 0.01},
        "finetune": {"epochs": 1},
        "train_images": 66,
        "validation_images": 20,
        "test_images": 31,
    }
    return parse_value(ExperimentSpec, {**base, **fields}, where="test")


def results_in(root):
    results, problems = ResultStore(root).results()
    assert not problems
    return {result.key: result for result in results}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    roots = [tmp_path_factory.mktemp(str(devices)) for devices in (1, 2)]
    methods = [experiment().method[0], "gradual_magnitude", "network_slimming_residual"]
    for devices, root in zip((1, 2), roots, strict=True):
        for method in methods:
            amount = {"compression": 2} if "slimming" not in method else {"compression": 1, "channels": 0.5}
            status = sweep(experiment(method=method, **amount), root, device="cpu", devices=devices)
            assert status.failed == status.missing == 0
    return [results_in(root) for root in roots]


@pytest.mark.slow
def test_keys_and_sizes_are_equal_and_metrics_up_to_rounding(both):
    one, two = both
    assert one.keys() == two.keys()
    for key, there in two.items():
        here = one[key]
        assert there.size == here.size
        assert there.layers == here.layers
        assert there.after.examples == here.after.examples == 31
        assert there.after["loss"] == pytest.approx(here.after["loss"], rel=1e-2)
        assert there.epochs[-1].train_loss == pytest.approx(here.epochs[-1].train_loss, rel=1e-2)
        assert (there.provenance.processes, here.provenance.processes) == (2, 1)


def test_a_batch_that_cannot_be_dealt_out_is_refused_before_anything_is_stored(tmp_path):
    with pytest.raises(ShrinkbenchError, match="batches of 64, which 3 processes cannot share equally"):
        sweep(experiment(), tmp_path, device="cpu", devices=3)
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--devices", "2", "--workers", "2"], "two ways of using this machine"),
        (["--devices", "2", "--executor", "ray"], "--devices has no say with --executor ray"),
        (["--devices", "2", "--time-limit", "3"], "leave one out"),
        (["--num-nodes", "2"], "say which machine this is"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, why, tmp_path, monkeypatch):
    monkeypatch.delenv("NODE_RANK", raising=False)
    monkeypatch.delenv("SLURM_NODEID", raising=False)
    out = tmp_path / "x"
    given = ["sweep", "quickstart", "--out", str(out), "--device", "cpu", *options]
    result = CliRunner().invoke(app, given)
    assert why in str(result.exception or "") + result.output
    assert not out.exists()


@pytest.mark.slow
def test_two_machines_carry_a_sweep_out(tmp_path):
    """Two heads on one machine stand for two machines; the second follows and leaves when the first is done."""
    file = tmp_path / "x.toml"
    file.write_text(
        'name = "x"\ndataset = "digits"\nmodel = "digits-cnn"\nmethod = "global_magnitude"\n'
        "compression = [1, 2]\ntrain_images = 64\n[pretrain]\nepochs = 1\n[finetune]\nepochs = 1\n"
    )
    command = [sys.executable, "-m", "shrinkbench", "sweep", str(file), "--out", str(tmp_path / "out")]
    processes = [
        subprocess.Popen(
            [*command, "--device", "cpu", "--num-nodes", "2"],
            env={**os.environ, "NODE_RANK": str(node), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29611"},
        )
        for node in range(2)
    ]
    assert [process.wait(timeout=170) for process in processes] == [0, 0]
    found = results_in(tmp_path / "out")
    assert len(found) == 2
    assert {result.provenance.processes for result in found.values()} == {2}
