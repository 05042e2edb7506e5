"""What a method does to its process falls on no run but its own."""

import json
import os
import re
import signal
from pathlib import Path

import pytest
import torch

from shrinkbench.errors import SettingsWarning
from shrinkbench.models import get_model
from shrinkbench.pruning import load_plugin
from shrinkbench.results.store import ResultStore
from shrinkbench.runner import sweep
from shrinkbench.runner.executors import InProcess, LocalProcesses
from shrinkbench.runner.executors.local import name_of_signal
from shrinkbench.spec import ExperimentSpec, parse_value

ODD = '''
import os, sys
import torch
from shrinkbench import pruning_method

def magnitude(ctx):
    return {name: w.abs() for name, w in ctx.weights.items()}

@pruning_method("odd_leaks")
def odd_leaks(ctx):
    """Sets what the whole process shares."""
    found = magnitude(ctx)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.backends.mkldnn.enabled = False
    torch.set_flush_denormal(True)
    torch.set_num_threads(torch.get_num_threads() + 2)
    torch.set_grad_enabled(False)
    os.umask(0o777)
    return found

@pruning_method("odd_signal")
def odd_signal(ctx):
    """Ends itself by a signal that has no name."""
    os.kill(os.getpid(), 40)

@pruning_method("odd_closes")
def odd_closes(ctx):
    """Closes all that is open, as one does for a process in the background."""
    os.closerange(3, 256)
    return magnitude(ctx)

@pruning_method("odd_exit")
def odd_exit(ctx):
    """Asks Python to end, with a number that has no text."""
    sys.exit(10**5000)
'''
LOADED = """
import torch
torch.set_default_dtype(torch.float64)
def odd_network():
    return torch.nn.Linear(4, 2)
"""


def experiment(*methods):
    return parse_value(
        ExperimentSpec,
        {
            "name": "odd",
            "dataset": "digits",
            "model": "digits-cnn",
            "method": list(methods),
            "compression": [2],
            "weights": "random",
            "finetune": {"epochs": 1},
            "train_images": 100,
        },
        where="test",
    )


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "odd.py"
    path.write_text(ODD)
    load_plugin(path)
    return path


def of_method(root, name):
    for path in root.glob("runs/*/result.json"):
        fields = json.loads(path.read_text())
        if fields["spec"]["method"]["base"] == name:
            del fields["provenance"]
            return fields, path.with_name("log.txt").read_text()
    raise AssertionError(name)


def file_mask():
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_the_run_after_one_that_leaks_has_the_numbers_of_a_run_alone(plugin, tmp_path):
    mask = file_mask()
    settings = torch.get_num_threads(), torch.backends.mkldnn.enabled
    alone, mixed = tmp_path / "alone", tmp_path / "mixed"
    assert sweep(experiment("global_magnitude"), alone, device="cpu", executor=InProcess()).done == 1
    both = experiment("odd_leaks", "global_magnitude")
    sweep(both, mixed, device="cpu", plugins=[plugin], executor=InProcess())
    assert (torch.get_num_threads(), torch.backends.mkldnn.enabled) == settings
    assert torch.get_default_dtype() is torch.float32
    assert torch.get_default_device() == torch.device("cpu")
    assert torch.is_grad_enabled()
    (found, log), (expected, _) = (of_method(root, "global_magnitude") for root in (mixed, alone))
    assert found == expected
    assert "settings" not in log
    _, log = of_method(mixed, "odd_leaks")
    assert "left settings of the process changed, which are put back: default device (cpu -> meta)" in log
    assert "mkldnn.enabled (True -> False)" in log
    if Path("/proc/self/status").exists():
        assert f"umask ({mask:03o} -> 777)" in log
        assert file_mask() == mask


def test_a_file_that_leaks_as_it_is_loaded_changes_nothing(tmp_path):
    path = tmp_path / "odd_network_file.py"
    path.write_text(LOADED)
    with pytest.warns(SettingsWarning, match=r"odd_network_file.py changes settings .*default dtype"):
        get_model(f"{path}:odd_network")
    assert torch.get_default_dtype() is torch.float32


@pytest.mark.slow
def test_a_signal_without_a_name_ends_one_run(plugin, tmp_path):
    notes = []
    odd = experiment("odd_signal", "odd_exit", "global_magnitude")
    status = sweep(
        odd,
        tmp_path,
        device="cpu",
        plugins=[plugin],
        executor=LocalProcesses(1),
        max_retries=0,
        on_note=notes.append,
    )
    assert (status.done, status.failed) == (1, 2)
    errors = {r.spec.method.name: r.error for r in ResultStore(tmp_path).results()[0]}
    assert errors["odd_signal"] == f"worker died by SIGRTMIN+{40 - signal.SIGRTMIN}"
    assert errors["odd_exit"] == "worker called sys.exit(its text cannot be told)"


def test_every_signal_has_a_name():
    names = [name_of_signal(number) for number in range(1, 256)]
    assert len(set(names)) == 255
    assert all(re.fullmatch(r"SIG[A-Z0-9]+(\+\d+)?|signal \d+", name) for name in names)


def test_a_method_that_closes_what_is_open_is_done(plugin, tmp_path, capfd):
    processes = LocalProcesses(1)
    status = sweep(
        experiment("odd_closes"), tmp_path, device="cpu", plugins=[plugin], executor=processes, max_retries=0
    )
    assert (status.done, status.failed) == (1, 0)
    assert not list(tmp_path.glob("runs/*/failure.json"))
    assert list((tmp_path / "claims").iterdir()) == []
    assert "Traceback" not in capfd.readouterr().err
