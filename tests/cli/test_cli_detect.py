"""`shrinkbench detect`, as a person types it, on the made set."""

from __future__ import annotations

import json

import pytest
from made_voc import classifier, write_voc
from typer.testing import CliRunner

from shrinkbench.cli.detect import app
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.metrics import count_parameters
from shrinkbench.network.coupling import couple
from shrinkbench.pruning.structures.channel_masks import masks_of_units

RESNET18 = 11_689_512
QUICK = (
    "--set",
    "epochs=1",
    "--min-size",
    96,
    "--max-size",
    128,
    "--train-split",
    "two",
    "--test-split",
    "two",
    "--json",
)


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    return write_voc(tmp_path_factory.mktemp("voc"))


def call(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


@pytest.fixture
def folder(voc):
    (voc / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / "two.txt").write_text("000000\n000001")
    return voc


def test_a_classifier_pruned_before_the_transfer(folder):
    common = (folder, "--model", "torchvision/resnet18", "--method", "channel_l1", "--compression", 3)
    report = json.loads(call(*common, *QUICK))
    assert report["variant"] == "prune-c"
    assert report["classifier_parameters"] == RESNET18
    assert report["classifier_parameters_left"] == pytest.approx(RESNET18 / 3, rel=0.01)
    assert len(report["losses"]) == report["recipe"]["epochs"] == 1
    assert 0 <= report["mean_average_precision"] <= 1
    assert report["average_precision"].keys() <= {"car", "person"}


@pytest.mark.slow
def test_a_detector_pruned_after_training(folder, tmp_path):
    module = classifier()
    coupling = couple(module, (3, 224, 224))
    group = coupling.group_of("layer2.0.conv1")
    half = group.slices[0].unit[:128] % 2 == 0
    masks = masks_of_units(module, coupling, {group.layer: half})
    masks.save(tmp_path / "masks.safetensors")
    common = (folder, "--model", "torchvision/resnet18", "--prune", "detector")
    report = json.loads(call(*common, "--masks", tmp_path / "masks.safetensors", *QUICK))
    assert report["variant"] == "prune-d"
    assert RESNET18 - report["classifier_parameters_left"] == masks.total - masks.kept
    assert 0 <= report["before_pruning"] <= 1
    assert count_parameters(module) == RESNET18


def test_bad_input_is_told_before_anything_is_trained(folder, tmp_path):
    resnet = ("--model", "torchvision/resnet18")
    with pytest.raises(ShrinkbenchError, match=r"download VOCtrainval_06-Nov-2007\.tar and VOCtest"):
        call(tmp_path, *resnet)
    with pytest.raises(ShrinkbenchError, match="pass one of them"):
        call(folder, *resnet, "--masks", "some", "--method", "channel_l1")
    with pytest.raises(ShrinkbenchError, match="'thinet' looks at data; write its masks"):
        call(folder, *resnet, "--method", "thinet", *QUICK)
    with pytest.raises(ShrinkbenchError, match="build a detector from a residual network"):
        call(folder, "--model", "torchvision/vgg11", *QUICK)


def test_a_missing_metric_is_told_before_anything_is_trained(folder, monkeypatch):
    monkeypatch.setattr("shrinkbench.detection.training.find_spec", lambda name: None)
    monkeypatch.setattr("shrinkbench.detection.train_detector", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ShrinkbenchError, match=r"needs torchmetrics and pycocotools; install them with"):
        call(folder, "--model", "torchvision/resnet18", *QUICK)
