"""Detection on a small made set in the layout of VOC 2007."""

from __future__ import annotations

import copy
from importlib.util import find_spec

import pytest
import torch
from made_voc import OBJECT, classifier, write_voc
from torch import nn

from shrinkbench.detection import (
    CLASSES,
    VOC_RECIPE,
    build_detector,
    mean_average_precision,
    prune_detector,
    read_voc,
    train_detector,
)
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.coupling import couple
from shrinkbench.pruning.structures.channel_masks import masks_of_units

PERSON, CAR = CLASSES.index("person") + 1, CLASSES.index("car") + 1


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    return write_voc(tmp_path_factory.mktemp("voc"))


def detector():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_detector(classifier(), min_size=96, max_size=128)


def test_boxes_count_from_zero_and_difficult_objects_are_told_apart(voc):
    images = read_voc(voc, "trainval")
    image, objects = images[0]
    assert len(images) == 8
    assert image.shape == (3, 96, 128)
    assert objects.labels.tolist() == [CAR, PERSON]
    assert objects.difficult.tolist() == [False, True]
    assert objects.boxes[1].tolist() == [99, 69, 119, 89]
    left, top, right, bottom = objects.boxes[0].int().tolist()
    assert image[2, top + 1, left + 1] > 0.8 > 0.6 > image[2, top - 2 if top > 2 else bottom + 3, right + 3]
    assert objects.easy().labels.tolist() == [CAR]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation></annotation>", "names no object"),
        ("<annotation><object><name>unicorn</name></object></annotation>", "class 'unicorn'"),
        ("<annotation><object><name>cat</name></object></annotation>", "cannot be read"),
        (f"<annotation>{OBJECT.format(5, 5, 5, 9, name='cat', difficult=0)}</annotation>", "box without area"),
        ("<annotation", "cannot be read"),
    ],
)
def test_damaged_annotations_are_told_with_their_file(text, message, tmp_path):
    from shrinkbench.detection.voc import read_objects

    path = tmp_path / "000001.xml"
    path.write_text(text)
    with pytest.raises(ShrinkbenchError, match=message) as raised:
        read_objects(path)
    assert "000001.xml" in str(raised.value)


def test_a_missing_split_names_those_that_exist(voc, tmp_path):
    with pytest.raises(ShrinkbenchError, match="it has: test, trainval"):
        read_voc(voc, "val")
    with pytest.raises(ShrinkbenchError, match="holds no VOC2007"):
        read_voc(tmp_path, "test")


def test_batch_norms_and_the_first_stage_stay_frozen(voc):
    made = detector()
    before = copy.deepcopy(made.state_dict())
    recipe = VOC_RECIPE.model_copy(update={"epochs": 1, "learning_rate": 1e-2})
    train_detector(made, read_voc(voc, "trainval"), recipe, seed=0)
    after = made.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    frozen = {n for n in before if "running" in n or "backbone.stem" in n or "backbone.stages.0" in n}
    assert not changed & frozen
    assert any("box_predictor" in n for n in changed)
    assert any("backbone.stages.1" in n for n in changed)
    assert any("box_head.stage" in n for n in changed)


@pytest.mark.slow
def test_training_lowers_the_loss_and_finds_the_squares(voc):
    made = detector()
    images = read_voc(voc, "trainval")
    recipe = VOC_RECIPE.model_copy(update={"epochs": 12, "learning_rate": 5e-3, "milestones": (10,)})
    losses = train_detector(made, images, recipe, seed=0)
    assert losses[-1] < 0.6 * losses[0]
    if find_spec("torchmetrics") and find_spec("pycocotools"):
        assert mean_average_precision(made, read_voc(voc, "test"))["mean"] > 0.3


def test_prune_d_keeps_what_the_detector_learned_where_nothing_is_removed(voc):
    made = detector().eval()
    image = read_voc(voc, "test")[0][0]
    module = classifier()
    coupling = couple(module, (3, 64, 64))
    keep = {
        g.layer: torch.arange(g.units) % 2 == 0
        for g in coupling.free
        if g.layer.endswith("conv1") and "layer" in g.layer
    }
    masks = masks_of_units(module, coupling, keep)
    small = prune_detector(made, masks, (3, 64, 64))
    with torch.no_grad():
        for layer in (made, small):
            assert {"boxes", "labels", "scores"} <= layer([image])[0].keys()
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in made.parameters())
    assert small.network.backbone.stages[1][0].conv1.out_channels == 64
    for name in ("rpn", "roi_heads.box_predictor"):
        for a, b in zip(
            small.network.get_submodule(name).parameters(),
            made.network.get_submodule(name).parameters(),
            strict=True,
        ):
            assert torch.equal(a, b)
    whole = {g.layer: torch.ones(g.units, dtype=torch.bool) for g in coupling.free}
    same = prune_detector(made, masks_of_units(module, coupling, whole), (3, 64, 64)).eval()
    with torch.no_grad():
        torch.testing.assert_close(same([image])[0]["boxes"], made([image])[0]["boxes"])


def test_masks_that_narrow_a_stage_are_refused():
    module = classifier()
    coupling = couple(module, (3, 64, 64))
    stream = coupling.group_of("layer3.0.conv2")
    masks = masks_of_units(module, coupling, {stream.layer: torch.arange(stream.units) > 3})
    with pytest.raises(ShrinkbenchError, match="prune inner channels of blocks alone"):
        prune_detector(detector(), masks, (3, 64, 64))


def test_other_networks_are_refused():
    with pytest.raises(ShrinkbenchError, match="this one has no conv1"):
        build_detector(nn.Sequential(nn.Conv2d(3, 4, 3)))


@pytest.mark.skipif(
    find_spec("torchmetrics") is None or find_spec("pycocotools") is None,
    reason="the extra 'detection' is not installed",
)
def test_perfect_boxes_score_one_and_difficult_ones_do_not_count(voc):
    images = read_voc(voc, "test")

    class Oracle(nn.Module):
        """Finds every object that is not difficult, where it is."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))
            self.turn = 0

        def forward(self, _):
            objects = images[self.turn][1].easy()
            self.turn += 1
            return [
                {"boxes": objects.boxes, "labels": objects.labels, "scores": torch.ones(len(objects.labels))}
            ]

    found = mean_average_precision(Oracle(), images)
    assert found == {"mean": 1.0, "car": 1.0, "person": 1.0}
