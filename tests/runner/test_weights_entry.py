"""Which entry of a weights file a sweep starts from is a value of its task."""

from __future__ import annotations

import pytest
import torch

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models import build
from shrinkbench.results.store import ResultStore
from shrinkbench.runner import Workspace, plan, sweep
from shrinkbench.runner.keeping import read_kept
from shrinkbench.spec import ExperimentSpec, parse_value
from shrinkbench.spec.task import WeightsSpec


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("entry") / "two.pth"
    states = {
        "state_dict": build("digits-cnn", seed=1).state_dict(),
        "state_dict_ema": build("digits-cnn", seed=2).state_dict(),
    }
    torch.save(states, path)
    return path


def experiment(file, **fields):
    base = {
        "name": "entry",
        "dataset": "digits",
        "model": "digits-cnn",
        "weights": str(file),
        "method": "global_magnitude",
        "compression": [2],
        "test_images": 50,
        "finetune": {"epochs": 0},
    }
    return parse_value(ExperimentSpec, {**base, **fields}, where="test")


def test_the_named_entry_is_what_the_run_starts_from(file, tmp_path):
    found = {}
    for entry in ("state_dict", "state_dict_ema"):
        spec = experiment(file, weights_entry=entry, keep="weights")
        assert sweep(spec, tmp_path / entry, device="cpu").done == 1
        ((result,), _) = ResultStore(tmp_path / entry).results()
        found[entry] = result
        stored, _ = read_kept(tmp_path / entry / "runs" / result.key)
        start = build("digits-cnn", seed=1 if entry == "state_dict" else 2)
        stored.masks.apply(start)
        kept = stored.module.state_dict()
        assert all(torch.equal(value, kept[name]) for name, value in start.state_dict().items())
    one, other = found.values()
    assert one.key != other.key
    assert one.spec.weights.digest == other.spec.weights.digest
    assert (one.spec.weights.name, one.spec.weights.entry) == ("two.pth:state_dict", "state_dict")


def test_keys_without_an_entry_do_not_know_the_field():
    assert "entry" not in WeightsSpec(kind="random", name="random").model_dump()
    spec = WeightsSpec(kind="file", name="x", digest="0" * 64, entry="ema")
    assert WeightsSpec.model_validate_json(spec.model_dump_json()) == spec


def test_an_entry_that_has_no_say_or_is_not_there_is_told(file, tmp_path):
    with pytest.raises(ShrinkbenchError, match="has no say"):
        plan(experiment("pretrain", weights_entry="ema"), Workspace(root=tmp_path))
    with pytest.raises(ShrinkbenchError, match="no weights under 'teacher'"):
        plan(experiment(file, weights_entry="teacher"), Workspace(root=tmp_path))
    with pytest.raises(ShrinkbenchError, match="weights_entry"):
        experiment(file, weights_entry="")
