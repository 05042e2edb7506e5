"""What runs share is refused, and made again, where it is not what was put there."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load, load_file, save_file

from shrinkbench.errors import DamagedWarning, ShrinkbenchError
from shrinkbench.results.record import RunResult
from shrinkbench.results.store import ResultStore
from shrinkbench.runner import Workspace, sweep
from shrinkbench.runner.execution import ensure_control, run
from shrinkbench.runner.outcomes import classify
from shrinkbench.runner.sealing import is_whole, load_sealed, read_card, save_sealed, write_card
from shrinkbench.spec import ExperimentSpec, parse_value

TENSORS = {
    "weight": torch.arange(6.0).reshape(2, 3),
    "count": torch.tensor(7),
    "mask": torch.tensor([True, False]),
    "half": torch.ones(3, dtype=torch.bfloat16),
}


def _zero(path):
    save_file({name: torch.zeros_like(tensor) for name, tensor in load_file(path).items()}, path)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-4])


def _flip_last_byte(path):
    state, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def _edit(path):
    fields = json.loads(path.read_text())
    fields["epochs"] = []
    path.write_text(json.dumps(fields))


def test_a_sealed_file_gives_back_what_it_was_given(tmp_path):
    save_sealed(TENSORS, tmp_path / "x.safetensors", key="a")
    loaded = load_sealed(tmp_path / "x.safetensors", key="a")
    assert loaded.keys() == TENSORS.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in TENSORS.items())
    write_card(tmp_path / "card.json", {"epochs": (1, 2.5, None)}, key="a")
    assert read_card(tmp_path / "card.json", key="a") == {"epochs": [1, 2.5, None]}


@pytest.mark.parametrize("damage", [_zero, _cut, _flip_last_byte, os.unlink])
def test_a_sealed_file_that_was_touched_is_refused(tmp_path, damage):
    path = tmp_path / "x.safetensors"
    save_sealed(TENSORS, path, key="a")
    damage(path)
    with pytest.raises(ShrinkbenchError, match="not what was written there"):
        load_sealed(path, key="a")


def test_what_was_made_for_another_key_is_refused(tmp_path):
    save_sealed(TENSORS, tmp_path / "x.safetensors", key="a")
    write_card(tmp_path / "card.json", {}, key="a")
    for read, name in ((load_sealed, "x.safetensors"), (read_card, "card.json")):
        with pytest.raises(ShrinkbenchError, match="not what was written there"):
            read(tmp_path / name, key="b")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """What runs share, without the runs; and what these had found."""
    root = tmp_path_factory.mktemp("shared")
    assert sweep(_experiment(), root, device="cpu").failed == 0
    found = _found(root)
    shutil.rmtree(root / "runs")
    return root, found


@pytest.fixture
def finished(swept):
    return swept[0]


def _found(root):
    return {r.key: (r.after, r.size) for r in ResultStore(root).results()[0]}


def _experiment():
    fields = {
        "name": "test",
        "dataset": "digits",
        "model": "digits-cnn",
        "method": ["gradual_magnitude[finetuning=scratch-e]", "global_magnitude[finetuning=rewind-weights-1]"],
        "compression": [1.5],
        "seed": [0],
        "pretrain": {"epochs": 2},
        "finetune": {"epochs": 1},
        "train_images": 100,
    }
    return parse_value(ExperimentSpec, fields, where="test")


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        pytest.param("pretrained/*/weights.safetensors", _zero, marks=pytest.mark.slow),
        ("pretrained/*/weights.safetensors", _flip_last_byte),
        pytest.param("pretrained/*/epoch-1.safetensors", _zero, marks=pytest.mark.slow),
        pytest.param("pretrained/*/card.json", _edit, marks=pytest.mark.slow),
        pytest.param("search/*/masks.safetensors", _flip_last_byte, marks=pytest.mark.slow),
        ("search/*/weights.safetensors", _zero),
        pytest.param("search/*/card.json", _edit, marks=pytest.mark.slow),
    ],
)
def test_shared_files_that_were_touched_are_set_aside_and_made_again(swept, tmp_path, file, damage):
    calm, found = swept
    root = shutil.copytree(calm, tmp_path / "store")
    (path,) = root.glob(f"shared/{file}")
    damage(path)
    notes = []
    assert sweep(_experiment(), root, device="cpu", on_note=notes.append).failed == 0
    assert any(str(path) in note and note.endswith("it is set aside, and made again") for note in notes)
    assert list(path.parent.glob(f"{path.name}.damaged-*"))
    assert _found(root) == found


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("pretrained/*/weights.safetensors", _flip_last_byte),
        ("pretrained/*/epoch-1.safetensors", _zero),
        ("pretrained/*/card.json", _edit),
        ("search/*/masks.safetensors", _flip_last_byte),
        ("control/*/result.json", _cut),
    ],
)
def test_a_run_by_itself_makes_damaged_files_again_too(finished, tmp_path, file, damage):
    root = shutil.copytree(finished, tmp_path / "store")
    runs = [run.spec for run in ResultStore(root).read_plan().runs]
    workspace = Workspace(root=root)
    ensure_control(runs[0], workspace)
    (path,) = root.glob(f"shared/{file}")
    whole = path.read_bytes()
    damage(path)
    with pytest.warns(DamagedWarning, match=rf"{path.name} .*; it is set aside, and made again"):
        _carry_out(runs, workspace)
    assert len(list(path.parent.glob(f"{path.name}.damaged-*"))) == 1
    if path.suffix == ".safetensors":
        assert all(load(whole)[name].equal(tensor) for name, tensor in load_file(path).items())


def _carry_out(runs, workspace):
    ensure_control(runs[0], workspace)
    assert {run(spec, workspace).status for spec in runs} == {"done"}


def test_a_disk_that_fails_damages_nothing(tmp_path, monkeypatch):
    path = tmp_path / "card.json"
    write_card(path, {}, key="a")

    def refuse(self, *args, **options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(PermissionError) as error:
        is_whole(path, key="a")
    assert classify(error.value) == "environment"
    assert [each.name for each in tmp_path.iterdir()] == ["card.json"]


@pytest.mark.parametrize("change", [{"key": "0" * 64}, {"schema_version": 3}, {}])
def test_a_control_that_is_another_is_set_aside_and_trained_again(tmp_path, change):
    experiment = _experiment().model_copy(update={"compression": (1.0,), "method": ("random",)})
    assert sweep(experiment, tmp_path, device="cpu").done == 1
    (path,) = tmp_path.glob("shared/control/*/result.json")
    shutil.rmtree(tmp_path / "runs")
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, **({"spec": {**fields["spec"], "seed": 7}} | change)}))
    assert sweep(experiment, tmp_path, device="cpu").done == 1
    assert list(path.parent.glob("result.json.damaged-*"))
    (result,) = ResultStore(tmp_path).results()[0]
    assert RunResult.model_validate_json(path.read_bytes()).after == result.after
