"""Laws of sweeps, on the digits."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import METHODS, pruning_method
from shrinkbench.results.store import ResultStore
from shrinkbench.runner import sweep
from shrinkbench.spec import ExperimentSpec, parse_value, read_experiments

FAST = {"pretrain": {"epochs": 2}, "finetune": {"epochs": 1}, "train_images": 200}


def experiment(**fields):
    base = {
        "name": "test",
        "dataset": "digits",
        "model": "digits-cnn",
        "method": ["global_magnitude", "random"],
        "compression": [1, 4],
        "seed": [0, 1],
        **FAST,
    }
    return parse_value(ExperimentSpec, {**base, **fields}, where="test")


def comparable(path):
    """A result but for when and where it was made."""
    data = json.loads(path.read_text())
    del data["provenance"]
    return data


def all_results(root):
    return {p.parent.name: comparable(p) for p in root.glob("runs/*/result.json")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("finished")
    status = sweep(experiment(), root, device="cpu")
    assert (status.total, status.done, status.failed, status.missing) == (8, 8, 0, 0)
    return root


def test_every_cell_is_measured_in_full(finished):
    results, problems = ResultStore(finished).results()
    assert not problems
    for r in results:
        assert r.size is not None
        assert r.before is not None
        assert r.after is not None
        assert r.epochs_run == len(r.epochs) == 1  # the control is fine-tuned like the rest
        assert r.after.examples == r.before.examples == 355
        assert r.provenance.versions["torch"] == torch.__version__
        if r.spec.is_control:
            assert (r.size.compression, r.size.theoretical_speedup) == (1, 1)
        elif METHODS.get(r.spec.method.name).allocation.exact:
            assert abs(r.size.parameters_kept - r.size.parameters / r.spec.target) <= 0.5


def test_what_runs_share_is_computed_once(finished):
    assert len(list(finished.glob("shared/pretrained/*/weights.safetensors"))) == 2  # one per seed
    assert len(list(finished.glob("shared/control/*/result.json"))) == 2
    results, _ = ResultStore(finished).results()
    controls = [r for r in results if r.spec.is_control]
    assert len({(r.spec.seed, r.after.model_dump_json()) for r in controls}) == 2


def test_the_same_sweep_again_does_nothing(finished):
    before = {p: p.stat().st_mtime_ns for p in finished.glob("runs/*/result.json")}
    todo = []
    sweep(experiment(), finished, device="cpu", on_plan=lambda total, open_: todo.append(open_))
    assert todo == [0]
    assert before == {p: p.stat().st_mtime_ns for p in finished.glob("runs/*/result.json")}


def test_same_key_same_result(finished, tmp_path):
    sweep(experiment(), tmp_path, device="cpu")
    assert all_results(tmp_path) == all_results(finished)


def test_another_recipe_is_another_run(finished):
    counts = []
    sweep(
        experiment(seed=[0], method=["random"], compression=[4], finetune={"epochs": 0}),
        finished,
        device="cpu",
        on_plan=lambda total, todo: counts.append((total, todo)),
    )
    assert counts == [(1, 1)]


def test_zero_epochs_leaves_the_quality_before(tmp_path):
    sweep(
        experiment(finetune={"epochs": 0}, seed=[0], method=["random"], compression=[4]), tmp_path, device="cpu"
    )
    (result,), _ = ResultStore(tmp_path).results()
    assert result.before == result.after
    assert result.epochs_run == 0


def test_failures_are_results_and_are_retried_on_request(tmp_path):
    state = {"broken": True}

    @pruning_method("test_breaks_at_first")
    def breaks(ctx):
        """Fails until it is mended."""
        if state["broken"]:
            raise RuntimeError("out of luck")
        return {name: w.abs() for name, w in ctx.weights.items()}

    spec = experiment(method=["test_breaks_at_first"], compression=[4], seed=[0])
    assert sweep(spec, tmp_path, device="cpu").failed == 1
    (result,), _ = ResultStore(tmp_path).results()
    assert re.fullmatch(
        r"method 'test_breaks_at_first' fails in .* in line \d+: RuntimeError: out of luck", result.error
    )
    assert "out of luck" in (ResultStore(tmp_path).run_dir(result.key) / "traceback.txt").read_text()
    state["broken"] = False
    assert sweep(spec, tmp_path, device="cpu").failed == 1
    assert sweep(spec, tmp_path, device="cpu", retry_failed=True).done == 1


def test_a_target_that_cannot_be_met_names_the_largest(tmp_path):
    assert sweep(experiment(compression=[1e9], seed=[0], method=["random"]), tmp_path, device="cpu").failed == 1
    (result,), _ = ResultStore(tmp_path).results()
    assert "the largest possible target is 63" in result.error
    assert result.reachable == pytest.approx(63.7, abs=0.1)


def test_a_pretraining_that_fails_fails_its_runs_once(tmp_path):
    spec = experiment(pretrain={"learning_rate": 1e30, "optimizer": "sgd", "epochs": 2})
    assert sweep(spec, tmp_path, device="cpu").failed == 8
    errors = {r.error for r in ResultStore(tmp_path).results()[0]}
    assert all(e.startswith("pretraining failed: training diverged") for e in errors)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"model": "resnet20"}, "takes images of shape 3x32x32, dataset 'digits' has 1x8x8"),
        ({"method": "no_such"}, "unknown pruning method 'no_such'"),
        ({"train_images": 10**6}, "train_images = 1000000 is more than"),
        ({"recipe": "nonsense"}, "unknown recipe 'nonsense'"),
        ({"finetune": {"epoch": 3}}, "unknown key 'epoch'"),
        ({"weights": "no/such.pt"}, "there is no weights file no/such.pt"),
    ],
)
def test_mistakes_are_told_before_anything_runs(tmp_path, fields, sentence):
    with pytest.raises(ShrinkbenchError, match=sentence):
        sweep(experiment(**fields), tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


SWEEP_ALONE = """
import sys
from pathlib import Path
from shrinkbench.runner import sweep
from shrinkbench.spec import read_experiments

sweep(read_experiments(Path(sys.argv[1]))[0], Path(sys.argv[2]), device="cpu")
"""


@pytest.mark.slow
def test_kill_and_go_on(finished, tmp_path):
    """SIGKILL in the middle; the same sweep finishes, repeats nothing, and the results are the same."""
    target = tmp_path / "killed"
    file = tmp_path / "test.toml"
    file.write_text(
        'name = "test"\ndataset = "digits"\nmodel = "digits-cnn"\nmethod = ["global_magnitude", "random"]\n'
        "compression = [1, 4]\nseed = 0\ntrain_images = 200\n"
        "[pretrain]\nepochs = 2\n[finetune]\nepochs = 1\n"
    )
    process = subprocess.Popen([sys.executable, "-c", SWEEP_ALONE, str(file), str(target)])
    deadline = time.time() + 600
    while not list(target.glob("runs/*/result.json")) and time.time() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    survived = {p: p.stat().st_mtime_ns for p in target.glob("runs/*/result.json")}
    assert 1 <= len(survived) < 4
    todo = []
    (spec,) = read_experiments(file)
    sweep(spec, target, device="cpu", on_plan=lambda total, open_: todo.append(open_))
    assert todo == [4 - len(survived)]
    assert all(path.stat().st_mtime_ns == when for path, when in survived.items())
    assert all_results(target) == {
        key: value for key, value in all_results(finished).items() if key in all_results(target)
    }
    assert len(all_results(target)) == 4
    assert not list(Path(target).glob("**/*.tmp"))


def test_a_folder_that_is_moved_away_meanwhile_is_told_as_such(tmp_path):
    out, away = tmp_path / "out", tmp_path / "away"

    def move(progress):
        if progress.done == 2:
            out.rename(away)

    with pytest.raises(ShrinkbenchError, match="was moved away or emptied while the sweep went on"):
        sweep(experiment(compression=[4], seed=[0]), out, device="cpu", on_progress=move)


@pytest.mark.slow
def test_extra_evaluations_become_columns(tmp_path):
    """CIFAR-10.1's layout, made small: its quality is a result beside the test split's, and part of the key."""
    import numpy as np
    from PIL import Image

    from shrinkbench.results.frame import to_frame

    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"):
            folder = tmp_path / "cifar" / split / label
            folder.mkdir(parents=True)
            for i in range(20):
                pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    extra = tmp_path / "extra"
    extra.mkdir()
    np.save(extra / "cifar10.1_v6_data.npy", generator.integers(0, 256, (2000, 32, 32, 3), dtype=np.uint8))
    np.save(extra / "cifar10.1_v6_labels.npy", np.arange(2000, dtype=np.int32) % 10)
    spec = experiment(
        dataset="cifar10", model="resnet20", weights="random", method="random", compression=[1, 2], seed=0,
        extra="cifar10.1", train_images=None, finetune={"epochs": 0},
    )  # fmt: skip
    places = {"cifar10": tmp_path / "cifar", "cifar10.1": extra}
    assert sweep(spec, tmp_path / "out", device="cpu", data=places).done == 2
    results, _ = ResultStore(tmp_path / "out").results()
    assert all(r.further["cifar10.1"].examples == 2000 for r in results)
    assert "cifar10.1_top1" in to_frame(results).columns
    with pytest.raises(ShrinkbenchError, match=r"'cifar10.1' belongs to dataset 'cifar10', which is not in"):
        sweep(experiment(extra="cifar10.1"), tmp_path / "out2", device="cpu")
