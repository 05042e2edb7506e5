"""What a run goes through is told to the tool that was asked for."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.results.store import ResultStore
from shrinkbench.runner import sweep
from shrinkbench.runner.tracking import Diary, TrackingWarning
from shrinkbench.spec import ExperimentSpec, parse_value
from shrinkbench.spec.measures import EpochRecord


def experiment():
    fields = {
        "name": "test",
        "dataset": "digits",
        "model": "digits-cnn",
        "method": "global_magnitude",
        "compression": 2,
        "pretrain": {"epochs": 1},
        "finetune": {"epochs": 2},
        "train_images": 64,
        "validation_images": 20,
        "test_images": 20,
    }
    return parse_value(ExperimentSpec, fields, where="test")


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_has_the_numbers_of_the_result(tmp_path):
    sweep(experiment(), tmp_path, device="cpu", log_to="tensorboard")
    ((result,), _) = ResultStore(tmp_path).results()
    found = scalars(tmp_path / "tensorboard" / f"run-{result.key}")
    losses = [(record.epoch, pytest.approx(record.train_loss)) for record in result.epochs]
    assert found["train/loss"] == losses
    assert found["validation/top1"] == [(r.epoch, pytest.approx(r.validation["top1"])) for r in result.epochs]
    assert found["after/top1"] == [(0, pytest.approx(result.after["top1"]))]
    assert found["size/compression"] == [(0, pytest.approx(result.size.compression))]
    assert [path.name for path in tmp_path.glob("tensorboard/pretraining-*")]


def test_results_do_not_depend_on_it(tmp_path):
    found = []
    for log_to in (None, "tensorboard"):
        sweep(experiment(), tmp_path / str(log_to), device="cpu", log_to=log_to)
        (path,) = (tmp_path / str(log_to)).glob("runs/*/result.json")
        data = json.loads(path.read_text())
        del data["provenance"]
        found.append(data)
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_what_is_not_installed_is_refused_before_anything_runs(name, tmp_path, monkeypatch):
    monkeypatch.setattr("shrinkbench.runner.tracking.find_spec", lambda name: None)
    with pytest.raises(ShrinkbenchError, match=rf"--log-to {name}: .*shrinkbench\[{name}\]"):
        sweep(experiment(), tmp_path, device="cpu", log_to=name)
    assert not list(tmp_path.iterdir())


def test_a_tool_that_nobody_knows_is_refused(tmp_path):
    with pytest.raises(ShrinkbenchError, match="--log-to aim is none of tensorboard, mlflow, wandb"):
        sweep(experiment(), tmp_path, device="cpu", log_to="aim")


TAGS = {"key": "k" * 64, "kind": "run", "label": "digits random"}


def record(epoch):
    return EpochRecord(epoch=epoch, learning_rate=0.1, train_loss=0.5, validation={"top1": 0.75})


def test_mlflow_is_told(tmp_path, monkeypatch):
    calls = []
    stand_in = ModuleType("mlflow")
    for name in ("set_tracking_uri", "set_experiment", "start_run", "log_metrics", "end_run"):
        setattr(stand_in, name, lambda *a, name=name, **k: calls.append((name, a, k)))
    monkeypatch.setitem(sys.modules, "mlflow", stand_in)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    diary = Diary("mlflow", tmp_path, TAGS)
    diary.epoch(record(1))
    diary.epoch(record(1))  # of the next training
    diary.end(None)
    told = {"train/loss": 0.5, "train/learning_rate": 0.1, "validation/top1": 0.75}
    assert calls == [
        ("set_tracking_uri", ((tmp_path / "mlruns").as_uri(),), {}),
        ("set_experiment", ("shrinkbench",), {}),
        (
            "start_run",
            (),
            {"run_name": TAGS["label"], "tags": {f"shrinkbench.{k}": v for k, v in TAGS.items()}},
        ),
        ("log_metrics", (told,), {"step": 1}),
        ("log_metrics", (told,), {"step": 2}),
        ("log_metrics", ({},), {}),
        ("end_run", (), {}),
    ]


def test_weights_and_biases_are_told_offline(tmp_path, monkeypatch):
    calls, summary = [], {}
    run = SimpleNamespace(
        log=lambda values, step: calls.append((values, step)),
        summary=summary,
        finish=lambda: calls.append("finished"),
    )
    stand_in = ModuleType("wandb")
    stand_in.init = lambda **given: calls.append(given) or run
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    diary = Diary("wandb", tmp_path, TAGS)
    diary.epoch(record(3))  # resumed
    diary.end(None)
    assert calls[0]["mode"] == "offline"
    assert calls[0]["tags"] == [TAGS["key"]]
    assert calls[0]["dir"] == str(tmp_path)
    assert calls[1][1] == 3
    assert calls[2] == "finished"


def test_a_tool_that_fails_ends_its_diary_and_not_the_run(tmp_path, monkeypatch):
    stand_in = ModuleType("wandb")
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    with pytest.warns(TrackingWarning, match="wandb takes no more of this run"):
        diary = Diary("wandb", tmp_path, TAGS)
    diary.epoch(record(1))
    diary.end(None)
