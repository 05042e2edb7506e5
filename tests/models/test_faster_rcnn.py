"""Faster R-CNN on a residual classifier: what is frozen, what is refused, and what one image costs."""

from __future__ import annotations

import copy

import pytest
import torch
from made_voc import classifier, write_voc
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from shrinkbench.datasets.voc2007 import CLASSES
from shrinkbench.datasets.voc_detection import DetectionData, read_voc
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models.faster_rcnn import build_detector, count_detector_multiply_adds
from shrinkbench.spec import detection_of
from shrinkbench.tasks import Detection
from shrinkbench.training import RECIPES, evaluate, train

TASK = Detection(detection_of(CLASSES))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = write_voc(tmp_path_factory.mktemp("voc"))
    return DetectionData(
        train_images=read_voc(folder, "trainval"), test_images=read_voc(folder, "test"), sides=(96, 128)
    )


def detector():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_detector(classifier(), min_size=96, max_size=128)


@pytest.mark.slow
def test_batch_norms_and_the_first_stage_stay_frozen(data):
    made = detector()
    before = copy.deepcopy(made.state_dict())
    recipe = RECIPES.get("voc-faster-rcnn").model_copy(update={"epochs": 1, "learning_rate": 1e-2})
    train(made, recipe, data, seed=0, task=TASK)
    after = made.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    frozen = {n for n in before if "running" in n or "backbone.stem" in n or "backbone.stages.0" in n}
    assert not changed & frozen
    assert any("box_predictor" in n for n in changed)
    assert any("backbone.stages.1" in n for n in changed)
    assert any("box_head.stage" in n for n in changed)


@pytest.mark.slow
def test_training_lowers_the_loss_and_finds_the_squares(data):
    made = detector()
    recipe = RECIPES.get("voc-faster-rcnn").model_copy(
        update={"epochs": 12, "learning_rate": 5e-3, "milestones": (10,)}
    )
    losses = [record.train_loss for record in train(made, recipe, data, seed=0, task=TASK).epochs]
    assert losses[-1] < 0.6 * losses[0]
    assert evaluate(made, data.test(), task=TASK)["map50"] > 0.3


def test_other_networks_are_refused():
    with pytest.raises(ShrinkbenchError, match="this one has no conv1"):
        build_detector(nn.Sequential(nn.Conv2d(3, 4, 3)))


def test_multiply_adds_are_those_of_an_image_and_all_its_proposals():
    """By torch's own counter, which counts two operations each, over the same image."""
    made = detector().eval()
    proposals = made.network.rpn.post_nms_top_n()

    class Watch(nn.Module):
        def forward(self, regions):
            self.count = len(regions)
            return regions

    watch = Watch()
    made.network.roi_heads.box_head.stage = nn.Sequential(watch, made.network.roi_heads.box_head.stage)
    expected = count_detector_multiply_adds(made)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        made([torch.rand(3, 96, 128)])
    per_region = sum(counter.get_flop_counts()["Detector.network.roi_heads"].values())
    rest = counter.get_total_flops() - per_region
    assert min(rest, per_region) > 0
    assert expected * 2 == rest + per_region * proposals // watch.count
