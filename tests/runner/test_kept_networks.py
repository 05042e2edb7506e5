"""Networks come out of runs: kept, derived again, and refused where they do not agree with the record."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import Masks
from shrinkbench.results.store import ResultStore
from shrinkbench.results.upkeep import verify_store
from shrinkbench.runner import Workspace, prepare_sweep, run_stored, store_plan, sweep
from shrinkbench.runner.deriving import keep_networks, keys_lacking
from shrinkbench.runner.keeping import _require_code, read_kept
from shrinkbench.runner.sealing import save_sealed
from shrinkbench.runner.workspace import BoundData
from shrinkbench.spec import ExperimentSpec, parse_value
from shrinkbench.training import evaluate

BASE = {
    "name": "kept",
    "dataset": "digits",
    "model": "digits-cnn",
    "method": ["global_magnitude", "channel_l1"],
    "compression": [1, 2],
    "train_images": 64,
    "test_images": 100,
    "pretrain": {"epochs": 1},
    "finetune": {"epochs": 1},
}


def experiment(**fields):
    return parse_value(ExperimentSpec, {**BASE, **fields}, where="test")


def results_of(root):
    results, problems = ResultStore(root).results()
    assert not problems
    return {(r.spec.method.name, r.spec.target): r for r in results}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    root = tmp_path_factory.mktemp("kept")
    assert sweep(experiment(keep="weights"), root, device="cpu").done == 4
    return root


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    root = tmp_path_factory.mktemp("plain")
    assert sweep(experiment(), root, device="cpu").done == 4
    return root


def measured(root, result, module):
    workspace = Workspace(root=root)
    data = BoundData(workspace.dataset("digits"), result.spec.data, "cpu")
    return evaluate(module.to(memory_format=torch.channels_last), data.test())


def test_kept_weights_evaluate_to_the_stored_metric(kept):
    results = results_of(kept)
    assert len(results) == 4
    for result in results.values():
        stored, found = read_kept(kept / "runs" / result.key)
        assert found == result
        assert measured(kept, result, stored.module) == result.after
        left = sum(p.numel() for p in stored.module.parameters()) - stored.masks.total + stored.masks.kept
        assert left == result.size.parameters_kept


def test_keeping_is_in_no_key_and_in_no_number(kept, plain):
    one, other = results_of(kept), results_of(plain)
    assert {r.key for r in one.values()} == {r.key for r in other.values()}
    for key, result in one.items():
        assert result.after == other[key].after
        assert set(result.provenance.kept) == {"masks", "weights"}
        assert other[key].provenance.kept == {}
    assert not list(plain.glob("**/masks.safetensors"))


def test_masks_alone_are_kept_where_they_are_asked_for(tmp_path, kept):
    sweep(experiment(keep="masks", method="global_magnitude"), tmp_path, device="cpu")
    result = results_of(tmp_path)["global_magnitude", 2]
    folder = tmp_path / "runs" / result.key
    assert not (folder / "weights.safetensors").exists()
    masks = Masks.load(folder / "masks.safetensors", network="digits-cnn")
    assert masks.equal(read_kept(kept / "runs" / result.key)[0].masks)
    with pytest.raises(ShrinkbenchError, match="has kept no weights; make them with `shrinkbench weights"):
        read_kept(folder)


def test_what_was_not_kept_is_told_and_made_on_request(tmp_path, kept):
    sweep(experiment(method="channel_l1"), tmp_path, device="cpu")
    notes = []
    again = experiment(method="channel_l1", keep="weights")
    before = {path: path.read_bytes() for path in tmp_path.glob("runs/*/result.json")}
    sweep(again, tmp_path, device="cpu", on_note=notes.append)
    assert "2 finished runs lack their networks" in notes[0]
    assert f"`shrinkbench weights --store {tmp_path}`" in notes[0]
    assert {path: path.read_bytes() for path in tmp_path.glob("runs/*/result.json")} == before
    missing = keys_lacking(tmp_path)
    assert len(missing) == 2
    for folder in keep_networks(missing, tmp_path):
        stored, result = read_kept(folder)
        assert measured(tmp_path, result, stored.module) == result.after
        there, _ = read_kept(kept / "runs" / result.key)
        state = there.module.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in stored.module.state_dict().items())
        assert not list(folder.glob("checkpoint*"))
    assert keys_lacking(tmp_path) == ()
    sweep(again, tmp_path, device="cpu", on_note=notes.append)
    assert len(notes) == 1


def test_a_planned_run_keeps_what_the_sweep_has_asked_for(tmp_path):
    prepared = prepare_sweep(experiment(keep="weights", compression=2), tmp_path, device="cpu")
    store_plan(prepared, device="cpu")
    key = prepared.todo[0].key
    assert run_stored([key], tmp_path) == {key: "done"}
    assert read_kept(tmp_path / "runs" / key)[1].key == key


def test_a_network_with_other_numbers_than_are_stored_is_not_kept(tmp_path):
    sweep(experiment(method="channel_l1", compression=2), tmp_path, device="cpu")
    (result,) = results_of(tmp_path).values()
    shifted = {**result.after.metrics, "top1": result.after.metrics["top1"] - 0.02}
    after = result.after.model_copy(update={"metrics": shifted})
    ResultStore(tmp_path).write(result.model_copy(update={"after": after}))
    with pytest.raises(ShrinkbenchError, match=r"gives after.top1 0\.\d+ here, and 0\.\d+ is stored"):
        keep_networks([result.key], tmp_path)
    assert not (tmp_path / "runs" / result.key / "weights.safetensors").exists()


def copied(kept, tmp_path, method="global_magnitude"):
    shutil.copytree(kept, tmp_path / "copy")
    return tmp_path / "copy" / "runs" / results_of(kept)[method, 2].key


def edit_weights(folder):
    tensors = load_file(folder / "weights.safetensors")
    tensors[next(iter(tensors))] += 1
    save_file(tensors, folder / "weights.safetensors", {"key": folder.name, "sha256": "0" * 64})


def seal_edited_weights(folder):
    tensors = load_file(folder / "weights.safetensors")
    tensors["fc.bias" if "fc.bias" in tensors else next(iter(tensors))].zero_()
    save_sealed(tensors, folder / "weights.safetensors", key=folder.name)  # its own seal is right


def exchange_masks(folder):
    save_sealed({}, folder / "masks.safetensors", key=folder.name)


def cut_short(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


def remove_masks(folder):
    (folder / "masks.safetensors").unlink()  # it would be told as a whole network


def describe_anew(folder):
    fields = json.loads((folder / "network.json").read_text())
    (folder / "network.json").write_text(json.dumps({**fields, "network": "resnet20"}))


EDITS = [edit_weights, seal_edited_weights, exchange_masks, cut_short, remove_masks, describe_anew]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_an_edited_network_is_refused(kept, tmp_path, edit):
    folder = copied(kept, tmp_path)
    read_kept(folder)
    edit(folder)
    with pytest.raises(ShrinkbenchError, match=r"or not what run .* has written; remove it, and make it again"):
        read_kept(folder)
    if edit not in (remove_masks, describe_anew):  # its weights lie there
        with pytest.raises(ShrinkbenchError, match=r"or not what run .* has written"):
            keep_networks([folder.name], folder.parent.parent)


def test_upkeep_finds_an_edited_network(kept, tmp_path):
    folder = copied(kept, tmp_path)
    store = ResultStore(folder.parent.parent)
    assert verify_store(store) == []
    seal_edited_weights(folder)
    assert [(p.path.name, p.sentence) for p in verify_store(store)] == [
        ("weights.safetensors", "holds other tensors than its result names")
    ]


def test_keys_that_name_no_finished_run_are_told(kept):
    for key in ("", "abc", "0" * 64, "../../etc", "z" * 500):
        with pytest.raises(ShrinkbenchError, match="is the beginning of no finished run"):
            keep_networks([key], kept)


def test_a_network_of_other_code_than_the_run_is_refused(kept):
    result = results_of(kept)["global_magnitude", 2]
    _require_code(result, "digits-cnn")
    model = SimpleNamespace(source="a" * 64)
    other = SimpleNamespace(key=result.key, spec=SimpleNamespace(model=model))
    with pytest.raises(ShrinkbenchError, match="as other code made it than there is"):
        _require_code(other, "digits-cnn")
