"""Commands that carry runs out: what they refuse, tell, and leave when they are stopped."""

import json
import subprocess
import sys

import pytest
from commands import shrinkbench
from typer.testing import CliRunner

from shrinkbench.cli import app
from shrinkbench.results.bundle import read_source
from shrinkbench.results.store import ResultStore

COMMAND = [sys.executable, "-c", "from shrinkbench.cli import main; main()"]
PLUGIN = '''
import os, signal
from multiprocessing import parent_process
from pathlib import Path
from shrinkbench import pruning_method

def once(send):
    place = Path(__file__).with_name("sent")
    if not place.exists():
        place.touch()
        send()

@pruning_method("NAME")
def NAME(ctx):
    """Magnitude, and a signal the first time."""
    once(lambda: os.kill(WHOM, signal.SIGNAL))
    return {name: w.abs() for name, w in ctx.weights.items()}
'''


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--margin", "1"], "--margin is a rule of --until-decided"),
        (["--until-decided", "--max-seeds", "1"], "--max-seeds 1"),
        (["--until-decided", "--max-seeds", "2"], "first look needs 3 seeds"),
        (["--until-decided", "--compare", "random,wanda"], "compares 'wanda'"),
        (["--until-decided", "--alpha", "2"], "alpha"),
        (["--until-decided", "--margin", "0"], "margin"),
    ],
)
def test_rules_that_decide_nothing_are_refused(words, says, grid, tmp_path):
    ended = CliRunner().invoke(app, ["sweep", str(grid), "--out", str(tmp_path / "out"), *words])
    assert says in str(ended.exception)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def grid(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(
        'name = "grid"\ndataset = "digits"\nmodel = "digits-cnn"\nmethod = ["random"]\ncompression = [1, 2]\n'
        "train_images = 100\n[pretrain]\nepochs = 1\n[finetune]\nepochs = 2\n"
    )
    return path


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_plan_is_told_and_nothing_is_written(grid, tmp_path):
    told = call("sweep", grid, "--out", tmp_path / "out", "--device", "cpu", "--plan")
    assert told.exit_code == 0
    assert "2 runs planned, 2 to do; first 1 of kind pretraining, 1 of kind control" in told.output
    assert "5 epochs, 500 training images" in told.output  # 1 + 2 + 2
    assert (
        "of training and evaluation for 2 runs one after another, by steps timed here just now" in told.output
    )
    assert not (tmp_path / "out").exists()


def test_a_plan_names_the_methods_that_train_longest(grid, tmp_path):
    settings = ["--set", 'method=["random","iterative_magnitude"]', "--set", "compression=4"]
    told = call("sweep", grid, "--out", tmp_path / "out", "--device", "cpu", "--plan", *settings)
    assert "iterative_magnitude: 4 epochs, 67% of what pruned networks train" in told.output
    assert "random: 2 epochs, 33% of what pruned networks train" in told.output


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--workers", "0"], "--workers 0 is not a number of at least 1"),
        (["--time-limit", "0"], "a time limit of 0 s"),
        (["--address", "auto"], "--address has no say with --executor local"),
        (["--slurm-partition", "gpu"], "--slurm-partition has no say with --executor local"),
        (["--executor", "submitit", "--workers", "3"], "--workers has no say with --executor submitit"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--log-to", "x", "--plan"], "--log-to x is none of"),
        (["--log-to", "x", "--write-plan"], "--log-to x is none of"),
        (["--device", "cpu", "--devices", "1000000", "--plan"], "1000000 processes cannot share equally"),
        (["--device", "cpu", "--devices", "1000000", "--write-plan"], "1000000 processes cannot share equally"),
        (["--time-limit", "inf"], "a time limit of inf s is longer than a year"),
        (["--executor", "submitit", "--time-limit", "1e308"], "a time limit of inf s is longer than a year"),
        (["--executor", "submitit", "--gpus-per-run", "9" * 24], "GPUs is beyond any machine"),
        (["--executor", "submitit", "--cpus-per-run", "1025"], "1025 cores and 0 GPUs is beyond any machine"),
        (["--executor", "submitit", "--runs-per-job", "100001"], "a job of 100001 runs"),
    ],
)
def test_options_are_looked_at_before_anything_is_written(grid, tmp_path, options, sentence):
    refused = call("sweep", grid, "--out", tmp_path / "out", *options)
    assert refused.exit_code != 0
    assert sentence in str(refused.exception)
    assert not (tmp_path / "out").exists()


def test_a_scheduler_that_is_not_there_is_told_before_anything_is_written(grid, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    options = ["--executor", "submitit", "--cluster", "slurm"]
    test_options_are_looked_at_before_anything_is_written(grid, tmp_path, options, "there is no Slurm")


def test_a_scheduler_starts_single_runs(grid, tmp_path):
    out = tmp_path / "out"
    planned = call("sweep", grid, "--out", out, "--device", "cpu", "--write-plan")
    first, second = planned.stdout.split()
    assert ResultStore(out).status().missing == 2
    done = call("run", first[:8], "--store", out)
    assert (done.exit_code, done.stdout) == (0, f"{first[:12]} done\n")
    assert ResultStore(out).status().missing == 1
    before = ResultStore(out).result_path(first).stat().st_mtime_ns
    assert call("run", first, second, "--store", out).exit_code == 0
    assert ResultStore(out).result_path(first).stat().st_mtime_ns == before
    assert ResultStore(out).status().done == 2
    wrong = {
        "ffffffffff": "is the beginning of no run of the plan in",
        first[:5]: f"'{first[:5]}' is too short to name a run of {out}; give the first 6 digits",
        first + "0": "has 65 signs, and keys have 64",
        "../../x": "'../../x' is no key",
    }
    for key, said in wrong.items():
        assert said in str(call("run", key, "--store", out).exception)
    watched = call("status", out, "--watch", "--interval", "1000")  # returns, as nothing is missing
    assert watched.output.splitlines()[0] == "2 total, 2 done, 0 failed, 0 missing"


def _sends(grid, folder, *, whom, signal):
    plugin, name = folder / "mine.py", f"sends_{signal.lower()}"
    whom = whom.replace("HEAD", "parent_process().pid")
    plugin.write_text(PLUGIN.replace("WHOM", whom).replace("SIGNAL", signal).replace("NAME", name))
    text = grid.read_text().replace("random", name).replace("[1, 2]", "[2, 3]")
    grid.write_text(text.replace("train_images", 'weights = "random"\ntrain_images'))
    return plugin


def _sweep(grid, plugin, out):
    return call("sweep", grid, "--plugin", plugin, "--out", out, "--device", "cpu")


def test_interrupted_once_a_sweep_finishes_what_runs(grid, tmp_path):
    plugin, out = _sends(grid, tmp_path, whom="HEAD", signal="SIGINT"), tmp_path / "out"
    stopped = _sweep(grid, plugin, out)
    assert stopped.exit_code == 130
    assert "1 of 2 runs done, 0 failed, 1 missing" in stopped.output


@pytest.mark.slow  # on a loaded machine a run may end before the signal is looked at
def test_told_to_end_a_sweep_stops_after_an_epoch_and_goes_on_from_there(grid, tmp_path):
    plugin, out = _sends(grid, tmp_path, whom="HEAD", signal="SIGTERM"), tmp_path / "out"
    stopped = _sweep(grid, plugin, out)
    assert stopped.exit_code == 143
    assert "0 of 2 runs done, 0 failed, 2 missing" in stopped.output
    (log,) = out.glob("runs/*/log.txt")
    assert "end: interrupted" in log.read_text()
    assert list(log.parent.glob("checkpoint*.pt"))
    assert _sweep(grid, plugin, out).exit_code == 0
    result = json.loads((log.parent / "result.json").read_text())
    assert len(result["epochs"]) == 2
    assert log.read_text().count("epoch 1:") == 1  # not done again


@pytest.mark.slow
def test_a_single_run_is_stopped_after_its_epoch_too(grid, tmp_path):
    plugin, out = _sends(grid, tmp_path, whom="os.getpid()", signal="SIGUSR1"), tmp_path / "out"
    (tmp_path / "sent").touch()
    assert _sweep(grid, plugin, out).exit_code == 0
    results, _ = ResultStore(out).results()
    key, calm = results[0].key, results[0].after
    (ResultStore(out).run_dir(key) / "result.json").unlink()
    (tmp_path / "sent").unlink()
    words = ["run", key, "--store", str(out)]
    lacking = subprocess.run(COMMAND + words, capture_output=True, text=True)
    assert lacking.returncode == 2
    assert f"the plan was made with the plug-in {plugin}" in lacking.stderr
    words += ["--plugin", str(plugin)]
    stopped = subprocess.run(COMMAND + words, capture_output=True, text=True)
    assert (stopped.returncode, stopped.stdout) == (128 + 10, f"{key[:12]} missing\n")
    assert subprocess.run(COMMAND + words, capture_output=True, text=True).returncode == 0
    assert ResultStore(out).read(key).after == calm


def test_a_plan_says_what_the_first_look_takes(tmp_path):
    words = ["sweep", "quickstart", "--plan", "--out", tmp_path / "out", "--device", "cpu"]
    words += ["--set", "compression=[1,2]", "--set", 'method=["global_magnitude","random"]']
    done = shrinkbench(*words, "--until-decided", "--max-seeds", "6")
    # Two methods and a control each, of six seeds; of each seed one network and one control are shared.
    assert "24 runs planned, 24 to do" in done.stdout
    assert "first look is at 3 seeds, after 12 of these 24 runs and 50% of their training images" in done.stdout
    assert "first look" not in shrinkbench(*words).stdout


def test_runs_record_the_rules_by_which_seeds_are_added(grid, tmp_path):
    words = ["sweep", grid, "--out", tmp_path / "out", "--device", "cpu", "--until-decided"]
    call(*words, "--max-seeds", "3", "--set", 'method=["random","global_magnitude"]', "--write-plan")
    plan = read_source(tmp_path / "out").plan
    rules = plan.experiments[0].seeds_added
    assert rules.seeds == (0, 1, 2)
    (control, *_), key = plan.runs, next(run.key for run in plan.runs if not run.spec.is_control)
    call("run", control.key[:12], key[:12], "--store", tmp_path / "out", "--device", "cpu")
    results = read_source(tmp_path / "out").results
    assert [result.provenance.seeds_added for result in results] == [rules] * 2


def test_a_plan_promises_nothing_that_the_sweep_refuses(grid, tmp_path):
    words = ["sweep", grid, "--out", tmp_path / "out", "--device", "cpu"]
    call(*words, "--write-plan")
    rules = ["--until-decided", "--max-seeds", "4"]
    refused = call(*words, *rules)
    assert "holds runs already, and rules that decide when to stop are fixed before" in str(refused.exception)
    assert str(call(*words, *rules, "--plan").exception) == str(refused.exception)


@pytest.mark.parametrize("methods", ['["snip"]', '["global_magnitude", "rigl"]'])
def test_a_teacher_that_was_never_trained_is_refused_with_the_method(methods, tmp_path):
    words = ["sweep", "quickstart", "--plan", "--out", tmp_path / "out", "--device", "cpu"]
    words += ["--set", f"method={methods}", "--set", "finetune.distillation={temperature=4,weight=0.5}"]
    done = shrinkbench(*words)
    assert done.returncode == 2
    assert "is not trained before it is pruned, so that it can teach nothing" in done.stderr
    assert ("snip" if "snip" in methods else "rigl") in done.stderr
