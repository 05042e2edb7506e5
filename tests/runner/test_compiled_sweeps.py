"""Sweeps with compiled steps: keys stay, each run says whether it was compiled, and readers tell both apart."""

import pytest
import torch
from commands import shrinkbench

from shrinkbench.report.checklist.conditions import find_conditions
from shrinkbench.report.checklist.evidence import gather
from shrinkbench.results.store import ResultStore
from shrinkbench.runner import calibrating, prepare_sweep, run_stored, store_plan, sweep
from shrinkbench.runner.beside_plan import read_beside
from shrinkbench.spec import ExperimentSpec, parse_value
from shrinkbench.training import compiling

FIELDS = {
    "name": "compiled",
    "dataset": "digits",
    "model": "digits-cnn",
    "method": ["random", "gradual_magnitude"],
    "compression": [1, 2],
    "seed": [0],
    "train_images": 80,
    "validation_images": 40,
    "test_images": 60,
    "pretrain": {"epochs": 1, "batch_size": 32},
    "finetune": {"epochs": 1, "batch_size": 32},
}
EXPERIMENT = parse_value(ExperimentSpec, FIELDS, where="test")


@pytest.fixture
def programs(monkeypatch):
    """Networks of which a program was asked for; it is the network itself, as a graph."""
    asked = []

    def record(module):
        asked.append(module)
        return torch.compile(module, backend="eager")

    torch.compiler.reset()
    monkeypatch.setattr(compiling, "_compile", record)
    return asked


def ends(root):
    results, problems = ResultStore(root).results()
    assert not problems
    return {r.spec.method.name if not r.spec.is_control else "control": r for r in results}


def test_runs_say_whether_they_were_compiled(tmp_path, programs):
    sweep(EXPERIMENT, tmp_path / "plain", device="cpu")
    assert not programs
    sweep(EXPERIMENT, tmp_path / "compiled", device="cpu", compiled=True)
    assert programs
    plain, compiled = ends(tmp_path / "plain"), ends(tmp_path / "compiled")
    assert {name: r.key for name, r in plain.items()} == {name: r.key for name, r in compiled.items()}
    assert {r.provenance.uncompiled for r in plain.values()} == {None}
    assert {name: r.provenance.uncompiled for name, r in compiled.items()} == {
        "control": "",
        "random": "",
        "gradual_magnitude": "the network is pruned while it is trained",
    }
    # A graph that runs its own operations gives the same numbers; with other code they round apart.
    assert {n: r.after for n, r in plain.items()} == {n: r.after for n, r in compiled.items()}
    sentences = [d.sentence for d in find_conditions(gather(list(compiled.values()))).differing]
    assert any("training steps" in sentence for sentence in sentences)
    assert not find_conditions(gather(list(plain.values()))).differing


def test_a_planned_run_is_carried_out_as_its_sweep_would(tmp_path, programs):
    prepared = prepare_sweep(EXPERIMENT, tmp_path, device="cpu", compiled=True)
    store_plan(prepared, device="cpu")
    assert read_beside(tmp_path).compiled
    (key,) = [s.key for s in prepared.todo if s.method.name == "random" and not s.is_control]
    run_stored([key], tmp_path)
    assert ResultStore(tmp_path).read(key).provenance.uncompiled == ""
    assert programs


@pytest.mark.parametrize(("compiled", "chosen"), [(5.0, True), (20.0, False)])
def test_auto_takes_the_shorter(compiled, chosen, tmp_path, monkeypatch):
    monkeypatch.setattr(calibrating, "seconds_of_compiling", lambda _: (10.0, compiled))
    (tmp_path / "e.toml").write_text(
        'name = "e"\ndataset = "digits"\nmodel = "digits-cnn"\nmethod = "random"\ncompression = 2\nseed = 0\n'
        "train_images = 40\nvalidation_images = 20\ntest_images = 20\n"
        "[pretrain]\nepochs = 1\nbatch_size = 8\n[finetune]\nepochs = 1\nbatch_size = 8\n"
    )
    words = ("--out", tmp_path / "out", "--device", "cpu", "--compile", "auto", "--write-plan")
    done = shrinkbench("sweep", tmp_path / "e.toml", *words)
    assert done.returncode == 0
    assert f"steps are {'' if chosen else 'not '}compiled" in done.stderr
    assert read_beside(tmp_path / "out").compiled == chosen


def test_the_first_step_pays_for_compiling(tmp_path, monkeypatch):
    monkeypatch.setattr(
        calibrating, "_rates", lambda task, recipe, w: calibrating._Rates(1.0, 0.0, 7.0 * w.compiled)
    )
    prepared = prepare_sweep(EXPERIMENT, tmp_path, device="cpu")
    plain, compiled = calibrating.seconds_of_compiling(prepared)
    assert compiled == plain + 7  # one network, one batch size


def test_without_a_compiler_auto_goes_on_and_on_is_refused(tmp_path, monkeypatch):
    def fail(function):
        raise RuntimeError("no g++ here\nmore of it")

    compiling.require_compiler.cache_clear()
    monkeypatch.setattr(torch, "compile", fail)
    words = (
        "sweep",
        "quickstart",
        "--out",
        tmp_path,
        "--device",
        "cpu",
        "--set",
        'method="random"',
        "--write-plan",
    )
    refused = shrinkbench(*words, "--compile", "on")
    assert refused.returncode == 2
    assert "torch cannot compile here: no g++ here; install g++, or leave --compile out" in refused.stderr
    done = shrinkbench(*words, "--compile", "auto")
    assert done.returncode == 0
    assert "steps are not compiled: torch cannot compile here: no g++ here" in done.stderr
    assert not read_beside(tmp_path).compiled
