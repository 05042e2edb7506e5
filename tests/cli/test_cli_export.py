"""`shrinkbench weights` and `shrinkbench export`, and commands that read what they write."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec

import pytest
import torch
from typer.testing import CliRunner

from shrinkbench.cli import app
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning.masks import Masks
from shrinkbench.results.store import ResultStore
from shrinkbench.surgery.folders import read_network

EXPERIMENT = """
name = "out"
dataset = "digits"
model = "digits-cnn"
method = "channel_l1"
compression = [1, 2]
train_images = 64
keep = "weights"
pretrain.epochs = 1
finetune.epochs = 1
"""


def call(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def store(sweeps_here, tmp_path_factory):
    root = tmp_path_factory.mktemp("out")
    (root / "out.toml").write_text(EXPERIMENT)
    call("sweep", root / "out.toml", "--out", root / "results", "--device", "cpu")
    return root / "results"


@pytest.fixture(scope="module")
def run(store):
    results, _ = ResultStore(store).results()
    return next(r for r in results if not r.spec.is_control)


def test_a_kept_network_evaluates_to_the_stored_metrics(store, run):
    told = json.loads(
        call(
            "evaluate", "--model", store / "runs" / run.key, "--dataset", "digits", "--device", "cpu", "--json"
        )
    )
    assert {name: told[name] for name in run.after.metrics} == run.after.metrics


@pytest.mark.slow
def test_weights_that_were_not_kept_come_out_too(store, run, tmp_path):
    shutil.copytree(store, tmp_path / "copy")
    folder = tmp_path / "copy" / "runs" / run.key
    for name in ("weights.safetensors", "masks.safetensors", "network.json"):
        (folder / name).unlink()
    out = tmp_path / "net"
    assert str(out) in call("weights", run.key[:12], "--store", tmp_path / "copy", "--out", out)
    known, again = read_network(store / "runs" / run.key).module, read_network(out).module
    assert all(torch.equal(v, again.state_dict()[n]) for n, v in known.state_dict().items())
    call("weights", run.key, "--store", tmp_path / "copy", "--out", tmp_path / "w.safetensors")
    told = call(
        *("evaluate", "--model", "digits-cnn", "--weights", tmp_path / "w.safetensors", "--dataset", "digits"),
        *("--device", "cpu", "--json"),
    )
    assert json.loads(told)["top1"] == run.after.metrics["top1"]
    assert "no finished run lacks a network" in call("weights", "--store", store)


@pytest.mark.slow
def test_small_networks_are_read_by_every_command(store, run, tmp_path):
    folder = store / "runs" / run.key
    call("shrink", "--model", folder, "--out", tmp_path / "small")
    small = json.loads(call("describe", tmp_path / "small", "--json"))
    masked = json.loads(call("describe", folder, "--json"))
    assert small["small"]
    assert small["parameters"] == masked["parameters_kept"] == run.size.parameters_kept < masked["parameters"]
    told = call("evaluate", "--model", tmp_path / "small", "--dataset", "digits", "--device", "cpu", "--json")
    assert json.loads(told)["top1"] == pytest.approx(run.after.metrics["top1"], abs=1 / 355)
    timing = ("--batch-size", 1, "--rounds", 1, "--device", "cpu", "--json")
    for model, networks in ((tmp_path / "small", ["dense", "small"]), (folder, ["dense", "masked", "small"])):
        rows = json.loads(call("latency", "--model", model, *timing))
        assert [row["network"] for row in rows] == networks
        assert rows[-1]["theoretical_speedup"] == round(run.size.theoretical_speedup, 3)


ENDINGS = ["net.pt2", "net.ts", "net.safetensors", "folder"]


@pytest.mark.parametrize("out", ENDINGS)
def test_a_run_is_exported(store, run, tmp_path, out):
    told = json.loads(call("export", "--model", store / "runs" / run.key, "--out", tmp_path / out, "--json"))
    assert told["parameters_kept"] == run.size.parameters_kept
    assert (tmp_path / out).exists()


@pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="the extra 'onnx' is not installed",
)
@pytest.mark.slow
def test_a_small_run_is_exported_to_onnx(store, run, tmp_path):
    call("export", "--model", store / "runs" / run.key, "--small", "--out", tmp_path / "net.onnx")
    assert (tmp_path / "net.onnx").stat().st_size > 1000


@pytest.mark.parametrize("small", [[], ["--small"]])
def test_a_hub_repository_holds_results_beside_their_control(store, run, tmp_path, small):
    call("export", "--model", store / "runs" / run.key, "--out", tmp_path / "hub", "--format", "hf", *small)
    card = (tmp_path / "hub" / "README.md").read_text()
    control = next(r for r in ResultStore(store).results()[0] if r.spec.is_control)
    for text in (
        f"| top1 | {run.after.metrics['top1']:.6g} | {control.after.metrics['top1']:.6g} |",
        f"shrinkbench weights {run.key} --store DIR --out OUT",
        f"{run.size.parameters_kept:,}",
        f"{run.size.multiply_adds_kept:,}",
        f"| {run.size.compression:.4f} | 1 |",
        "license: unknown",
        'datasets:\n- "digits"',
        "method: channel\\_l1",
    ):
        assert text in card, (text, card)
    assert read_network(tmp_path / "hub").description.is_small == bool(small)
    told = call("evaluate", "--model", tmp_path / "hub", "--dataset", "digits", "--device", "cpu", "--json")
    assert json.loads(told)["top1"] == pytest.approx(run.after.metrics["top1"], abs=1 / 355)


def test_a_hub_repository_of_a_run_with_other_masks_holds_no_results_of_the_run(store, run, tmp_path):
    folder, other = store / "runs" / run.key, tmp_path / "other.safetensors"
    module = read_network(folder).module
    Masks({n: torch.ones_like(p, dtype=torch.bool) for n, p in module.named_parameters()}).save(other)
    out = tmp_path / "hub"
    call("export", "--model", folder, "--masks", other, "--out", out, "--format", "hf")
    card = (out / "README.md").read_text()
    assert run.key not in card
    assert "| top1 |" not in card


WRONG = [
    (["export", "--model", "RUN", "--out", "x.pth"], "a file ends in"),
    (["export", "--model", "RUN", "--out", "x.pt2", "--format", "onnx"], "let the name of --out"),
    (["export", "--model", "RUN", "--small", "--out", "x.safetensors"], "name a folder"),
    (["export", "--model", "RUN", "--weights", "w.pth", "--out", "x"], "leave --weights out"),
    (["export", "--model", "digits-cnn", "--small", "--out", "x"], "there are no masks"),
    (["export", "--model", "EMPTY/", "--out", "x"], "holds no network"),
    (["evaluate", "--model", "RUN", "--dataset", "cifar10"], "cifar10"),
    (["evaluate", "--model", "resnet20", "--weights", "RUN", "--dataset", "digits"], "not 'resnet20'"),
    (["latency", "--model", "digits-cnn"], "there are no masks"),
    (["shrink", "--model", "digits-cnn", "--out", "x"], "there are no masks"),
    (["weights", "--store", "STORE", "--out", "x"], "give exactly one key"),
    (["weights", "abcdef", "--store", "STORE"], "the beginning of no finished run"),
    (["weights", "--store", "EMPTY"], "holds no results"),
]


@pytest.mark.parametrize(("command", "sentence"), WRONG)
def test_what_cannot_be_meant_is_told(store, run, tmp_path, command, sentence, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    places = {"RUN": store / "runs" / run.key, "EMPTY": "./empty", "EMPTY/": "./empty", "STORE": store}
    with pytest.raises(ShrinkbenchError, match=sentence):
        call(*(places.get(part, part) for part in command))
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_runs_folder_without_its_result_is_told_as_that(store, run, tmp_path):
    """Its files were used whatever they held."""
    folder = tmp_path / run.key
    shutil.copytree(store / "runs" / run.key, folder)
    (folder / "result.json").unlink()
    done = CliRunner().invoke(app, ["evaluate", "--model", str(folder), "--dataset", "digits"])
    assert "whose files are known by the result.json beside them" in str(done.exception)


def test_a_folder_is_described_beside_the_name_of_its_network(store, run):
    """Of a network of a folder or a Python file that was the way to evaluate it, and none to describe it."""
    folder = store / "runs" / run.key
    assert call("describe", "digits-cnn", "--weights", folder) == call("describe", folder)
    done = CliRunner().invoke(app, ["describe", "digits-cnn", "--weights", str(folder / "weights.safetensors")])
    assert "is no folder that holds a network" in str(done.exception)
